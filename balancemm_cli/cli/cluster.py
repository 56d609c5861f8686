"""`bmm train --launcher slurm` and `bmm train --status`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from balancemm_cli.cli.progress import say
from balancemm_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from balancemm_cli.config.run import RunConfig
    from balancemm_cli.engine.launch import Job


def refuse_without_slurm(slurm: list[str] | None, launcher: str) -> None:
    """UsageError for options of sbatch where no job is queued."""
    if slurm and launcher != "slurm":
        raise UsageError("--slurm says how Slurm is to run the jobs; it needs --launcher slurm.")


def jobs_at_once(context: typer.Context, jobs: int) -> int | None:
    """How many queued jobs may run at a time: what --jobs says, all where it was not given."""
    given = context.get_parameter_source("jobs")
    return jobs if given and given.name == "COMMANDLINE" else None


def submit_all(work: "list[Job]", given: list[str], at_once: int | None) -> None:
    """Queue what is neither finished nor in the queue; print the id and the folder of each run queued."""
    from balancemm_cli.engine.slurm import last_job, parse_options, queue, submit
    from balancemm_cli.runs.status import read_status

    options = parse_options(given)
    queued = queue()
    new, waiting, finished, failed = [], 0, 0, 0
    for job in work:
        folder = job.folder().path
        state, last = read_status(folder).state, last_job(folder)
        if last and last["job"] in queued:
            waiting += 1
        elif state == "finished":
            finished += 1
        elif state in ("diverged", "damaged"):
            failed += 1
            say(f"{job.name}: {state}, not queued again. Delete {folder} to train it again.")
        else:
            new.append(job)
    if new:
        for job, number in zip(new, submit(new, options, at_once, work[0].runs / "slurm"), strict=True):
            print(f"{number} {job.folder().path}")
    say(f"{len(new)} queued now, {waiting} were in the queue, {finished} are finished.")
    if failed:
        raise InputError(f"{failed} of {len(work)} runs failed; the reasons stand above.")


def show_status(runs: "Sequence[tuple[RunConfig, str, Path | None]]") -> None:
    """Print one line per run: its state, epochs, test accuracy and name, a note on it, and what Slurm says of its job.
    A run without a folder waits for its data to be prepared. Of several data sets each line names its own."""
    from balancemm_cli.engine.slurm import last_job
    from balancemm_cli.runs.status import Status, read_status

    last = [last_job(folder) if folder else None for *_, folder in runs]
    states = _queue() if any(last) else {}
    several = len({config.dataset for config, *_ in runs}) > 1
    for (config, of_run, folder), record in zip(runs, last, strict=True):
        status = read_status(folder) if folder else Status("waiting")
        accuracy = "—" if status.accuracy is None else f"{status.accuracy:.3f}"
        epochs = f"{status.epochs}/{config.settings.epochs}"
        note = _job_note(record, states) if record and status.state != "finished" else ""
        name = f"{config.dataset} {config.name}" if several else config.name
        if folder is None:
            note = f" ({config.dataset} is not prepared)"
        print(f"{status.state:<11}  {epochs:>9}  {accuracy:>5}  {name}{of_run}{note}")


def _queue() -> dict[str, str] | None:
    """The states of the user's jobs, or None where Slurm does not answer, which is said."""
    from balancemm_cli.engine.slurm import queue

    try:
        return queue()
    except InputError as error:
        say(str(error))
        return None


def _job_note(record: dict[str, str], states: dict[str, str] | None) -> str:
    number, log = record["job"], record["log"]
    if states is None:
        return f"  job {number}"
    return f"  job {number} {states[number]}" if number in states else f"  job {number} is over, log {log}"
