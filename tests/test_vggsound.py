"""VGGSound on small trees in its layouts, and with lists of the true size."""

import csv
import io
import shutil
from collections import Counter

import pytest
from media_files import MEDIA, SHARED, needs_media
from PIL import Image
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import vggsound
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "vggsound"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")
CLIP = MEDIA / "video" / "realshort.mp4"  # H.264 and AAC, 1.2 s

# Two clips of one video, one of them in each part; labels with commas; ids that begin with "-".
ROWS = [
    ("---g-f_I2yQ", 1, "people marching", "train"),
    ("---g-f_I2yQ", 310, "people marching", "test"),
    ("-_xy_-0123_", 30, "bird chirping, tweeting", "train"),
    ("AbCdEfGhIjK", 0, "bird chirping, tweeting", "train"),
    ("abcdefghijk", 1205, "alarm clock ringing", "train"),
    ("abcdefghijk", 20, "alarm clock ringing", "test"),
    ("_-_-_-_-_-_", 7, "bird chirping, tweeting", "test"),
]


def write_csv(folder, rows=ROWS, name="vggsound.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def write_pair(folder, rows=ROWS):
    for split in ("train", "test"):
        part = [(f"{video}_{start:06}.mp4", label) for video, start, label, s in rows if s == split]
        write_csv(folder, part, f"{split}.csv")
    return folder


def add(source, name, clip=CLIP):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, source / name)


@pytest.fixture
def tree(tmp_path):
    """Media named as in the authors' copy, and the list in a clone."""
    for video, start, _, _ in ROWS:
        add(tmp_path / "media", f"video/{video}_{start:06}.mp4")
    write_csv(tmp_path / "clone" / "data")
    return tmp_path


def prepare(tree, **options):
    options = {"splits": tree / "clone", "out": tree / "vggsound", "allow_missing": True, **options}
    return prepare_dataset("vggsound", tree / "media", workers=1, **options)


def plan(tree, lists="clone"):
    return vggsound.VGGSound().plan(tree / "media", tree / lists, True)


def rejected(prepared):
    with (prepared.folder / "rejected.csv").open(newline="") as lines:
        return {line["id"]: (line["file"], line["reason"].split(":")[0]) for line in csv.DictReader(lines)}


def test_the_small_tree(tree):
    prepared = prepare(tree)
    assert prepared.name == "vggsound" and rejected(prepared) == {}
    assert prepared.classes == ["alarm clock ringing", "bird chirping, tweeting", "people marching"]
    assert prepared.counts == prepared.expected == {"train": 4, "test": 3}
    split = prepared.split("train")
    assert split.ids == [
        "---g-f_I2yQ_000001",
        "-_xy_-0123__000030",
        "AbCdEfGhIjK_000000",
        "abcdefghijk_001205",
    ]
    assert split.labels.tolist() == [2, 1, 1, 0]
    pictures = split.frames("visual", 0)
    assert len(pictures) == 2 and Image.open(io.BytesIO(pictures[0])).size == (340, 256)
    assert 1.1 * 16000 < len(split.array("audio", 0)) < 1.3 * 16000  # shorter than 10 s, and kept
    assert prepared.manifest["notes"] == [
        "vggsound.csv is not of the lists of VGGSound: it has 4 train and 3 test clips, those 183,971 and 15,496."
    ]
    train_and_evaluate(prepared, tree / "runs")


LAYOUTS = {
    "of the authors": lambda video, start, split: f"a/b/VGGSound_final/video/{video}_{start:06}.mp4",
    "of OGM-GE": lambda video, start, split: f"{split}-videos/{split}-set/{video}_{start}.mp4",
    "in milliseconds": lambda video, start, split: f"video/{video}_{start * 1000}_{(start + 10) * 1000}.mp4",
    "flat": lambda video, start, split: f"{video}_{start:06}.mp4",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tree, layout):
    shutil.rmtree(tree / "media")
    expected = [LAYOUTS[layout](video, start, split) for video, start, _, split in ROWS]
    for name in expected:
        add(tree / "media", name)
    add(tree / "media", f"{ROWS[0][0]}.mp4")  # which part of the video is not known
    assert [sample.clips["audio"].name for sample in plan(tree).samples] == expected


