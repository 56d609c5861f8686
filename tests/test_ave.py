"""AVE on a small tree of the official layout, and its true lists."""

import csv
import shutil

import pytest
from media_files import MEDIA, SHARED, needs_media
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import ave
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "ave"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")

TRAIN = [f"{category}&-_{number:02d}_train&good&0&10" for number, category in enumerate(ave.CLASSES)]
VAL = ["Bark&Va1--------&good&3&7"]
TEST = ["Goat&Te1--------&good&0&10", "Frying (food)&te1--------&good&9&10"]


def write_lists(folder, train, val, test, header=False, end="\n"):
    folder.mkdir(parents=True, exist_ok=True)
    annotations = ([ave.HEADER] if header else []) + train + val + test
    named = {"trainSet": train, "valSet": val, "testSet": test, "Annotations": annotations}
    for name, lines in named.items():
        (folder / f"{name}.txt").write_bytes("".join(line + end for line in lines).encode())
    return folder


def add_videos(folder, lines, media="derived/bbb_4s_h264_aac.mp4"):
    (folder / "AVE").mkdir(parents=True, exist_ok=True)
    for line in lines:
        shutil.copy(MEDIA / media, folder / "AVE" / f"{line.split('&')[1]}.mp4")


@pytest.fixture
def root(tmp_path):
    """Lists alone; the videos are empty files."""
    folder = write_lists(tmp_path / "ave" / "AVE_Dataset", TRAIN, VAL, TEST, header=True)
    (folder / "AVE").mkdir()
    for line in TRAIN + VAL + TEST:
        (folder / "AVE" / f"{line.split('&')[1]}.mp4").write_bytes(b"")
    return folder


def plan(root, splits=None):
    return ave.AVE().plan(root.parent, splits, True)


def test_the_small_tree_is_prepared_and_trains(tmp_path):
    root = write_lists(tmp_path / "ave" / "AVE_Dataset", TRAIN, VAL, TEST, header=True)
    add_videos(root, TRAIN + VAL + TEST)
    add_videos(root, VAL, "video/nasa_13013.mp4")
    add_videos(root, ["Cat&another-one&good&0&1"], "broken/zero_bytes.mp4")
    add_videos(root, TEST[:1], "derived/bbb_10s_h264_noaudio.mp4")
    said = []
    prepared = prepare_dataset(
        "ave",
        root.parent,
        out=tmp_path / "data" / "ave",
        workers=2,
        allow_missing=True,
        on_message=said.append,
    )
    assert prepared.expected == {"train": 28, "val": 1, "test": 2}
    assert prepared.counts == {"train": 28, "val": 1, "test": 1}
    with (prepared.folder / "rejected.csv").open(newline="") as file:
        (rejected,) = csv.DictReader(file)
    assert rejected == {
        "id": "Te1--------",
        "split": "test",
        "file": "AVE/Te1--------.mp4",
        "reason": "no audio stream",
    }
    train, val, test = (prepared.split(name) for name in prepared.counts)
    assert train.ids[0] == "-_00_train" and train.labels.tolist() == list(range(28))
    # The file has 13 s: what is beyond the ten seconds of the segments is left out.
    assert len(val.array("audio", 0)) == 160000 and len(val.frames("visual", 0)) == 10
    assert len(train.frames("visual", 0)) == 4  # a short one
    bark, frying = ave.CLASSES.index("Bark"), ave.CLASSES.index("Frying (food)")
    assert val.extra("segments") == [[28, 28, 28, bark, bark, bark, bark, 28, 28, 28]]
    assert test.extra("segments") == [[28] * 9 + [frying]]
    assert "1 video(s) are in no set and are not used." in said
    assert any(
        "trainSet.txt is not the train set of AVE: it has 28 entries, that one 3,339" in line for line in said
    )
    train_and_evaluate(prepared, tmp_path / "runs")


def test_source_is_the_data_set_or_the_folder_around_it(root):
    inside = ave.AVE().plan(root, None, True)
    assert [sample.clips for sample in inside.samples] == [sample.clips for sample in plan(root).samples]
    assert inside.samples[0].clips["audio"].path == root / "AVE" / "-_00_train.mp4"


def test_header_line_ends_and_byte_order_mark_do_not_matter(root, tmp_path):
    lists = write_lists(tmp_path / "lists", TRAIN, VAL, TEST, end="\r\n")
    (lists / "trainSet.txt").write_bytes(b"\xef\xbb\xbf" + (lists / "trainSet.txt").read_bytes())
    assert plan(root, lists) == plan(root)
    (lists / "Annotations.txt").unlink()  # then the data set's own are compared with
    assert plan(root, lists) == plan(root)


def test_two_events_of_a_video_are_two_samples(root):
    write_lists(root, [*TRAIN, "Cat&Te1--------&good&0&10"], VAL, TEST)
    found = plan(root)
    assert [(s.id, s.split, s.label) for s in found.samples if s.id.startswith("Te1")] == [
        ("Te1--------", "train", "Cat"),
        ("Te1--------#2", "test", "Goat"),
    ]
    assert "1 video(s) are in train as well as in test; they stay in both, as listed." in found.notes


