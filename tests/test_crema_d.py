"""CREMA-D on a small tree of the official layout made from look-alike clips."""

import csv
import hashlib
import shutil
from collections import Counter

import numpy as np
import pytest
from media_files import MEDIA, SHARED, needs_media, write_wav
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import crema_d
from balancemm_cli.data.datasets.lists import OTHER_LISTS
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError, UsageError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "crema-d"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")
TRAIN = [f"1001_IEO_{label}_XX" for label in crema_d.CLASSES]
TEST = ["1002_DFA_ANG_XX", "1003_DFA_SAD_HI"]


def write_lists(folder, train, test, end="\r\n", mark=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, stems in (("train", train), ("test", test)):
        text = mark + "".join(f"{stem},{stem.split('_')[2]}{end}" for stem in stems)
        (folder / f"{name}.csv").write_bytes(text.encode())
    return folder


def add(source, stem, wav="1001_IEO_NEU_XX.wav", flv="1001_IEO_NEU_XX.flv"):
    for folder, file, suffix in (("AudioWAV", wav, ".wav"), ("VideoFlash", flv, ".flv")):
        (source / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(MEDIA / "derived" / file, source / folder / f"{stem}{suffix}")


@pytest.fixture
def tree(tmp_path):
    """Media and lists with one sample a class, whole."""
    for stem in TRAIN + TEST:
        add(tmp_path / "crema-d", stem)
    write_lists(tmp_path / "clone" / "data" / "CREMAD", TRAIN, TEST)
    return tmp_path


def prepare(tree, **options):
    options = {"allow_missing": True, "splits": tree / "clone", **options}
    return prepare_dataset("crema-d", tree / "crema-d", out=tree / "out", workers=1, **options)


def rejected(prepared):
    with (prepared.folder / "rejected.csv").open(newline="") as file:
        return {line["id"]: (line["file"], line["reason"].split(":")[0]) for line in csv.DictReader(file)}


def test_the_small_tree(tree):
    add(tree / "crema-d", "1009_TIE_HAP_XX")  # in no list
    said = []
    prepared = prepare(tree, on_message=said.append)
    assert prepared.name == "crema-d" and prepared.classes == ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
    assert prepared.counts == prepared.expected == {"train": 6, "test": 2}
    split = prepared.split("train")
    assert split.ids == TRAIN and split.labels.tolist() == list(range(6))
    assert len(split.array("audio", 0)) == 49120  # the WAV's own samples, not those of the FLV
    assert len(split.frames("visual", 0)) == 4
    assert "1 file(s) of AudioWAV/ are in no list and are not used." in said
    assert any(
        "train.csv is not the train list of OGM-GE: it has 6 entries, that one 6,698" in line for line in said
    )
    assert prepared.split_description == OTHER_LISTS
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == ("crema-d", "official", False)
    assert prepared.manifest["notes"] == [line for line in said if line in prepared.manifest["notes"]]
    assert len(prepared.manifest["notes"]) == 4


def test_line_ends_and_byte_order_mark_do_not_matter(tree):
    first = prepare(tree).manifest
    shutil.rmtree(tree / "out")
    write_lists(tree / "lists", TRAIN, TEST, end="\n", mark="\ufeff")
    assert prepare(tree, splits=tree / "lists").manifest == first


def test_defects_of_files_are_rejected(tree):
    source = tree / "crema-d"
    stems = [f"1004_{sentence}_NEU_XX" for sentence in ("TIE", "IOM", "IWW", "TAI", "MTI")]
    for stem in stems:
        add(source, stem)
    shutil.copy(MEDIA / "broken" / "lfs_pointer.wav", source / "AudioWAV" / f"{stems[0]}.wav")
    (source / "VideoFlash" / f"{stems[1]}.flv").unlink()
    shutil.copy(MEDIA / "broken" / "truncated_half.flv", source / "VideoFlash" / f"{stems[2]}.flv")
    shutil.copy(MEDIA / "broken" / "silent_zeros_16k.wav", source / "AudioWAV" / f"{stems[3]}.wav")
    shutil.copy(MEDIA / "broken" / "zero_bytes.wav", source / "AudioWAV" / f"{stems[4]}.wav")
    write_lists(tree / "clone", TRAIN + stems, TEST)
    shutil.rmtree(tree / "clone" / "data")
    prepared = prepare(tree)
    assert rejected(prepared) == {
        stems[0]: (f"AudioWAV/{stems[0]}.wav", "git-LFS pointer"),
        stems[1]: (f"VideoFlash/{stems[1]}.flv", "missing"),
        stems[2]: (f"VideoFlash/{stems[2]}.flv", "truncated"),
        stems[3]: (f"AudioWAV/{stems[3]}.wav", "silent"),
        stems[4]: (f"AudioWAV/{stems[4]}.wav", "empty file"),
    }
    assert prepared.counts["train"] == 6 and prepared.expected["train"] == 11


def test_known_defects_are_kept_by_name(tree):
    source = tree / "crema-d"
    add(source, "1076_MTI_SAD_XX", flv="1076_MTI_NEU_XX_noaudio.flv")
    write_wav(source / "AudioWAV" / "1076_MTI_SAD_XX.wav", np.zeros(41000, np.int16))
    add(source, "1076_MTI_NEU_XX", flv="1076_MTI_NEU_XX_noaudio.flv")
    shutil.copy(MEDIA / "broken" / "truncated_half.flv", source / "VideoFlash" / "1076_MTI_NEU_XX.flv")
    add(source, "1064_IEO_DIS_MD")
    write_wav(source / "AudioWAV" / "1064_IEO_DIS_MD.wav", np.full(24000, 3000, np.int16))  # 1.5 of the 3 s
    add(source, "1040_ITH_SAD_XX")
    (source / "AudioWAV" / "1040_ITH_SAD_XX.wav").rename(source / "AudioWAV" / "1040_ITH_SAD_X.wav")
    stems = ["1076_MTI_SAD_XX", "1076_MTI_NEU_XX", "1064_IEO_DIS_MD", "1040_ITH_SAD_XX"]
    write_lists(tree / "clone" / "data" / "CREMAD", TRAIN + stems, TEST)
    prepared = prepare(tree)
    assert rejected(prepared) == {}
    assert set(prepared.manifest["defects_kept"]) == set(stems[:3])
    split = prepared.split("train")
    rows = [split.ids.index(stem) for stem in stems]
    assert [len(split.frames("visual", row)) for row in rows] == [2, 2, 2, 4]
    assert not split.array("audio", rows[0]).any()
    assert not any("AudioWAV" in note for note in prepared.manifest["notes"])  # the alias counts as listed


def test_pointers_and_missing_files_need_leave(tree, monkeypatch):
    monkeypatch.setitem(crema_d.LISTS, "official", real_lists(tree))
    (tree / "crema-d" / "AudioWAV" / f"{TRAIN[2]}.wav").unlink()
    with pytest.raises(InputError, match=r"1 of the 16 files .*AudioWAV/1001_IEO_SAD_XX\.wav.*mirror"):
        prepare(tree, allow_missing=False)
    shutil.copy(MEDIA / "broken" / "lfs_pointer.wav", tree / "crema-d" / "AudioWAV" / f"{TRAIN[2]}.wav")
    with pytest.raises(InputError, match=r"1 of 16 files .* git-LFS pointers.*git lfs pull.*gitlab"):
        prepare(tree, allow_missing=False)
    add(tree / "crema-d", TRAIN[2])
    prepared = prepare(tree, allow_missing=False)
    assert prepared.manifest["notes"] == []
    assert prepared.split_description == "lists of OGM-GE: all 91 actors occur in train and test"
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == ("crema-d", "official", True)


def real_lists(tree):
    """The numbers of the small lists, in the place of those of the true ones."""
    folder = tree / "clone" / "data" / "CREMAD"
    texts = {part: (folder / f"{part}.csv").read_text() for part in ("train", "test")}  # reads \r\n as \n
    return {
        part: (f"data/CREMAD/{part}.csv", len(text.split()), hashlib.sha256(text.encode()).hexdigest())
        for part, text in texts.items()
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1001_IEO_NEU", "line 2: '1001_IEO_NEU' is not of the form"),
        ("1001_XXX_NEU_XX,NEU", "line 2"),
        ("1005_IEO_NEU_XX,HAP", "line 2: the label 'HAP' is not the 'NEU'"),
        ("1001_IEO_NEU_XX,NEU", "'1001_IEO_NEU_XX' is listed twice"),
    ],
)
def test_lines_that_do_not_parse(tree, line, message):
    path = tree / "clone" / "data" / "CREMAD" / "train.csv"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{first}\n{line}\n{rest}")
    with pytest.raises(InputError, match=message):
        prepare(tree)


def test_wrong_lists_are_named(tree):
    with pytest.raises(InputError, match=r"train\.csv is not the train list of OGM-GE: it has 6 entries"):
        prepare(tree, allow_missing=False)


def test_what_to_get(tree):
    with pytest.raises(
        InputError, match=r"There is no folder .*nowhere.*AudioWAV/ and VideoFlash/.*data/raw/crema-d"
    ):
        prepare_dataset("crema-d", tree / "nowhere")
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        prepare_dataset("crema-d", tree / "empty")
    with pytest.raises(InputError, match=r"OGM-GE_CVPR2022.*--splits"):
        prepare(tree, splits=None)
    with pytest.raises(InputError, match=r"holds no data/CREMAD/train\.csv nor train\.csv"):
        prepare(tree, splits=tree / "empty")
    shutil.rmtree(tree / "crema-d" / "VideoFlash")
    with pytest.raises(InputError, match=r"VideoFlash/ is missing .*there: AudioWAV"):
        prepare(tree)


@needs_lists
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_true_lists_are_recognised(tree, end):
    folder = tree / "true"
    folder.mkdir()
    for split in ("train", "test"):
        data = (LISTS / f"ogmge_{split}.csv").read_bytes().replace(b"\r\n", end)
        (folder / f"{split}.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"of the 14,884 files .* missing"):
        prepare(tree, splits=folder, allow_missing=False)
    plan = crema_d.CremaD().plan(tree / "crema-d", folder, False)
    assert len(plan.samples) == 7442 and sum(bool(sample.defect) for sample in plan.samples) == 6
    data = (folder / "test.csv").read_bytes()
    lines = data.splitlines(keepends=True)
    (folder / "test.csv").write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(InputError, match="not the test list of OGM-GE: its SHA-256"):
        crema_d.CremaD().plan(tree / "crema-d", folder, False)


def test_a_header_and_the_list_without_it_are_one(tree):
    first = prepare(tree).manifest
    shutil.rmtree(tree / "out")
    for part in ("train", "test"):
        path = tree / "clone" / "data" / "CREMAD" / f"{part}.csv"
        path.write_bytes(b"name,label\r\n" + path.read_bytes())
    assert prepare(tree).manifest == first


def test_the_lists_of_relearn(tree):
    folder = write_lists(tree / "relearn" / "code" / "dataset" / "cremad", TRAIN[:5], TEST)
    (folder / "train.csv").rename(folder / "my_train.csv")
    (folder / "val.csv").write_text(f"{TRAIN[5]},ANG\n")
    with pytest.raises(InputError, match=r"my_train\.csv is not the my_train list of Diagnosing_Relearning"):
        prepare(tree, splits=tree / "relearn", options={"split": "relearn"}, allow_missing=False)
    with pytest.raises(InputError, match=r"not named.*Diagnosing_Relearning_ECCV2024.*--splits"):
        prepare(tree, splits=None, options={"split": "relearn"})
    plan = crema_d.CremaD().plan(tree / "crema-d", tree / "relearn", True, split="relearn")
    assert Counter(sample.split for sample in plan.samples) == {"train": 5, "val": 1, "test": 2}
    assert plan.classes == crema_d.CLASSES
    assert plan.split_description == OTHER_LISTS
    assert (plan.split_name, plan.official_lists) == ("relearn", False)


@needs_lists
def test_the_true_lists_of_relearn_are_recognised(tree):
    folder = tree / "true"
    folder.mkdir()
    shutil.copy(LISTS / "relearn_my_train.csv", folder / "my_train.csv")
    shutil.copy(LISTS / "relearn_val.csv", folder / "val.csv")
    (folder / "test.csv").write_bytes(b"name,label\n" + (LISTS / "ogmge_test.csv").read_bytes())
    plan = crema_d.CremaD().plan(tree / "crema-d", folder, False, split="relearn")
    assert Counter(sample.split for sample in plan.samples) == {"train": 5954, "val": 744, "test": 744}
    actors = [{s.id[:4] for s in plan.samples if s.split == part} for part in ("train", "val", "test")]
    assert "the same actors occur in all splits" in plan.split_description
    assert (plan.split_name, plan.official_lists) == ("relearn", True)
    assert actors[1] | actors[2] <= actors[0] and len(actors[0]) == 91


@needs_lists
def test_all_official_names_are_known():
    with (LISTS / "lfs_sizes.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    names = [path.removeprefix("AudioWAV/").removesuffix(".wav") for path in paths if "AudioWAV" in path]
    assert sorted(crema_d.all_stems()) == sorted(names) and len(names) == 7442


def test_no_actor_is_in_two_parts():
    parts = crema_d.speaker_independent()
    actors = {part: {int(stem[:4]) for stem in stems} for part, stems in parts.items()}
    assert {part: len(stems) for part, stems in parts.items()} == {"train": 5966, "val": 738, "test": 738}
    assert actors["val"] == set(range(1005, 1092, 10)) and actors["test"] == set(range(1010, 1092, 10))
    assert actors["train"] == set(range(1001, 1092)) - actors["val"] - actors["test"]
    counts = {part: Counter(stem.split("_")[2] for stem in stems) for part, stems in parts.items()}
    assert counts["val"] == counts["test"] == dict.fromkeys(crema_d.CLASSES, 126) | {"NEU": 108}
    assert counts["train"] == dict.fromkeys(crema_d.CLASSES, 1019) | {"NEU": 871}


def test_the_speaker_independent_split_prepares_trains_and_evaluates(tmp_path):
    stems = [f"{actor}_DFA_{label}_XX" for actor in (1001, 1005, 1010) for label in crema_d.CLASSES]
    for stem in stems:
        add(tmp_path / "crema-d", stem)
    said = []
    prepared = prepare_dataset(
        "crema-d",
        tmp_path / "crema-d",
        out=tmp_path / "prepared" / "crema-d-speaker-independent",
        workers=1,
        allow_missing=True,
        options={"split": "speaker-independent"},
        on_message=said.append,
    )
    assert prepared.split_description == "by actor: no actor is in two splits"
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == (
        "crema-d",
        "speaker-independent",
        None,
    )
    assert prepared.expected == {"train": 5966, "val": 738, "test": 738}
    assert prepared.counts == {"train": 6, "val": 6, "test": 6}
    assert len(rejected(prepared)) == 7442 - 18  # each with its reason: the names are known without lists
    train_and_evaluate(prepared, tmp_path / "runs")


def test_the_speaker_independent_split_takes_no_lists(tree):
    with pytest.raises(UsageError, match="leave --splits away"):
        prepare(tree, options={"split": "speaker-independent"})


def test_a_link_out_of_the_tree_is_refused(tree):
    secret = tree / "elsewhere.wav"
    (tree / "crema-d" / "AudioWAV" / f"{TRAIN[0]}.wav").rename(secret)
    (tree / "crema-d" / "AudioWAV" / f"{TRAIN[0]}.wav").symlink_to(secret)
    with pytest.raises(InputError, match=r"1001_IEO_NEU_XX\.wav is a link to .*elsewhere\.wav, outside"):
        prepare(tree)
    (tree / "crema-d" / "AudioWAV").rename(tree / "sounds")
    (tree / "crema-d" / "AudioWAV").symlink_to(tree / "sounds")
    with pytest.raises(InputError, match=r"AudioWAV is a link to .*sounds, outside"):
        prepare(tree)
