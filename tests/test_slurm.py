"""Runs as Slurm jobs: on a real cluster of one node, where Slurm is installed, and the parts that need none."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from test_resume import assert_same_run

from balancemm_cli.cli import main
from balancemm_cli.engine.slurm import _is_wanted, minutes, parse_options, queue
from balancemm_cli.errors import UsageError

SUITE = """\
title = "mine"
[[runs]]
datasets = ["synthetic"]
methods = ["opm+ogm"]
seeds = [0, 1, 2]
settings = { "epochs" = 30, "frames.size" = 16, "waveform.n_fft" = 32 }
"""


@pytest.fixture
def suite(tmp_path):
    """The arguments of `bmm train` for a suite of three runs."""
    (tmp_path / "mine.toml").write_text(SUITE)
    return ["train", "--suite", str(tmp_path / "mine.toml"), "--device", "cpu", "--threads", "1"]


@pytest.fixture
def bmm(monkeypatch, capsys, prepared, tmp_path):
    """Run the program in this process; returns exit status, stdout and stderr."""

    def call(*args, runs="runs"):
        places = ["--data", str(prepared), "--runs", str(tmp_path / runs)]
        monkeypatch.setattr(sys, "argv", ["bmm", *args, *places])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def wait_for(what, condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found


def slurm(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def process_of(job):
    """The process that trains a job, once it does."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        array, _, task = job.partition("_")
        wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={task}".encode()}
        if b"submitit.core._submit" in command and b"python" in command[0] and wanted <= {*variables}:
            return int(process.name)
    raise AssertionError(f"no process of job {job}")


def epochs(run):
    path = run / "history.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The variables by which Slurm's commands find a cluster of one node."""
    reason = slurm_cluster.why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    with slurm_cluster.cluster(folder) as variables:
        yield variables
    assert not [path for path in folder.glob("*.pid") if Path("/proc", path.read_text().strip()).exists()]


@pytest.fixture
def cluster(started, monkeypatch):
    for name, value in started.items():
        monkeypatch.setenv(name, value)


def test_a_suite_of_jobs_survives_what_happens_to_jobs(cluster, bmm, suite, tmp_path):
    """One is pre-empted, one cancelled, one warned of its time limit and then killed; all end as a local run does,
    to the bit. The last of an array is the one whose other id is the whole array's."""
    longer = [*suite, "--set", "epochs=16"]
    queued = [*longer, "--launcher", "slurm", "--slurm", "time=30"]
    status, out, err = bmm(*queued)
    assert status == 0 and err == "3 queued now, 0 were in the queue, 0 are finished.\n"
    jobs = {line.split()[0]: Path(line.split()[1]) for line in out.splitlines()}
    assert list(jobs) == ["1_0", "1_1", "1_2"]
    preempted, cancelled, warned = jobs
    strikes = {
        preempted: ("scontrol", "requeue", preempted),
        cancelled: ("scancel", cancelled),
        warned: ("scancel", "--signal=USR1", warned),
    }

    def strike_whoever_trains():
        for job in [job for job in strikes if epochs(jobs[job]) >= 2]:
            slurm(*strikes.pop(job))
        return not strikes

    wait_for("all three to train", strike_whoever_trains)
    wait_for("the cancelled job to leave", lambda: cancelled not in slurm("squeue", "-h", "-r", "-o", "%i "))
    assert json.loads((jobs[cancelled] / "result.json").read_text())["status"] == "interrupted"
    status, out, err = bmm(*queued)  # only what is neither finished nor in the queue
    assert (status, out) == (0, f"{re.match('[0-9]+', out)[0]} {jobs[cancelled]}\n")
    assert err == "1 queued now, 2 were in the queue, 0 are finished.\n"
    assert bmm(*queued)[2] == "0 queued now, 3 were in the queue, 0 are finished.\n"
    status, out, _ = bmm(*longer, "--status")
    assert all(re.search(rf"  job {job} (PENDING|RUNNING|COMPLETING)\n", out) for job in (preempted, warned))

    stopped_after = epochs(jobs[warned]) + 1
    wait_for("the warned job to train again", lambda: epochs(jobs[warned]) > stopped_after)
    os.kill(process_of(warned), signal.SIGKILL)

    results = [run / "result.json" for run in jobs.values()]
    wait_for(
        "all to finish", lambda: all(json.loads(path.read_text())["status"] == "finished" for path in results)
    )
    for job, restarts in ((preempted, 1), (warned, 2)):
        assert f" Restarts={restarts} " in slurm("scontrol", "show", "job", job)
    assert "Interrupted in epoch" in (tmp_path / "runs" / "slurm" / f"{warned}_0_log.out").read_text()
    status, _, err = bmm(*longer, "--jobs", "2", runs="local")
    assert status == 0, err
    for run in jobs.values():
        assert_same_run(run, tmp_path / "local" / "synthetic" / "concat" / run.name)
    status, out, _ = bmm(*longer, "--status")
    assert status == 0 and re.fullmatch(r"(finished +16/16 +[01]\.\d{3}  concat opm\+ogm \(.*\)\n){3}", out)
    wait_for("an empty queue", lambda: not slurm("squeue", "-h"))
    assert bmm(*queued)[2] == "0 queued now, 0 were in the queue, 3 are finished.\n"