def test_the_key_is_id_and_second(tree):
    for name in ("a/---g-f_I2yQ_000002.mp4", "---g-F_I2yQ_000001.mp4", "x/y/---g-f_I2yQ_1.mp4"):
        add(tree / "media", name)
    (tree / "media" / "video" / "abcdefghijk_000020.mp4").unlink()
    names = {sample.id: sample.clips["visual"].name for sample in plan(tree).samples}
    assert names["---g-f_I2yQ_000001"] == "video/---g-f_I2yQ_000001.mp4"
    assert names["abcdefghijk_000020"] == "abcdefghijk_000020.mp4"  # missing, though 001205 is there
    assert rejected(prepare(tree)) == {"abcdefghijk_000020": ("abcdefghijk_000020.mp4", "missing")}


def test_forms_of_the_list(tree):
    expected = [sorted(plan(tree).samples, key=lambda s: s.id), plan(tree).classes]
    write_csv(tree / "media")
    write_pair(tree / "pair" / "data")
    write_pair(tree / "lists")
    for found in (
        vggsound.VGGSound().plan(tree / "media", None, True),
        plan(tree, "pair"),
        plan(tree, "lists"),
        plan(tree, "clone/data"),
    ):
        assert [sorted(found.samples, key=lambda s: s.id), found.classes] == expected


def test_defects_are_rejected_with_their_reasons(tree):
    bad = {
        "truncated_moov": (MEDIA / "broken" / "truncated_moov_missing.mp4", "truncated"),
        "zero_bytes": (MEDIA / "broken" / "zero_bytes.mp4", "empty file"),
        "html": (MEDIA / "broken" / "html_error_page.mp4", "web page"),
        "no_sound": (MEDIA / "derived" / "bbb_10s_h264_noaudio.mp4", "no audio stream"),
        "muted": (MEDIA / "video" / "cockatoo.mp4", "silent"),
    }
    rows = [(f"-{word:_<10.10}", 4, ROWS[0][2], "train") for word in bad]
    for (video, _, _, _), (file, _) in zip(rows, bad.values(), strict=True):
        add(tree / "media", f"{video}_000004.mp4", file)
    write_csv(tree / "clone" / "data", ROWS + rows)
    prepared = prepare(tree)
    assert rejected(prepared) == {
        f"{row[0]}_000004": (f"{row[0]}_000004.mp4", reason)
        for row, (_, reason) in zip(rows, bad.values(), strict=True)
    }
    assert prepared.counts["train"] == 4 and prepared.expected["train"] == 9


def true_rows():
    """The true test rows, and as many others as the true lists have."""
    with (LISTS / "test.csv").open(newline="") as file:
        test = [(name[:11], int(name[12:18]), label, "test") for name, label in csv.reader(file)]
    labels = sorted({row[2] for row in test})
    train = [(f"{n:011}", n % 600, labels[n % 309], "train") for n in range(183730)]
    return train, test


@pytest.mark.long
@needs_lists
def test_lists_of_the_true_size(tree):
    train, test = true_rows()
    extra = [(f"-{n:010}", 5, "extending ladders", "train" if n < 241 else "test") for n in range(291)]
    write_csv(tree / "true", train + extra + test)
    found = vggsound.VGGSound().plan(tree / "media", tree / "true", False)
    assert found.notes == [
        "291 rows of 'extending ladders' are left out: it is none of the 309 classes, and the authors' copy has no "
        "files of it."
    ]
    assert Counter(sample.split for sample in found.samples) == {"train": 183730, "test": 15446}
    assert len(found.classes) == 309 and sum("," in label for label in found.classes) == 23
    assert set(Counter(sample.label for sample in found.samples if sample.split == "test").values()) == {
        49,
        50,
    }
    assert len({sample.id[:11] for sample in found.samples if sample.split == "test"}) == 14851
    write_pair(tree / "pair", train)
    shutil.copy(LISTS / "test.csv", tree / "pair")
    assert found.split_description == vggsound.DESCRIPTION
    assert (found.split_name, found.official_lists) == ("official", True)
    pair = vggsound.VGGSound().plan(tree / "media", tree / "pair", False)
    assert pair.notes == [] and pair.samples == found.samples
    found_files = [sample.id for sample in found.samples if "/" in sample.clips["audio"].name]
    assert found_files == ["---g-f_I2yQ_000001"]  # the one of the small tree that is truly of the data set


