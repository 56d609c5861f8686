"""`bmm report --leaderboard`: methods by data sets, and over data sets, each number with its uncertainty, beside its
cost; as tables for people and records for programs. The numbers are those of a Board.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from balancemm_cli.results.board import ALPHA, BEST_ALONE, MEASURES, Board, Entry, Names, columns_apart
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import UNIMODAL, seeds_text
from balancemm_cli.results.ranking import (
    Estimate,
    ranks,
)
from balancemm_cli.results.references import MAJORITY
from balancemm_cli.results.rows import Row
from balancemm_cli.results.statistics import GAP, LEVEL, Summary, format_summary
from balancemm_cli.results.tables import SELECTION_NOTES, claim, made_with, reference_notes, whose_notes

GIGA, MIB = 1e9, 2**20


def _interval(estimate: Estimate | None, scale: float, decimals: int) -> str:
    if estimate is None:
        return GAP
    text = f"{scale * estimate.value:.{decimals}f}"
    if estimate.interval is None:
        return f"{text} [?]"
    low, high = (f"{scale * end:.{decimals}f}" for end in estimate.interval)
    return f"{text} [{low}, {high}]"


def _lines(*columns: Sequence[str]) -> list[list[str]]:
    return [list(line) for line in zip(*columns, strict=True)]


def over_datasets(board: Board) -> Table:
    """The compared methods, the best rank first."""
    order = sorted(range(len(board.standings)), key=lambda place: board.standings[place].rank.value)
    entries, standings = [board.compared[at] for at in order], [board.standings[at] for at in order]
    columns = {
        **columns_apart(entries),
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
    if board.references:
        names = " or ".join(f"{board.labels[one.names]} ({one.names[0]})" for one in board.references)
        own = ", each row of its owner's own" if len(board.references) > 1 else ""
        notes.append(
            f"P(better): the probability in % that a run is better than one of {names}{own}, on average over the data "
            "sets; 50 is no difference. ×: cost in multiples of its cost, the geometric mean over the data sets with "
            "the smallest and the largest."
        )
    notes.append(
        "Rank of means: of the mean accuracies by data set, as the tests and the critical-difference "
        "diagram take them. Its uncertainty is the critical difference."
    )
    notes += [f"Not compared: {board.full_names[names]}: {why}." for names, why in board.lacking.items()]
    seeds = "; ".join(f"{dataset} {', '.join(map(str, of))}" for dataset, of in board.seeds.items())
    notes.append(f"Seeds: {seeds}.{_further_seeds(board)}")
    many = len(board.datasets)
    title = f"Over {many} data set{'s' * (many != 1)}"
    return Table(title, list(columns), _lines(*columns.values()), notes)


def _further_seeds(board: Board) -> str:
    """Which seeds count for nothing, as no more than half of the methods have them; empty where there are none."""
    found = [
        f"{dataset} {seeds_text(more)} of {board.full_names[entry.names]}"
        for dataset in board.datasets
        for entry in board.entries
        if entry.names[0] != MAJORITY and (more := sorted(entry.seeds(dataset) - {*board.seeds[dataset]}))
    ]
    if not found:
        return ""
    return (
        f" Not counted, as no more than half of the methods have them: {'; '.join(found)}. No file says why the others "
        "lack these; were they left out for their results, what is said of the others is too good."
    )


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
    reference = board.reference(entry)
    if reference is None:
        return GAP
    found = []
    for dataset in board.datasets:
        mine, other = entry.cost(dataset)[key], reference.cost(dataset)[key]
        if not (mine and other and mine.mean > 0 and other.mean > 0):
            return GAP
        found.append(mine.mean / other.mean)
    return f"{float(np.exp(np.mean(np.log(found)))):.2f} [{min(found):.2f}, {max(found):.2f}]"


def by_dataset(board: Board) -> Table:
    """Accuracy with its interval, number of seeds and rank of each method on each data set."""
    columns = columns_apart(board.entries)
    for dataset in board.datasets:
        there = [entry for entry in board.entries if dataset in entry.rows]
        placed = ranks(np.array([entry.rows[dataset].accuracy.mean for entry in there]).round(12))
        places = {entry.names: place for entry, place in zip(there, placed, strict=True)}
        columns[dataset] = [_accuracy(entry, dataset, places) for entry in board.entries]
    best = [
        f"{dataset} {one.group.first.model.removeprefix(UNIMODAL)}{' *' * (dataset in board.optimistic)}"
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
    groups = [one.group for entry in board.entries for one in entry.rows.values()]
    notes += whose_notes(groups, any(group.claimed(board.selection) for group in groups))
    if best:
        notes.append(
            f"{BEST_ALONE}: of the networks of one modality the one with the best mean on validation samples over the "
            f"seeds that all of them have ({', '.join(best)})."
            + " *: without such samples on the test part, which is a little optimistic."
            * bool(board.optimistic)
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
    text = f"{100 * one.accuracy.mean:.1f}{interval} ({one.accuracy.n}) #{places[entry.names]:g}"
    return text + claim(one.claimed)


def costs(board: Board) -> Table:
    """What training cost, a row for each method and data set."""
    found = [
        (dataset, entry) for dataset in board.datasets for entry in board.entries if dataset in entry.rows
    ]
    measured = [entry.cost(dataset) for dataset, entry in found]
    kept = [at for at, cost in enumerate(measured) if any(cost.values())]
    texts = {
        "Data set": [found[at][0] for at in kept],
        **columns_apart([found[at][1] for at in kept]),
        "Accuracy": [_mean(found[at][1].rows[found[at][0]]) for at in kept],
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


def _mean(one: Row) -> str:
    return format_summary(one.accuracy, 100, 1) + claim(one.claimed)


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
    one, tests, reference = (
        None if place is None else board.standings[place],
        board.tests,
        board.reference(entry),
    )
    others = [pair for pair in tests.differing if place in pair]
    return {
        **dict(zip(("model", "method", "variant", "recipe", "settings"), entry.names, strict=False)),
        "owner": next((one.group.owner_name for one in entry.rows.values()), None),
        "compared": place is not None,
        "lacks": board.lacking.get(entry.names),
        "rank": _plain(one and one.rank),
        "win_rate": _plain(one and one.wins),
        "improvement": _plain(one and one.improvement),
        "reference": reference and board.full_names[reference.names],
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
        "claimed": one and one.claimed,
        "seeds": sorted(entry.seeds(dataset)),
        "cost": {key: summary and summary.mean for key, summary in cost.items()},
        "seconds_std": (seconds := cost["seconds"]) and seconds.std,
    }
