"""Numbers of one sample out of an .npy file."""

from pathlib import Path

import numpy as np

from balancemm_cli.data.reading.files import MediaError, examine

# What numpy raises of a file that is none of its own, or whose header says more than there is.
UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError)


def read_npy(path: Path, width: int) -> np.ndarray:
    """float32 [T, width] out of an .npy file of [width] or [T, width] numbers. MediaError for a file that holds
    anything else, nothing, or numbers that are not finite."""
    values = _open(path)
    values = values[None] if values.ndim == 1 else values
    if values.shape[1] != width:
        raise MediaError("other width", f"{values.shape[1]:,} numbers a step, and {width:,} in most files")
    with np.errstate(over="ignore"):
        numbers = np.array(values, np.float32)
    if not np.isfinite(numbers).all():
        raise MediaError("not finite", "it holds NaN or infinite numbers, or some too large for float32")
    return numbers


def shape_of_npy(path: Path) -> tuple[int, int] | None:
    """Steps and numbers a step of an .npy file, by its header; None where `read_npy` would find it of no use."""
    try:
        values = _open(path)
    except MediaError:
        return None
    return (len(values), values.shape[1]) if values.ndim == 2 else (1, len(values))


def _open(path: Path) -> np.ndarray:
    """The array of an .npy file, [D] or [T, D], mapped to memory. MediaError where there is none."""
    examine(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE:
        raise MediaError(
            "unreadable", "not an .npy file, cut off, or one with Python objects in it"
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise MediaError("unreadable", "it holds something else than one array of real numbers")
    if values.ndim not in (1, 2) or not values.size:
        raise MediaError("other shape", f"{list(values.shape)}, where [D] or [T, D] belongs")
    return values
