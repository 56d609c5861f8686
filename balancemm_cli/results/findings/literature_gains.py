"""Finding 9: what OGM and OPM gain on CREMA-D, in papers, over each paper's own baseline; from printed numbers alone.

What counts, and why the mean is a plain one, says `printed_gains`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from balancemm_cli.errors import InputError
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import Group
from balancemm_cli.results.literature import LATER, Value
from balancemm_cli.results.printed_gains import (
    ALL,
    BASELINE,
    METHODS,
    MIN_PAPERS,
    MODEL,
    OTHERS,
    PAIRED,
    RERUNS,
    WIDER,
    Paper,
    Spread,
    left_out,
    papers,
    spreads,
)
from balancemm_cli.results.published import PAPER, official_split, wrong_data
from balancemm_cli.results.statistics import (
    GAP,
    LEVEL,
    Comparison,
    Summary,
    compare,
    format_summary,
    rank_correlation,
    summarize,
)
from balancemm_cli.results.tables import made_with

DATASETS = ("crema-d", "kinetics-sounds", "vggsound")
MIN_CORRELATED = 10  # papers, for the p-value of a rank correlation by Student's t
PERCENT = f"{100 * LEVEL:.0f} %"


@dataclass(frozen=True)
class Ours:
    """Runs of ours on the papers' split: accuracies of the baseline and of each method, and its gain seed by seed."""

    groups: list[Group]
    accuracies: dict[str, Summary | None]
    gains: dict[str, Comparison | None]


@dataclass(frozen=True)
class LiteratureGains(Contents):
    """What papers gain, and beside them what runs of the suite do, where there are any."""

    NEEDS_RUNS: ClassVar[bool] = False

    @cached_property
    def papers(self) -> dict[str, list[Paper]]:
        """The papers that count, by data set. InputError where none of them gains anything on the first one."""
        found = {dataset: papers(dataset) for dataset in DATASETS}
        there = {dataset: some for dataset, some in found.items() if any(one.gains for one in some)}
        if DATASETS[0] not in there:
            raise InputError(
                f"No printed gain of OGM or OPM on {DATASETS[0]} is left in benchmarks/published, whose files are "
                "damaged: install bmm again."
            )
        return there

    @cached_property
    def spreads(self) -> dict[str, list[Spread]]:
        """The spreads by data set."""
        return {dataset: spreads(dataset) for dataset in self.papers}

    def ours(self, dataset: str) -> tuple[Ours | None, str]:
        """The runs on a data set; or None, and why those that there are can't stand beside the papers'."""
        groups = [one for one in self.groups if one.trained and one.first.dataset == dataset]
        groups = [
            one for one in groups if one.first.model == MODEL and one.first.method in (BASELINE, *METHODS)
        ]
        faults = [wrong_data(one.first, dataset, official_split(dataset)) for one in groups]
        if fault := next(filter(None, faults), ""):
            return None, f"These runs are not shown. {fault}"
        by_seed = {
            one.first.method: {
                run.result.seed: run.result.selections[self.selection].accuracy for run in one.runs
            }
            for one in groups
        }
        if len(by_seed) < len(groups):
            return (
                None,
                "These runs are not shown: a method has several rows. Choose one of each with --where.",
            )
        if not groups:
            return None, ""
        means = {method: summarize([*of.values()]) for method, of in by_seed.items()}
        gains = {method: compare(of, by_seed.get(BASELINE, {})) for method, of in by_seed.items()}
        return Ours(groups, means, gains), ""

    @cached_property
    def tables(self) -> list[Table]:
        """For each data set a row a paper, and what the papers say together."""
        return [table for name in self.papers for table in (self._of_papers(name), self._together(name))]

    def _of_papers(self, dataset: str) -> Table:
        some = self.papers[dataset]
        ours, fault = self.ours(dataset)
        header = ["Source", "Group", *(f"Δ {name}" for name in METHODS.values())]
        header += ["Baseline", *METHODS.values(), "OGM as", "Its tables"]
        cells = [*map(_row, some), *([_row_of(ours)] if ours else [])]
        notes = [
            "Accuracy in %, with its deviation over seeds where that is printed, and Δ, the gain over the same paper's "
            f"joint training, in points; all of concatenation ({MODEL}). A paper counts once a method: which of its "
            "numbers, benchmarks/published/README.md says. OGM and OGM-GE are one method here, OGM as says under which "
            "name.",
            "Group: authors' are those by the group of the paper itself.",
            *_left_out(dataset),
            *([fault] if fault else []),
            *([made_with(run for group in ours.groups for run in group.runs)] if ours else []),
        ]
        return Table(f"{dataset}: what papers print", header, cells, notes, dataset=dataset)

    def _together(self, dataset: str) -> Table:
        header = [
            "Of",
            "Papers",
            "Number",
            f"Mean [{PERCENT}]",
            "Deviation",
            "Next paper",
            "Lowest",
            "Highest",
        ]
        notes = [
            f"Over papers, in % or points; each counts the same. [{PERCENT}]: Student's t over papers. Next paper: the "
            f"{PERCENT} interval of what one more paper like these would print.",
            f"Papers: {ALL} that count; {RERUNS}, all but the two that propose the methods; {OTHERS}, those that are "
            f"not by the group of the paper; {WIDER}, with those left out as of another split, input or weights. "
            f"Intervals from {MIN_PAPERS} papers on.",
            "Random effects of papers, hardly one of which prints a deviation: none can be weighed, and what differs "
            f"between papers can't be told from what differs between runs.{_deviations(self.papers[dataset])}",
            "What this can't say: how much of a gain is tuning, or the choice of the epoch by test samples; what was "
            "not printed; and how much less these papers say than so many independent ones, as they share test "
            "samples, code and some their authors.",
            *_own_gains(self.spreads[dataset]),
            *_by_baseline(self.papers[dataset]),
        ]
        cells = [_over(one) for one in self.spreads[dataset]]
        return Table(f"{dataset}: over papers", header, cells, notes, dataset=dataset)

    @cached_property
    def records(self) -> list[dict[str, object]]:
        """A record a data set, measure and choice of papers: fractions, `values` by source."""
        return [
            {
                "dataset": one.dataset,
                "measure": one.measure,
                "papers": one.papers,
                "n": one.summary.n,
                "mean": one.summary.mean,
                "interval": one.interval,
                "std": one.summary.std,
                "prediction": one.prediction,
                "low": one.ends[0],
                "high": one.ends[1],
                "values": one.values,
            }
            for some in self.spreads.values()
            for one in some
        ]

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """A forest plot a data set, see Contents."""
        from balancemm_cli.results.figures.literature_gains import draw_gains

        return draw_gains(self, folder, titled), []


