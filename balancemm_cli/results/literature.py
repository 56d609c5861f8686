"""The spread of the literature: what papers printed for one data set, model and method, and where a value of ours lies.

Beside the four sources of `published`, later_papers.csv has what later papers reached when they ran these methods
again, under names of their own. A row of it counts only where MODELS and METHODS below know its names, the metric is
accuracy, and the task is ours; the others are left out, never guessed at. A paper that prints one value twice counts
once. Settings differ between papers (frames, preprocessing, optimiser): that is the spread.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import SOURCES, lookup
from balancemm_cli.results.statistics import Summary

LATER = "later papers"
METHODS = {
    "joint": "baseline",
    "OGM": "ogm",
    "OGM-GE": "ogm",
    "OPM": "opm",
    "G-Blending": "g-blending",
    "Greedy": "greedy",
    "PMR": "pmr",
    "AGM": "agm",
    "MMPareto": "mmpareto",
}
MODELS = {
    "concat": "concat",
    "sum": "sum",
    "film": "film",
    "affine (FiLM)": "film",
    "gated": "gated",
    "gated (BiGated)": "gated",
    "MMTM": "mmtm",
}
OTHER_TASKS = ("ave",)  # they classify whole clips of it, where our task is its segments
NOTE = (
    "Literature: how many of the accuracies that papers printed for the same data set, model and method lie below "
    "ours, with the lowest and the highest of them; their settings differ."
)


@dataclass(frozen=True)
class Value:
    """An accuracy that somebody printed, as a fraction."""

    source: str  # the paper
    kind: str  # one of SOURCES, or LATER
    accuracy: float


@dataclass(frozen=True)
class Place:
    """Where an accuracy of ours lies among `count` printed ones: `below` of them are lower. Fractions."""

    below: int
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"above {self.below} of {self.count} ({100 * self.low:.1f}–{100 * self.high:.1f})"


@cache
def _later() -> tuple[dict[str, str], ...]:
    path = benchmarks_folder() / "published" / "later_papers.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row["metric"] == "acc")


def _is_known(row: dict[str, str]) -> bool:
    return row["model"] in MODELS and row["method"] in METHODS and row["dataset"] not in OTHER_TASKS


def counts() -> tuple[int, int]:
    """(used, left out) accuracies of later_papers.csv."""
    used = sum(map(_is_known, _later()))
    return used, len(_later()) - used


@cache
def values(dataset: str, model: str, method: str) -> tuple[Value, ...]:
    """What is printed for these names of ours, from the lowest to the highest."""
    found = dict.fromkeys([*_of_sources(dataset, model, method), *_of_later(dataset, model, method)])
    return tuple(sorted(found, key=lambda one: (one.accuracy, one.source)))


def _of_sources(dataset: str, model: str, method: str) -> Iterator[Value]:
    for source in SOURCES:
        if number := lookup(dataset, model, method, "accuracy", source):
            yield Value(source, source, number.fraction)


def _of_later(dataset: str, model: str, method: str) -> Iterator[Value]:
    for row in _later():
        names = (MODELS.get(row["model"]), METHODS.get(row["method"]))
        if _is_known(row) and row["dataset"] == dataset and names == (model, method):
            yield Value(row["source"], LATER, round(float(row["value"]) / 100, 6))


def place(group: Group | None, metric: str, ours: Summary | None) -> Place | None:
    """Where a group's accuracy lies; None for another metric, or with fewer than two printed values."""
    if group is None or ours is None or metric != "accuracy":
        return None
    found = [one.accuracy for one in values(*group.names[:3])]
    if len(found) < 2:
        return None
    return Place(sum(one < ours.mean for one in found), len(found), found[0], found[-1])


def plain(found: Place | None) -> dict[str, object]:
    """A Place as plain values; all None without one."""
    return {name: getattr(found, name, None) for name in ("below", "count", "low", "high")}
