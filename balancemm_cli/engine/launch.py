"""Many runs on one machine: a process for each, so many at a time."""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.kinds import kind_of
from balancemm_cli.data.loading import Loading, Room
from balancemm_cli.data.preparing.workers import cores, interrupts_held
from balancemm_cli.data.store import open_set
from balancemm_cli.engine import PRELOADED, distributed
from balancemm_cli.engine.acceleration import check_speed
from balancemm_cli.engine.event_log import LOGS, check_log, event_log
from balancemm_cli.engine.failure import lacks_memory
from balancemm_cli.engine.trainer import check_validation, train_run
from balancemm_cli.errors import BmmError, InputError, Interrupted, UsageError, os_error_sentence
from balancemm_cli.models import check_encoders
from balancemm_cli.runs.folder import RunFolder


@dataclass(frozen=True)
class Job:
    """One run to train, and what it needs from the machine."""

    config: RunConfig
    data: Path  # the prepared folder
    runs: Path
    suite: str | None = None  # that it is trained for, which is recorded
    device: str = "auto"
    threads: int | None = None
    loading: Loading = "auto"
    profile: bool = False
    weights: Path | None = None  # the file; only a run that has no checkpoint yet reads it
    place: Path | None = None  # of the run folder, where it is known already
    room: Room | None = None  # memory that it may take, where others run beside it
    until: int | None = None  # epochs to train it for, where these are not all
    note: str = ""  # what tells it from runs of the same names and seed
    log: LOGS | None = None  # a form in which its epochs are written as well
    with_data: bool = False  # whether its name says of which data set it is

    @property
    def name(self) -> str:
        """A short name for progress and messages."""
        return f"{self.config.dataset} " * self.with_data + f"{self.config.name}{self.note}"

    @property
    def tested_on(self) -> str:
        """The samples of which its numbers are: test, or of a trial val."""
        return self.config.settings.tested_on

    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.runs, self.config, open_set(self.data), self.suite, self.place)


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
        torch.empty(0, device=device).cpu()  # meta holds nothing
    except (RuntimeError, AssertionError):
        raise UsageError(
            f"There is no device '{name}' here. Use --device cpu, or see `bmm doctor`."
        ) from None
    return device


def run_job(job: Job, on_progress: Progress, on_message: Callable[[str], None]) -> dict[str, Any]:
    """Train one job in this process; returns its result.json. InputError when the memory does not suffice, and when
    the methods and models here are not those that the job was planned with."""
    if job.threads:
        _set_threads(job.threads)
    job.config.check_sources("was planned", "Run the same command again.")
    folder, logs = job.folder(), job.log and distributed.rank() == 0
    try:
        with event_log(folder.path, job.tested_on) if logs else nullcontext(lambda _: None) as log:

            def take(event: dict[str, Any]) -> None:
                log(event)
                on_progress(job, event)

            return train_run(
                folder,
                choose_device(job.device),
                job.loading,
                take,
                on_message,
                job.profile,
                job.weights,
                job.room,
                job.until,
            )
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise InputError(
            f"The memory does not suffice for {job.name}. Run the same command with fewer --jobs, or set a smaller "
            "batch_size."
        ) from error


def _set_threads(threads: int) -> None:
    """UsageError for more threads than processors: so many may end the process."""
    here = os.cpu_count() or 1
    if threads > here:
        raise UsageError(f"--threads {threads}: this machine has {here} processors. Take at most as many.")
    torch.set_num_threads(threads)


def deal_device(name: str, gpus: int, in_use: Iterable[str]) -> str:
    """The device for the next of many runs, where `in_use` are those of the runs that are being trained.

    "auto" is the first of the `gpus` GPUs with the fewest runs, or the CPU where there is none; another name stands.
    """
    if name != "auto":
        return name
    runs = Counter(in_use)
    return min((f"cuda:{index}" for index in range(gpus)), key=lambda gpu: runs[gpu], default="cpu")


def check_jobs(jobs: Sequence[Job]) -> None:
    """Refuse what can't work before anything is trained: the data, the models' names, encoders, a method without a
    use, a log whose package is missing. OSError where no run can be written."""
    if any(job.log for job in jobs):
        check_log()
    data = {job.data: open_set(job.data) for job in jobs}
    for job in jobs:
        job.config.check_weights()
        used = job.config.modalities(list(data[job.data].modalities))
        if len(used) < 2 and job.config.method != "baseline":
            raise UsageError(
                f"Method {job.config.method} balances modalities, but model {job.config.model} on "
                f"{job.config.dataset} has one. Use --method baseline."
            )
        settings = job.config.settings
        shapes = {name: kind_of(data[job.data].modalities[name]).shape for name in used}
        check_encoders(job.config.model, settings.encoder, shapes, settings.encoders)
        check_speed(settings.speed)
        check_validation(job.config, data[job.data])
    for root in {job.runs for job in jobs}:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root):
            pass


