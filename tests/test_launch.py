"""Many runs on one machine: what fails, what is said of it, and what goes on all the same."""

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from rich.console import Console
from test_resume import assert_same_run

from balancemm_cli.cli.runs_table import RunsTable
from balancemm_cli.config.run import resolve
from balancemm_cli.config.suites import load_suite
from balancemm_cli.data.preparing.workers import cores
from balancemm_cli.engine import checkpoint, launch
from balancemm_cli.engine.launch import Job, Outcome, deal_device, death, run_job
from balancemm_cli.errors import InputError
from balancemm_cli.results.statistics import summarize
from balancemm_cli.results.verdicts import decide, opened
from balancemm_cli.testing.sets import tiny_set

ORDINARY = """
[[runs]]
datasets = ["synthetic"]
methods = ["baseline", "opm", "opm+ogm"]
seeds = [0, 1, 2]
settings = { "epochs" = 1, "frames.size" = 16, "waveform.n_fft" = 32 }
"""
KILLED, DIVERGING, DAMAGED = (
    f'[[runs]]\ndatasets = ["synthetic"]\nseeds = [{seed}]\nsettings = {{ {settings} }}\n'
    for seed, settings in (
        (10, '"epochs" = 20'),
        (11, '"epochs" = 1, "optimizer.lr" = 1e20'),
        (12, '"epochs" = 3'),
    )
)


def write_suite(folder, *parts):
    path = folder / "twelve.toml"
    path.write_text('title = "twelve"\n' + "".join(parts))
    return path


def train_arguments(suite, prepared, runs):
    arguments = ["train", "--suite", str(suite), "--jobs", "2", "--device", "cpu"]
    return [*arguments, "--data", str(prepared), "--runs", str(runs)]


def wait_for(condition):
    deadline = time.monotonic() + 180  # a busy machine takes a while to import torch
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def kill_in_training(folder):
    """Kill the process that holds the lock of a run folder, once it has written two checkpoints."""
    wait_for(lambda: len(checkpoint.checkpoints(folder.checkpoints)) == 2)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == folder.path / ".lock":
                os.kill(int(link.parts[2]), signal.SIGKILL)


def damage_both_checkpoints(job):
    """Train two epochs of a job, then cut its checkpoints."""

    def stop(_, event):
        if event.get("epoch") == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_job(job, stop, lambda _: None)
    found = checkpoint.checkpoints(job.folder().checkpoints)
    assert len(found) == 2
    for path in found:
        path.write_bytes(path.read_bytes()[:5000])


def test_a_suite_with_a_run_killed_one_diverging_and_one_damaged(bmm, prepared, tmp_path):
    suite, runs = write_suite(tmp_path, KILLED, DIVERGING, DAMAGED, ORDINARY), tmp_path / "runs"
    configs = load_suite(str(suite))[1].configs()
    assert len(configs) == 12
    jobs = [Job(config, prepared / "synthetic", runs, "twelve", "cpu", threads=1) for config in configs]
    killed, diverging, damaged = (job.folder() for job in jobs[:3])
    damage_both_checkpoints(jobs[2])

    killer = threading.Thread(target=kill_in_training, args=[killed])
    killer.start()
    status, out, err = bmm(*train_arguments(suite, prepared, runs))
    killer.join()
    assert status == 3 and "Traceback" not in err and "3 of 12 runs failed" in err
    assert set(out.splitlines()) == {str(job.folder().path) for job in jobs[3:]}
    said = {line.split(": ", 1)[0]: line for line in err.splitlines()}
    for job, words in (
        (jobs[0], f"The system killed its process, most likely for lack of memory. .* in {killed.path}"),
        (jobs[1], f"not finite in epoch 0 at step 1 of {diverging.path}"),
        (jobs[2], f"Every checkpoint in {damaged.checkpoints} is damaged. Delete the folder {damaged.path}"),
    ):
        assert all(part in said[job.name] for part in words.split(" .* "))

    status, _, err = bmm("report", str(runs), "--format", "csv")
    assert status == 0
    left_out = dict(line.removeprefix("Left out: ").split(": ") for line in err.splitlines())
    assert left_out == {
        str(killed.path): "killed, or running on another machine, not averaged.",
        str(diverging.path): "diverged, not averaged.",
        str(damaged.path): "killed, or running on another machine, not averaged.",
    }

    kept = [(folder.path / "result.json").stat().st_mtime_ns for folder in (diverging, jobs[3].folder())]
    epochs = len((killed.path / "history.jsonl").read_text().splitlines())
    status, out, err = bmm(*train_arguments(suite, prepared, runs))
    assert status == 3 and "2 of 12 runs failed" in err and len(out.splitlines()) == 10
    assert 2 <= epochs < 20 and killed.result()["status"] == "finished"
    assert kept == [
        (folder.path / "result.json").stat().st_mtime_ns for folder in (diverging, jobs[3].folder())
    ]

    shutil.rmtree(damaged.path)  # as the sentence said
    assert run_job(jobs[2], lambda *_: None, lambda _: None)["status"] == "finished"


