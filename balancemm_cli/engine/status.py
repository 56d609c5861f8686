"""The state of a run, read from its files alone."""

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from balancemm_cli.engine.launch import Job
from balancemm_cli.engine.runs import read_result
from balancemm_cli.errors import InputError


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    state: str  # waiting, running, stopped, interrupted, finished, diverged or damaged
    epochs: int = 0  # that are done
    accuracy: float | None = None  # on the test split after the last of them, in 0–1


def read_status(job: Job) -> Status:
    """The state of a job's run. "stopped" is a run that was killed: it says "running", but nothing trains it."""
    folder = job.folder().path
    try:
        result = read_result(folder)
        history = _history(folder)
    except InputError:
        return Status("damaged")
    state = result["status"] if result else "waiting"
    if state == "running" and not _is_locked(folder):
        state = "stopped"
    return Status(state, len(history), history[-1] if history else None)


def _history(folder: Path) -> list[float]:
    """The test accuracy after each epoch."""
    path = folder / "history.jsonl"
    try:
        return [json.loads(line)["accuracy"]["test"] for line in path.read_text("utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged. Delete the run folder to train it again.") from None


def _is_locked(folder: Path) -> bool:
    """Whether a process has the run folder open, on this machine or wherever the file system passes locks on."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
