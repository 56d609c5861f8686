"""Tables of numbers as others publish them: cells in a text file, checked, with one sentence for every fault."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.lists import csv_lines, number_in
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Table:
    """The rows of a text file that are not blank, with the number of each one's line; all have one width.

    `path` is what messages name (the file, or one within a wheel), `header` the names of the columns where the file has
    such, `how_to_get` how to get it anew.
    """

    path: Path
    header: list[str]
    lines: list[int]
    rows: list[list[str]]
    how_to_get: str

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, place: int) -> list[str]:
        """The cells of one column."""
        return [row[place] for row in self.rows]

    def places(self, names: Iterable[str]) -> list[int]:
        """Where the columns of these names are. InputError for a name that no column has, or several."""
        found = []
        for name in names:
            if (count := self.header.count(name)) != 1:
                several = f"{count} columns '{name}'" if count else f"no column '{name}'"
                raise InputError(f"{self.path} has {several}. {self.how_to_get}")
            found.append(self.header.index(name))
        return found

    def classes(self, place: int, known: Iterable[str]) -> list[str]:
        """The cells of a column of classes. InputError, with the line, for one that is not known."""
        known = list(known)
        for line, cell in zip(self.lines, self.column(place), strict=True):
            if cell not in known:
                raise InputError(
                    f"{self.path}, line {line}: the class '{cell}' is none of {', '.join(known)}. {self.how_to_get}"
                )
        return self.column(place)

    def numbers(self, places: Iterable[int]) -> "np.ndarray":
        """Some columns as float64 [N, columns]. InputError, with the line, for a cell that is no number, or one that
        float32 has no finite value for."""
        import numpy as np

        places = list(places)
        values = np.array([[number_in(row[place]) for place in places] for row in self.rows], np.float64)
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(values.astype(np.float32))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"{self.path}, line {self.lines[row]}: '{self.rows[row][places[column]]}' is not a finite number. "
                f"{self.how_to_get}"
            )
        return values


def read_table(
    path: Path,
    text: str,
    how_to_get: str,
    separator: str | None = ",",
    width: int | None = None,
    header: bool = False,
) -> Table:
    """The table in a text, whose cells lie between separators (None: blanks), the first line a header or not.
    InputError for one without rows, and for a row of another width than `width`, by default that of the first."""
    if separator is None:
        parted = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1)]
        found = [(number, row) for number, row in parted if row]
    else:
        found = csv_lines(path, text, separator, how_to_get)
    if len(found) <= header:
        raise InputError(f"{path} has no rows. {how_to_get}")
    width = width or len(found[0][1])
    for number, row in found:
        if len(row) != width:
            raise InputError(
                f"{path}, line {number}: it has {len(row)} columns where {width} belong. {how_to_get}"
            )
    names = found.pop(0)[1] if header else []
    return Table(path, names, [number for number, _ in found], [row for _, row in found], how_to_get)
