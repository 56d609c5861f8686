"""Checkpoints: tensors and plain values, written whole or not at all, the last two kept."""

import io
from pathlib import Path
from typing import Any

import torch

from balancemm_cli.data.store import atomic_file
from balancemm_cli.errors import InputError

FORMAT = 1
KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint after `step` steps of the run, and delete all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    content = io.BytesIO()  # torch turns a disk that is full into an error without that word
    torch.save({"format": FORMAT, **state}, content)
    with atomic_file(path) as file:
        file.write(content.getbuffer())
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state, on the CPU, or None when there is none.

    InputError when it is damaged; the sentence says how to go on from the one before.
    """
    found = checkpoints(folder)
    if not found:
        return None
    path = found[-1]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = state["format"]
    except Exception:  # torch raises many kinds for a damaged file
        remedy = f"to go on from {found[-2].name}" if len(found) > 1 else "and its run folder to start again"
        raise InputError(f"Checkpoint {path} is damaged. Delete it {remedy}.") from None
    if version != FORMAT:
        raise InputError(f"Checkpoint {path} is of format {version}, this program reads format {FORMAT}.")
    return state
