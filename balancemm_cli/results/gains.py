"""What a method gains over the baseline of the same protocol, beside the gain that the paper prints.

Published baselines of one data set lie up to 26 points apart (benchmarks/published/README.md), so a gain over one's own
baseline can be compared between papers where the numbers themselves can't.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balancemm_cli.errors import InputError
from balancemm_cli.results.evidence import correct
from balancemm_cli.results.groups import Group, Key
from balancemm_cli.results.published import PAPER, lookup, other_data
from balancemm_cli.results.statistics import (
    Comparison,
    Summary,
    compare,
    holm,
    minimum_detectable,
    over_new_samples,
)
from balancemm_cli.results.terms import searched, terms
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Selection

BASELINE = "baseline"


@dataclass(frozen=True)
class Gain:
    """The difference in accuracy to the baseline, in fractions."""

    comparison: Comparison  # seed by seed
    new_samples: tuple[float, float] | None = None  # interval over other seeds and other test samples alike
    p: float | None = None  # of the comparison, adjusted by Holm over all gains that are shown together
    detectable: float | None = (
        None  # the true difference that so adjusted a test finds with probability POWER
    )
    tests: int = 0  # how many gains p is adjusted for
    tuned: bool = False  # over the baseline of the same search, whose settings are then its own
    published: float | None = None  # the same difference as printed
    claimed: bool = False  # of numbers that no predictions bear out


def gains(
    groups: Sequence[Group], selection: Selection, against: str = PAPER, among: Sequence[Group] = ()
) -> dict[Key, Gain]:
    """The gain of each group that has a baseline in `groups` or `among`, by its key."""
    found: dict[Key, Gain] = {}
    compared = []
    for group, baseline in pairs(groups, among):
        comparison = compare(accuracies(group, selection), accuracies(baseline, selection))
        if comparison is not None:
            found[group.key] = Gain(
                comparison,
                published=_published(group, against),
                tuned=tuned_alike(group, baseline),
                claimed=group.claimed(selection) or baseline.claimed(selection),
            )
            compared.append((group, baseline))
    intervals = _over_new_samples(compared, selection)
    adjusted = holm([gain.comparison.p for gain in found.values()])
    tests = sum(p is not None for p in adjusted)
    return {
        key: replace(
            gain,
            new_samples=intervals.get(key),
            p=p,
            detectable=None if p is None else _detectable(gain.comparison.difference, tests),
            tests=tests,
        )
        for (key, gain), p in zip(found.items(), adjusted, strict=True)
    }


def _detectable(difference: Summary, tests: int) -> float:
    assert difference.std is not None  # else there is no p-value
    return minimum_detectable(difference.std, difference.n, tests)


def pairs(groups: Sequence[Group], among: Sequence[Group] = ()) -> Iterator[tuple[Group, Group]]:
    """Each group of a method with its baseline in `groups` or `among`, where there is one.

    They share owner, data, model, and all settings that are not a method's; where searches chose the settings of both,
    the searches share all but what they found (see `tuned_alike`). Of several baselines it is one that shares seeds, is
    tuned alike, is of the same variant, and shares the most seeds.
    """
    baselines: dict[tuple, list[Group]] = defaultdict(list)
    for baseline in {id(group): group for group in (*among, *groups)}.values():
        if baseline.first.method == BASELINE:
            for key in (terms(baseline, _own(baseline)), *_searched(baseline)):
                baselines[key].append(baseline)
    for group in groups:
        if group.first.method != BASELINE:
            keys = (terms(group, _own(group)), *_searched(group))
            if found := [baseline for key in keys for baseline in baselines.get(key, [])]:
                yield group, max(found, key=lambda baseline: _kinship(group, baseline))


def tuned_alike(group: Group, baseline: Group) -> bool:
    """Whether searches of the same kind, budget, seed and space of what a method and its baseline share chose the
    settings of both, on the same data and with the same settings of what was not searched."""
    return not _searched(group).isdisjoint(_searched(baseline))


def apart(groups: Sequence[Group], among: Sequence[Group] = ()) -> list[Group]:
    """The groups that have a baseline, but no seed in common with it, and so no gain."""
    return [group for group, baseline in pairs(groups, among) if not {*group.seeds} & {*baseline.seeds}]


def _kinship(group: Group, baseline: Group) -> tuple[bool, bool, bool, int]:
    shared = len({*group.seeds} & {*baseline.seeds})
    return (
        shared > 0,
        tuned_alike(group, baseline),
        group.first.variant == baseline.first.variant,
        shared,
    )


def _own(group: Group) -> tuple[str, ...]:
    """The settings in which a method and its baseline differ by their nature."""
    names = group.first.method.split("+")
    of_source = (f"{part}.{name}" for part in ("revisions", "extensions") for name in names)
    return ("method", "variant", "discrepancy", *names, *of_source)


def _searched(group: Group) -> set[tuple]:
    """The terms of each search that chose the settings of a group, as far as its baseline shares them."""
    return {*searched(group, _own(group))}


def accuracies(group: Group, selection: Selection) -> dict[int, float]:
    """The accuracy of each run at a selection, a fraction, by its seed."""
    return {run.result.seed: run.result.selections[selection].accuracy for run in group.runs}


def _published(group: Group, source: str) -> float | None:
    first = group.first
    mine, baseline = (
        lookup(first.dataset, first.model, method, "accuracy", source) for method in (first.method, BASELINE)
    )
    if mine is None or baseline is None or mine.table != baseline.table or other_data(first, mine):
        return None
    return mine.fraction - baseline.fraction


def _over_new_samples(
    compared: Sequence[tuple[Group, Group]], selection: Selection
) -> dict[Key, tuple[float, float] | None]:
    """Intervals over seeds and test samples by the key of a group, for the pairs whose predictions are there."""
    found: dict[Key, tuple[float, float] | None] = {}
    read: dict[Path, NDArray[np.floating]] = {}  # a baseline once for all that are compared to it

    def right(run: Run) -> NDArray[np.floating]:
        if run.folder not in read:
            read[run.folder] = correct(run, selection)
        return read[run.folder]

    for group, baseline in compared:
        others = {run.result.seed: run for run in baseline.runs}
        shared = [(run, others[run.result.seed]) for run in group.runs if run.result.seed in others]
        try:
            gained = np.stack([right(run) - right(other) for run, other in shared])
        except (InputError, ValueError):  # of older or partial copies; the gain over seeds stands without it
            continue
        found[group.key] = over_new_samples(gained)
    return found
