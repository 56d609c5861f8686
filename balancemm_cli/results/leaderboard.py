"""`bmm report --leaderboard`: methods by data sets, and over data sets, each number with its uncertainty, beside its
cost.

What ranks is the accuracy of the fused prediction; how balanced the modalities are has no part in it. A method enters
the comparison over data sets where it has the runs for it: on each data set the seeds that more than half of the
methods have. All others are named.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from balancemm_cli.config.recipe import describe
from balancemm_cli.errors import InputError
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.formats import Table
from balancemm_cli.results.gains import BASELINE
from balancemm_cli.results.groups import Group
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
from balancemm_cli.results.references import ALONE, JOINT, MAJORITY
from balancemm_cli.results.rows import Row, row
from balancemm_cli.results.statistics import GAP, LEVEL, Summary, format_summary, summarize
from balancemm_cli.results.tables import SELECTION_NOTES, made_with, reference_notes
from balancemm_cli.runs.schema import Result, Selection

BEST_ALONE = "best modality"  # the model of that row
ALPHA = 1 - LEVEL
MEASURES = {
    "Time": "seconds",
    "Multiply-adds": "multiply_adds",
    "Memory": "memory",
    "Parameters": "parameters",
}
GIGA, MIB = 1e9, 2**20

Names = tuple[str, ...]  # model, method, variant, recipe, settings


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
        by_names: dict[Names, dict[str, Row]] = {}
        for group in groups:
            if not group.first.model.startswith(ALONE):
                by_names.setdefault(_names(group), {})[group.first.dataset] = row(group, selection)
        self.entries = [Entry(names, rows) for names, rows in by_names.items()]
        self.entries += [Entry(names, rows) for names, rows in _best_alone(groups, selection).items()]
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
        more = [texts for head, texts in _apart(self.entries).items() if head not in ("Model", "Method")]
        return {
            entry.names: " · ".join(
                [plain(entry), *(texts[at] for texts in more if texts[at] and counts[plain(entry)] > 1)]
            )
            for at, entry in enumerate(self.entries)
        }

    @cached_property
    def reference(self) -> Entry | None:
        """Joint training, over which improvement and cost are counted."""
        joint = [entry for entry in self.compared if entry.names[1] == BASELINE]
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
        against = self.compared.index(self.reference) if self.reference else None
        return [
            Standing(
                rank,
                wins,
                None if against in (None, place) else over.improvement(place, against),
                float(mean),
            )
            for place, (rank, wins, mean) in enumerate(
                zip(over.mean_ranks(), over.win_rates(), of_means, strict=True)
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


def _names(group: Group) -> Names:
    _, model, method, variant, recipe = group.names
    return model, method, variant, recipe, describe(group.differences)


def _accuracies(one: Row) -> dict[int, float]:
    return {run.result.seed: run.result.selections[one.selection].accuracy for run in one.group.runs}


def _best_alone(groups: Sequence[Group], selection: Selection) -> dict[Names, dict[str, Row]]:
    """By data set, the modality with the best mean accuracy of those that were trained alone; an entry for each
    variant, recipe and settings."""
    found: dict[Names, dict[str, Row]] = {}
    for group in groups:
        if group.first.model.startswith(ALONE) and group.first.method == BASELINE:
            best = found.setdefault((BEST_ALONE, GAP, *_names(group)[2:]), {})
            one, before = row(group, selection), best.get(group.first.dataset)
            if before is None or one.accuracy.mean > before.accuracy.mean:
                best[group.first.dataset] = one
    return found


# ---- tables -------------------------------------------------------------------------------------------------


def _interval(estimate: Estimate | None, scale: float, decimals: int) -> str:
    if estimate is None:
        return GAP
    text = f"{scale * estimate.value:.{decimals}f}"
    if estimate.interval is None:
        return f"{text} [?]"
    low, high = (f"{scale * end:.{decimals}f}" for end in estimate.interval)
    return f"{text} [{low}, {high}]"


def _apart(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The columns that tell entries apart."""
    heads = ("Model", "Method", "Variant", "Recipe", "Settings")
    columns = {head: [entry.names[place] for entry in entries] for place, head in enumerate(heads)}
    return {
        head: texts for head, texts in columns.items() if head in ("Model", "Method") or len(set(texts)) > 1
    }


def _lines(*columns: Sequence[str]) -> list[list[str]]:
    return [list(line) for line in zip(*columns, strict=True)]


