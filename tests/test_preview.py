"""balancemm_cli.data.preparing.preview: one sheet a class, whose colours mean what they say."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from media_files import contents, tone, write_csv, write_video
from PIL import Image
from warm_python import python

from balancemm_cli.data import store
from balancemm_cli.data.kinds import kind_of
from balancemm_cli.data.preparing import preview
from balancemm_cli.data.preparing.preview import GAP, HEIGHT, LABELS, STRIP, write_preview
from balancemm_cli.data.reading.media import encode_jpeg
from balancemm_cli.errors import InputError

ROOT = Path(__file__).parents[1]
MODALITIES = {
    "front": {"kind": "frames", "height": 60, "width": 80, "fps": 1.0, "channels": 3},
    "flow": {"kind": "frames", "height": 60, "width": 80, "fps": 1.0, "channels": 2, "content": "flow"},
    "change": {
        "kind": "frames",
        "height": 60,
        "width": 80,
        "fps": 1.0,
        "channels": 3,
        "content": "rgb-difference",
    },
    "sound": {"kind": "waveform", "rate": 16000},
    "face": {"kind": "features", "length": 8, "width": 4},
    "question": {"kind": "tokens", "length": 5, "words": ["<pad>", "is", "it", "loud"]},
}
EXTRAS = {"type": "text", "segments": "integers"}
CLASSES = ["playing violin, fiddle", "../Säge/..", "once"]


def row(index, label):
    motion = np.full((60, 80, 2), 128, np.uint8)
    motion[:, 40:, 0] = 255  # the right half moves to the right
    motion[:30, :40, 1] = 255  # the upper left quarter moves down
    face = np.zeros((6, 4), np.float32)
    face[3:, 0] = 1  # one number rises half-way
    return {
        "id": f"clip {index}",
        "label": label,
        "front": [encode_jpeg(np.full((60, 80, 3), (200, 10, 10), np.uint8))] * (2 + index),
        "flow": [encode_jpeg(motion)] * 2,
        "change": [encode_jpeg(np.full((60, 80, 3), 20, np.uint8))],
        "sound": tone(1.0, frequency=2000.0),
        "face": face,
        "question": np.array([1, 2, 3, 0, 0], np.int32),
        "type": "Audio-Counting",
        "segments": [28, 1],
    }


@pytest.fixture
def prepared(tmp_path):
    """Seven samples of a class, two of another, of which the second has the first one's values, and one."""
    rows = [row(index, label) for index, label in enumerate([0] * 7 + [1] * 2 + [2])]
    rows[8].update(dict.fromkeys(MODALITIES))
    folder = tmp_path / "set"
    folder.mkdir()
    store.write_shard(folder / "train-00000.arrow", rows, MODALITIES, EXTRAS)
    digest = store.file_hash(folder / "train-00000.arrow")
    shards = [{"file": "train-00000.arrow", "rows": len(rows), "sha256": digest}]
    manifest = {
        "format": store.FORMAT,
        "dataset": "small",
        "classes": CLASSES,
        "modalities": MODALITIES,
        "extras": EXTRAS,
        "splits": {"train": {"expected": 10, "prepared": 10, "shards": shards}},
        "splits_hash": "0",
    }
    store.write_json(folder / "manifest.json", {**manifest, "content_hash": store.content_hash(manifest)})
    return store.open_set(folder)


def test_a_sheet_a_class(prepared, tmp_path):
    seen = []
    before = contents(prepared.folder)
    folder = write_preview(prepared, lambda *x: seen.append(x))
    assert folder == tmp_path / "set-preview" and seen[-1] == ("preview", 3, 3)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0-playing-violin-fiddle.png", "1-Säge.png", "2-once.png"]
    heights = []
    for name in names:
        with Image.open(folder / name) as sheet:
            assert sheet.width == LABELS + STRIP + 3 * GAP and sheet.mode == "RGB"
            heights.append(sheet.height)
    block = heights[1] - heights[2]  # one sample more
    assert block > len(MODALITIES) * 20 + 5 * HEIGHT
    assert heights[0] - heights[2] == 3 * block  # four of the seven
    assert contents(prepared.folder) == before
    drawn = contents(folder)
    (folder / "7-of-an-earlier-set.png").touch()
    assert contents(write_preview(prepared)) == drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set-preview"]


