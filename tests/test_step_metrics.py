"""What is recorded of each step: every method's own columns, and no others; also of runs that were begun before."""

import json
import signal

import numpy as np
import pytest
import torch
from test_resume import assert_same_run

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.step_metrics import StepMetrics
from balancemm_cli.engine.trainer import Interrupted, train_run
from balancemm_cli.errors import UsageError
from balancemm_cli.methods import METHODS, Method
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.runs.reading import read_table

CPU = torch.device("cpu")
RESERVED = {"rho", "epoch", "loss", "lr", "losses", "accuracy", "unimodal"}  # other keys of history.jsonl


def test_no_two_methods_share_a_name():
    names = [name for method in METHODS.values() for name in method.METRICS]
    assert len(set(names)) == len(names) and not set(names) & RESERVED


def test_two_methods_that_record_one_name_are_refused():
    class One(Method):
        METRICS = ("q",)

    methods = [One(One.Settings(), ["audio"]), METHODS["opm"](METHODS["opm"].Settings(), ["audio"])]
    with pytest.raises(UsageError, match="Two methods of this run record 'q'"):
        StepMetrics(["audio", "visual"], methods, CPU)


def run_folder(prepared, runs, method):
    config = resolve("synthetic", method=method, overrides=["epochs=2", "frames.size=24", "batch_size=32"])
    return RunFolder(runs, config, open_set(prepared / "synthetic"))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_has_the_columns_of_its_own_methods_alone(prepared, tmp_path):
    for method, names in (("baseline", ["rho"]), ("agm+moddrop", ["rho", "kappa", "p"])):
        folder = run_folder(prepared, tmp_path, method)
        train_run(folder, CPU)
        columns = [f"{name}_{of}" for name in names for of in ("audio", "visual")]
        steps = read_table(folder.path / "steps.arrow")
        assert steps.column_names == ["epoch", "step", "loss", "kept", *columns]
        for epoch, line in enumerate((folder.path / "history.jsonl").read_text().splitlines()):
            record = json.loads(line)
            assert set(record) - RESERVED | {"rho"} == set(names)
            for name in names:
                mean = np.mean(steps[f"{name}_audio"].to_numpy()[3 * epoch : 3 * epoch + 3])
                assert record[name]["audio"] == pytest.approx(mean)


def interrupted(folder, steps):
    """Train so many steps of a run; the path of its last checkpoint."""
    seen = []

    def stop(event):
        seen.append(event)
        if len(seen) == steps:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train_run(folder, CPU, on_progress=stop)
    return checkpoint.checkpoints(folder.checkpoints)[-1]


@pytest.mark.usefixtures("one_thread")
def test_a_checkpoint_of_a_former_version_is_taken_up(prepared, tmp_path):
    whole, old = (run_folder(prepared, tmp_path / name, "agm+moddrop") for name in ("whole", "old"))
    train_run(whole, CPU)
    path = interrupted(old, 2)
    state = torch.load(path, weights_only=True)
    metrics = state.pop("step_metrics")

    def former(rows):  # loss, kept, rho, kappa, p became loss, kept, rho, q, k
        return torch.cat([rows[:, :4], rows[:, 6:8], rows[:, 4:6]], 1)

    state |= {"figures": former(metrics["current"]), "past_figures": list(map(former, metrics["past"]))}
    torch.save(state, path)
    train_run(old, CPU)
    assert_same_run(old.path, whole.path)


@pytest.mark.usefixtures("one_thread")
def test_what_a_former_version_did_not_record_is_absent(prepared, tmp_path):
    folder = run_folder(prepared, tmp_path, "pmr")
    path = interrupted(folder, 2)
    state = torch.load(path, weights_only=True)
    current = state.pop("step_metrics")["current"]
    torch.save(state | {"figures": torch.cat([current, current[:, 4:]], 1), "past_figures": []}, path)
    train_run(folder, CPU)
    records = [json.loads(line) for line in (folder.path / "history.jsonl").read_text().splitlines()]
    assert records[0]["beta"] == {"audio": None, "visual": None} and records[1]["beta"]["audio"] is not None
    beta = read_table(folder.path / "steps.arrow")["beta_audio"].to_numpy()
    assert np.isnan(beta[:2]).all() and not np.isnan(beta[2:]).any()
