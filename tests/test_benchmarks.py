"""The scripts that measure run, and end with one JSON object."""

import json
from argparse import Namespace
from pathlib import Path
from runpy import run_path

import pytest
from media_files import tone, write_video, write_wav
from warm_python import python

from balancemm_cli.data.reading.media import read_audio, read_frames

pytestmark = pytest.mark.long
SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "performance"


def test_overhead_prints_ratios_of_a_model_and_methods():
    command = [SCRIPTS / "overhead.py", "--steps", "1", "--warmup", "1", "--batch", "4"]
    command += ["--spectrogram", "33", "32", "--variant", "official", "--model", "mlp"]
    command += ["--methods", "unmeasured", "annealed-dropout+unimodal-losses"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["ratios"]) == ["baseline", "unmeasured", "annealed-dropout+unimodal-losses"]
    assert found["ratios"]["baseline"] == 1 and found["batch"] == 4 and found["model"] == "mlp"
    assert all(seconds > 0 for seconds in found["seconds"].values())


def test_reading_prints_seconds_and_memory():
    command = [
        SCRIPTS / "reading.py",
        "--rates",
        "1",
        "--formats",
        "json",
        "--rounds",
        "1",
    ]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["runs"] == 2 * 5 * 5
    kept = found["seconds_and_megabytes"]
    assert {"import torch", "bmm list methods", "bmm report --format json, 50 runs"} <= kept.keys()
    assert all(seconds > 0 and peak > 10 for seconds, peak in kept.values())


def test_prepare_prints_how_much_faster_it_is(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra 'bench'")
    pytest.importorskip("librosa", reason="needs the extra 'bench'")
    write_video(tmp_path / "a.mkv", [0, 60, 120, 180, 240], samples=tone(1.0))
    write_video(tmp_path / "b.mkv", [0, 60, 120, 180, 240])
    write_wav(tmp_path / "b.wav", tone(1.0))
    command = [SCRIPTS / "prepare.py", "--rounds", "1", "--workers", "1", "--media", tmp_path, "--clips", "0"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rates = found["clips_a_second"]
    assert found["clips"] == 2 and found["ratio"] == rates["bmm"] / rates["chain"] > 0
    assert found["parent_mib"] > 20 and found["worker_mib"] > 20


def test_the_clips_that_prepare_makes_are_media(tmp_path):
    gather = run_path(str(SCRIPTS / "prepare.py"))["gather"]
    clips = gather(Namespace(media=None, clips=2, seconds=1.0), tmp_path)
    for video, sound in clips:
        assert len(read_frames(video, 8, 8, fps=None)) == 25 and len(read_audio(sound, 16000)) >= 16000
    assert len({video for video, _ in clips}) == 2


def test_input_prints_how_much_faster_it_is():
    pytest.importorskip("librosa", reason="needs the extra 'bench'")
    command = [SCRIPTS / "input.py", "--samples", "40", "--rounds", "1", "--shorter", "90", "--workers", "1"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rates = found["samples_a_second"]
    smaller = {"streaming of smaller", "dataloader of smaller"}
    assert set(rates) == {"resident", "streaming", "dataloader", *smaller}
    assert found["ratios"]["resident"] == rates["resident"] / rates["dataloader"] > 0
    compared = rates["streaming of smaller"] / rates["dataloader of smaller"]
    assert found["ratios"]["streaming of smaller"] == compared > 0
    assert 20_000 < found["jpeg_bytes"] < 90_000  # as its first lines say
    assert min(found["cpu_ms"].values()) > 0


def test_input_compares_few_and_many_samples():
    command = [SCRIPTS / "input.py", "--flat", "400", "--rounds", "1"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    costs = found["microseconds"]
    assert set(costs) == {"200", "400"} and found["ratio"] == costs["400"] / costs["200"] > 0


def test_packed_prints_the_time_of_a_column():
    command = [SCRIPTS / "packed.py", "--device", "cpu", "--at-once", "2"]
    command += ["--samples", "8", "--size", "32", "--bins", "33", "--epochs", "2"]
    done = python(*command, "--switches", "eager")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["at_once"] for row in found["rows"]] == [2]
    assert found["best"] == min(found["rows"], key=lambda row: row["minutes"])
    for row in found["rows"]:
        trained = 4 * 5 * 99 * 6698 / row["samples_per_second"]
        first = 20 / row["at_once"] * row["first_epoch_seconds"]
        assert row["minutes"] * 60 == pytest.approx(trained + first)
        assert 0 < row["input_share"] < 1 and row["first_epoch_seconds"] > 0
