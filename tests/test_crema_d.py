"""CREMA-D on a small tree of the official layout made from look-alike clips."""

import csv
import shutil

import numpy as np
import pytest
from media_files import MEDIA, SHARED, needs_media, write_wav

from balancemm_cli.data.datasets import crema_d
from balancemm_cli.data.prepare import prepare_dataset
from balancemm_cli.errors import InputError

pytestmark = needs_media
LISTS = SHARED / "data" / "splits" / "crema-d"
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
        "train list is not the one of OGM-GE: it has 6 samples, that one 6,698" in line for line in said
    )
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
    monkeypatch.setattr(crema_d, "LISTS", real_lists(tree))
    (tree / "crema-d" / "AudioWAV" / f"{TRAIN[2]}.wav").unlink()
    with pytest.raises(InputError, match=r"1 of the 16 files .*AudioWAV/1001_IEO_SAD_XX\.wav.*mirror"):
        prepare(tree, allow_missing=False)
    shutil.copy(MEDIA / "broken" / "lfs_pointer.wav", tree / "crema-d" / "AudioWAV" / f"{TRAIN[2]}.wav")
    with pytest.raises(InputError, match=r"1 of 16 files .* git-LFS pointers.*git lfs pull.*gitlab"):
        prepare(tree, allow_missing=False)
    add(tree / "crema-d", TRAIN[2])
    assert prepare(tree, allow_missing=False).manifest["notes"] == []


def real_lists(tree):
    """The numbers of the small lists, in the place of those of the true ones."""
    import hashlib

    folder = tree / "clone" / "data" / "CREMAD"
    texts = {split: (folder / f"{split}.csv").read_text() for split in ("train", "test")}  # reads \r\n as \n
    return {k: (len(t.split()), hashlib.sha256(t.encode()).hexdigest()) for k, t in texts.items()}


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
    with pytest.raises(InputError, match=r"train\.csv is not the train list of OGM-GE: it has 6 samples"):
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
    with pytest.raises(InputError, match=r"holds neither train\.csv"):
        prepare(tree, splits=tree / "empty")
    shutil.rmtree(tree / "crema-d" / "VideoFlash")
    with pytest.raises(InputError, match=r"VideoFlash/ is missing .*there: AudioWAV"):
        prepare(tree)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the shared split lists are absent")
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_true_lists_are_recognised(tree, end):
    folder = tree / "true"
    folder.mkdir()
    for split in ("train", "test"):
        data = (LISTS / f"ogmge_{split}.csv").read_bytes().replace(b"\r\n", end)
        (folder / f"{split}.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"of the 14,884 files .* missing"):
        prepare(tree, splits=folder, allow_missing=False)
    plan = crema_d.plan(tree / "crema-d", folder, False)
    assert len(plan.samples) == 7442 and sum(bool(sample.defect) for sample in plan.samples) == 6
    data = (folder / "test.csv").read_bytes()
    lines = data.splitlines(keepends=True)
    (folder / "test.csv").write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(InputError, match="not the test list of OGM-GE: its SHA-256"):
        crema_d.plan(tree / "crema-d", folder, False)