def over_datasets(board: Board) -> Table:
    """The compared methods, the best rank first."""
    order = sorted(range(len(board.standings)), key=lambda place: board.standings[place].rank.value)
    entries, standings = [board.compared[at] for at in order], [board.standings[at] for at in order]
    columns = {
        **_apart(entries),
        "Rank": [_interval(one.rank, 1, 2) for one in standings],
        "Win rate": [_interval(one.wins, 100, 0) for one in standings],
        "P(better)": [_interval(one.improvement, 100, 0) for one in standings],
        "Rank of means": [f"{one.rank_of_means:.2f}" for one in standings],
    }
    for head, key in MEASURES.items():
        texts = [_ratio(board, entry, key) for entry in entries]
        columns |= {f"{head} ×": texts} if set(texts) != {GAP} else {}
    percent = f"{100 * LEVEL:.0f} %"
    notes = [
        board.tests.why,
        *_differences(board),
        f"Intervals are {percent}, over seeds on these data sets, by a stratified bootstrap of the seeds, "
        "which all methods share; [?] where there is one seed. They say nothing of other data sets: the "
        "tests do.",
        "Rank: of a run among one run of each method with the same seed, 1 for the best, averaged over "
        "seeds and then data sets. Win rate: the probability in % that a run is better than a run of "
        "another method, averaged over the others; equal ones count half.",
    ]
    if board.reference:
        notes.append(
            f"P(better): the probability in % that a run is better than one of {board.labels[board.reference.names]} "
            f"({board.reference.names[0]}), on average over the data sets; 50 is no difference. ×: cost in "
            "multiples of its cost, the geometric mean over the data sets with the smallest and the "
            "largest."
        )
    notes.append(
        "Rank of means: of the mean accuracies by data set, as the tests and the critical-difference "
        "diagram take them. Its uncertainty is the critical difference."
    )
    notes += [f"Not compared: {board.full_names[names]}: {why}." for names, why in board.lacking.items()]
    seeds = "; ".join(f"{dataset} {', '.join(map(str, of))}" for dataset, of in board.seeds.items())
    notes.append(f"Seeds: {seeds}.")
    many = len(board.datasets)
    title = f"Over {many} data set{'s' * (many != 1)}"
    return Table(title, list(columns), _lines(*columns.values()), notes)


def _differences(board: Board) -> list[str]:
    tests, labels = board.tests, [board.labels[entry.names] for entry in board.compared]
    if tests.friedman is None:
        return []
    pairs = []
    for one, other in tests.differing:
        better = board.standings[one].rank_of_means < board.standings[other].rank_of_means
        first, second = (one, other) if better else (other, one)
        pairs.append(f"{labels[first]} better than {labels[second]}")
    count = len(tests.wilcoxon)
    least = 2.0 ** (1 - len(board.datasets)) * count
    holm = (
        f"with so few data sets it can find nothing among {count} pairs"
        if least >= ALPHA
        else f"it finds {sum(p < ALPHA for _, p in tests.wilcoxon)} of {count} pairs to differ"
    )
    found = f"Methods that differ: {'; '.join(pairs) or 'none'}."
    return [f"{found} Beside it, Wilcoxon's signed-rank test with Holm's correction: {holm}."]


def _ratio(board: Board, entry: Entry, key: str) -> str:
    if board.reference is None:
        return GAP
    found = []
    for dataset in board.datasets:
        mine, other = entry.cost(dataset)[key], board.reference.cost(dataset)[key]
        if not (mine and other and mine.mean > 0 and other.mean > 0):
            return GAP
        found.append(mine.mean / other.mean)
    return f"{float(np.exp(np.mean(np.log(found)))):.2f} [{min(found):.2f}, {max(found):.2f}]"


def by_dataset(board: Board) -> Table:
    """Accuracy with its interval, number of seeds and rank of each method on each data set."""
    columns = _apart(board.entries)
    for dataset in board.datasets:
        there = [entry for entry in board.entries if dataset in entry.rows]
        placed = ranks(np.array([entry.rows[dataset].accuracy.mean for entry in there]).round(12))
        places = {entry.names: place for entry, place in zip(there, placed, strict=True)}
        columns[dataset] = [_accuracy(entry, dataset, places) for entry in board.entries]
    best = [
        f"{dataset} {one.group.first.model.removeprefix(ALONE)}"
        for entry in board.entries
        if entry.names[0] == BEST_ALONE
        for dataset, one in entry.rows.items()
    ]
    notes = [
        f"Cells: test accuracy in %, its {100 * LEVEL:.0f} % interval, the number of seeds, and the rank "
        "among the methods on that data set. The interval is Student's t over seeds, of one seed Wilson's "
        "over the test samples; where all seeds gave the same there is none.",
        f"Epoch: {SELECTION_NOTES[board.selection]}.",
        *reference_notes(one.group for entry in board.entries for one in entry.rows.values()),
    ]
    if best:
        notes.append(
            f"{BEST_ALONE}: of the networks of one modality the one with the best mean on the test part, "
            f"which is a little optimistic ({', '.join(best)})."
        )
    return Table(
        "Accuracy by data set",
        list(columns),
        _lines(*columns.values()),
        notes,
        datasets=tuple(board.datasets),
    )


