"""What made data sets share: they write their own media, most of them in the official format of another one."""

import json
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

DONE = "design.json"  # written last: it says that all else is there
BEGUN = ".begun"  # there until then

Progress = Callable[[str, int, int], None]  # of a stage's name, what is done of it, and how much there is


class Made(Dataset):
    """A data set that writes its own media before they are prepared."""

    SPLIT_NAMES = ("made",)
    EMBEDDED = True
    PUBLISHED = False

    @abstractmethod
    def make(
        self,
        source: Path,
        workers: int | None = None,
        on_progress: Progress | None = None,
        counts: dict[str, int] | None = None,
    ) -> None:
        """Write the media under `source`, so many samples of each split as `counts` says, or the usual ones. What is
        there already is kept. `on_progress("write", done, total)` may be called. InputError where the folder holds
        something else."""


class MadeAs(Made):
    """Made data in the official format of another data set, whose own class reads them.

    `OF` is that data set in texts, `VERSION` is raised when what is written changes, `COUNTS` are the samples of each
    split.
    """

    OF: ClassVar[str]
    VERSION: ClassVar[int]
    COUNTS: ClassVar[dict[str, int]]

    @abstractmethod
    def read(self, source: Path) -> Plan:
        """The plan of what `make` wrote, by the other data set's class."""

    @abstractmethod
    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Write the files of so many samples a split into a folder."""

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The samples that `make` wrote, under this data set's name; without notes on other lists than the official
        ones."""
        no_lists(self.name, splits)
        check_made(source, self.VERSION)
        found = self.read(source)
        compared = ("official", ", that one ", f", those of {self.OF} ")
        return replace(
            found,
            name=self.name,
            split_name="made",
            split_description=f"made data in the form of {self.OF}",
            official_lists=None,
            notes=[note for note in found.notes if not any(words in note for words in compared)],
            remedy=f"Delete {source} to have it written anew.",
        )

    def make(
        self,
        source: Path,
        workers: int | None = None,
        on_progress: Progress | None = None,
        counts: dict[str, int] | None = None,
    ) -> None:
        """As Made.make, in one go."""
        make_once(source, self.VERSION, lambda folder: self.write(folder, counts or self.COUNTS))


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


def generator(*keys: object) -> "np.random.Generator":
    """Random numbers that depend on the keys alone."""
    import numpy as np

    return np.random.default_rng([*"/".join(map(str, keys)).encode()])


def patterns(count: int, width: int, *keys: object) -> "np.ndarray":
    """Orthogonal rows of length 1, float64 [count, width], of the keys' own."""
    import numpy as np

    rows, _ = np.linalg.qr(generator("patterns", *keys).standard_normal((width, count)))
    return rows.T
