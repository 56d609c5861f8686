"""Methods by data sets, and what follows over all data sets for those that can be compared: a leaderboard's numbers.

What ranks is the accuracy of the fused prediction; how balanced the modalities are has no part in it. A method enters
the comparison over data sets where it has the runs for it: on each data set the seeds that more than half of the
methods have. All others are named.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from balancemm_cli.config.recipe import describe
from balancemm_cli.errors import InputError
from balancemm_cli.results.gains import BASELINE
from balancemm_cli.results.groups import UNIMODAL, Group
from balancemm_cli.results.ranking import (
    FEW_DATASETS,
    MIN_DATASETS,
    Estimate,
    Friedman,
    OverSeeds,
    Scores,
    cliques,
    critical_difference,
    friedman,
    ranks,
    wilcoxon,
)
from balancemm_cli.results.references import JOINT, MAJORITY
from balancemm_cli.results.rows import Row, row
from balancemm_cli.results.statistics import GAP, LEVEL, Summary, summarize
from balancemm_cli.runs.reading import read_history
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Result, Selection

BEST_ALONE = "best modality"  # the model of that row
ALPHA = 1 - LEVEL
MEASURES = {
    "Time": "seconds",
    "Multiply-adds": "multiply_adds",
    "Memory": "memory",
    "Parameters": "parameters",
}

Names = tuple[str, ...]  # model, method, variant, recipe, settings, owner


@dataclass(frozen=True)
class Entry:
    """A method: its row for each data set that it has runs of."""

    names: Names
    rows: dict[str, Row]

    @property
    def label(self) -> str:
        """A short name: the model, unless it is joint training by concat, and the method."""
        model, method, *_ = self.names
        return " ".join(part for part in (model if model != JOINT else "", method) if part and part != GAP)

    @property
    def owner(self) -> str:
        """Whose it is, where there are several owners."""
        return self.names[-1]

    def seeds(self, dataset: str) -> set[int]:
        """The seeds of its runs on a data set."""
        return {*self.rows[dataset].group.seeds} if dataset in self.rows else set()

    def cost(self, dataset: str) -> dict[str, Summary | None]:
        """Seconds of training, and of a training step multiply-adds, bytes of memory and trained weights, over seeds.

        Of an ensemble times, weights and multiply-adds add up, and memory is that of its largest member, for one is
        trained after the other.
        """
        there = dataset in self.rows and self.names[0] != MAJORITY
        trained = [run.members or (run,) for run in self.rows[dataset].group.runs] if there else []
        found: dict[str, Summary | None] = {}
        for key in MEASURES.values():
            add: Callable = max if key == "memory" else sum
            values = [[_measured(run.result, key) for run in members] for members in trained]
            found[key] = summarize([add(of) for of in values if None not in of]) if values else None
        return found


def _measured(result: Result, key: str) -> float | None:
    return result.time.get("seconds") if key == "seconds" else getattr(result.cost, key)


@dataclass(frozen=True)
class Standing:
    """What is to be said of a method over all data sets."""

    rank: Estimate
    wins: Estimate
    improvement: Estimate | None  # over the reference; None for itself
    rank_of_means: float


@dataclass(frozen=True)
class Tests:
    """The tests over data sets; None where they may not be used, which `why` says."""

    why: str
    friedman: Friedman | None = None
    difference: float | None = None  # the critical one
    differing: tuple[tuple[int, int], ...] = ()  # pairs of compared methods
    cliques: tuple[tuple[int, ...], ...] = ()  # sets of which no two can be told apart
    wilcoxon: tuple[tuple[tuple[int, int], float], ...] = ()


class Board:
    """Entries by data sets, and what follows over all data sets for those that can be compared."""

    def __init__(self, groups: Sequence[Group], selection: Selection) -> None:
        self.selection: Selection = selection
        self.datasets = list(dict.fromkeys(group.first.dataset for group in groups))
        named = _named(groups)
        by_names: dict[Names, dict[str, Row]] = {}
        for names, group in named:
            if not group.first.model.startswith(UNIMODAL):
                rows, dataset = by_names.setdefault(names, {}), group.first.dataset
                rows[dataset] = row(
                    rows[dataset].group.joined(group) if dataset in rows else group, selection
                )
        self.entries = [Entry(names, rows) for names, rows in by_names.items()]
        self.optimistic: set[str] = set()  # data sets of which the test part chose the best modality
        alone = _best_alone(named, selection, self.optimistic)
        self.entries += [Entry(names, rows) for names, rows in alone.items()]
        if not self.entries:
            raise InputError("There is no method to rank.")

    @cached_property
    def seeds(self) -> dict[str, list[int]]:
        """By data set, the seeds that more than half of the methods with runs on it have; the majority class, which is
        there for the seeds of all, has no say."""
        found = {}
        for dataset in self.datasets:
            there = [one for one in self.entries if dataset in one.rows and one.names[0] != MAJORITY]
            counts = Counter(seed for entry in there for seed in entry.seeds(dataset))
            found[dataset] = sorted(seed for seed, count in counts.items() if 2 * count > len(there))
        return found

    @cached_property
    def lacking(self) -> dict[Names, str]:
        """By the names of a method that is not compared, what it lacks."""
        found = {}
        for entry in self.entries:
            missing = []
            for dataset in self.datasets:
                seeds = sorted({*self.seeds[dataset]} - entry.seeds(dataset))
                if dataset not in entry.rows:
                    missing.append(f"no runs on {dataset}")
                elif seeds:
                    missing.append(f"no finished run of seed {', '.join(map(str, seeds))} on {dataset}")
            if missing:
                found[entry.names] = "; ".join(missing)
        return found

    @cached_property
    def compared(self) -> list[Entry]:
        """The entries that have all runs."""
        return [entry for entry in self.entries if entry.names not in self.lacking]

    @cached_property
    def labels(self) -> dict[Names, str]:
        """By the names of each entry its label, by which no other one goes."""
        return self._apart(lambda entry: entry.label)

    @cached_property
    def full_names(self) -> dict[Names, str]:
        """By the names of each entry its model and method, with what else tells it apart."""
        return self._apart(lambda entry: " ".join(part for part in entry.names[:2] if part != GAP))

    def _apart(self, plain: Callable[[Entry], str]) -> dict[Names, str]:
        counts = Counter(map(plain, self.entries))
        more = [
            texts for head, texts in columns_apart(self.entries).items() if head not in ("Model", "Method")
        ]
        return {
            entry.names: " · ".join(
                [plain(entry), *(texts[at] for texts in more if texts[at] and counts[plain(entry)] > 1)]
            )
            for at, entry in enumerate(self.entries)
        }

    @property
    def references(self) -> list[Entry]:
        """Of each owner joint training, over which improvement and cost are counted."""
        found = {id(one): one for entry in self.compared if (one := self.reference(entry))}
        return list(found.values())

    def reference(self, entry: Entry) -> Entry | None:
        """Joint training by the owner of an entry: machine and program of others may differ."""
        joint = [one for one in self.compared if (one.names[1], one.owner) == (BASELINE, entry.owner)]
        return next((one for one in joint if one.names[0] == JOINT), joint[0] if joint else None)

    @cached_property
    def runs(self) -> list[Scores]:
        """The accuracies of the compared methods, [seeds, K] a data set."""
        return [
            np.array([[_accuracies(entry.rows[dataset])[seed] for entry in self.compared] for seed in seeds])
            for dataset, seeds in self.seeds.items()
        ]

    @cached_property
    def means(self) -> Scores:
        """The mean accuracies of the compared methods over these seeds, [D, K]."""
        return np.stack([scores.mean(0).round(12) for scores in self.runs])

    @cached_property
    def standings(self) -> list[Standing]:
        """Of each compared method, in their order; none where fewer than two are compared, or on a data set no seed."""
        if len(self.compared) < 2 or not all(self.seeds.values()):
            return []
        over = OverSeeds(self.runs)
        of_means = ranks(self.means).mean(0)
        references = [self.reference(entry) for entry in self.compared]
        against = [None if one is None else self.compared.index(one) for one in references]
        return [
            Standing(
                rank,
                wins,
                None if other in (None, place) else over.improvement(place, other),
                float(mean),
            )
            for place, (rank, wins, mean, other) in enumerate(
                zip(over.mean_ranks(), over.win_rates(), of_means, against, strict=True)
            )
        ]

    @cached_property
    def tests(self) -> Tests:
        """What the tests over data sets say, or why they may not be used."""
        methods, datasets = len(self.compared), len(self.datasets)
        if not self.standings:
            return Tests(
                "Fewer than two methods have runs of the same seeds on every data set: nothing is compared."
            )
        if datasets < MIN_DATASETS:
            return Tests(
                f"No test over data sets: there {'is' if datasets == 1 else 'are'} {datasets}, and with fewer than "
                f"{MIN_DATASETS} none may be used. What is said holds for what is here alone."
            )
        pairs = wilcoxon(self.means)
        if methods == 2:
            p = pairs[0, 1]
            return Tests(
                f"Two methods over {datasets} data sets, by Wilcoxon's signed-rank test: p = {p:.3f}.",
                differing=((0, 1),) if p < ALPHA else (),
                wilcoxon=tuple(pairs.items()),
            )
        found, difference = friedman(self.means), critical_difference(methods, datasets)
        mean = ranks(self.means).mean(0)
        shown = found.p < ALPHA
        differing = [pair for pair in pairs if shown and abs(mean[pair[0]] - mean[pair[1]]) > difference]
        alike = cliques(mean.tolist(), difference if shown else np.inf)
        verdict = (
            f"Nemenyi's critical difference of mean ranks is {difference:.2f}"
            if shown
            else "so none may be said to differ, and no test of pairs follows"
        )
        rough = " With so few data sets this p is rough." if datasets <= FEW_DATASETS else ""
        return Tests(
            f"Friedman's test over {datasets} data sets and {methods} methods (χ² = {found.chi_square:.2f}, "
            f"Iman and Davenport's F = {found.f:.2f}): p = {found.p:.3f}; {verdict}.{rough}",
            found,
            difference,
            tuple(differing),
            tuple(map(tuple, alike)),
            tuple(pairs.items()),
        )


def columns_apart(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The columns that tell entries apart."""
    heads = ("Model", "Method", "Variant", "Recipe", "Settings")
    columns = {head: [entry.names[place] for entry in entries] for place, head in enumerate(heads)}
    columns["Owner"] = [entry.owner for entry in entries]
    several = {
        head for head, texts in columns.items() if len({*texts} - ({""} if head == "Owner" else set())) > 1
    }
    return {head: texts for head, texts in columns.items() if head in {"Model", "Method", *several}}


