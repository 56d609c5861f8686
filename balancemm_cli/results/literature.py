"""The spread of the literature: what papers printed for one data set, model and method, and where a value of ours lies.

Beside the four sources of `published`, later_papers.csv has what later papers reached when they ran these methods
again, under names of their own. A row of it counts only where `later_papers` knows its names, the paper has
numbers of the data set, the metric is accuracy, the task is ours, and its column `same_protocol` says yes: a row whose
own note says that it is of another split, of other preprocessing or copied says no. The others are left out, never
guessed at. A paper counts once: where it prints several values under one name of ours, it has none. Settings
differ between papers (frames, optimiser): that is the spread.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from balancemm_cli.results import later_papers
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import (
    PAPER,
    SOURCES,
    Published,
    covers,
    later_split,
    lookup,
    official_split,
    wrong_data,
)
from balancemm_cli.results.statistics import Summary

LATER = "later papers"
OF_THE_AUTHORS = (PAPER, "cvpr2022", "balancebenchmark2025")
"""The sources among SOURCES that are by the paper's own group."""


@dataclass(frozen=True)
class Value:
    """An accuracy that somebody printed, as a fraction."""

    source: str  # the paper
    kind: str  # one of SOURCES, or LATER
    accuracy: float
    split: str  # that it is of, empty where that is not known
    table: str  # the source's own number of it, empty where it has none
    method: str  # as the source calls it
    std: float | None  # over seeds, a fraction, where it is printed
    note: str  # ours, from the file

    @property
    def of_the_authors(self) -> bool:
        """Whether the paper's own group printed it."""
        return self.kind in OF_THE_AUTHORS or self.note.startswith("same group")


@dataclass(frozen=True)
class Place:
    """Where an accuracy of ours lies among `count` printed ones: `below` of them are lower. Fractions."""

    below: int
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"above {self.below} of {self.count} ({100 * self.low:.1f}–{100 * self.high:.1f})"


def _known() -> list[later_papers.Row]:
    """The accuracies of fused networks whose names are ours, on data that the paper has too."""
    rows = (
        row
        for row in later_papers.printed()
        if row["metric"] == "acc" and row["method"] not in later_papers.ALONE
    )
    return [row for row in rows if later_papers.names(row) and covers(row["dataset"])]


def _ours(row: later_papers.Row) -> tuple[str, str] | None:
    """Our model and method of a row, which may be printed under another model's name."""
    names = later_papers.names(row)
    return names and (later_papers.NETWORKS.get(names[1], names[0]), names[1])


def _counts(row: dict[str, str]) -> bool:
    return row["same_protocol"] == "yes"


def note() -> str:
    """What the place in the literature is, and which printed values have no part in it."""
    known = _known()
    used = sum(map(_counts, known))
    return (
        "Literature: how many of the accuracies that papers printed for the same data set, model and method lie below "
        "ours, with the lowest and the highest of them; their settings differ. Of those of later papers "
        f"{used} count; {len(known) - used} under these names do not, which by their own notes are of another split, "
        "of other preprocessing or copied."
    )


@cache
def values(dataset: str, model: str, method: str) -> tuple[Value, ...]:
    """What is printed for these names of ours, from the lowest to the highest, a paper at most once."""
    found = [*_of_sources(dataset, model, method), *_of_later(dataset, model, method)]
    return tuple(sorted(found, key=lambda one: (one.accuracy, one.source)))


def of_another_protocol(dataset: str, model: str, method: str) -> tuple[Value, ...]:
    """What later papers print for these names and has no part in `values`, as its note contradicts the paper's
    protocol; a paper at most once."""
    return tuple(_of_later(dataset, model, method, counted=False))


def _of_sources(dataset: str, model: str, method: str) -> Iterator[Value]:
    for source in SOURCES:
        if number := lookup(dataset, model, method, "accuracy", source):
            yield _of_source(number)


def _of_source(number: Published) -> Value:
    source, note = number.source, number.note
    name = "OGM-GE" if note.startswith("OGM-GE") else number.method
    std = re.search(r"\bstd (\d+\.\d+)", note)
    deviation = float(std[1]) / 100 if std else None
    return Value(source, source, number.fraction, number.split, number.table, name, deviation, note)


def _of_later(dataset: str, model: str, method: str, counted: bool = True) -> Iterator[Value]:
    by_paper: dict[str, list[later_papers.Row]] = defaultdict(list)
    for row in _known():
        if row["dataset"] == dataset and _ours(row) == (model, method) and _counts(row) == counted:
            by_paper[row["source"]].append(row)
    for first, *others in by_paper.values():
        if all(float(row["value"]) == float(first["value"]) for row in others):
            yield _of_row(first)


def _of_row(row: later_papers.Row) -> Value:
    accuracy = round(float(row["value"]) / 100, 6)
    deviation = float(row["std"]) / 100 if row["std"] else None
    split, note = later_split(row), row["note"]
    return Value(row["source"], LATER, accuracy, split, row["table"], row["method"], deviation, note)


def beside(group: Group) -> tuple[Value, ...]:
    """The values for a group's names; none where its data are not those of the papers' split."""
    dataset = group.first.dataset
    return () if wrong_data(group.first, dataset, official_split(dataset)) else values(*group.names[:3])


def place(group: Group | None, metric: str, ours: Summary | None) -> Place | None:
    """Where a group's accuracy lies; None for another metric, other data, or fewer than two printed values."""
    if group is None or ours is None or metric != "accuracy":
        return None
    found = [one.accuracy for one in beside(group)]
    if len(found) < 2:
        return None
    return Place(sum(one < ours.mean for one in found), len(found), found[0], found[-1])


def plain(found: Place | None) -> dict[str, object]:
    """A Place as plain values; all None without one."""
    return {name: getattr(found, name, None) for name in ("below", "count", "low", "high")}
