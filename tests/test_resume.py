"""A run that is killed or interrupted goes on and ends bit for bit where an uninterrupted one ends."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
import torch
from media_files import enlarge, small_disk

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import PRELOADED, checkpoint, trainer
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.trainer import Interrupted
from balancemm_cli.errors import InputError, os_error_sentence

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)
SMALL = ("frames.size=16", "waveform.n_fft=32")  # inputs with which an epoch takes half the time


def job(prepared, runs):
    config = resolve("synthetic", method="opm+ogm", overrides=("frames.flip=true", "epochs=5", *SMALL))
    return Job(config, prepared / "synthetic", runs, device="cpu", threads=1)


def train(job, steps=None):
    run_job(job, lambda _, event: steps.send(event) if steps else None, lambda _: None)


def train_in_child(job, steps):
    try:
        train(job, steps)
    except Interrupted:
        os._exit(130)


def start(job):
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=train_in_child, args=(job, theirs))
    process.start()
    theirs.close()
    return process, ours


def assert_same_run(one, two, status="finished"):
    at_end = ("predictions.arrow",) if status == "finished" else ()
    for name in ("history.jsonl", "steps.arrow", "config.toml", *at_end):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    assert results[0].pop("time") and results[1].pop("time")
    assert results[0] == results[1] and results[0]["status"] == status
    states = [checkpoint.load_last(folder / "checkpoints") for folder in (one, two)]
    for state in states:
        state.pop("seconds")
    assert_equal(*states)


def assert_equal(one, two):
    assert type(one) is type(two)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_equal(a, b)
    else:
        assert one == two


def finish(job):
    process, _ = start(job)
    process.join()
    assert process.exitcode == 0
    return job.folder().path


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    return finish(job(prepared, tmp_path_factory.mktemp("whole")))


@pytest.mark.long
def test_killed_five_times(prepared, tmp_path, uninterrupted):
    killed, chance = job(prepared, tmp_path), random.Random()
    seed = chance.randrange(2**32)
    print(f"moments drawn with seed {seed}")
    chance.seed(seed)
    for _ in range(5):
        process, steps = start(killed)
        for _ in range(chance.randint(1, 4)):
            steps.recv()
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert_same_run(finish(killed), uninterrupted)
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_keeps_the_step(prepared, tmp_path, uninterrupted, number):
    stopped = job(prepared, tmp_path)
    process, steps = start(stopped)
    for _ in range(5):  # three steps and an epoch's record, then one step of the second epoch
        steps.recv()
    os.kill(process.pid, number)
    process.join()
    folder = stopped.folder()
    if process.exitcode:  # else it had ended before the signal came
        assert process.exitcode == 130
        assert folder.result()["status"] == "interrupted"
    process, _ = start(stopped)
    process.join()
    assert_same_run(folder.path, uninterrupted)


def test_a_stop_within_an_epoch_resumes_at_that_step(prepared, tmp_path, uninterrupted):
    stopped, seen = job(prepared, tmp_path), []

    def interrupt(_, event):
        seen.append(event)
        if len(seen) == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="epoch 1 at step 2"):
        torch.set_num_threads(1)
        run_job(stopped, interrupt, lambda _: None)
    assert checkpoint.load_last(stopped.folder().checkpoints)["step"] == 2
    assert_same_run(finish(stopped), uninterrupted)


def test_a_finished_run_is_not_trained_again(prepared, uninterrupted):
    runs = uninterrupted.parents[2]
    before = (uninterrupted / "result.json").stat().st_mtime_ns
    train(job(prepared, runs))
    assert (uninterrupted / "result.json").stat().st_mtime_ns == before


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def flip(path):
    """Change one bit of the weights: the archive stays readable, its checksum tells."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other(path):
    torch.save({"network": torch.zeros(3)}, path)


@pytest.fixture(scope="module")
def interrupted(prepared, tmp_path_factory):
    """The folder of runs with one that was stopped in its third epoch."""
    runs, seen = tmp_path_factory.mktemp("interrupted"), []

    def interrupt(_, event):
        seen.append(event)
        if len(seen) == 10:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run_job(job(prepared, runs), interrupt, lambda _: None)
    return runs