def test_other_files_are_left_alone(prepared, tmp_path):
    (tmp_path / "set-preview").mkdir()
    (tmp_path / "set-preview" / "thesis.txt").touch()
    with pytest.raises(InputError, match="holds other files than the pictures of a preview"):
        write_preview(prepared)
    assert (tmp_path / "set-preview" / "thesis.txt").exists()


def strip(prepared, modality):
    """What is drawn of a modality of the first sample, uint8 RGB, and its notes."""
    sheets = preview.Sheets(prepared)
    picture, notes, _ = sheets._strip(modality, 0)
    return np.asarray(picture), notes


def near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() < 12


def test_frames(prepared):
    picture, notes = strip(prepared, "front")
    assert picture.shape == (HEIGHT, STRIP, 3) and notes == ["2 of 2 frames", "60×80, 1 a second"]
    assert near(picture[60, 80], (200, 10, 10)) and near(picture[60, 160 + GAP // 2], (255, 255, 255))
    assert near(picture[60, 160 + GAP + 80], (200, 10, 10)) and near(picture[60, 400], (255, 255, 255))


def test_flow_is_direction_and_speed(prepared):
    picture, notes = strip(prepared, "flow")
    assert "bright: 20.0 pixels" in notes
    assert near(picture[60, 120], (255, 0, 0))  # to the right
    assert near(picture[30, 40], (128, 255, 0))  # down: a quarter of the circle of hues
    assert picture[90, 40].max() < 20  # still


def test_differences_are_as_bright_as_can_be(prepared):
    picture, notes = strip(prepared, "change")
    assert near(picture[60, 80], (255, 255, 255)) and notes[-1] == "white: 20 of 255"


def test_a_tone_is_where_it_belongs(prepared):
    picture, notes = strip(prepared, "sound")
    assert notes == ["1.00 s, 16,000 Hz", "upwards: 0 to 8 kHz"]
    brightness = picture.astype(int).sum((1, 2))
    assert abs(int(brightness.argmax()) - 0.75 * HEIGHT) <= 2  # 2 of 8 kHz from below


def test_silence_can_be_drawn(prepared):
    picture = kind_of(MODALITIES["sound"]).draw(np.zeros(40, np.int16)).picture
    assert picture.size == (STRIP, HEIGHT) and np.asarray(picture).max() < 10


def test_features(prepared):
    picture, notes = strip(prepared, "face")
    assert notes[0] == "6 steps of 4"
    left, right, below = picture[10, 100].astype(int), picture[10, 900].astype(int), picture[100, 500]
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50  # blue, then red
    assert below.min() > 230  # the others do not change
    one = kind_of(MODALITIES["face"]).draw(np.ones((1, 4), np.float32))
    assert np.asarray(one.picture).min() > 230


def test_texts(prepared):
    picture, notes = strip(prepared, "question")
    assert notes == ["3 words"] and (picture < 100).any() and picture.shape[1] == STRIP


def test_the_command_with_media_and_without(tmp_path):
    lines = []
    for index in range(4):
        write_video(tmp_path / f"{index}.mkv", [60 * index + 9] * 5, samples=tone(1.0))
        lines.append(f"{index},{'ab'[index % 2]},{'train' if index < 2 else 'test'},{index}.mkv,{index}.mkv")
    table = write_csv(tmp_path / "my.csv", "id,label,split,audio,visual", *lines)
    words = ["prepare", "manifest", "--preview", "--out", "set", "--source", "my.csv"]

    def run():
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = python("-m", "balancemm_cli", *words, folder=tmp_path, environment=environment)
        assert done.returncode == 0 and done.stdout == "set\n", done.stderr
        assert "A picture of each class is in set-preview." in done.stderr
        return done.stderr

    assert "train: 2 of 2 samples prepared." in run()
    assert sorted(path.name for path in (tmp_path / "set-preview").iterdir()) == ["0-a.png", "1-b.png"]
    shutil.rmtree(tmp_path / "set-preview")
    table.unlink()
    assert "There are no media in my.csv: the pictures are of set as it is." in run()
    assert (tmp_path / "set-preview" / "1-b.png").exists()
