"""What the made data sets share: a source that is written once, whole, in the official format of another data set."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

DONE = "design.json"  # written last: it says that all else is there
BEGUN = ".begun"  # there until then


def make_once(source: Path, version: int, write: Callable[[Path], None]) -> None:
    """Let `write` fill the folder `source`, unless it is whole already. A folder that was left half-way is written
    again over what is there. InputError where it holds another version or other files."""
    from balancemm_cli.data.store import write_json

    if (source / DONE).exists():
        check_made(source, version)
        return
    begun = source / BEGUN
    if source.is_dir() and any(source.iterdir()) and not begun.exists():
        raise InputError(f"{source} holds other files. Name an empty folder with --source.")
    source.mkdir(parents=True, exist_ok=True)
    begun.touch()
    write(source)
    os.sync()
    write_json(source / DONE, {"version": version})
    begun.unlink()


def check_made(source: Path, version: int) -> None:
    """InputError where the folder does not hold the data of this version whole."""
    path = source / DONE
    try:
        if json.loads(path.read_text())["version"] == version:
            return
    except FileNotFoundError:
        raise InputError(f"There are no made data in {source}. Prepare them without --source.") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is damaged or of another version of the data. Delete the folder {source}.")


def as_made(plan: Plan, name: str, of: str, source: Path) -> Plan:
    """The plan of another data set's reader under the name of the made data; without its notes on other lists."""
    compared = ("official", ", that one ", f", those of {of} ")
    notes = [note for note in plan.notes if not any(words in note for words in compared)]
    remedy = f"Delete {source} to have it written anew."
    return replace(plan, name=name, protocol=f"made data in the form of {of}", notes=notes, remedy=remedy)


def generator(*keys: object) -> "np.random.Generator":
    """Random numbers that depend on the keys alone."""
    import numpy as np

    return np.random.default_rng([*"/".join(map(str, keys)).encode()])


def patterns(count: int, width: int, *keys: object) -> "np.ndarray":
    """Orthogonal rows of length 1, float64 [count, width], of the keys' own."""
    import numpy as np

    rows, _ = np.linalg.qr(generator("patterns", *keys).standard_normal((width, count)))
    return rows.T
