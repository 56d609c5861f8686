"""The switches of a step: what is compiled, skipped, refused and recorded.

That each trains as float32 eager does is held for methods and models by balancemm_cli/testing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from warm_python import python

from balancemm_cli.config.run import read_config, resolve
from balancemm_cli.engine.launch import Job, check_jobs, run_job
from balancemm_cli.engine.profiling import Profile
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods.ogm import deviations
from balancemm_cli.testing.small import Case, Training, assert_close, trained

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The networks are tiny: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own imports
def test_it_trains_with_generated_code():
    """The contract of methods and models traces alone, for a compilation takes its time."""
    torch.compiler.reset()
    case = Case(method="opm+ogm", shapes="vectors")
    assert_close(trained(case, "speed.compile=true", steps=3), trained(case, steps=3), 1e-3)
    torch.compiler.reset()


def with_a_lost_batch(lost, *switches, left_out=False):
    """A training of five steps, of which one has an input that is not a number, or is left out."""
    training = Training(Case(method="ogm", shapes="vectors"), *switches)
    losses = []
    for index in range(5):
        if left_out and index == lost:
            continue
        inputs, labels = training.batch(index)
        if index == lost:
            inputs["audio"][0] = float("nan")
        losses.append(training.train(index, inputs, labels)[0])
    return losses, dict(training.network.named_parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_skipped_update_changes_nothing(optimizer):
    """The first update, and one later: weights, weight decay, momentum and step counts are those of a training that
    never met the lost batch."""
    for lost in (0, 3):
        losses, weights = with_a_lost_batch(lost, f"optimizer.name={optimizer}")
        assert not losses[lost].isfinite()
        _, expected = with_a_lost_batch(lost, f"optimizer.name={optimizer}", left_out=True)
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


# ---- settings, records, messages ----------------------------------------------------------------------------


def test_what_cannot_work_is_refused(prepared, tmp_path, monkeypatch):
    config = resolve("synthetic", overrides=["speed.compile=true"])
    with pytest.raises(UsageError, match="too little for a method of this run"):
        Training(Case(method="mmpareto"), "speed.compile=true")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        check_jobs([Job(config, prepared / "synthetic", tmp_path, device="cpu")])


def test_a_config_of_a_former_version_is_read_where_its_other_switches_were_off(tmp_path):
    config = resolve("synthetic")
    path = tmp_path / "config.toml"
    former = config.to_toml().replace("[speed]\n", '[speed]\ncuda_graphs = false\noptimizer = "fused"\n')
    path.write_text(former)
    assert "cuda_graphs" in former and read_config(path) == config
    path.write_text(former.replace("cuda_graphs = false", "cuda_graphs = true"))
    with pytest.raises(UsageError, match=r"There is no key '.*speed\.cuda_graphs'"):
        read_config(path)


def test_a_run_records_its_switches_and_says_where_its_time_went(prepared, tmp_path):
    overrides = ["epochs=1", "batch_size=32", "speed.amp=true", "speed.channels_last=true"]
    config = resolve("synthetic", method="opm+ogm", overrides=overrides)
    job = Job(config, prepared / "synthetic", tmp_path, device="cpu", threads=1, profile=True)
    said = []
    result = run_job(job, lambda *_: None, said.append)
    assert result["speed"] == {"amp": True, "channels_last": True, "compile": False}
    assert "[speed]" in (job.folder().path / "config.toml").read_text()
    report = said[-1]
    assert "2 steps" in report
    for part in ("input", "forward", "modulation", "backward", "optimiser", "evaluation"):
        assert part in report


def test_a_profile_adds_up(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    profile = Profile(CPU)
    for name in ["input", "forward", "input", "forward", "forward", "input", "evaluation"]:
        profile.mark(name)
    assert profile.seconds() == {"input": 2, "forward": 2, "evaluation": 1} and profile.steps == 2
    assert "40.0 %" in profile.report() and "2500.00 ms" in profile.report()
    assert "fewer than 2 steps" in Profile(CPU).report()


def test_deviations_are_those_of_torch():
    values = [torch.randn(64, 3, 7, 7) + 1, 1e-4 * torch.randn(40, 9), torch.zeros(5, 5), torch.ones(1, 1)]
    found = deviations(values)
    for mine, given in zip(found[:3], values[:3], strict=True):
        assert mine.item() == pytest.approx(given.std().item(), rel=1e-4)
    assert found[3] == 0


def test_the_step_benchmark_runs_small():
    script = Path(__file__).parents[1] / "benchmarks" / "performance" / "step.py"
    command = [script, "--steps", "2", "--warmup", "1", "--batches", "2", "--device", "cpu"]
    command += ["--size", "32", "--spectrogram", "33", "32", "--switches", "eager", "amp+channels_last"]
    done = python(*command, "--methods", "opm+ogm")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["switches"] for row in found["rows"]] == ["eager", "amp+channels_last"]
    for row in found["rows"]:
        assert row["samples_per_second"] > 0 and row["share_of_peak"] is None
        epochs = 4 * 5 * 100 * (6698 + 744 / 3) / row["samples_per_second"] / 60
        assert row["table_12_minutes"] == pytest.approx(epochs)