# ---- cells ----------------------------------------------------------------------------------------------------


def _row(paper: Paper) -> list[str]:
    found = [one.table.removeprefix("Table ") for one in paper.values.values() if one.table]
    return [
        paper.source,
        "authors'" if paper.of_the_authors else "other",
        *(_points(paper.gains.get(method)) for method in METHODS),
        *(_accuracy(paper.values.get(method)) for method in (BASELINE, *METHODS)),
        paper.values["ogm"].method.upper() if "ogm" in paper.values else GAP,
        ", ".join(dict.fromkeys(found)) or GAP,
    ]


def _accuracy(value: Value | None) -> str:
    if value is None:
        return GAP
    spread = "" if value.std is None else f" ± {100 * value.std:.2f}"
    return f"{100 * value.accuracy:.2f}{spread}"


def _points(value: float | None) -> str:
    return GAP if value is None else f"{100 * value:+.2f}"


def _row_of(ours: Ours) -> list[str]:
    accuracies = [format_summary(ours.accuracies.get(method), 100) for method in (BASELINE, *METHODS)]
    gains = [_own(ours.gains.get(method)) for method in METHODS]
    return ["these runs", GAP, *gains, *accuracies, GAP, GAP]


def _own(compared: Comparison | None) -> str:
    if compared is None:
        return GAP
    found = compared.difference
    return f"{100 * found.mean:+.1f} {_interval(found.interval)}".removesuffix(f" {GAP}")


