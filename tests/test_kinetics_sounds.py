"""Kinetics-Sounds on small trees in the layouts of Kinetics-400, and with the true lists."""

import csv
import io
import json
import shutil
from collections import Counter

import pytest
from media_files import MEDIA, SHARED, needs_media
from PIL import Image
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import kinetics_sounds
from balancemm_cli.data.datasets.kinetics_sounds import CLASSES
from balancemm_cli.data.datasets.lists import OTHER_LISTS
from balancemm_cli.data.datasets.youtube import files_by_id, start_second
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError, UsageError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "kinetics-sounds"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")
CLIP = MEDIA / "video" / "realshort.mp4"  # H.264 and AAC, 1.2 s
SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def name_of(number, split):
    """A listed name: of train with both seconds, else with the first one as it is; its id begins with "-"."""
    video = f"-_{number:02}-abcde_"
    return f"{video}_{number:06}_{number + 10:06}" if split == "train" else f"{video}_{number}"


# One clip per class to train on, and two more of each of the other parts.
ROWS = [(name_of(number, "train"), "train", label) for number, label in enumerate(CLASSES)]
ROWS += [(name_of(40 + n, "val"), "val", CLASSES[n]) for n in range(2)]
ROWS += [(name_of(50 + n, "test"), "test", CLASSES[n + 2]) for n in range(2)]


def write_json(folder, rows=ROWS, name="KS_train_val.json"):
    database = {n: {"subset": SUBSETS[s], "label": label.replace(" ", "_")} for n, s, label in rows}
    (folder / "code" / "dataset").mkdir(parents=True, exist_ok=True)
    path = folder / "code" / "dataset" / name
    path.write_text(
        json.dumps({"labels": [label.replace(" ", "_") for label in CLASSES], "database": database})
    )
    return folder


def write_txt(folder, rows=ROWS, end="\r\n"):
    (folder / "data" / "KineticSound").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        text = "".join(f"{n},10,{CLASSES.index(label)}{end}" for n, s, label in rows if s == split)
        (folder / "data" / "KineticSound" / f"my_{split}.txt").write_bytes(text.encode())
    return folder


def add(source, name, clip=CLIP):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, source / name)


def official(name):
    """The file of a listed name in Kinetics-400."""
    start = int(name[12:].partition("_")[0])
    return f"{name[:11]}_{start:06}_{start + 10:06}.mp4"


@pytest.fixture
def tree(tmp_path):
    """Media in the layout of CVDF, and both lists."""
    for name, split, _ in ROWS:
        add(tmp_path / "k400", f"{split}/{official(name)}")
    write_json(tmp_path / "bml")
    write_txt(tmp_path / "ogm")
    return tmp_path


def prepare(tree, lists="bml", **options):
    options = {"splits": tree / lists, "out": tree / "kinetics-sounds", "allow_missing": True, **options}
    return prepare_dataset("kinetics-sounds", tree / "k400", workers=1, **options)


def plan(tree, lists="bml", **options):
    return kinetics_sounds.KineticsSounds().plan(tree / "k400", tree / lists, True, **options)


def files(tree, lists="bml"):
    return {sample.id: sample.clips["visual"].name for sample in plan(tree, lists).samples}


@pytest.mark.long
def test_the_list_of_bml(tree):
    prepared = prepare(tree)
    assert prepared.name == "kinetics-sounds" and prepared.classes == CLASSES and len(CLASSES) == 31
    assert prepared.counts == prepared.expected == {"train": 31, "val": 2, "test": 2}
    assert prepared.split_description == OTHER_LISTS
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == (
        "kinetics-sounds",
        "test",
        False,
    )
    split = prepared.split("train")
    assert split.ids == [name for name, part, _ in ROWS if part == "train"]
    assert split.labels.tolist() == list(range(31))
    pictures = split.frames("visual", 0)
    assert len(pictures) == 2  # a clip shorter than 10 s is kept as it is
    assert Image.open(io.BytesIO(pictures[0])).size == (340, 256)
    assert 1.1 * 16000 < len(split.array("audio", 0)) < 1.3 * 16000
    train_and_evaluate(prepared, tree / "runs")
    train_and_evaluate(prepared, tree / "runs", recipe="tpami-code")