def _named(groups: Sequence[Group]) -> list[tuple[Names, Group]]:
    """The groups, each with the names of its entry. What a search chose is of one data set, and has no part in them."""
    searched: dict[tuple[str, ...], set[str]] = {}
    for group in groups:
        keys = (key for search in group.searches for key in search.space)
        searched.setdefault((group.owner, *group.names), set()).update(keys)
    found = []
    for group in groups:
        settings = {
            key: value
            for key, value in group.differences.items()
            if key not in searched[(group.owner, *group.names)]
        }
        text = "; ".join(group.tuned) or describe(settings)
        found.append(((*group.names[1:], text, group.whose), group))
    return found


def _accuracies(one: Row) -> dict[int, float]:
    return {run.result.seed: run.result.selections[one.selection].accuracy for run in one.group.runs}


def _best_alone(
    named: Sequence[tuple[Names, Group]], selection: Selection, optimistic: set[str]
) -> dict[Names, dict[str, Row]]:
    """By data set, the best modality of those that were trained alone; an entry for each variant, recipe and settings.
    Data sets of which the test part chose it are added to `optimistic`."""
    families: dict[Names, dict[str, list[Group]]] = {}
    for names, group in named:
        if group.first.model.startswith(UNIMODAL) and group.first.method == BASELINE:
            by_dataset = families.setdefault((BEST_ALONE, GAP, *names[2:]), {})
            by_dataset.setdefault(group.first.dataset, []).append(group)
    found: dict[Names, dict[str, Row]] = {}
    for names, by_dataset in families.items():
        for dataset, groups in by_dataset.items():
            best, by_test = _best(groups, selection)
            found.setdefault(names, {})[dataset] = row(best, selection)
            if by_test and len(groups) > 1:
                optimistic.add(dataset)
    return found


def _best(groups: Sequence[Group], selection: Selection) -> tuple[Group, bool]:
    """The group of the best mean accuracy over the seeds that all have, and whether that is of test samples: it is of
    validation samples where every run has such. Without a common seed, of those with the most."""
    most = max(len(group.seeds) for group in groups)
    shared = set.intersection(*({*group.seeds} for group in groups))
    asked = [group for group in groups if shared or len(group.seeds) == most]
    runs = [[run for run in group.runs if not shared or run.result.seed in shared] for group in asked]
    values = [[_validated(run, selection) for run in of] for of in runs]
    by_test = any(value is None for of in values for value in of)
    if by_test:
        values = [[run.result.selections[selection].accuracy for run in of] for of in runs]
    means = [float(np.mean(np.array(of, float))) for of in values]
    return asked[means.index(max(means))], by_test


def _validated(run: Run, selection: Selection) -> float | None:
    """The accuracy on validation samples at the selected epoch; None for a run that has none."""
    try:
        return read_history(run.folder)[run.result.selections[selection].epoch].accuracy.get("val")
    except (InputError, IndexError):
        return None
