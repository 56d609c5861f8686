"""Labels of a user's own data: one class a sample, any number of classes, or a number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from balancemm_cli.data.datasets.lists import number_in
from balancemm_cli.data.datasets.plan import SETS
from balancemm_cli.errors import InputError, UsageError

KINDS_OF_LABELS = ("classes", "numbers", "sets")
BETWEEN = "|"  # the labels of a sample that has several; alone: it has none
NUMBER = "regression"  # the extra that holds a label as a number
LARGEST = 1e30  # of a label that is a number
FEW = 0.1  # of the labels: so many that are no numbers, beside fractions, are taken for mistakes
SIDES = ["below the mean", "above the mean"]


@dataclass(frozen=True)
class Labels:
    """The labels of all rows: the classes of each (`of_rows`), and its number where labels are such.

    `mean` and `deviation` are those of the numbers of the training part, once `measured`.
    """

    kind: str
    of_rows: list[list[str]]
    numbers: list[float] | None
    mean: float = 0.0
    deviation: float = 1.0
    notes: list[str] = field(default_factory=list)

    @cached_property  # each row asks for it
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their indices."""
        if self.kind == "numbers":
            return SIDES
        return sorted({label for labels in self.of_rows for label in labels})

    @property
    def extras(self) -> dict[str, str]:
        """The further columns that the labels need."""
        columns = {SETS: "integers"} if self.kind == "sets" else {}
        return columns | ({NUMBER: "number"} if self.numbers is not None else {})

    @property
    def about(self) -> str:
        """What to do where a class has no training sample."""
        if self.kind == "classes" and self.numbers is not None:
            return "Where the labels are numbers to be estimated, pass --labels numbers."
        return "Add one, or delete the class's other samples."

    def extras_of(self, place: int) -> dict[str, Any]:
        """The values of these columns of a row."""
        found: dict[str, Any] = {}
        if self.kind == "sets":
            found[SETS] = [int(name in self.of_rows[place]) for name in self.classes]
        if self.numbers is not None:
            found[NUMBER] = (self.numbers[place] - self.mean) / self.deviation
        return found

    def label_of(self, place: int) -> str:
        """The class of a row; of several the first, of none the first class."""
        if self.kind == "numbers":
            assert self.numbers is not None
            return SIDES[self.numbers[place] >= self.mean]
        return next(iter(self.of_rows[place]), self.classes[0])

    def measured(self, training: Sequence[bool]) -> "Labels":
        """With the mean and the deviation of the numbers of the training part, and a note on them."""
        if self.numbers is None:
            return self
        trained = [number for number, train in zip(self.numbers, training, strict=True) if train]
        if not trained:
            return self
        mean = math.fsum(trained) / len(trained)
        farthest = max(abs(number - mean) for number in trained)
        if not farthest:
            raise InputError(
                f"All labels of the training part are {trained[0]:g}: there is nothing to estimate. Correct the column "
                "'label' or the split."
            )
        squares = math.fsum(((number - mean) / farthest) ** 2 for number in trained)
        deviation = farthest * math.sqrt(squares / len(trained))
        note = (
            f"The labels are numbers, from {min(self.numbers):g} to {max(self.numbers):g}. For task regression each is "
            f"stored as (label − {mean:.6g}) / {deviation:.6g}, by the mean and the deviation of the training part, so "
            "that errors are in these deviations."
        )
        if self.kind == "numbers":
            note += " Their classes, which task classification tells apart, are below and above that mean."
        return replace(self, mean=mean, deviation=deviation, notes=[*self.notes, note])


def labels_from(path: Path, cells: list[tuple[int, str]], kind: str | None) -> Labels:
    """The labels in the cells of a column, each with its line, as of a `kind`.

    None: sets where a label has a BETWEEN, numbers where all are numbers (or all but FEW, which are mistakes) and not
    all whole, else classes. UsageError for another kind, InputError for cells that are not of it.
    """
    if kind is not None and kind not in KINDS_OF_LABELS:
        raise UsageError(f"--labels is one of {', '.join(KINDS_OF_LABELS)}, not '{kind}'.")
    texts = [text for _, text in cells]
    numbers = [number_in(text) for text in texts]
    wrong = [place for place, number in enumerate(numbers) if not abs(number) <= LARGEST]
    right = [number for number in numbers if abs(number) <= LARGEST]
    fractions = any(number != int(number) for number in right)
    if kind is None and any(BETWEEN in text for text in texts):
        kind = "sets"
    if kind == "numbers" or (kind is None and fractions):
        kind = "classes" if kind is None and len(wrong) > FEW * len(numbers) else "numbers"
    if kind == "numbers" and wrong:
        line, text = cells[wrong[0]]
        raise InputError(
            f"{path}, line {line}: the label '{text}' is no number, or none within ±{LARGEST:g}. Correct it; where "
            "labels are names of classes, pass --labels classes."
        )
    if kind == "sets":
        sets = [[name for part in text.split(BETWEEN) if (name := part.strip())] for text in texts]
        if not any(sets):
            raise InputError(f"{path} has no label at all. Fill the column 'label'.")
        return Labels(kind, [list(dict.fromkeys(names)) for names in sets], None)
    if kind == "numbers":
        middle = sorted(numbers)[len(numbers) // 2]
        # for a split by our rule: as many of the upper as of the lower half in each part
        return Labels(kind, [[SIDES[number >= middle]] for number in numbers], numbers)
    estimable = not wrong and len(set(numbers)) > 2
    return Labels("classes", [[text] for text in texts], numbers if estimable else None)