def test_evaluation_on_the_validation_clips(tree):
    prepared = prepare(tree, options={"eval_split": "val"}, out=tree / "val")
    assert prepared.counts == {"train": 31, "test": 2}
    assert prepared.split("test").ids == [name for name, part, _ in ROWS if part == "val"]
    assert prepared.split_name == "val"  # so that its numbers pass for none on the test clips
    assert "the 2 test clips are not used" in " ".join(prepared.manifest["notes"])
    with pytest.raises(InputError, match="have no validation split"):
        prepare(tree, "ogm", options={"eval_split": "val"}, out=tree / "other")
    with pytest.raises(UsageError, match="--eval-split"):
        prepare(tree, options={"eval_split": "train"}, out=tree / "other")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_the_lists_of_ogm_ge(tree, end):
    write_txt(tree / "ogm", end=end)
    found = plan(tree, "ogm")
    assert found.split_description == OTHER_LISTS
    assert found.samples == [sample for sample in plan(tree).samples if sample.split != "val"]


def test_lists_are_found_beside_the_media_too(tree):
    shutil.copy(tree / "bml" / "code" / "dataset" / "KS_train_val.json", tree / "k400")
    assert kinetics_sounds.KineticsSounds().plan(tree / "k400", None, True).samples == plan(tree).samples


LAYOUTS = {
    "class folders": lambda name, split, label: f"{split}/{label.replace(' ', '_')}/{official(name)}",
    "class folders with spaces": lambda name, split, label: f"{split}/{label}/{official(name)}",
    "flat": lambda name, split, label: official(name),
    "ids": lambda name, split, label: f"videos_320/{name[:11]}.mp4",
    "as listed": lambda name, split, label: f"{split}_256/{name}.mkv",
    "milliseconds": lambda name, split, label: f"{name[:11]}_{int(name[12:].split('_')[0])}000_61000.webm",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tree, layout):
    shutil.rmtree(tree / "k400")
    expected = {}
    for name, split, label in ROWS:
        expected[name] = LAYOUTS[layout](name, split, label)
        add(tree / "k400", expected[name])
    add(tree / "k400", "notes/readme_first.mp4")  # no clip's name, though it has 11 signs and more
    assert files(tree) == expected
    assert not any("another second" in note for note in plan(tree).notes)


def test_which_of_several_files_is_taken(tree):
    source, (first, second, third, fourth) = tree / "k400", [row[0] for row in ROWS[:4]]
    add(source, f"replacement/replacement_for_corrupted_k400/{official(first)}")
    add(source, f"a/{second[:11]}.mp4")  # without a second, and before train/ in the alphabet
    add(source, f"a/{second[:11]}_000777_000787.mp4")
    (source / "train" / official(third)).rename(source / "train" / f"{third[:11]}_000777_000787.mp4")
    link = source / "videos" / "train" / "chopping wood" / official(fourth)
    link.parent.mkdir(parents=True)
    link.symlink_to(source / "train" / official(fourth))
    found = files(tree)
    assert found[first] == f"replacement/replacement_for_corrupted_k400/{official(first)}"
    assert found[second] == f"train/{official(second)}"
    assert found[third] == f"train/{third[:11]}_000777_000787.mp4"
    assert found[fourth] == f"train/{official(fourth)}"
    assert [note for note in plan(tree).notes if "another second" in note] == [
        "1 file(s) begin at another second of the video than the lists say, by their names (first: "
        f"train/{third[:11]}_000777_000787.mp4), and are used."
    ]


def test_defects_are_rejected_with_their_reasons(tree):
    source = tree / "k400"
    bad = {
        "moov": (MEDIA / "broken" / "truncated_moov_missing.mp4", "truncated"),
        "zero": (MEDIA / "broken" / "zero_bytes.mp4", "empty file"),
        "html": (MEDIA / "broken" / "html_error_page.mp4", "web page"),
        "mute": (MEDIA / "derived" / "bbb_10s_h264_noaudio.mp4", "no audio stream"),
        "dark": (MEDIA / "derived" / "bbb_10s_audio_only.mp4", "no video stream"),
        "gone": (None, "missing"),
    }
    rows = list(ROWS)
    for number, (word, (file, _)) in enumerate(bad.items()):
        rows.append((f"-{word}-{number:05}_{number}", "test", "laughing"))
        if file:
            add(source, f"test/{official(rows[-1][0])}", file)
    add(source, f"test/{official(rows[-1][0].replace('gone', 'Gone'))}")  # another video: case counts
    write_json(tree / "bml", rows)
    prepared = prepare(tree)
    with (prepared.folder / "rejected.csv").open(newline="") as lines:
        found = {line["id"]: (line["file"], line["reason"].split(":")[0]) for line in csv.DictReader(lines)}
    for (name, _, _), (file, reason) in zip(rows[len(ROWS) :], bad.values(), strict=True):
        assert found[name] == (("test/" if file else "") + official(name), reason)
    assert len(found) == len(bad)
    assert prepared.counts["test"] == 2 and prepared.expected["test"] == 2 + len(bad)