METHOD_OF = {
    "classification": "baseline",
    "localisation": "opm",
    "question-answering": "ogm",
    "regression": "opm+ogm",
}


def accuracy_of(folder):
    """The share of right answers by what is kept of a run's predictions."""
    with pa.memory_map(str(folder / "predictions.arrow")) as file:
        table = pa.ipc.open_file(file).read_all().to_pandas()
    table = table[table["selection"] == "last"]
    chosen = [scores.argmax() for scores in table["scores"]]
    return (chosen == table["label"]).mean()


@pytest.mark.long
def test_every_task_side_by_side_with_others_and_checked(bmm, tmp_path, monkeypatch):
    """Runs of each task under --jobs are those trained alone, and --check holds their numbers."""
    monkeypatch.chdir(tmp_path)
    tiny_set(tmp_path / "manifest", *METHOD_OF)
    settings = '"epochs" = 2, "encoder" = "small", "batch_size" = 8, "task" ='
    groups = [
        f'[[runs]]\ndatasets = ["manifest"]\nmethods = ["{method}"]\nsettings = {{ {settings} "{task}" }}\n'
        for task, method in METHOD_OF.items()
    ]
    suite = write_suite(tmp_path, *groups)
    status, out, err = bmm(*train_arguments(suite, tmp_path, "runs"))
    assert status == 0 and len(out.splitlines()) == 12, err

    expected, threads = [], max(1, cores(None) // 2)  # as two jobs get
    for config in load_suite(str(suite))[1].configs():
        if config.seed == 1:
            together = Job(config, tmp_path / "manifest", tmp_path / "runs", "twelve", "cpu")
            alone = Job(config, tmp_path / "manifest", tmp_path / "alone", "twelve", "cpu", threads=threads)
            run_job(alone, lambda *_: None, lambda _: None)
            assert_same_run(alone.folder().path, together.folder().path)
    words = {}
    for method in METHOD_OF.values():
        values = list(map(accuracy_of, Path("runs").rglob(f"{method}-paper-s*")))
        expected.append(f'[[expected]]\ndataset = "manifest"\nmethod = "{method}"\nlow = 0.0\nhigh = 0.999\n')
        word = decide(summarize(values), *opened(0.0, 0.999))  # equal seeds have no interval
        words[f"manifest concat {method} accuracy"] = word, f"{100 * sum(values) / 3:.1f} % over 3 seeds"
    write_suite(tmp_path, *groups, *expected)
    status, out, err = bmm("report", "--suite", str(suite), "--check", "--format", "json")
    found = {one["name"]: (one["word"], one["reason"].partition(",")[0]) for one in json.loads(out)}
    assert found == words and status == (
        0 if {word for word, _ in words.values()} == {"reproduced"} else 4
    ), err


def test_runs_keep_their_state_and_end_when_their_parent_is_killed(prepared, tmp_path):
    suite = write_suite(tmp_path, KILLED.replace("[10]", "[0, 1]").replace("20", "4000"))
    command = [sys.executable, "-m", "balancemm_cli", *train_arguments(suite, prepared, tmp_path / "runs")]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(tmp_path.glob("runs/synthetic/concat/*/history.jsonl"))) == 2)
    parent.kill()
    parent.wait()
    for folder in tmp_path.glob("runs/synthetic/concat/*"):
        with (folder / ".lock").open() as lock:
            wait_for(lambda lock=lock: is_free(lock))
        assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"


def test_a_run_with_much_to_say_is_not_waited_for_in_vain(prepared, tmp_path, monkeypatch):
    """Interrupted while a run waits for room in its pipe, which nobody read: it never came to its end."""
    start = launch._start

    def start_with_a_small_pipe(*args):
        ours, of = start(*args)
        fcntl.fcntl(ours.fileno(), fcntl.F_SETPIPE_SZ, 4096)  # about eight epochs
        return ours, of

    def interrupt(job, event):
        if "epoch" in event:
            history, before = job.folder().path / "history.jsonl", -1
            while before != (now := history.stat().st_size):  # until it waits for room
                before = now
                time.sleep(1.0)
            raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_start", start_with_a_small_pipe)
    config = resolve("synthetic", overrides=["epochs=4000"])
    job = Job(config, prepared / "synthetic", tmp_path, device="cpu", threads=1)
    with pytest.raises(launch.Interrupted):
        launch.run_jobs([job], 1, interrupt, print)
    assert job.folder().result()["status"] == "interrupted"


