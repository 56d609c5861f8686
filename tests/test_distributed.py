"""One run over two processes (gloo): the numbers of one process, and no step lost that a checkpoint holds.

That the steps of methods and models are those of one process is held by balancemm_cli/testing."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
import torch
from test_resume import SMALL, assert_same_run
from torch import nn

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint, distributed
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.errors import BmmError
from balancemm_cli.testing.processes import Pair, float64

# ---- batch normalisation ------------------------------------------------------------------------------------


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

UNEVEN = ["epochs=2", "batch_size=19", "frames.flip=true", "frames.crop=random-resized-crop"]


def job(prepared, runs, overrides=("epochs=3", "frames.flip=true"), **given):
    given = {"method": "opm+ogm", **given}
    config = resolve("synthetic", overrides=[*overrides, *SMALL], **given)
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
    assert len(steps) == 12 and (steps["kept"] == found["kept"]).all()
    assert (found - steps).abs().to_numpy().max() < 1e-9
    for name in ("last", "best-test", "best-val"):
        for figure in ("epoch", "accuracy", "unimodal"):
            assert results[0]["selections"][name][figure] == alone["selections"][name][figure]
    assert (alone["processes"], results[0]["processes"]) == (1, 2)
    environment = json.loads((two.folder().path / "environment.json").read_text())
    assert environment["environments"][-1]["processes"] == 2
    assert not list(tmp_path.rglob(".*.tmp"))


def in_one_and_in_two(prepared, folder, overrides, **given):
    """The jobs of the same training by one process and by two, which are over, and what each recorded of its steps."""
    one, two = (job(prepared, folder / name, overrides, **given) for name in ("one", "two"))
    pair = Pair(train_in_float64, two)
    train_in_float64(one)
    pair.results()
    return one, two, table(one.folder().path), table(two.folder().path)


@pytest.mark.long
def test_what_is_measured_before_each_epoch_is_that_of_one_process(prepared, tmp_path):
    """Prototypes of PMR from two batches of 19 samples out of 96, of which each process takes its part."""
    given = {"method": "pmr", "variant": "official", "overrides": [*UNEVEN, "pmr.share=0.4"]}
    one, two, steps, found = in_one_and_in_two(prepared, tmp_path, **given)
    assert steps[["beta_audio", "beta_visual"]].to_numpy().any()
    assert (found - steps).abs().to_numpy().max() < 1e-9
    states = [checkpoint.load_last(of.folder().checkpoints)["methods"] for of in (one, two)]
    torch.testing.assert_close(*states, rtol=1e-9, atol=1e-9)


@pytest.mark.long
def test_encoders_go_back_as_in_one_process(prepared, tmp_path):
    """Features of all samples are clustered, of which each process has its part."""
    given = {"method": "relearning", "variant": "official"}
    overrides = [*UNEVEN, "epochs=3", "relearning.period=1"]
    *_, steps, found = in_one_and_in_two(prepared, tmp_path, overrides, **given)
    assert steps[["alpha_audio", "alpha_visual"]].to_numpy().any()
    assert (found - steps).abs().to_numpy().max() < 1e-9


@pytest.mark.long
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
        pair = Pair(train, killed, 0.1)
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
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * Pair.longest, env=environment)


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


@pytest.mark.long
def test_samples_are_drawn_again_as_in_one_process(prepared, tmp_path):
    """Each process values its part of the samples, and all choose the same ones."""
    given = {"method": "smv", "model": "concat"}
    overrides = [*UNEVEN, "epochs=2", "smv.warmup=1"]
    *_, steps, found = in_one_and_in_two(prepared, tmp_path, overrides, **given)
    assert (steps["epoch"] == 1).sum() > (steps["epoch"] == 0).sum()
    assert found.shape == steps.shape and (found - steps).abs().to_numpy().max() < 1e-9
