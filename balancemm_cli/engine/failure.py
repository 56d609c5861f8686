"""What is kept of a run that an error ends, as one in a hook of another package's method."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from balancemm_cli.engine import distributed
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.extensions import explain, raised_in
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
        explained = explain(error, "training")
        if distributed.rank() == 0:
            folder.write_failure(explained, distributed.processes())
        raise InputError(
            f"{explained} Mend it, then run the same command. What was trained before is kept in {folder.path}."
        ) from error


def _says_nothing_of_the_run(error: BaseException) -> bool:
    of_the_system = isinstance(error, OSError) and raised_in(error) is None
    return (
        isinstance(error, BmmError) or of_the_system or lacks_memory(error) or distributed.lost_others(error)
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or here."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
