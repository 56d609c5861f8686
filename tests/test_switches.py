"""The switches of a step: each trains as float32 eager does, and a captured step repeats itself exactly."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from small_training import attach
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from balancemm_cli.config.run import SpeedSettings, resolve
from balancemm_cli.engine import acceleration
from balancemm_cli.engine.acceleration import Stepper, arrange, check_speed
from balancemm_cli.engine.launch import Job, check_jobs, run_job
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.profiling import Profile
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods import ogm
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.ogm import deviations
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SegmentShape, SequenceShape
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

METHODS = ["baseline", "opm", "ogm", "opm+ogm", "g-blending", "greedy", "agm", "pmr", "mmpareto"]
MORE_METHODS = ["ogm-star+moddrop+annealed-dropout+evolutional-dropout+unimodal-losses"]
CLIPS = {"audio": 1, "visual": 3}
CASES = {  # of each task: models, and what their encoders get
    "classification": (["concat"], CLIPS),
    "localisation": (
        ["concat", "avga", "avsdn", "psp"],
        {name: SegmentShape(10, of) for name, of in CLIPS.items()},
    ),
    "question-answering": (["avsd"], {**CLIPS, "question": SequenceShape(5, words=9)}),
    "regression": (["concat"], CLIPS),
}
OTHER_TASKS = [(task, model) for task in list(CASES)[1:] for model in CASES[task][0]]
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The networks are tiny: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(size, task, generator):
    """Inputs and labels of a batch, of which the sound tells the label."""
    seconds = (10,) if task == "localisation" else ()
    labels = torch.randint(4, (size, *seconds), generator=generator)
    inputs = {
        "audio": torch.randn(size, *seconds, 1, 17, 16, generator=generator) + labels[..., None, None, None],
        "visual": torch.randn(size, *seconds, 3, 1 if seconds else 2, 16, 16, generator=generator),
    }
    if task == "question-answering":
        inputs["question"] = torch.randint(1, 9, (size, 5), generator=generator)
    return inputs, labels - 1.5 if task == "regression" else labels


def train(
    method,
    *switches,
    device="cpu",
    steps=6,
    variant="paper",
    lose_batch=None,
    task="classification",
    model="concat",
):
    """Train on batches of 6, the last of 4; returns the weights and each step's loss, ρ, q and k."""
    overrides = ["batch_size=6", "opm.first_epoch=0", "optimizer.lr=0.01", f"task={task}", *switches]
    overrides += ["g-blending.weights=[0.2, 0.3, 0.5]", "greedy.first_epoch=0"]
    config = resolve("crema-d", method=method, variant=variant, overrides=overrides)
    recipe = config.settings
    _, shapes = CASES[task]
    classes = 1 if task == "regression" else 4
    network = build(model, "small", shapes, classes, seed=0)
    methods = config.build_methods(list(shapes))
    attach(network, methods, classes)
    network = arrange(network.to(device), recipe.speed)
    optimizer = build_optimizer(network, recipe.optimizer, recipe.speed)
    stepper = Stepper(network, methods, optimizer, recipe)
    generator = torch.Generator().manual_seed(0)
    figures = []
    for index in range(steps):
        size = 4 if index == steps - 1 else 6
        inputs, labels = batch(size, task, generator)
        if index == lose_batch:
            inputs["audio"][0] = float("nan")
        inputs = {name: values.to(device) for name, values in inputs.items()}
        progress = torch.full((), index / steps, device=device)
        loss, step = stepper(
            inputs, Step(0, RandomStreams(0, 0, index), labels.to(device), progress, TASKS[task])
        )
        found = [loss[None], step.discrepancy.rho, *step.metrics.values()]
        assert all(figure.dtype == torch.float32 for figure in found)
        figures.append(torch.cat(found).cpu())
    return {name: value.cpu().clone() for name, value in network.state_dict().items()}, figures