@pytest.mark.parametrize("damage", [cut, flip, other])
def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(
    prepared, tmp_path, interrupted, uninterrupted, damage
):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    damaged = job(prepared, tmp_path)
    folder = damaged.folder()
    found = checkpoint.checkpoints(folder.checkpoints)
    assert len(found) == 2
    damage(found[-1])
    with pytest.raises(InputError, match=f"{found[-1].name} is damaged. Delete it"):
        checkpoint.load_last(folder.checkpoints)  # as `bmm eval` does, which must not take another one
    events = []
    run_job(damaged, lambda _, event: events.append(event), lambda _: None)
    warning = f"Checkpoint {found[-1]} is damaged; going on from {found[0].name}, the one before."
    assert [event["warning"] for event in events if "warning" in event] == [warning]
    assert_same_run(folder.path, uninterrupted)


def test_without_a_whole_checkpoint_nothing_is_trained(prepared, tmp_path, uninterrupted):
    shutil.copytree(uninterrupted.parents[2], tmp_path, dirs_exist_ok=True)
    damaged = job(prepared, tmp_path)
    folder = damaged.folder()
    result = json.loads((folder.path / "result.json").read_text()) | {"status": "interrupted"}
    (folder.path / "result.json").write_text(json.dumps(result))
    for path in checkpoint.checkpoints(folder.checkpoints):
        cut(path)
    with pytest.raises(
        InputError, match=r"Every checkpoint in .* Delete the folder .*\+ogm-paper-s0-.{8} to train"
    ):
        train(damaged)
    assert folder.result() == result


def test_other_settings_in_the_run_folder_are_refused(prepared, tmp_path):
    mine = job(prepared, tmp_path)
    folder = mine.folder()
    with folder.open():
        pass
    path = folder.path / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("seed = 0", "seed = 1"))
    with pytest.raises(InputError, match="holds other settings"):
        train(mine)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=r"config\.toml (is not valid TOML|holds other settings)"):
        train(mine)
    path.write_text(text)
    with folder.open(), pytest.raises(InputError, match="being trained by another process"):
        train(mine)


def test_a_disk_that_fills_up(prepared, tmp_path, uninterrupted):
    with small_disk(tmp_path / "disk", 2**19) as disk:
        full = job(prepared, disk)
        for _ in range(2):
            with pytest.raises(OSError) as raised:
                train(full)
            assert raised.value.errno == errno.ENOSPC
            assert os_error_sentence(raised.value).startswith(f"No space left on the disk for {disk}")
            assert not list(full.folder().checkpoints.glob(".*"))
        enlarge(disk)
        process, _ = start(full)
        process.join()
        assert_same_run(full.folder().path, uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_run(prepared, tmp_path):
    config = resolve("synthetic", overrides=["optimizer.lr=1e20", "epochs=2"])
    wild = Job(config, prepared / "synthetic", tmp_path, device="cpu")
    for _ in range(2):  # the second time it is said at once
        with pytest.raises(InputError, match=r"not finite in epoch 0 at step \d.*lower optimizer\.lr"):
            train(wild)
    assert wild.folder().result()["status"] == "diverged"


def test_epochs_that_take_less_than_their_writing_are_not_each_written(
    prepared, tmp_path, monkeypatch, uninterrupted
):
    """The first and the last one, and what was done when it is stopped; the run is the same."""
    monkeypatch.setattr(trainer, "SAVING", 1e-9)
    seldom, written = job(prepared, tmp_path), []

    def look(_, event):
        if "epoch" in event:
            written.append(len((seldom.folder().path / "history.jsonl").read_text().splitlines()))
        if len(written) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run_job(seldom, look, lambda _: None)
    assert written == [1, 1, 1]
    assert len((seldom.folder().path / "history.jsonl").read_text().splitlines()) == 3
    train(seldom)
    assert_same_run(seldom.folder().path, uninterrupted)
