"""What is said of an error that ends a training or an evaluation, as one in a hook of another package's method."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from balancemm_cli.engine import distributed
from balancemm_cli.errors import BmmError, InputError, said_by, sentence
from balancemm_cli.extensions import raised_in
from balancemm_cli.runs.folder import RunFolder


@contextmanager
def failures_kept(folder: RunFolder) -> Iterator[None]:
    """Let an error that ends the block end the run as "failed", its sentence kept in result.json and raised as
    InputError. SystemExit, which would end the program as if all were well, is such an error.

    Errors that say nothing against the run pass: lack of memory or disk, processes that were lost, and our own.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if _says_nothing_of_the_run(error):
            raise
        explained = explain(error)
        if distributed.rank() == 0:
            folder.write_failure(explained, distributed.processes())
        raise InputError(
            f"{explained} Mend it, then run the same command. What was trained before is kept in {folder.path}."
        ) from error


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise an error of another package that ends an evaluation as InputError, with its sentence."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, BmmError):
        raise
    except BaseException as error:
        if raised_in(error) is None or lacks_memory(error):
            raise
        raise InputError(explain(error, "evaluation")) from error


def _says_nothing_of_the_run(error: BaseException) -> bool:
    of_the_system = isinstance(error, OSError) and raised_in(error) is None
    return (
        isinstance(error, BmmError) or of_the_system or lacks_memory(error) or distributed.lost_others(error)
    )


def explain(error: BaseException, what: str = "training") -> str:
    """In a sentence which error it was, and where: in another package, or in a file of our own."""
    extension, last = raised_in(error), traceback.extract_tb(error.__traceback__)[-1]
    files = extension.files if extension else ()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in files]
    frame = frames[-1] if frames else last
    of = f" of {extension.package} {extension.version}" if extension else ""
    kind, text = type(error).__name__, said_by(error)
    return sentence(
        f"The {what} failed in line {frame.lineno} of {Path(frame.filename).name}{of}: "
        f"{kind if text == kind else f'{kind}: {text}'}"
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or here."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