def assert_close(one, two, tolerance):
    for mine, other in zip(one[1], two[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    for name, weights in one[0].items():
        torch.testing.assert_close(weights, two[0][name], rtol=tolerance, atol=tolerance)


def assert_same(one, two):
    assert_close(one, two, 0)


@pytest.mark.parametrize(
    ("method", "task", "model"),
    [
        *((method, "classification", "concat") for method in METHODS),
        *(("opm+ogm", *one) for one in OTHER_TASKS),
    ],
)
def test_switches_train_as_eager_float32_does(method, task, model):
    run = partial(train, method, task=task, model=model)
    eager = run()
    assert_close(run("speed.optimizer=foreach"), eager, 1e-5)
    assert_close(run("speed.channels_last=true"), eager, 1e-3)
    few, amp = run(steps=3), run("speed.amp=true", steps=3)
    assert_close(amp, few, 0.1)
    assert not torch.equal(amp[1][0], few[1][0])  # bf16 was in use


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own imports
def test_all_methods_train_compiled(monkeypatch):
    """One with generated code, the others with the traced graphs alone, for a compilation takes its time."""
    torch.compiler.reset()
    assert_close(train("opm+ogm", "speed.compile=true", steps=3), train("opm+ogm", steps=3), 1e-3)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for method in METHODS[:3]:
        assert_close(train(method, "speed.compile=true", steps=3), train(method, steps=3), 1e-3)
    for task, model in OTHER_TASKS:
        run = partial(train, "opm+ogm", task=task, model=model, steps=3)
        assert_close(run("speed.compile=true"), run(), 1e-3)
    torch.compiler.reset()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_skipped_update_changes_nothing_in_either_form(optimizer):
    """The first update, and one later; weight decay, momentum and step counts stand still as well."""
    for lost in (0, 3):
        both = [
            train("ogm", f"optimizer.name={optimizer}", f"speed.optimizer={form}", steps=5, lose_batch=lost)
            for form in ("fused", "foreach")
        ]
        for weights, figures in both:
            assert not figures[lost][0].isfinite()
            convolutions = [value for name, value in weights.items() if value.ndim == 4]
            assert all(value.isfinite().all() for value in convolutions)
        names = [name for name, value in both[0][0].items() if value.ndim == 4]
        for name in names:
            torch.testing.assert_close(both[0][0][name], both[1][0][name], rtol=1e-4, atol=1e-5)


# ---- a captured step, on the CPU: what it launched is launched again ----------------------------------------


class Recording(TorchDispatchMode):
    """Keeps every operation with its tensors, as a CUDA graph does; `undo` takes back what was computed."""

    def __init__(self):
        super().__init__()
        self.operations, self.before, self.made = [], {}, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for storage in storages((args, kwargs)):
            if storage.data_ptr() not in self.before.keys() | self.made:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        self.made |= {storage.data_ptr() for storage in storages(result)} - self.before.keys()
        return result

    def undo(self):
        for storage, content in self.before.values():
            storage.copy_(content)


def storages(values):
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def tensors(result):
    found = result if isinstance(result, list | tuple) else [result]
    return [value for value in found if isinstance(value, torch.Tensor)]


class CPURecorder:
    """Stands in for acceleration.Recorder."""

    captures = replays = 0

    def run(self, function):
        return function()

    def record(self, function, generators):
        type(self).captures += 1
        with Recording() as recording:
            result = function()
        recording.undo()

        def replay():
            type(self).replays += 1
            with torch.no_grad():
                for operation, args, kwargs, old in recording.operations:
                    new = operation(*args, **kwargs)
                    for before, after in zip(tensors(old), tensors(new), strict=True):
                        if before.data_ptr() != after.data_ptr():
                            before.copy_(after)

        return result, replay


class Serial(Executor):
    def __init__(self, *_):
        pass

    def submit(self, function, *args):
        done = Future()
        done.set_result(function(*args))
        return done


@contextmanager
def capturing_on_the_cpu(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(acceleration, "Recorder", CPURecorder)
        patch.setattr(ogm, "ThreadPoolExecutor", Serial)
        CPURecorder.captures = CPURecorder.replays = 0
        yield CPURecorder


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("method", METHODS + MORE_METHODS)
def test_a_captured_step_equals_the_eager_one(method, variant, monkeypatch):
    eager = train(method, steps=9, variant=variant)
    with capturing_on_the_cpu(monkeypatch) as recorder:
        captured = train(method, "speed.cuda_graphs=true", steps=9, variant=variant)
    assert_same(captured, eager)
    # the official OPM drops in some steps only, and the paper's needs a first q: a graph each
    assert recorder.captures == (2 if variant == "official" and "opm" in method else 1)
    assert recorder.replays >= 4


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # torch's, on leaving its own flags
@pytest.mark.parametrize(("task", "model"), OTHER_TASKS)
def test_a_captured_step_of_each_task_equals_the_eager_one(task, model, monkeypatch):
    run = partial(train, "opm+ogm", task=task, model=model, steps=9)
    # oneDNN's LSTM keeps nothing for its backward when it is launched again without gradients
    with torch.backends.mkldnn.flags(enabled=False), capturing_on_the_cpu(monkeypatch) as recorder:
        eager, captured = run(), run("speed.cuda_graphs=true")
    assert_same(captured, eager)
    assert recorder.captures == 1 and recorder.replays >= 4


def test_a_new_learning_rate_is_captured_anew(monkeypatch):
    with capturing_on_the_cpu(monkeypatch) as recorder:
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


@needs_gpu
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("method", METHODS)
def test_cuda_graphs_equal_eager_steps_on_a_gpu(method, variant):
    eager = train(method, device="cuda", steps=12, variant=variant)
    graphs = train(method, "speed.cuda_graphs=true", device="cuda", steps=12, variant=variant)
    assert_close(graphs, eager, 1e-3)
    everything = ["amp", "channels_last", "compile", "cuda_graphs"]
    switches = [f"speed.{name}=true" for name in everything]
    assert_close(train(method, *switches, device="cuda", steps=12, variant=variant), eager, 0.2)


# ---- settings, records, messages ----------------------------------------------------------------------------


def test_what_cannot_work_is_refused(prepared, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="needs a GPU"):
        check_speed(SpeedSettings(cuda_graphs=True), CPU)
    config = resolve("synthetic", overrides=["speed.cuda_graphs=true"])
    with pytest.raises(UsageError, match="needs a GPU"):
        check_jobs([Job(config, prepared / "synthetic", tmp_path, device="cpu")])
    with pytest.raises(UsageError, match="a method of this run needs it twice"):
        train("mmpareto", "speed.compile=true")
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
    command = [
        sys.executable,
        str(script),
        "--steps",
        "2",
        "--warmup",
        "1",
        "--batches",
        "2",
        "--device",
        "cpu",
    ]
    command += ["--size", "32", "--spectrogram", "33", "32", "--switches", "eager", "amp+channels_last"]
    done = subprocess.run([*command, "--methods", "opm+ogm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["switches"] for row in found["rows"]] == ["eager", "amp+channels_last"]
    for row in found["rows"]:
        assert row["samples_per_second"] > 0 and row["share_of_peak"] is None
        epochs = 4 * 5 * 100 * (6698 + 744 / 3) / row["samples_per_second"] / 60
        assert row["table_12_minutes"] == pytest.approx(epochs)