def _accuracy(entry: Entry, dataset: str, places: dict[Names, float]) -> str:
    if dataset not in entry.rows:
        return GAP
    one = entry.rows[dataset]
    interval = f" [{100 * one.interval[0]:.1f}, {100 * one.interval[1]:.1f}]" if one.interval else ""
    return f"{100 * one.accuracy.mean:.1f}{interval} ({one.accuracy.n}) #{places[entry.names]:g}"


def costs(board: Board) -> Table:
    """What training cost, a row for each method and data set."""
    found = [
        (dataset, entry) for dataset in board.datasets for entry in board.entries if dataset in entry.rows
    ]
    measured = [entry.cost(dataset) for dataset, entry in found]
    kept = [at for at, cost in enumerate(measured) if any(cost.values())]
    texts = {
        "Data set": [found[at][0] for at in kept],
        **_apart([found[at][1] for at in kept]),
        "Accuracy": [format_summary(found[at][1].rows[found[at][0]].accuracy, 100, 1) for at in kept],
        "Time (s)": [format_summary(measured[at]["seconds"], 1, 1) for at in kept],
        "Multiply-adds (10⁹)": [_exact(measured[at]["multiply_adds"], GIGA, 3) for at in kept],
        "Memory (MiB)": [_exact(measured[at]["memory"], MIB, 1) for at in kept],
        "Parameters (10⁶)": [_exact(measured[at]["parameters"], 1e6, 3) for at in kept],
    }
    notes = [
        "Time: of the whole training with its evaluations, mean ± sample standard deviation (number of "
        "seeds), on the machine that trained. The rest is counted and has no spread: of one training step "
        "with the batch size of the recipe its multiply-adds (torch's counter, forward and backward) and "
        "the memory that it holds at least; and the weights that are trained. — for runs of former "
        "versions and of several processes.",
        "Of an ensemble times, weights and multiply-adds are those of all its networks, memory that of the largest.",
        made_with(run for _, entry in found for one in entry.rows.values() for run in one.group.runs),
    ]
    return Table("Cost by data set", list(texts), _lines(*texts.values()), notes)


def _exact(summary: Summary | None, unit: float, decimals: int) -> str:
    return GAP if summary is None else f"{summary.mean / unit:.{decimals}f}"


# ---- what a report is made of -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaderboard(Contents):
    """The leaderboard of the groups of a report."""

    @cached_property
    def board(self) -> Board:
        """The methods by data sets."""
        return Board(self.groups, self.selection)

    @cached_property
    def tables(self) -> list[Table]:
        """Over data sets, by data set, and the cost."""
        return [over_datasets(self.board), by_dataset(self.board), costs(self.board)]

    @cached_property
    def records(self) -> list[dict[str, object]]:
        """A record a method; fractions in 0–1, None for a gap."""
        board = self.board
        return [_record(board, entry) for entry in board.entries]

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """The critical-difference diagram and accuracy over cost, see Contents."""
        from balancemm_cli.results.figures.leaderboard import draw_board

        return draw_board(self.board, folder, titled)


def _record(board: Board, entry: Entry) -> dict[str, object]:
    place = board.compared.index(entry) if entry in board.compared and board.standings else None
    one, tests = None if place is None else board.standings[place], board.tests
    others = [pair for pair in tests.differing if place in pair]
    return {
        **dict(zip(("model", "method", "variant", "recipe", "settings"), entry.names, strict=True)),
        "compared": place is not None,
        "lacks": board.lacking.get(entry.names),
        "rank": _plain(one and one.rank),
        "win_rate": _plain(one and one.wins),
        "improvement": _plain(one and one.improvement),
        "reference": board.reference and board.full_names[board.reference.names],
        "rank_of_means": one and one.rank_of_means,
        "friedman_p": tests.friedman and tests.friedman.p,
        "critical_difference": tests.difference,
        "differs_from": [
            board.full_names[board.compared[other].names]
            for pair in others
            for other in pair
            if other != place
        ],
        "wilcoxon_holm": {
            board.full_names[board.compared[other].names]: p
            for pair, p in tests.wilcoxon
            if place in pair
            for other in pair
            if other != place
        },
        "datasets": {dataset: _cell(entry, dataset) for dataset in board.datasets},
    }


def _plain(estimate: Estimate | None) -> dict[str, object]:
    return {"value": estimate and estimate.value, "interval": estimate and estimate.interval}


def _cell(entry: Entry, dataset: str) -> dict[str, object]:
    one = entry.rows.get(dataset)
    cost = entry.cost(dataset)
    return {
        "model": one and one.group.first.model,
        "mean": one and one.accuracy.mean,
        "std": one and one.accuracy.std,
        "interval": one and one.interval,
        "seeds": sorted(entry.seeds(dataset)),
        "cost": {key: summary and summary.mean for key, summary in cost.items()},
        "seconds_std": (seconds := cost["seconds"]) and seconds.std,
    }
