"""balancemm_cli.data.preparing.estimate: what --dry-run says, without decoding or writing."""

from pathlib import Path

import pytest
from media_files import MEDIA, contents, needs_media, write_csv
from warm_python import python

from balancemm_cli.data.datasets import DATASETS, crema_d, plan
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.preparing.estimate import dry_run
from balancemm_cli.data.preparing.prepare import Request, prepare_dataset
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path):
    """A manifest of empty files (which cannot be decoded), two of them missing."""
    lines = []
    for index in range(30):
        split = "test" if index % 3 == 0 else "train"
        lines.append(f"{index},{'ab'[index % 2]},{split},{index}.wav,{index}.mp4")
        (tmp_path / "media" / f"{index}.wav").parent.mkdir(exist_ok=True)
        (tmp_path / "media" / f"{index}.wav").touch()
        (tmp_path / "media" / f"{index}.mp4").touch()
    for name in ("3.wav", "4.mp4"):
        (tmp_path / "media" / name).unlink()
    return write_csv(tmp_path / "media" / "my.csv", "id,label,split,audio,visual", *lines)


def test_what_it_says(source, tmp_path):
    before = contents(tmp_path)
    lines = dry_run(Request("manifest", source, out=tmp_path / "set"), workers=1)
    assert lines[:9] == [
        "my: 30 samples of 2 classes (a; b)",
        "  test: 10 samples of 2 classes",
        "  train: 20 samples of 2 classes",
        "  audio: sound, 16,000 Hz",
        "  visual: frames of at most 256 pixels on the smaller side, 1 a second",
        "Missing: 2 of 60 files",
        "  test: 1 (3.wav)",
        "  train: 1 (4.mp4)",
        "Empty: 58 files, which would be rejected",
    ]
    assert lines[9] == f"Folder: {tmp_path / 'set'}"
    # 29 × 2 bytes × 16,000 × 10 s + 29 × 10 frames × 256 × 256 pixels × 0.37 = 16.3 MB
    assert lines[10].startswith("Size: about 16 MB; ")
    assert lines[11] == "Time: under a minute with 1 worker."
    assert lines[12].startswith(
        "As it stands, preparing stops: 2 of the 60 files of data set 'my' are missing"
    )
    assert len(lines) == 13 and contents(tmp_path) == before
    assert len(dry_run(Request("manifest", source, out=tmp_path / "set", allow_missing=True))) == 12


def test_other_lists_and_missing_media_are_said(tmp_path):
    for folder in ("AudioWAV", "VideoFlash"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / f"1001_IEO_NEU_XX{crema_d.FOLDERS['audio'][1]}").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.csv").write_text("1001_IEO_NEU_XX,NEU\n")
    (tmp_path / "lists" / "test.csv").write_text("1002_IEO_NEU_XX,NEU\n")
    lines = dry_run(Request("crema-d", tmp_path / "raw", tmp_path / "lists"), workers=2)
    text = "\n".join(lines)
    assert "crema-d: 2 samples of 6 classes" in text and "split: " in text
    assert "it has 1 entries, that one 6,698" in text
    assert "Missing: 3 of 4 files" in text
    assert "  train: 1 (VideoFlash/1001_IEO_NEU_XX.flv)" in lines
    assert "Folder: data/prepared/crema-d" in lines
    stops = [line for line in lines if line.startswith("As it stands, preparing stops: ")]
    assert len(stops) == 2 and "train.csv is not" in stops[0] and "Class 'HAP'" in stops[1]


