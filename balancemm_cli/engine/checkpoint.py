"""Checkpoints of a run, of which the last two are kept, and snapshots of its weights.

They hold tensors and plain values. A file is written whole or not at all.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from balancemm_cli.data.store import atomic_file
from balancemm_cli.errors import InputError

FORMAT = 1
KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint after `step` steps of the run, and delete all but the last two."""
    path = _write(folder / f"step-{step:09d}.pt", state)
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def save_snapshot(folder: Path, epochs: int, network: dict[str, Any]) -> Path:
    """Keep a network's state after `epochs` whole epochs, as epoch-NNN.pt."""
    return _write(folder / f"epoch-{epochs:03d}.pt", {"network": network})


def _write(path: Path, state: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # torch's own error for a full disk does not say that it is full
    torch.save({"format": FORMAT, **state}, content)
    with atomic_file(path) as file:
        file.write(content.getbuffer())
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots of a run's network by the number of epochs that it was trained for, in ascending order."""
    found = {int(path.stem.removeprefix("epoch-")): path for path in folder.glob("epoch-*.pt")}
    return dict(sorted(found.items()))


def load_snapshot(path: Path) -> dict[str, Any]:
    """The network's state of a snapshot, on the CPU. InputError when it is damaged or of another format."""
    state = _read(path)
    if state is None or state["format"] != FORMAT:
        raise InputError(
            f"Snapshot {path} is damaged or of another format. Delete it to do without that epoch."
        )
    return state["network"]


def load_last(folder: Path, warn: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """The newest checkpoint's state, on the CPU, or None when there is none.

    With `warn`, a damaged checkpoint is passed over for the one before, and `warn` is called with a sentence that says
    so. InputError for a damaged one without `warn`, and when every one is damaged.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        state = _read(path)
        if state is None and warn is None:
            raise InputError(
                f"Checkpoint {path} is damaged. Delete it to use the one before, if there is one."
            )
        if state is None:
            continue
        if state["format"] != FORMAT:
            raise InputError(
                f"Checkpoint {path} is of format {state['format']}, this program reads format {FORMAT}."
            )
        if warn and path != found[-1]:
            warn(f"Checkpoint {found[-1]} is damaged; going on from {path.name}, the one before.")
        return state
    if found:
        raise InputError(
            f"Every checkpoint in {folder} is damaged. Delete the folder {folder.parent} to train this run again."
        )
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content; None when it is damaged."""
    content = io.BytesIO(
        path.read_bytes()
    )  # outside the try below, since an error of the disk does not mean that the file is damaged
    try:
        with zipfile.ZipFile(content) as archive:  # torch.load does not compare the checksums
            if archive.testzip() is not None:
                return None
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # zipfile and torch raise many kinds for a damaged file
        return None
    return state if isinstance(state, dict) and "format" in state else None
