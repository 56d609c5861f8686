"""One run over two processes (gloo): the numbers of one process, and no step lost that a checkpoint holds."""

import json
import multiprocessing
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager

import pyarrow as pa
import pytest
import torch
from small_training import attach
from test_resume import assert_same_run
from torch import nn

from balancemm_cli.config.run import OptimizerSettings, resolve
from balancemm_cli.data.transforms import LogSpectrogram, Numbers, Pictures
from balancemm_cli.engine import checkpoint, distributed
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import BmmError
from balancemm_cli.methods import METHODS, method_names
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SegmentShape, SequenceShape
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["balancemm_cli.engine.launch"])
LONGEST = 60  # seconds that a test waits for a process

# ---- two processes ------------------------------------------------------------------------------------------


def enter(rank, port, parent, function, args):
    """What torchrun does for a process, then `function`; its result, or the sentence it ends with, to the parent."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, 2, 2, "127.0.0.1", port)
    os.environ.update(zip(names, map(str, values), strict=True))
    torch.set_num_threads(1)
    try:
        with distributed.joined("cpu"):
            parent.send(("joined", None))
            # by value: torch would hand over its tensors by files of a process that has ended
            parent.send(("result", pickle.dumps(function(*args))))
    except (BmmError, KeyboardInterrupt) as error:
        parent.send(("error", (type(error).__name__, str(error))))
        os._exit(getattr(error, "exit_status", 130))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class Pair:
    """Two processes that run `function` together."""

    def __init__(self, function, *args):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ours, self.processes = [], []
        for rank in range(2):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=enter, args=(rank, port, theirs, function, args), daemon=True)
            process.start()
            theirs.close()
            self.ours.append(ours)
            self.processes.append(process)

    def wait_until_joined(self):
        """Wait until both know each other. Before that torchrun ends them, and nothing can be lost."""
        for ours in self.ours:
            assert ours.recv() == ("joined", None)

    def end(self):
        """What each process sent last, and its exit status, in bounded time."""
        last = [None, None]
        for rank, (ours, process) in enumerate(zip(self.ours, self.processes, strict=True)):
            try:
                while ours.poll(LONGEST):
                    last[rank] = ours.recv()
            except EOFError:
                pass
            process.join(LONGEST)
            if process.exitcode is None:
                process.kill()
                raise AssertionError(f"process {rank} hangs")
        return last, [process.exitcode for process in self.processes]

    def results(self):
        """The two results of `function`."""
        last, statuses = self.end()
        assert statuses == [0, 0], (last, statuses)
        return [pickle.loads(result) for _, result in last]


# ---- steps --------------------------------------------------------------------------------------------------

SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}
SECONDS = {
    "audio": SegmentShape(10, SequenceShape(1, width=6)),
    "visual": SegmentShape(10, SequenceShape(1, width=5, positions=4)),
}
SIZES = [7, 8, 1, 6, 5]  # of batches, over and over; of the batch of 1 one process gets nothing
CASES = [  # model, method, variant, modalities, whether all features are dropped often
    ("concat", "baseline", "paper", 2, False),
    ("concat", "opm", "paper", 2, False),
    ("concat", "ogm", "paper", 2, False),
    ("concat", "opm+ogm", "paper", 2, True),
    ("concat", "baseline", "paper", 3, False),
    ("concat", "opm", "official", 3, False),
    ("sum", "ogm", "official", 3, False),
    ("mlp", "opm+ogm", "paper", 3, True),
    ("concat", "opm+ogm", "official", 3, False),
    ("concat", "ogm-star+dropout+annealed-dropout+curriculum-dropout", "paper", 2, False),
    ("concat", "moddrop+evolutional-dropout+unimodal-losses", "paper", 3, False),
    ("vatt", "opm+ogm", "paper", 3, True),
    ("tsm", "opm+ogm", "paper", 2, False),
    ("i-vector", "ogm", "paper", 2, False),
    ("mwtsm", "opm+ogm", "paper", 3, False),
    ("concat", "g-blending", "paper", 2, False),
    ("concat", "greedy", "paper", 3, False),
    ("mlp", "agm", "paper", 3, False),
    ("concat", "pmr", "paper", 2, False),
    ("concat", "mmpareto", "paper", 2, False),
    ("centralnet", "opm+ogm+unimodal-losses", "paper", 3, True),
    ("mmtm", "opm+ogm", "paper", 3, True),
    ("avsd", "opm+ogm", "paper", 3, True),
    ("panoavqa", "opm+ogm", "paper", 3, False),
    ("concat", "opm+ogm+unimodal-losses", "paper", 3, True, "regression"),
    ("concat", "opm+ogm+unimodal-losses", "paper", 2, True, "localisation"),
    ("avga", "opm+ogm", "paper", 2, False, "localisation"),
    ("avsdn", "opm+ogm", "paper", 2, False, "localisation"),
    ("psp", "opm+ogm", "paper", 2, True, "localisation"),
]
SETTINGS = {"panoavqa": {"width": 64}}  # a small one


def media(count, task):
    """Raw modalities and labels of a batch; for localisation ten seconds of vectors."""
    generator = torch.Generator().manual_seed(count)
    if task == "localisation":
        return {
            "audio": torch.randn(count, 10, 1, 6, dtype=torch.float64, generator=generator),
            "visual": torch.randn(count, 10, 1, 4, 5, dtype=torch.float64, generator=generator),
        }, torch.randint(0, 4, (count, 10), generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    return {
        "audio": torch.randint(-3000, 3000, (count, 1500), dtype=torch.int16, generator=generator),
        "visual": torch.randint(0, 255, (count, 2, 20, 24, 3), dtype=torch.uint8, generator=generator),
        "text": torch.randn(count, 5, 3, dtype=torch.float64, generator=generator),
    }, labels - 1.5 if task == "regression" else labels


@contextmanager
def float64():
    """Training amplifies rounding: in float32 a process with other threads drifts as much as two processes do."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def take_steps(cases, steps=12):
    """Figures [steps, …] and the weights after them, of each case; raw media, augmented as in training."""
    with float64():
        return [_take_steps(steps, *case) for case in cases]