def is_free(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_runs_are_dealt_out_over_the_gpus():
    in_use = []
    for _ in range(5):
        in_use.append(deal_device("auto", 2, in_use))
    assert in_use == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    in_use.remove("cuda:1")  # that one ended: the next takes its place
    assert deal_device("auto", 2, in_use) == "cuda:1"
    assert deal_device("auto", 0, in_use) == "cpu"
    assert deal_device("cuda:1", 2, ["cuda:1"]) == "cuda:1" and deal_device("cpu", 2, []) == "cpu"


def test_how_a_process_ended_is_said():
    folder = Path("runs/a")
    assert "lack of memory" in death(-9, folder) and death(-9, folder).endswith("with fewer --jobs.")
    assert "signal 11 (Segmentation fault)" in death(-11, folder)
    assert "exit code 1. What it trained up to its last checkpoint is kept in runs/a" in death(1, folder)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_one_sentence(prepared, tmp_path, error):
    job = Job(resolve("synthetic"), prepared / "synthetic", tmp_path, device="cpu")

    def fail(*_):
        raise error

    with pytest.raises(InputError, match=r"memory does not suffice for concat baseline .* fewer --jobs"):
        run_job(job, fail, lambda _: None)


def jobs_for_a_table(count):
    configs = [resolve("synthetic", seed=seed, overrides=["epochs=10"]) for seed in range(count)]
    return [Job(config, Path("data"), Path("runs")) for config in configs]


def drawn(table):
    with table.console.capture() as capture:
        table.console.print(table.render())
    return capture.get().splitlines()


def record(epoch):
    return {"epoch": epoch, "accuracy": {"test": 0.5 + epoch / 100}, "rho": {"audio": 1.31, "visual": 0.82}}


def test_the_table_shows_every_run():
    now = [0.0]
    jobs = jobs_for_a_table(4)
    table = RunsTable(jobs, Console(file=io.StringIO(), width=100, height=20), lambda: now[0])
    for job in jobs[:3]:
        table.update(job, {"device": "cpu"})
    now[0] = 20.0
    table.update(jobs[0], record(3))  # went on from a checkpoint: one epoch here took 20 s
    table.end(Outcome(jobs[1], None, "It failed.", 3))
    table.end(Outcome(jobs[2], {"epochs": 10, "selections": {"last": {"accuracy": 0.9}}}))
    heading, *lines, counts = (line.split() for line in drawn(table))
    assert " ".join(heading) == "run state epoch test mean ρ left"
    assert [" ".join(line).removeprefix("concat baseline (paper, seed ") for line in lines] == [
        "0) running 4/10 0.530 audio 1.31 visual 0.82 0:02:00",
        "1) failed 0/10",
        "2) finished 10/10 0.900",
        "3) waiting 0/10",
    ]
    assert " ".join(counts) == "1 running · 1 failed · 1 finished · 1 waiting · about 0:05:20 left"


def test_the_table_fits_the_terminal():
    jobs = jobs_for_a_table(30)
    table = RunsTable(jobs, Console(file=io.StringIO(), width=60, height=8), lambda: 0.0)
    for job in jobs[:12]:
        table.update(job, {"device": "cuda:0"})
    for job in jobs[:10]:
        table.end(Outcome(job, None, "It failed.", 3))
    lines = drawn(table)
    assert len(lines) == 7 and all(len(line) <= 60 for line in lines)
    assert [row.job.config.seed for row in table.shown(5)] == [10, 11, 7, 8, 9]
    assert lines[-1].startswith("2 running · 10 failed · 18 waiting")
    assert [row.job.config.seed for row in table.shown(1)] == [10]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_number_of_the_table_is_cut(width):
    jobs = jobs_for_a_table(3)
    table = RunsTable(jobs, Console(file=io.StringIO(), width=width, height=20), lambda: 0.0)
    for job in jobs:
        table.update(job, {"device": "cpu"})
        table.update(job, record(9))
    lines = drawn(table)
    assert all(len(line) <= width for line in lines) and all("0.590" in line for line in lines[1:4])
    shown = ["visual 0.82" in line for line in lines[1:4]]
    assert shown == [width == 80] * 3 and not any("visual 0.8" in line for line in lines if width < 80)


def test_a_terminal_gets_the_table_and_a_pipe_none():
    for terminal in (True, False):
        written = io.StringIO()
        jobs = jobs_for_a_table(2)
        console = Console(file=written, force_terminal=terminal, width=100, height=20)
        with RunsTable(jobs, console) as table:
            sizes = [written.tell()]
            for epoch in range(2):
                table.update(jobs[0], {"device": "cpu"} if epoch == 0 else record(0))
                sizes.append(written.tell())
        assert all(more > less for less, more in pairwise(sizes)) is terminal
        assert ("mean ρ" in written.getvalue()) is terminal
