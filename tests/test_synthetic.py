"""The built-in synthetic data: real media, known truth, resumable, and what they promise about the label."""

import csv
import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from media_files import contents
from scipy.fft import rfft

from balancemm_cli.data.made import synthetic
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.data.reading import media
from balancemm_cli.errors import InputError, UsageError

COUNTS = {"train": 24, "test": 12}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "raw"
    synthetic.Synthetic().make(folder, 1, counts=COUNTS)
    return folder


def truth(folder):
    with (folder / "truth.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_clips_hold_what_was_drawn(source):
    for number in (0, 7):
        sound, picture, informative = synthetic.draw("train", number)
        path = source / "train" / f"train-{number:05d}.mkv"
        np.testing.assert_array_equal(media.read_frames(path, 48, 48), [picture])
        np.testing.assert_array_equal(media.read_audio(path, 8000), (sound * 32767).round())
        line = truth(source)[number]
        assert line["label"] == synthetic.CLASSES[number % 6]
        assert line["audio_informative"] == str(int(informative))


def test_prepared_like_any_other_set(source, tmp_path):
    prepared = prepare_dataset("synthetic", source, out=tmp_path / "out", workers=1)
    assert prepared.counts == prepared.expected == COUNTS
    assert prepared.classes == synthetic.CLASSES
    split = prepared.split("train")
    assert split.ids == [line["id"] for line in truth(source)][:24]
    assert split.labels.tolist() == [i % 6 for i in range(24)]
    assert {len(split.array("audio", row)) for row in range(24)} == {8000}
    assert {len(split.frames("visual", row)) for row in range(24)} == {1}


@pytest.mark.long
def test_writing_killed_at_random_moments_gives_the_same_bytes(tmp_path):
    counts = {"train": 300, "test": 60}
    synthetic.Synthetic().make(tmp_path / "whole", 2, counts=counts)
    program = (
        "import sys; from pathlib import Path; from balancemm_cli.data.made import synthetic\n"
        f"if __name__ == '__main__': synthetic.Synthetic().make(Path(sys.argv[1]), 2, counts={counts})"
    )
    script = tmp_path / "make.py"
    script.write_text(program)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "killed")], stderr=subprocess.DEVNULL
        )
        time.sleep(random.uniform(0.2, 0.9))
        process.kill()
        process.wait()
    synthetic.Synthetic().make(tmp_path / "killed", 2, counts=counts)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_writing_goes_on_and_gives_the_same_bytes(source, tmp_path):
    """As after a kill: some clips are there, one is empty, the truth is not written yet."""
    folder = tmp_path / "raw"
    (folder / "test").mkdir(parents=True)
    (folder / "train").mkdir()
    (folder / "design.json").write_bytes((source / "design.json").read_bytes())
    for name in ("train-00003.mkv", "train-00004.mkv"):
        (folder / "train" / name).write_bytes((source / "train" / name).read_bytes())
    (folder / "train" / "train-00005.mkv").touch()
    kept = (folder / "train" / "train-00003.mkv").stat().st_mtime_ns
    seen = []
    synthetic.Synthetic().make(
        folder, 2, on_progress=lambda stage, done, total: seen.append((stage, done, total))
    )
    assert (folder / "train" / "train-00003.mkv").stat().st_mtime_ns == kept
    assert contents(folder / "train") == contents(source / "train")
    assert (folder / "truth.csv").read_bytes() == (source / "truth.csv").read_bytes()
    assert seen[-1] == ("write", 36, 36)


def test_sound_codes_the_class_only_where_it_is_informative():
    """A matched filter on the tones reads the label from informative clips, and nothing from the others."""
    right = {True: [], False: []}
    for number in range(300):
        sound, _, informative = synthetic.draw("train", number)
        power = np.abs(rfft(sound)) ** 2  # bins of 1 Hz
        scores = [sum(power[f - 25 : f + 26].max() for f in pair) for pair in synthetic.TONES]
        right[informative].append(int(np.argmax(scores)) == number % 6)
    assert np.mean(right[True]) > 0.99
    assert np.mean(right[False]) < 0.4  # chance is 0.17
    assert 0.7 < len(right[True]) / 300 < 0.9


def test_picture_codes_the_class_always():
    """The strongest orientation near the grating's frequency is the class more often than not, in clips
    without an informative sound too."""
    y, x = np.mgrid[:48, :48]
    right = []
    for number in range(400):
        _, picture, informative = synthetic.draw("train", number)
        if informative:
            continue
        scores = []
        for label in range(6):
            angle = np.pi * label / 6
            wave = np.exp(2j * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / synthetic.WAVELENGTH)
            window = np.exp(-((x - 24) ** 2 + (y - 24) ** 2) / (2 * synthetic.SPREAD**2))
            kernel = np.fft.fft2(np.fft.ifftshift(wave * window))[..., None]
            response = np.fft.ifft2(np.fft.fft2(picture - picture.mean(), axes=(0, 1)) * kernel, axes=(0, 1))
            scores.append((np.abs(response) ** 2).sum(-1).max())
        right.append(int(np.argmax(scores)) == number % 6)
    assert np.mean(right) > 0.7


def test_other_designs_are_refused(source, tmp_path):
    with pytest.raises(InputError, match="counts"):
        synthetic.Synthetic().make(source, 1, counts={"train": 6})
    (tmp_path / "other.txt").touch()
    with pytest.raises(InputError, match="other files"):
        synthetic.Synthetic().make(tmp_path)
    (tmp_path / "other.txt").unlink()
    (tmp_path / "design.json").write_text(json.dumps({"design": 99, "counts": COUNTS}))
    with pytest.raises(InputError, match=r"design\.json is damaged or of another version"):
        synthetic.Synthetic().make(tmp_path)
    with pytest.raises(UsageError, match="no split lists"):
        prepare_dataset("synthetic", source, splits=tmp_path)
