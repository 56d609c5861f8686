"""The folder in which a prepared folder grows, and the errors that leave it for a later call."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from balancemm_cli.errors import DISK_FULL, InputError

Progress = Callable[[str, int, int], None]  # of a stage's name, what is done of it, and how much there is


def is_free(folder: Path) -> bool:
    """Whether a folder can be made here: there is nothing yet, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def work_beside(out: Path) -> Path:
    """Where the work for `out` is kept: the hidden folder `.<name>.partial` beside it."""
    return out.parent / f".{out.name}.partial"


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """`work_beside(out)`, made and held by a lock so that two calls cannot write it at once. InputError where
    another call holds it."""
    work = work_beside(out)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another process is preparing {out}. Wait for it or name another --out."
            ) from None
        yield work


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other call is in this block for the same folder, which is made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Say what to do when the disk of `folder` is full."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise InputError(
                f"There is no space left for {error.filename or folder}. What was finished is kept: free "
                "some and run the same command to go on."
            ) from None
        raise


@contextmanager
def interruption(what: str) -> Iterator[None]:
    """Say after Ctrl-C what is kept, and how to go on. The outermost of its `with`: it speaks for the others too."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted. {what} The same command goes on from there.") from None