def test_an_event_without_length_is_kept(root):
    write_lists(root, [*TRAIN, "Church bell&VWi2ENBuTbw&good&0&0"], VAL, TEST)
    kept = plan(root).samples[len(TRAIN)]
    assert kept.id == "VWi2ENBuTbw" and "without length" in kept.defect
    assert kept.extras["segments"] == [ave.CLASSES.index("Church bell")] * 10
    assert [sample for sample in plan(root).samples if sample.defect] == [kept]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Bark,Va1&good&0&10", "line 2: .* not of the form"),
        ("Bark&Va1&good&0&ten", "line 2: .* not of the form"),
        ("Bark&Va1&good&0&11", "line 2: .* not of the form"),
        ("Bark&Va1&good&-1&10", "line 2: .* not of the form"),
        ("Bark&Va1&good&7&3", "line 2: the event ends before it starts"),
        ("Dog&Va1&good&0&10", "line 2: 'Dog' is none of AVE's 28 categories"),
        ("Bark&../../Va1&good&0&10", "line 2: '../../Va1' is a path"),
        ("Bark&..&good&0&10", "line 2: '..' is a path"),
        ("Bark&&good&0&10", "line 2: '' is a path or nothing"),
        ("Bark&Va1--------&good&0&3", r"'Bark' of Va1-------- is listed twice .*valSet\.txt and valSet\.txt"),
        ("Goat&Te1--------&good&0&10", r"listed twice .*valSet\.txt and testSet\.txt"),
    ],
)
def test_lines_that_are_wrong(root, line, message):
    (root / "valSet.txt").write_text(f"{VAL[0]}\n{line}\n")
    with pytest.raises(InputError, match=message):
        plan(root)


def test_sets_and_annotations_must_agree(root):
    (root / "valSet.txt").write_text("Bark&Va1--------&good&3&8\n")
    with pytest.raises(
        InputError, match=r"1 of the 31 events .* not in .*Annotations\.txt .*Bark of Va1.*valSet"
    ):
        plan(root)
    (root / "valSet.txt").write_text("")
    assert "1 event(s) of Annotations.txt are in no set and are not used." in plan(root).notes


def test_other_lists_need_leave(root):
    with pytest.raises(InputError, match=r"trainSet\.txt is not the train set of AVE: it has 28 entries"):
        ave.AVE().plan(root, None, False)


def test_links_that_lead_out_are_refused(root, tmp_path):
    shutil.copy(MEDIA / "derived" / "bbb_2frames.mp4", tmp_path / "elsewhere.mp4")
    (root / "AVE" / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(InputError, match=r"link\.mp4 is a link to .*elsewhere\.mp4"):
        plan(root)


def test_what_to_get(tmp_path, root):
    with pytest.raises(
        InputError, match=r"There is no folder .*AVE_Dataset\.zip .*drive\.google.*data/raw/ave"
    ):
        prepare_dataset("ave", tmp_path / "nowhere")
    (root / "testSet.txt").unlink()
    with pytest.raises(InputError, match=r"holds no testSet\.txt\. Get AVE_Dataset\.zip"):
        plan(root)
    shutil.rmtree(root / "AVE")
    with pytest.raises(InputError, match="There is no folder AVE of videos"):
        plan(root)


@needs_lists
@pytest.mark.parametrize(("header", "end"), [(True, "\r\n"), (False, "\n")])
def test_the_true_lists(tmp_path, header, end):
    lines = {
        name: (LISTS / f"dgsct_{name}Set.txt").read_text().split("\n") for name in ("train", "val", "test")
    }
    parts = [[line for line in part if line] for part in lines.values()]
    root = write_lists(tmp_path / "AVE_Dataset", *parts, end=end)
    annotations = (LISTS / "Annotations.txt").read_text()
    (root / "Annotations.txt").write_text(
        f"{ave.HEADER}\n{annotations}" if header else annotations, newline=end
    )
    (root / "AVE").mkdir()
    found = ave.AVE().plan(root, None, False)
    assert found.split_description == ave.DESCRIPTION
    assert (found.split_name, found.official_lists) == ("official", True)
    counts = {split: sum(sample.split == split for sample in found.samples) for split in ave.SETS}
    assert counts == {"train": 3339, "val": 402, "test": 402}
    assert len({sample.id for sample in found.samples}) == 4143
    assert len({sample.clips["audio"].name for sample in found.samples}) == 4097
    assert (
        sum("#" in sample.id for sample in found.samples) == 46
    )  # 44 videos with two events, one with three
    assert {sample.label for sample in found.samples if sample.split == "train"} == set(ave.CLASSES)
    assert [sample.id for sample in found.samples if sample.defect] == ["VWi2ENBuTbw"]
    # 2,750 events fill the ten seconds, and the one without length is taken for them.
    assert sum(28 not in sample.extras["segments"] for sample in found.samples) == 2751
    assert found.notes == [
        "10 video(s) are in train as well as in val; they stay in both, as listed.",
        "8 video(s) are in train as well as in test; they stay in both, as listed.",
    ]
    with pytest.raises(InputError, match="of the 4,097 files of data set 'ave' are missing"):
        prepare_dataset("ave", root, out=tmp_path / "out")
    (root / "trainSet.txt").write_text("\n".join(line for line in parts[0] if "VWi2ENBuTbw" not in line))
    with pytest.raises(InputError, match=r"it has 3,338 entries, that one 3,339"):
        ave.AVE().plan(root, None, False)
