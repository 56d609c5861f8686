"""`--log tensorboard`: what TensorBoard reads back is history.jsonl, each epoch once, and the run is the same."""

import json
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from run_folders import write_run
from test_resume import assert_same_run

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.event_log import event_log, points
from balancemm_cli.engine.launch import Job, run_job

DOCS = Path(__file__).parents[1] / "docs"
SMALL = ("epochs=3", "frames.size=16", "waveform.n_fft=32")


@pytest.fixture
def job(prepared, tmp_path):
    config = resolve("synthetic", method="opm+ogm", overrides=SMALL)
    return Job(config, prepared / "synthetic", tmp_path / "logged", device="cpu", log="tensorboard")


def train(job, until=None):
    run_job(replace(job, until=until), lambda *_: None, lambda _: None)
    return job.folder().path


def history(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def read_back(run):
    """By the name of a curve its points (epoch, value), as TensorBoard reads them; nothing is purged."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list((run / "tensorboard").iterdir())) == 1
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {
        name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]
    }


def expected(run, tested_on="test"):
    found = {}
    for record in history(run):
        for name, value in points(record, tested_on).items():
            found.setdefault(name, []).append((record["epoch"], float(np.float32(value))))
    return found


def test_the_names_are_the_keys_of_history():
    record = {
        "epoch": 4,
        "loss": 0.5,
        "lr": 1,
        "accuracy": {"val": 0.75, "test": 0.5},
        "unimodal": {"test": {"audio": 0.25, "test": 0.125}},
        "rho": {"audio": 2.0, "test": None},
    }
    common = {"loss": 0.5, "lr": 1, "rho/audio": 2.0}
    assert points(record) == common | {
        "accuracy/val": 0.75,
        "accuracy/test": 0.5,
        "unimodal/test/audio": 0.25,
        "unimodal/test/test": 0.125,
    }
    trial = {**record, "accuracy": {"test": 0.5}}
    assert points(trial, "val") == common | {
        "accuracy/val": 0.5,
        "unimodal/val/audio": 0.25,
        "unimodal/val/test": 0.125,
    }


def test_what_is_read_back_is_history_and_the_run_is_the_same(job, tmp_path):
    pytest.importorskip("tensorboard")
    logged = train(job)
    plain = train(replace(job, runs=tmp_path / "plain", log=None))
    assert not (plain / "tensorboard").exists()
    assert logged.relative_to(job.runs) == plain.relative_to(tmp_path / "plain")
    assert_same_run(logged, plain)
    found = read_back(logged)
    assert found == expected(logged)
    assert {len(curve) for curve in found.values()} == {3}
    modalities = {f"{kind}/{name}" for kind in ("rho", "q", "k") for name in ("audio", "visual")}
    of_splits = {f"{kind}/{split}" for kind in ("losses", "accuracy") for split in ("val", "test")}
    alone = {f"unimodal/{split}/{name}" for split in ("val", "test") for name in ("audio", "visual")}
    assert found.keys() == {"loss", "lr", *modalities, *of_splits, *alone}


def test_a_resumed_run_has_each_epoch_once(job):
    pytest.importorskip("tensorboard")
    run = train(job, until=1)
    assert [epoch for epoch, _ in read_back(run)["loss"]] == [0]
    # as a kill leaves it between the writing of history.jsonl and that of the checkpoint
    with (run / "history.jsonl").open("a") as file:
        file.write(json.dumps({**history(run)[0], "epoch": 1, "loss": 99.0}) + "\n")
    train(job, until=2)
    train(job)
    assert read_back(run) == expected(run)
    assert [epoch for epoch, _ in read_back(run)["loss"]] == [0, 1, 2]


def test_a_run_that_had_finished_is_written_from_its_history(job):
    pytest.importorskip("tensorboard")
    run = train(replace(job, log=None))
    train(job)
    train(job)
    assert read_back(run) == expected(run)


def test_many_runs_each_in_its_process(bmm, prepared, tmp_path):
    pytest.importorskip("tensorboard")
    places = ["--data", prepared, "--runs", tmp_path / "runs", "--device", "cpu"]
    settings = [word for one in SMALL for word in ("--set", one)]
    status, out, err = bmm(
        "train", *places, *settings, "--seeds", "0,1", "--jobs", "2", "--log", "tensorboard"
    )
    assert status == 0, err
    runs = [Path(line) for line in out.splitlines()]
    assert len(runs) == 2 and all(read_back(run) == expected(run) for run in runs)


def test_trials_say_that_they_are_of_validation_samples(bmm, prepared, tmp_path):
    """Trials of halving are trained in three parts."""
    pytest.importorskip("tensorboard")
    places = ["--data", prepared, "--runs", tmp_path / "runs", "--device", "cpu"]
    settings = [word for one in SMALL for word in ("--set", one)]
    search = ["--budget", "2", "--search", "halving", "--seeds", "0", "--log", "tensorboard"]
    status, _, err = bmm("tune", *places, *settings, *search)
    assert status == 0, err
    tested_on = {}
    for result in (tmp_path / "runs").rglob("result.json"):
        of = json.loads(result.read_text())["tested_on"]
        tested_on.setdefault(of, []).append(result.parent)
        assert read_back(result.parent) == expected(result.parent, of)
    assert len(tested_on["test"]) == 1 and len(tested_on["val"]) > 1
    assert not any("accuracy/test" in read_back(run) for run in tested_on["val"])


def test_an_error_leaves_the_files_of_another_training_alone(tmp_path):
    kept = tmp_path / "tensorboard" / "events.out.tfevents.1"
    kept.parent.mkdir()
    kept.write_bytes(b"")
    with pytest.raises(RuntimeError), event_log(tmp_path, "test"):
        raise RuntimeError
    assert kept.exists()


@pytest.mark.parametrize("command", ["train", "tune"])
def test_without_the_package_nothing_is_trained(bmm, prepared, tmp_path, monkeypatch, command):
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    runs = tmp_path / "runs"
    status, _, err = bmm(
        command, "--data", prepared, "--runs", runs, "--device", "cpu", "--log", "tensorboard"
    )
    said = "--log tensorboard needs tensorboard. Install it: pip install 'balancemm-cli[tensorboard]'."
    assert status == 3 and said in " ".join(err.split())
    assert not runs.exists()


# ---- what docs/tracking.md shows ------------------------------------------------------------------------------------


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """The blocks of the page by the package that they import, run in a folder with a run and a trial."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "runs", "opm")
    trial = write_run(tmp_path / "runs", "opm", seed=1) / "result.json"
    trial.write_text(json.dumps({**json.loads(trial.read_text()), "tested_on": "val"}))
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "tracking.md").read_text(), re.M | re.S)
    reading, wandb, mlflow = blocks
    names = {}
    exec(reading, names)
    return run, {"wandb": wandb, "mlflow": mlflow}, names


def of_history(run):
    return [(record["epoch"], points(record)) for record in history(run)]


def test_wandb_gets_the_numbers_of_history(shown, monkeypatch):
    """By a stand-in for its package."""
    run, blocks, names = shown
    logged, begun = [], []

    @contextmanager
    def init(project, id, name, resume):
        assert project and id == name and resume == "allow"
        begun.append(name)
        yield SimpleNamespace(log=lambda numbers, step: logged.append((step, numbers)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    exec(blocks["wandb"], names)
    assert begun == [run.name] and logged == of_history(run)


def test_mlflow_gets_the_numbers_of_history(shown, monkeypatch):
    """By a stand-in for its package."""
    run, blocks, names = shown
    logged, begun = [], []

    @contextmanager
    def start_run(run_name):
        begun.append(run_name)
        yield

    module = SimpleNamespace(
        start_run=start_run, log_metrics=lambda numbers, step: logged.append((step, numbers))
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    exec(blocks["mlflow"], names)
    assert begun == [run.name] and logged == of_history(run)
