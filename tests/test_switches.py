"""The switches of a step: what is compiled, captured, skipped, refused and recorded.

That each trains as float32 eager does is held for methods and models by balancemm_cli/testing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from warm_python import python

from balancemm_cli.config.recipe import SpeedSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.acceleration import Stepper, check_speed
from balancemm_cli.engine.launch import Job, check_jobs, run_job
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.profiling import Profile
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.ogm import deviations
from balancemm_cli.models import build
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.testing.guards import captured_on_the_cpu
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


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own imports
def test_it_trains_with_generated_code():
    """The contract of methods and models traces alone, for a compilation takes its time."""
    torch.compiler.reset()
    case = Case(method="opm+ogm")
    assert_close(trained(case, "speed.compile=true", steps=3), trained(case, steps=3), 1e-3)
    torch.compiler.reset()


def with_a_lost_batch(lost, *switches):
    """A training of five steps, of which one has an input that is not a number."""
    training = Training(Case(method="ogm"), *switches)
    losses = []
    for index in range(5):
        inputs, labels = training.batch(index)
        if index == lost:
            inputs["audio"][0] = float("nan")
        losses.append(training.train(index, inputs, labels)[0])
    return losses, dict(training.network.named_parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_skipped_update_changes_nothing_in_either_form(optimizer):
    """The first update, and one later; weight decay, momentum and step counts stand still as well."""
    for lost in (0, 3):
        both = [
            with_a_lost_batch(lost, f"optimizer.name={optimizer}", f"speed.optimizer={form}")
            for form in ("fused", "foreach")
        ]
        for losses, weights in both:
            assert not losses[lost].isfinite()
            assert all(value.isfinite().all() for value in weights.values() if value.ndim == 4)
        for name, value in both[0][1].items():
            if value.ndim == 4:
                torch.testing.assert_close(value, both[1][1][name], rtol=1e-4, atol=1e-5)


# ---- a captured step, on the CPU: what it launched is launched again ----------------------------------------


def test_a_new_learning_rate_is_captured_anew():
    with captured_on_the_cpu() as recorder:
        config = resolve("crema-d", overrides=["batch_size=2", "speed.cuda_graphs=true"])
        network = build("concat", "small", {"audio": 1, "visual": 3}, 4, seed=0)
        optimizer = build_optimizer(network, config.settings.optimizer)
        stepper = Stepper(network, [], optimizer, config.settings)
        inputs = {"audio": torch.randn(2, 1, 16, 16), "visual": torch.randn(2, 3, 16, 16)}
        for index in range(9):
            if index == 5:
                optimizer.param_groups[0]["lr"] = 1e-9
                before = {name: weight.clone() for name, weight in network.named_parameters()}
                for state in optimizer.state.values():
                    state["momentum_buffer"].zero_()
            stepper(inputs, Step(0, RandomStreams(0, 0, index), torch.tensor([0, 1])))
    assert recorder.captures == 2
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-5)


# ---- settings, records, messages ----------------------------------------------------------------------------


def test_what_cannot_work_is_refused(prepared, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="needs a GPU"):
        check_speed(SpeedSettings(cuda_graphs=True), CPU)
    config = resolve("synthetic", overrides=["speed.cuda_graphs=true"])
    with pytest.raises(UsageError, match="needs a GPU"):
        check_jobs([Job(config, prepared / "synthetic", tmp_path, device="cpu")])
    with pytest.raises(UsageError, match="a method of this run needs it twice"):
        Training(Case(method="mmpareto"), "speed.compile=true")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        check_speed(SpeedSettings(compile=True), CPU)
    with pytest.raises(UsageError, match=r"speed\.optimizer"):
        resolve("synthetic", overrides=["speed.optimizer=slow"])


def test_a_run_records_its_switches_and_says_where_its_time_went(prepared, tmp_path):
    overrides = ["epochs=1", "batch_size=32", "speed.amp=true", "speed.channels_last=true"]
    config = resolve("synthetic", method="opm+ogm", overrides=overrides)
    job = Job(config, prepared / "synthetic", tmp_path, device="cpu", threads=1, profile=True)
    said = []
    result = run_job(job, lambda *_: None, said.append)
    assert result["speed"] == {
        "amp": True,
        "channels_last": True,
        "compile": False,
        "cuda_graphs": False,
        "optimizer": "fused",
    }
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