@needs_lists
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_true_lists(tree, end):
    folder = tree / "true"
    folder.mkdir()
    shutil.copy(LISTS / "bml_KS_train_val.json", folder / "KS_train_val.json")
    found = kinetics_sounds.KineticsSounds().plan(tree / "k400", folder, False)
    assert found.notes == [] and found.classes == CLASSES
    assert found.split_description == "the lists of BML, evaluated on the test clips"
    assert Counter(sample.split for sample in found.samples) == {"train": 14799, "val": 1320, "test": 2597}
    assert len({sample.id[:11] for sample in found.samples}) == len(found.samples) == 18716
    counts = {
        split: Counter(s.label for s in found.samples if s.split == split)
        for split in ("train", "val", "test")
    }
    assert (counts["train"]["stomping grapes"], counts["train"]["blowing out candles"]) == (197, 690)
    assert [(min(c.values()), max(c.values())) for c in counts.values()] == [(197, 690), (30, 49), (63, 92)]
    assert counts["test"]["tickling"] == 63
    for split in ("train", "test"):
        data = (LISTS / f"ogmge_my_{split}.txt").read_bytes().replace(b"\r\n", end)
        (tree / f"my_{split}.txt").write_bytes(data)
    pair = kinetics_sounds.KineticsSounds().plan(tree / "k400", tree, False)
    assert pair.samples == [sample for sample in found.samples if sample.split != "val"] and not pair.notes
    assert pair.split_description == "the lists of OGM-GE, evaluated on the test clips"
    assert (
        (found.split_name, found.official_lists) == (pair.split_name, pair.official_lists) == ("test", True)
    )
    val = kinetics_sounds.KineticsSounds().plan(tree / "k400", folder, False, eval_split="val")
    assert Counter(sample.split for sample in val.samples) == {"train": 14799, "test": 1320}
    assert val.split_description == "the lists of BML, evaluated on the validation clips"
    assert (val.split_name, val.official_lists) == ("val", True)
    with pytest.raises(InputError, match=r"18,716 of the 18,716 files .* missing .*cvdfoundation"):
        prepare(tree, splits=folder, allow_missing=False)


@needs_lists
def test_the_list_for_final_training_is_refused(tree):
    content = json.loads((LISTS / "bml_KS_train_val.json").read_text())
    for entry in content["database"].values():
        entry["subset"] = entry["subset"].replace("testing", "training")
    path = tree / "clone" / "code" / "dataset" / "KS.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    for name in ("KS.json", "KS_train_val.json"):
        path = path.rename(path.with_name(name))
        with pytest.raises(InputError, match=r"no test clips: BML's KS\.json is for a final training"):
            plan(tree, "clone")
    shutil.copy(LISTS / "bml_KS_train_val.json", path)
    path.with_name("KS.json").write_text(json.dumps(content))
    assert len(kinetics_sounds.KineticsSounds().plan(tree / "k400", tree / "clone", False).samples) == 18716