@needs_lists
def test_other_lists_are_named(tree):
    with pytest.raises(
        InputError, match=r"vggsound\.csv is not of the lists .* 4 train and 3 test .* --allow-missing"
    ):
        prepare(tree, allow_missing=False)
    train, test = true_rows()
    write_pair(tree / "pair", [*train, *test[:-1], (*test[-1][:2], test[0][2], "test")])
    with pytest.raises(InputError, match=r"test\.csv is not the test list of VGGSound: its SHA-256"):
        prepare(tree, splits=tree / "pair", allow_missing=False)
    train = [(*row[:2], row[2].replace("chopping food", "cooking"), row[3]) for row in train]
    write_pair(tree / "pair", train)
    shutil.copy(LISTS / "test.csv", tree / "pair")
    with pytest.raises(InputError, match="its 310 labels are not the 309 of the data set"):
        prepare(tree, splits=tree / "pair", allow_missing=False)


@pytest.mark.parametrize(
    "line",
    [
        "---g-f_I2yQ,1,people marching",
        "---g-f_I2yQ,1,bird chirping, tweeting,test",
        "---g-f_I2yQ,1,people marching,val",
        "---g-f_I2yQ,people marching,1,test",
        "---g-f_I2yQ,-1,people marching,test",
        "---g-f_I2yQ,1.5,people marching,test",
        "---g-f_I2yQ,1,,test",
        "../../../etc/passwd,1,people marching,test",
        "/etc/passwd,1,people marching,test",
        "../../../x_,1,people marching,test",
        "YouTube ID,start seconds,label,split",
    ],
)
def test_lines_that_do_not_parse(tree, line):
    path = tree / "clone" / "data" / "vggsound.csv"
    path.write_text("".join([path.read_text(), line + "\n"]))
    with pytest.raises(
        InputError, match=r"vggsound\.csv, line 8: '.*is not of the form ---g-f_I2yQ,1,people"
    ):
        plan(tree)


@pytest.mark.parametrize(
    "name", ["../../etc/pas_000001.mp4", "---g-f_I2yQ.mp4", "---g-f_I2yQ_000001.mp4/x", ""]
)
def test_names_with_a_path(tree, name):
    write_pair(tree / "pair")
    write_csv(tree / "pair", [(name, "people marching")], "test.csv")
    with pytest.raises(InputError, match=r"test\.csv, line 1: '.*is not of the form glLQrEijrKg"):
        plan(tree, "pair")


def test_a_csv_that_is_none(tree):
    path = tree / "clone" / "data" / "vggsound.csv"
    path.write_text('---g-f_I2yQ,1,"people marching,test\n')
    with pytest.raises(InputError, match=r"vggsound\.csv, line 1: this is no CSV"):
        plan(tree)


def test_a_clip_listed_twice(tree):
    write_csv(tree / "clone" / "data", [*ROWS, (*ROWS[0][:3], "test")])
    with pytest.raises(InputError, match=r"lists the clip of ---g-f_I2yQ at 1 s twice"):
        plan(tree)


def test_a_link_out_of_the_tree(tree):
    (tree / "media" / "video" / "passwords.mp4").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"passwords\.mp4 is a link to /etc/passwd, outside"):
        plan(tree)


def test_what_to_get(tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(
        InputError, match=r"no folder data/raw/vggsound\. Get the clips from .* into data/raw/vggsound"
    ):
        prepare_dataset("vggsound")
    with pytest.raises(InputError, match=r"holds no data/vggsound\.csv nor .*hche11/VGGSound.*--splits"):
        prepare(tree, splits=None)
    write_pair(tree / "pair")
    (tree / "pair" / "test.csv").unlink()
    with pytest.raises(InputError, match=r"There is no file .*test\.csv"):
        plan(tree, "pair")