def test_what_slurm_refuses_is_one_sentence(cluster, bmm, suite):
    for option, said in (
        ("partition=nowhere", "invalid partition specified: nowhere"),
        ("colour=red", "unrecognized option"),
    ):
        status, out, err = bmm(*suite, "--launcher", "slurm", "--slurm", option)
        assert status == 3 and out == "" and err.startswith("bmm: Slurm refused the jobs. ") and said in err
        assert len(err.splitlines()) == 1


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Let Slurm's commands answer with a text."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()

    def answer(**texts):
        for command, text in texts.items():
            path = tmp_path / "bin" / command
            path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
            path.chmod(0o755)

    answer(srun="", squeue="")
    return answer


def test_an_answer_without_an_id_is_no_refusal(answers, bmm, suite):
    answers(sbatch="Welcome!\x1b[31m\nqueued as 17")
    status, out, err = bmm(*suite, "--launcher", "slurm")
    assert status == 3 and out == "" and len(err.splitlines()) == 1 and "refused" not in err
    assert "may be queued" in err and "scancel --name=bmm-mine" in err and "\x1b" not in err


def test_what_a_cluster_tells_beside_its_queue_is_passed_over(answers, monkeypatch):
    answers(
        squeue="Maintenance on Monday, all day\n\n7_0 RUNNING\n7_1 PENDING\nCLUSTER: main\nthree words here"
    )
    found = queue()
    assert {job: found[job] for job in ("7_0", "7_1")} == {"7_0": "RUNNING", "7_1": "PENDING"}
    answers(squeue="Maintenance on Monday\nRUNNING")
    assert _is_wanted("7_0")
    answers(squeue="Maintenance on Monday\nCOMPLETING")
    assert not _is_wanted("7_0")


def test_without_slurm(bmm, suite, monkeypatch):
    monkeypatch.setenv("PATH", "")
    status, out, err = bmm(*suite, "--launcher", "slurm")
    assert status == 3 and out == "" and "login node" in err and len(err.splitlines()) == 1
    status, _, err = bmm(*suite, "--slurm", "partition=gpu")
    assert status == 2 and "--launcher slurm" in err


def test_status_from_the_files_alone(bmm, suite, monkeypatch, prepared, tmp_path):
    monkeypatch.setenv("PATH", "")
    status, out, err = bmm(*suite, "--status")
    assert status == 0 and all(line.startswith("# ") for line in err.splitlines())  # the resolved settings
    assert len(out.splitlines()) == 3
    assert set(out.split("\n")[0].split()[:3]) == {"waiting", "0/30", "—"}
    assert not (tmp_path / "runs").exists()
    assert bmm("train", "--device", "cpu", "--set", "epochs=1")[0] == 0
    (run,) = (tmp_path / "runs" / "synthetic" / "concat").iterdir()

    def state():
        return bmm("train", "--status", "--set", "epochs=1")[1].split()

    assert state()[:2] == ["finished", "1/1"] and float(state()[2]) <= 1
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "status": "running"}))
    assert state()[0] == "stopped"  # no process holds it
    (run / "slurm.json").write_text(json.dumps({"job": "7", "log": "7.out"}))
    assert " ".join(state()).endswith("job 7")
    (run / "slurm.json").write_text('{"job": "7"}')
    status, _, err = bmm("train", "--status", "--set", "epochs=1")
    assert status == 3 and "slurm.json is damaged" in err
    (run / "slurm.json").unlink()
    (run / "result.json").write_text("{")
    assert state()[0] == "damaged"
    status, _, err = bmm("train", "--set", "epochs=1", "--launcher", "slurm")
    assert status == 3


def test_options():
    given = ["partition=gpu", "--cpus_per_task=8", "exclusive", "gres=gpu:a100:1"]
    assert parse_options(given) == {
        "partition": "gpu",
        "cpus-per-task": "8",
        "exclusive": True,
        "gres": "gpu:a100:1",
    }
    unread = ["parsable", "--quiet", "quie", "test-only", "test_only", "wait", "wrap=ls", "wra=ls", "version"]
    for wrong in ("", "=3", "partition=", "nodes=2", "array=0-3", "--signal=USR1", *unread):
        with pytest.raises(UsageError):
            parse_options([wrong])


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("1-12", 2160), ("1-12:30", 2190), ("0-0:0:1", 1)],
)
def test_time_limits(time, expected):
    assert minutes(time) == expected


@pytest.mark.parametrize("time", ["", "soon", "0", "1:2:3:4", "-5"])
def test_wrong_time_limits(time):
    with pytest.raises(UsageError):
        minutes(time)