@needs_lists
def test_other_lists_are_named(tree):
    with pytest.raises(
        InputError, match=r"not the list of BML_TPAMI2024: it has 35 entries, that one 18,716"
    ):
        prepare(tree, allow_missing=False)
    with pytest.raises(InputError, match=r"my_train\.txt is not the train list of OGM-GE: it has 31 entries"):
        prepare(tree, "ogm", allow_missing=False)
    text = (LISTS / "bml_KS_train_val.json").read_text().replace("tap_dancing", "tapping_pen", 2)
    (tree / "KS_train_val.json").write_text(text)
    with pytest.raises(InputError, match="not the list of BML_TPAMI2024: its SHA-256"):
        prepare(tree, splits=tree, allow_missing=False)
    assert "not the list of BML_TPAMI2024" in plan(tree).notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"database": []}',
        '{"database": {"--4-0ihtnBU_1": []}}',
        '{"database": {"--4-0ihtnBU_1": {"subset": "training"}}}',
        '{"database": {"--4-0ihtnBU_1": {"subset": "training", "label": 4}}}',
        '{"database": {"--4-0ihtnBU_1": {"subset": ["training"], "label": "singing"}}}',
        '{"database": {"--4-0ihtnBU_1": {"subset": "all", "label": "singing"}}}',
        "[" * 100_000,
    ],
)
def test_json_of_another_shape(tree, text):
    (tree / "bml" / "code" / "dataset" / "KS_train_val.json").write_text(text)
    with pytest.raises(InputError, match=r"KS_train_val\.json is not of the form"):
        plan(tree)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd_1", "/etc/passwd", "--4-0ihtnBU_1/../../x", "--4-0ihtnBU", ""]
)
def test_names_with_a_path(tree, name):
    write_json(tree / "bml", [*ROWS, (name, "test", "singing")])
    with pytest.raises(InputError, match="is not a clip's name"):
        plan(tree)
    write_txt(tree / "ogm", [*ROWS, (name, "test", "singing")])
    with pytest.raises(InputError, match=r"my_test\.txt, line 3: '.*is not a clip's name"):
        plan(tree, "ogm")


def test_labels_that_are_no_class(tree):
    write_json(tree / "bml", [*ROWS, ("--4-0ihtnBU_1", "test", "typing")])
    with pytest.raises(InputError, match="'typing' is none of the 31 classes"):
        plan(tree)


@pytest.mark.parametrize(
    "line",
    ["--4-0ihtnBU_1,10", "--4-0ihtnBU_1,4,10", "--4-0ihtnBU_1,10,31", "--4-0ihtnBU_1,10,x", "a,b,10,4"],
)
def test_lines_that_do_not_parse(tree, line):
    path = tree / "ogm" / "data" / "KineticSound" / "my_test.txt"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"my_test\.txt, line 1: '.*is not of the form"):
        plan(tree, "ogm")


def test_a_name_listed_twice(tree):
    write_txt(tree / "ogm", [*ROWS, (ROWS[0][0], "test", "singing")])
    with pytest.raises(InputError, match=f"'{ROWS[0][0]}' is listed twice"):
        plan(tree, "ogm")


def test_a_link_out_of_the_tree(tree):
    (tree / "k400" / "test" / "secret.mp4").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"secret\.mp4 is a link to /etc/passwd, outside"):
        plan(tree)


def test_what_to_get(tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(
        InputError,
        match=r"no folder data/raw/kinetics-sounds\. Get Kinetics-400 .*cvdfoundation.* into data/raw/kinetics-sounds",
    ):
        prepare_dataset("kinetics-sounds")
    with pytest.raises(
        InputError, match=r"holds no code/dataset/KS_train_val\.json nor .*BML_TPAMI2024.*--splits"
    ):
        prepare(tree, splits=None)
    (tree / "ogm" / "data" / "KineticSound" / "my_test.txt").unlink()
    with pytest.raises(InputError, match=r"There is no file .*my_test\.txt"):
        plan(tree, "ogm")


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("train/--4-0ihtnBU_000058_000068.mp4", 58),
        ("--4-0ihtnBU_58.mp4", 58),
        ("--4-0ihtnBU_58000_68000.mp4", 58),
        ("--4-0ihtnBU_0_10000.mp4", 0),
        ("--4-0ihtnBU_000012.mp4", 12),
        ("--4-0ihtnBU.mp4", None),
        ("--4-0ihtnBU_small.mp4", None),
    ],
)
def test_the_second_in_a_name(name, second):
    assert start_second(name) == second


def test_ids_are_cut_and_not_split(tmp_path):
    names = [
        "-_--_--_--_.mp4",
        "-_--_--_--__000001.MP4",
        "sub/-_--_--_--__2_12.webm",
        "-_--_--_--_x.mp4",
        "a.mp4",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {key: sorted(found) for key, found in files_by_id(tmp_path).items()} == {
        "-_--_--_--_": sorted(names[:3])
    }
