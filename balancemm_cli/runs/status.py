"""The state of a run, read from its files alone."""

from dataclasses import dataclass
from pathlib import Path

from balancemm_cli.errors import InputError
from balancemm_cli.runs.folder import is_locked, read_result
from balancemm_cli.runs.reading import read_history


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    state: str  # waiting, running, stopped, interrupted, finished, diverged, failed or damaged
    epochs: int = 0  # that are done
    accuracy: float | None = None  # on the test split after the last of them, in 0–1


def read_status(folder: Path) -> Status:
    """The state of the run in a folder; "stopped" is one that was killed: it says "running", but nothing trains it."""
    try:
        result = read_result(folder)
        history = _history(folder)
    except (InputError, OSError):
        return Status("damaged")
    state = result["status"] if result else "waiting"
    if state == "running" and not _is_trained(folder):
        state = "stopped"
    return Status(state, len(history), history[-1] if history else None)


def _history(folder: Path) -> list[float]:
    """The test accuracy after each epoch; none before the first one has ended."""
    if not (folder / "history.jsonl").exists():
        return []
    return [epoch.accuracy["test"] for epoch in read_history(folder) if "test" in epoch.accuracy]


def _is_trained(folder: Path) -> bool:
    try:
        return is_locked(folder)
    except OSError:  # no lock: nothing has trained it here
        return False