def _take_steps(steps, model, method, variant, modalities, emptied, task="classification"):
    names = list(SHAPES)[:modalities]
    shapes = SECONDS if task == "localisation" else {name: SHAPES[name] for name in names}
    classes = 1 if task == "regression" else 4
    network = build(model, "small", shapes, classes, seed=0, settings=SETTINGS.get(model))
    given = {"g-blending": {"weights": list(range(1, modalities + 2))}}
    if variant == "official":
        given["opm"] = {"first_epoch": 0}
    methods = [
        METHODS[part](
            METHODS[part].Settings(**{**METHODS[part].VARIANTS[variant], **given.get(part, {})}), names
        )
        for part in method_names(method)
    ]
    attach(network, methods, classes)
    distributed.synchronise_batch_norm(network)
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.01))
    transforms = {
        "audio": LogSpectrogram(8000, None, 64, 64, True, 1e-3),
        "visual": Pictures(16, True, True, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        "text": Numbers(),
    }
    if task == "localisation":
        transforms = dict.fromkeys(names, lambda values, *_: values)
    figures = []
    for index in range(steps):
        raw, labels = media(SIZES[index % len(SIZES)], task)
        mine = distributed.part(len(labels))
        epoch = index // 10
        draws = RandomStreams(0, epoch, index % 10, len(labels), mine.start)
        progress = torch.tensor(index / steps)
        step = Step(epoch, draws, labels[mine], progress, TASKS[task], total=distributed.total)
        if mine.stop > mine.start:
            inputs = {name: transforms[name](raw[name][mine], draws, name) for name in names}
        else:
            inputs = {name: transforms[name](raw[name])[:0] for name in names}
        if emptied:
            methods[0].q = torch.full((modalities,), 0.9)
        loss = train_step(network, methods, optimizer, inputs, step, DiscrepancySettings())
        kept = torch.tensor(len(labels)) if step.kept is None else step.kept
        shown = [loss[None], kept[None], step.discrepancy.rho, *step.metrics.values()]
        figures.append(torch.cat([values.double() for values in shown]))
    return torch.stack(figures), {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def both():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pair = Pair(take_steps, CASES)
    alone = take_steps(CASES)
    torch.set_num_threads(threads)
    return alone, pair.results()


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_two_processes_are_one(both, number):
    alone, (first, second) = both
    figures, weights = alone[number]
    for found, found_weights in (first[number], second[number]):
        torch.testing.assert_close(found, figures, rtol=1e-9, atol=1e-9)
        for name, value in weights.items():
            torch.testing.assert_close(found_weights[name], value, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(first[number][1][name], second[number][1][name]) for name in weights)
    if CASES[number][4]:
        assert (figures[:, 1] == 0).any() and (figures[:, 1] > 0).any()


def normalise(inputs, gradient):
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
    distributed.synchronise_batch_norm(norm)
    mine = distributed.part(len(inputs))
    own = inputs[mine].requires_grad_()
    for _ in range(2):
        norm.zero_grad()
        own.grad = None
        output = norm(own)
        output.backward(gradient[mine])
    sums = torch.stack([norm.weight.grad, norm.bias.grad])
    return output.detach(), own.grad, distributed.total(sums), norm.state_dict(), norm.eval()(own).detach()


@pytest.mark.parametrize("count", [1, 5])
def test_batch_norm_over_two_processes(count):
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 3, 4, 2, dtype=torch.float64, generator=generator) + 100
    gradient = torch.randn(inputs.shape, dtype=torch.float64, generator=generator)
    expected = normalise(inputs, gradient)
    first, second = Pair(normalise, inputs, gradient).results()
    for place in (0, 1, 4):
        torch.testing.assert_close(torch.cat([first[place], second[place]]), expected[place])
    for found in (first, second):
        torch.testing.assert_close(found[2], expected[2])
        torch.testing.assert_close(found[3], expected[3])


# ---- runs ---------------------------------------------------------------------------------------------------

UNEVEN = ["epochs=4", "batch_size=19", "frames.flip=true", "frames.crop=random-resized-crop"]


def job(prepared, runs, overrides=("epochs=3", "frames.flip=true"), **given):
    config = resolve("synthetic", method="opm+ogm", overrides=overrides, **given)
    return Job(config, prepared / "synthetic", runs, device="cpu", threads=1)


def train(job, pause=0.0, rest=0.0):
    """Train with a pause of so many seconds after each step, and a rest after each epoch."""

    def show(_, event):
        time.sleep(rest if "epoch" in event else pause)

    return run_job(job, show, lambda _: None)


def train_in_float64(job):
    with float64():
        return train(job)


def table(folder):
    return pa.ipc.open_file(folder / "steps.arrow").read_all().to_pandas()


def test_a_run_of_two_processes_has_the_numbers_of_one(prepared, tmp_path):
    """Shuffled real samples in batches of 19 out of 96, so that of the last one a process gets nothing."""
    one, two = (job(prepared, tmp_path / name, UNEVEN) for name in ("one", "two"))
    pair = Pair(train_in_float64, two)
    alone = train_in_float64(one)
    results = pair.results()
    assert results[0] == results[1]
    steps, found = table(one.folder().path), table(two.folder().path)
    assert len(steps) == 24 and (steps["kept"] == found["kept"]).all()
    assert (found - steps).abs().to_numpy().max() < 1e-9
    for name in ("last", "best-test", "best-val"):
        for figure in ("epoch", "accuracy", "unimodal"):
            assert results[0]["selections"][name][figure] == alone["selections"][name][figure]
    assert (alone["processes"], results[0]["processes"]) == (1, 2)
    environment = json.loads((two.folder().path / "environment.json").read_text())
    assert environment["processes"] == 2
    assert not list(tmp_path.rglob(".*.tmp"))


def test_what_is_fitted_before_training_is_that_of_one_process(prepared, tmp_path):
    overrides = ["epochs=1", "i-vector.components=4", "i-vector.rank=3"]
    one, two = (job(prepared, tmp_path / name, overrides, model="i-vector") for name in ("one", "two"))
    pair = Pair(train, two)
    alone = train(one)
    first, second = pair.results()
    assert first == second and first["selections"].keys() == alone["selections"].keys()
    states = [checkpoint.load_last(run.folder().path / "checkpoints")["network"] for run in (one, two)]
    for name in ("weights", "means", "variances", "subspace"):
        assert torch.equal(*(state[f"encoders.audio.{name}"] for state in states)), name


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    whole = job(prepared, tmp_path_factory.mktemp("whole"))
    Pair(train, whole).results()
    return whole.folder().path


def kill_and_finish(prepared, runs, uninterrupted, times):
    """Kill one of the two processes, `times` times at random moments, then let the run end."""
    killed, chance = job(prepared, runs), random.Random()
    seed = chance.randrange(2**32)
    print(f"moments drawn with seed {seed}")
    chance.seed(seed)
    for _ in range(times):
        pair = Pair(train, killed, 0.03)
        pair.wait_until_joined()
        victim = chance.randrange(2)
        time.sleep(chance.uniform(0, 1.2))
        pair.processes[victim].kill()
        killed_at = time.monotonic()
        last, statuses = pair.end()
        assert time.monotonic() - killed_at < 20
        if statuses == [0, 0]:  # the run had ended
            break
        assert statuses[victim] == -signal.SIGKILL, (last, statuses)
        assert statuses[1 - victim] == 3, (last, statuses)
        assert f"Process {1 - victim} lost the others of this run" in last[1 - victim][1][1]
    Pair(train, killed).results()
    assert_same_run(killed.folder().path, uninterrupted)
    assert not list(runs.rglob(".*.tmp"))


def test_a_killed_process_ends_the_others_and_no_epoch_is_lost(prepared, tmp_path, uninterrupted):
    kill_and_finish(prepared, tmp_path, uninterrupted, 2)


def test_asked_to_stop_in_one_process_stops_both_at_the_same_step(prepared, tmp_path, uninterrupted):
    stopped = job(prepared, tmp_path)
    pair = Pair(train, stopped, 0, 3)  # the signal finds it resting after its first epoch
    while not (stopped.folder().path / "history.jsonl").exists():
        time.sleep(0.02)
    pair.processes[1].terminate()
    last, statuses = pair.end()
    assert statuses == [130, 130]
    assert last[0][1][0] == "Interrupted" and "The state is kept" in last[0][1][1]
    assert last[1][1][0] == "OfFirstProcess"
    assert stopped.folder().result()["status"] == "interrupted"
    Pair(train, stopped).results()
    assert_same_run(stopped.folder().path, uninterrupted)


def test_a_diverging_run_ends_in_both_processes_and_one_says_so(prepared, tmp_path):
    wild = job(prepared, tmp_path, ["optimizer.lr=1e20", "epochs=2"])
    for _ in range(2):
        last, statuses = Pair(train, wild).end()
        assert statuses == [3, 3]
        assert "not finite in epoch 0" in last[0][1][1] and last[1][1][0] == "OfFirstProcess"


def test_machines_that_do_not_share_the_run_folder(tmp_path):
    last, statuses = Pair(find_checkpoint_of_own, tmp_path).end()
    assert statuses == [3, 3] and "find different checkpoints" in last[0][1][1]


def find_checkpoint_of_own(folder):
    distributed.check_same(("hash", distributed.rank(), 0), folder)


# ---- torchrun -----------------------------------------------------------------------------------------------


def torchrun(*args, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(processes), "-m", "balancemm_cli", "train", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, env=environment)


def test_torchrun(prepared, tmp_path):
    args = ["--data", prepared, "--runs", tmp_path, "--device", "cpu", "--set", "epochs=1"]
    ended = torchrun(*args, "--method", "opm")
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "synthetic" / "concat").iterdir()
    assert ended.stdout.strip() == str(folder)
    assert ended.stderr.count("epoch 1/1") == 1 and ended.stderr.count("finished") == 1
    assert json.loads((folder / "result.json").read_text())["processes"] == 2


def test_devices_of_processes(monkeypatch):
    assert distributed.device_name("cuda:1") == "cuda:1"  # without torchrun, as asked
    for name, value in (("RANK", 3), ("WORLD_SIZE", 4), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.device_name("auto") == distributed.device_name("cuda") == "cuda:1"
    assert distributed.device_name("cpu") == "cpu"
    with pytest.raises(BmmError, match="--device is auto, cpu or cuda"):
        distributed.device_name("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BmmError, match="2 processes on this machine need 2 GPUs"):
        distributed.device_name("auto")