def test_nothing_to_list(tmp_path):
    with pytest.raises(InputError, match=r"There is no folder .*AudioWAV/ and VideoFlash/"):
        dry_run(Request("crema-d", tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="name the folder that is to be made"):
        Request("manifest", out=Path("."))


def test_a_folder_that_is_there(source, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").touch()
    lines = dry_run(Request("manifest", source, out=tmp_path / "set", allow_missing=True))
    assert lines[-1].startswith("Folder: ") and "exists and is no prepared data set" in lines[-1]


@needs_media
def test_the_estimate_is_near_the_truth(tmp_path):
    """Four real clips of 10 s, and a fifth which is used three times in a row and stored once."""
    names = ["derived/bbb_10s_h264_aac.mp4", "video/chaplin.mp4"]
    for name in names:
        (tmp_path / Path(name).name).write_bytes((MEDIA / name).read_bytes())
    first, second = (Path(name).name for name in names)
    rows = [f"{i},a,train,{(first, second)[i % 2]},{(first, second)[i % 2]}" for i in range(4)]
    rows += [f"again {i},a,train,{second},{second}" for i in range(2)]
    table = write_csv(tmp_path / "m.csv", "id,label,split,audio,visual", *rows)
    (line,) = [x for x in dry_run(Request("manifest", table, out=tmp_path / "set")) if x.startswith("Size: ")]
    size, unit = line.split()[2:4]
    assert unit == "MB;"
    prepared = prepare_dataset("manifest", table, out=tmp_path / "set", workers=1)
    written = sum(path.stat().st_size for path in prepared.folder.iterdir()) / 1e6
    assert 0.6 < float(size) / written < 1.6
    last = dry_run(Request("manifest", table, out=tmp_path / "set"))[-1]
    assert last == f"Folder: {tmp_path / 'set'} is prepared already, from the same media and lists."


def test_nothing_is_there(tmp_path):
    table = write_csv(tmp_path / "my.csv", "id,label,split,audio", "1,a,train,a.wav", "2,a,test,b.wav")
    lines = dry_run(Request("manifest", table, out=tmp_path / "set"))
    assert "Size: nothing, as none of the files is there." in lines
    assert not any(line.startswith("Time: ") for line in lines)


def test_every_kind_of_modality(tmp_path, monkeypatch):
    """1,000 samples of 10 s with flow to compute and texts: 10,000 pairs at a second each are near 3 hours."""
    clips = [plan.Clip(tmp_path, f"{i}.avi") for i in range(1000)]
    for clip in clips:
        clip.path.touch()
    words = plan.Clip(tmp_path, "0.avi", 0.0, 1.0)
    samples = [
        plan.Sample(str(i), "train", "a", {"flow": clip, "text": words, "audio": clip, "maps": clip})
        for i, clip in enumerate(clips)
    ]
    flow = {**plan.frames(256, 340, 1.0), "channels": 2, "content": "flow", "source": "computed tv-l1"}
    modalities = {
        "flow": flow,
        "text": plan.tokens(14, ["<pad>", "is"]),
        "audio": plan.features(60, 128),
        "maps": plan.features(10, 512, positions=49),
    }
    made = plan.Plan("made", samples, ["a"], modalities, clip_seconds=10.0)

    class Made(Dataset):
        def plan(self, source, splits, allow_missing):
            return made

    monkeypatch.setitem(DATASETS, "made", Made())
    lines = dry_run(Request("made", tmp_path), workers=1)
    assert lines[2:6] == [
        "  flow: flow (computed tv-l1) of 256×340, 1 a second",
        "  text: text, up to 14 words",
        "  audio: features, up to 60 steps of 128 numbers",
        "  maps: features, up to 10 steps of 512 numbers at 49 positions",
    ]
    # 10,000 × 256 × 340 × 0.1 + 1,000 × (60 × 128 + 10 × 49 × 512) × 4 + 4 texts (one a shard) = 1.12 GB
    assert any(line.startswith("Size: about 1.1 GB") for line in lines)
    assert lines[-1] == "Time: about 3 h with 1 worker."


def test_the_command(source, tmp_path):
    words = ("prepare", "manifest", "--source", source, "--dry-run")
    result = python("-m", "balancemm_cli", *words, folder=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert "Missing: 2 of 60 files\n" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["media"]
