"""Many runs on one machine: a process for each, so many at a time."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from balancemm_cli import models
from balancemm_cli.data.loading import Loading
from balancemm_cli.data.store import open_set
from balancemm_cli.data.workers import cores
from balancemm_cli.engine.config import RunConfig
from balancemm_cli.engine.runs import RunFolder
from balancemm_cli.engine.trainer import Interrupted, train_run
from balancemm_cli.errors import BmmError, UsageError, os_error_sentence


@dataclass(frozen=True)
class Job:
    """One run to train, and what it needs from the machine."""

    config: RunConfig
    data: Path  # the prepared folder
    runs: Path
    suite: str | None = None
    device: str = "auto"
    threads: int | None = None
    loading: Loading = "auto"

    @property
    def name(self) -> str:
        """A short name for progress and messages."""
        config = self.config
        return f"{config.model} {config.method} ({config.variant}, seed {config.seed})"

    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.runs, self.config, open_set(self.data), self.suite)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its result, or the sentence that says why there is none."""

    job: Job
    result: dict[str, Any] | None
    error: str | None = None
    exit_status: int = 0


Progress = Callable[[Job, dict[str, Any]], None]


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" is the first GPU, or else the CPU. UsageError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(
            f"There is no device '{name}' here. Use --device cpu, or see `bmm doctor`."
        ) from None
    return device


def run_job(job: Job, on_progress: Progress, on_message: Callable[[str], None]) -> dict[str, Any]:
    """Train one job in this process; returns its result.json."""
    if job.threads:
        torch.set_num_threads(job.threads)
    return train_run(
        job.folder(),
        choose_device(job.device),
        job.loading,
        lambda event: on_progress(job, event),
        on_message,
    )


def check_jobs(jobs: Sequence[Job]) -> None:
    """Refuse what can't work before anything is trained: the data, the models' names, a method without a use."""
    data = {job.data: open_set(job.data) for job in jobs}
    for job in jobs:
        available = list(data[job.data].modalities)
        used = models.modalities_of(job.config.model, available)
        if len(used) < 2 and job.config.method != "baseline":
            raise UsageError(
                f"Method {job.config.method} balances modalities, but model {job.config.model} on "
                f"{job.config.dataset} has one. Use --method baseline."
            )


def run_jobs(
    jobs: Sequence[Job], at_once: int, on_progress: Progress, on_end: Callable[[Outcome], None]
) -> list[Outcome]:
    """Train `jobs` in processes of their own, `at_once` at a time; one that fails does not stop the others.

    `on_progress` is called with each epoch's history record, `on_end` with each outcome, as they come.
    Interrupted when asked to stop: the processes keep their state first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["balancemm_cli.engine.launch"])  # torch is imported once, not once a run
    waiting, running = list(reversed(jobs)), {}
    outcomes: list[Outcome] = []
    threads = max(1, cores(None) // at_once)
    on_terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop()
                running.update([_start(context, job, job.threads or threads)])
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                job, process = running[ready]
                outcome = _receive(ready, job, process, on_progress)
                if outcome is not None:
                    outcomes.append(outcome)
                    on_end(outcome)
                    del running[ready]
    except KeyboardInterrupt:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
        raise Interrupted(
            "Interrupted. The state of every run is kept; run the same command to go on."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
    return outcomes


def _start(context: ForkServerContext, job: Job, threads: int) -> tuple[Connection, tuple[Job, BaseProcess]]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, threads, theirs))
    process.start()
    theirs.close()
    return ours, (job, process)


def _receive(connection: Connection, job: Job, process: BaseProcess, on_progress: Progress) -> Outcome | None:
    """Take up one message; the job's outcome when that was its last."""
    try:
        message = connection.recv()
    except EOFError:
        process.join()
        return Outcome(job, None, f"The process died (exit code {process.exitcode}); run again to go on.", 3)
    if isinstance(message, dict):
        on_progress(job, message)
        return None
    process.join()
    result, error, status = message
    return Outcome(job, result, error, status)


def _work(job: Job, threads: int, parent: Connection) -> None:
    torch.set_num_threads(threads)
    try:
        result = run_job(
            job, lambda _, event: parent.send(event) if "epoch" in event else None, lambda _: None
        )
        parent.send((result, None, 0))
    except BmmError as error:
        parent.send((None, str(error), error.exit_status))
    except BrokenPipeError:
        return  # the parent is gone; what was trained is in the checkpoint
    except OSError as error:
        parent.send((None, os_error_sentence(error), 3))
    except KeyboardInterrupt as error:
        parent.send((None, str(error), 130))