def _over(spread: Spread) -> list[str]:
    summary, sign = spread.summary, "" if spread.measure == BASELINE else "+"
    labels = {BASELINE: "baseline", PAIRED: "OPM − OGM, of papers with both"}
    return [
        labels.get(spread.measure) or f"Δ {METHODS[spread.measure]}",
        spread.papers,
        str(summary.n),
        f"{100 * summary.mean:{sign}.1f} {_interval(spread.interval, sign)}".removesuffix(f" {GAP}"),
        GAP if summary.std is None else f"{100 * summary.std:.1f}",
        _interval(spread.prediction, sign),
        *(f"{100 * end:{sign}.1f}" for end in spread.ends),
    ]


def _interval(interval: tuple[float, float] | None, sign: str = "+") -> str:
    return GAP if interval is None else f"[{', '.join(f'{100 * end:{sign}.1f}' for end in interval)}]"


# ---- notes ----------------------------------------------------------------------------------------------------


def _left_out(dataset: str) -> Iterator[str]:
    found = left_out(dataset)
    if found.other_data or found.other_model:
        gains = f" Gains among them, in points: {'; '.join(found.gains)}." if found.gains else ""
        yield (
            f"Left out of what later papers print of joint training, OGM, OGM-GE and OPM: {found.other_data} "
            f"accuracies of another split, of other inputs or weights, or copied; {found.other_model} of another "
            f"fusion or network.{gains}"
        )
    for paper in papers(dataset, counted=False):
        if paper.values[BASELINE].kind != LATER:
            gains = ", ".join(f"{METHODS[name]} {_points(gain)}" for name, gain in paper.gains.items())
            yield f"Left out too: {paper.name}, which starts from pretrained weights ({gains})."
    if unknown := [one.source for one in papers(dataset) if not one.values[BASELINE].split]:
        yield f"Of which split its numbers are, does not say: {', '.join(unknown)}."


def _deviations(some: Sequence[Paper]) -> str:
    """What printed deviations over seeds leave to papers, if all gains had the same."""
    found = []
    for method, name in METHODS.items():
        summary = summarize([one.gains[method] for one in some if method in one.gains])
        for paper in some:
            std = paper.gain_std(method)
            if std is not None and summary and summary.std is not None and summary.n >= MIN_PAPERS:
                left = max(summary.std**2 - std**2, 0.0) ** 0.5
                found.append(
                    f"the Δ {name} of one run deviates by {100 * std:.1f} points in {paper.name}; were it so in each "
                    f"paper, {100 * left:.1f} of {100 * summary.std:.1f} would be left to what differs between them"
                )
    return f" A guide: {'; '.join(found)}." if found else ""


def _own_gains(some: Sequence[Spread]) -> Iterator[str]:
    """Where the paper's own gains lie among those of papers that ran the methods again."""
    found = []
    for method, name in METHODS.items():
        own = next((one.values[PAPER] for one in some if one.measure == method and PAPER in one.values), None)
        again = next((one for one in some if (one.measure, one.papers) == (method, RERUNS)), None)
        if own is None:
            continue
        if again is None:
            found.append(f"{name} {_points(own)}, which nobody ran again")
            continue
        below = sum(value < own for value in again.values.values())
        text = f"{name} {_points(own)}, above {below} of {again.summary.n} re-runs"
        if interval := again.prediction:
            word = "within" if interval[0] <= own <= interval[1] else "outside"
            text += f" and {word} what these foretell of the next paper, {_interval(interval)}"
        found.append(text)
    if found:
        yield f"The paper's own gains: {'; '.join(found)}."


def _by_baseline(some: Sequence[Paper]) -> Iterator[str]:
    """Whether a gain goes with the baseline that it is over."""
    for method, name in METHODS.items():
        found = [one for one in some if method in one.gains]
        if len(found) < MIN_CORRELATED:
            continue
        gains = [one.gains[method] for one in found]
        rho, p = rank_correlation([one.baseline for one in found], gains)
        of_mean, p_of_mean = rank_correlation([one.baseline + one.gains[method] / 2 for one in found], gains)
        yield (
            f"Δ {name} and the baseline, over {len(found)} papers: Spearman's ρ = {rho:+.2f} (p = {p:.2f}). The "
            "baseline is in the gain: one that is low by chance makes the gain large, so ρ lies below 0 without a "
            "cause (regression to the mean). With the mean of baseline and method in its place, which has no such part "
            f"(Oldham), ρ = {of_mean:+.2f} (p = {p_of_mean:.2f})."
        )
