"""What is kept of a run that an error ends, as one in a hook of another package's method."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from balancemm_cli.engine import distributed
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.extensions import raised_in
from balancemm_cli.runs.folder import RunFolder

LONGEST = 500  # signs of an error's own text that are kept


@contextmanager
def failures_kept(folder: RunFolder) -> Iterator[None]:
    """Let an error that ends the block end the run as "failed", its sentence kept in result.json and raised as
    InputError.

    Errors that say nothing against the run pass: lack of memory or disk, processes that were lost, and our own.
    """
    try:
        yield
    except Exception as error:
        if _says_nothing_of_the_run(error):
            raise
        sentence = explain(error)
        if distributed.rank() == 0:
            folder.write_failure(sentence, distributed.processes())
        raise InputError(
            f"{sentence} Mend it, then run the same command. What was trained before is kept in {folder.path}."
        ) from error


def _says_nothing_of_the_run(error: Exception) -> bool:
    of_the_system = isinstance(error, OSError) and raised_in(error) is None
    return (
        isinstance(error, BmmError) or of_the_system or lacks_memory(error) or distributed.lost_others(error)
    )


def explain(error: BaseException) -> str:
    """In a sentence which error it was, and where: in another package, or in a file of our own."""
    extension, last = raised_in(error), traceback.extract_tb(error.__traceback__)[-1]
    files = [] if extension is None else extension.sources
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in files]
    frame = frames[-1] if frames else last
    of = f" of {extension.package} {extension.version}" if extension else ""
    text = "".join(sign for sign in str(error).partition("\n")[0][:LONGEST] if sign.isprintable()).rstrip(".")
    return (
        f"The training failed in line {frame.lineno} of {Path(frame.filename).name}{of}: "
        f"{type(error).__name__}{': ' if text else ''}{text}."
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or here."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
