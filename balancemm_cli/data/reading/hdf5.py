"""Arrays in HDF5 files of others, read row by row. Nothing that a file points to outside of itself is followed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import h5py
    import numpy as np


def shape(path: Path, name: str, remedy: str) -> tuple[int, ...]:
    """The shape of a data set of numbers. InputError where the file is absent or damaged or has no such one."""
    with _opened(path, name, remedy) as found:
        return found.shape


def read(path: Path, name: str, remedy: str, row: int | None = None) -> "np.ndarray":
    """A data set of numbers, whole or one row of it. InputError as `shape`."""
    with _opened(path, name, remedy) as found:
        return found[()] if row is None else found[row]


@contextmanager
def _opened(path: Path, name: str, remedy: str) -> "Iterator[h5py.Dataset]":
    import h5py

    try:
        with h5py.File(path, "r") as file:
            link = file.get(name, getlink=True)
            found = file[name] if isinstance(link, h5py.HardLink) else None
            if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
                raise InputError(f"{path} holds no data set '{name}' of its own. {remedy}")
            if found.dtype.kind not in "iuf":
                raise InputError(f"'{name}' of {path} is of {found.dtype}, not of numbers. {remedy}")
            if found.shape is None:  # HDF5's null dataspace
                raise InputError(f"'{name}' of {path} has no shape and holds nothing. {remedy}")
            yield found
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. {remedy}") from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is no HDF5 file, or is damaged ({str(error)[:80]}). {remedy}") from None