def run_jobs(
    jobs: Sequence[Job], at_once: int, on_progress: Progress, on_end: Callable[[Outcome], None]
) -> list[Outcome]:
    """Train `jobs` in processes of their own, `at_once` at a time; one that fails does not stop the others.

    `on_progress` is called with {"device": name} when a job starts, then with its warnings and each epoch's history
    record, `on_end` with each outcome, as they come. Interrupted when asked to stop: the processes keep their state
    first, as they do when this process is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, running = list(reversed(jobs)), {}
    outcomes: list[Outcome] = []
    beside = max(1, min(at_once, len(jobs)))
    threads, gpus = max(1, cores(None) // beside), torch.cuda.device_count()
    room = Room.of_each(beside, gpus)
    on_terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop()
                device = deal_device(job.device, gpus, (of.device for of in running.values()))
                with interrupts_held():  # one that came while a process starts would leave it to itself
                    ours, of = _start(context, job, device, threads, room)
                    running[ours] = of
                on_progress(job, {"device": device})
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                outcome = _receive(ready, running[ready], on_progress)
                if outcome is not None:
                    del running[ready]
                    ready.close()
                    outcomes.append(outcome)
                    on_end(outcome)
    except KeyboardInterrupt:
        for of in running.values():
            of.process.terminate()
        _join(running)
        raise Interrupted(
            "Interrupted. The state of every run is kept; run the same command to go on."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
    return outcomes


@dataclass(frozen=True)
class _Running:
    job: Job
    device: str
    process: BaseProcess


def _start(
    context: ForkServerContext, job: Job, device: str, threads: int, room: Room
) -> tuple[Connection, _Running]:
    ours, theirs = context.Pipe(duplex=False)
    placed = replace(job, device=device, threads=job.threads or threads, room=room)
    process = context.Process(target=_work, args=(placed, theirs))
    process.start()
    theirs.close()
    return ours, _Running(job, device, process)


def _join(running: dict[Connection, _Running]) -> None:
    """Wait for the end of processes that were asked to stop. What they still say is not needed, but has to be read:
    a full pipe would keep them from their end."""
    while running:
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            if not os.read(ready.fileno(), 2**16):
                running.pop(ready).process.join()
                ready.close()


def _receive(connection: Connection, running: _Running, on_progress: Progress) -> Outcome | None:
    """Take up one message; the job's outcome when that was its last."""
    try:
        message = connection.recv()
    except (EOFError, OSError):  # OSError: killed while it sent one
        running.process.join()
        return Outcome(running.job, None, death(running.process.exitcode, running.job.folder().path), 3)
    if isinstance(message, dict):
        on_progress(running.job, message)
        return None
    running.process.join()
    result, error, status = message
    return Outcome(running.job, result, error, status)


def death(exit_code: int | None, folder: Path) -> str:
    """What to tell about the run in `folder` whose process ended without a word."""
    go_on = f"What it trained up to its last checkpoint is kept in {folder}: run the same command to go on"
    if exit_code == -signal.SIGKILL:
        return f"The system killed its process, most likely for lack of memory. {go_on}, with fewer --jobs."
    if exit_code and exit_code < 0:
        return f"Its process was ended by signal {-exit_code} ({signal.strsignal(-exit_code)}). {go_on}."
    return f"Its process ended with exit code {exit_code}. {go_on}."


def _work(job: Job, parent: Connection) -> None:
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        parent.send(_train(job, parent))


def _train(job: Job, parent: Connection) -> tuple[dict[str, Any] | None, str | None, int]:
    """The result, the error's sentence and the exit status of a job; sends its progress to the parent."""

    def report(_: Job, event: dict[str, Any]) -> None:
        if "samples" not in event:
            with suppress(BrokenPipeError):  # the parent is gone, and this process is being asked to stop
                parent.send(event)

    try:
        return run_job(job, report, lambda _: None), None, 0
    except BmmError as error:
        return None, str(error), error.exit_status
    except OSError as error:
        return None, os_error_sentence(error), 3
    except KeyboardInterrupt as error:
        return None, str(error), 130


def _stop_with_parent() -> None:
    """When the parent is gone, killed as well, ask this process to keep its state and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
