"""What papers gain by OGM and OPM over their own baselines, with concatenation, and how far papers differ.

Which numbers count is as in `literature`: names that are known, accuracy, the paper's protocol, a paper once a method.
Left out beyond that are numbers of a split of a paper's own, and of a source that starts from other weights.

The model is one of random effects: a printed gain is μ + u + e, with u of the paper and e of the run. Papers print no
standard errors, so the variances of u and e can't be told apart and no paper can be weighed: what is left is the plain
mean of the gains, whose Student's t interval over papers holds both.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from balancemm_cli.results import later_papers, literature
from balancemm_cli.results.literature import LATER, Value
from balancemm_cli.results.published import PAPER, later_split, official_split
from balancemm_cli.results.statistics import MIN_SEEDS, Summary, summarize

MODEL = "concat"
BASELINE = "baseline"
METHODS = {"ogm": "OGM", "opm": "OPM", "opm+ogm": "OPM+OGM"}
ALL, RERUNS, OTHERS, WIDER = "all", "re-runs", "other groups", "all and further"
"""Of which papers: those that count, of these all but those that propose the methods, of these those that are not by
the same group; and those that count with those of other splits, inputs and weights."""
MIN_PAPERS = MIN_SEEDS  # for an interval: of two, one degree of freedom is left
PROPOSE = (PAPER, "cvpr2022")
PAIRED = "opm − ogm"
AS_PRINTED = ("joint", "OGM", "OGM-GE", "OPM")
"""As later papers call joint training and these methods."""


@dataclass(frozen=True)
class Paper:
    """What one paper prints for a data set, by method of ours; its baseline is there."""

    source: str
    values: dict[str, Value]

    @property
    def baseline(self) -> float:
        """The accuracy of joint training, a fraction."""
        return self.values[BASELINE].accuracy

    @property
    def gains(self) -> dict[str, float]:
        """What each method gains over the paper's own baseline, a fraction."""
        found = {method: self.values[method].accuracy for method in METHODS if method in self.values}
        return {method: round(accuracy - self.baseline, 6) for method, accuracy in found.items()}

    @property
    def of_the_authors(self) -> bool:
        """Whether the paper's own group printed it."""
        return any(one.of_the_authors for one in self.values.values())

    @property
    def name(self) -> str:
        """Its source without subtitle and arXiv number."""
        return short(self.source)

    def gain_std(self, method: str) -> float | None:
        """The deviation over seeds of a gain, of a run of each; None where one of the two is not printed."""
        found = [self.values[name].std for name in (BASELINE, method) if name in self.values]
        known = [one for one in found if one is not None]
        return sum(one**2 for one in known) ** 0.5 if len(known) == 2 else None


def short(source: str) -> str:
    """The name of a source without its subtitle and arXiv number."""
    return re.sub(r": [^(]*", " ", re.sub(r", arXiv [\d.]+", "", source))


def papers(dataset: str, counted: bool = True) -> list[Paper]:
    """The papers that print a baseline for a data set, from the lowest one; those that do not count, unless
    `counted`."""
    found: dict[str, dict[str, Value]] = defaultdict(dict)
    for method in (BASELINE, *METHODS):
        for value in _printed(dataset, method, counted):
            found[value.source][method] = value
    there = [Paper(source, values) for source, values in found.items() if BASELINE in values]
    return sorted(there, key=lambda one: (one.baseline, one.source))


def _printed(dataset: str, method: str, counted: bool) -> list[Value]:
    found = literature.values(dataset, MODEL, method)
    if counted:
        return [one for one in found if not _differs(one, dataset)]
    others = literature.of_another_protocol(dataset, MODEL, method)
    return [*(one for one in found if _differs(one, dataset)), *others]


def _differs(value: Value, dataset: str) -> bool:
    """Whether a number is of a split of its paper's own, or of a source that starts from other weights."""
    other_weights = value.kind != LATER and "pretrained" in value.note
    return other_weights or value.split not in ("", official_split(dataset))


# ---- over papers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A number of several papers: their baselines, or what a method gains. Fractions, by source."""

    dataset: str
    papers: str  # one of ALL, RERUNS, OTHERS, WIDER
    measure: str  # BASELINE, one of METHODS or PAIRED
    values: dict[str, float]

    @property
    def summary(self) -> Summary:
        """Mean and deviation over the papers, each with the same weight."""
        found = summarize([*self.values.values()])
        assert found is not None
        return found

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of the mean; None of fewer than MIN_PAPERS."""
        return self.summary.interval if len(self.values) >= MIN_PAPERS else None

    @property
    def prediction(self) -> tuple[float, float] | None:
        """The interval of what one more paper would print; None of fewer than MIN_PAPERS."""
        return self.summary.prediction if len(self.values) >= MIN_PAPERS else None

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest."""
        return min(self.values.values()), max(self.values.values())


def spreads(dataset: str) -> list[Spread]:
    """The spread of each measure over all papers that count, and over fewer and more of them where these are others."""
    every = papers(dataset)
    kinds = {
        ALL: every,
        RERUNS: [one for one in every if one.source not in PROPOSE],
        OTHERS: [one for one in every if not one.of_the_authors],
        WIDER: [*every, *papers(dataset, counted=False)],
    }
    found = []
    for measure in (BASELINE, *METHODS, PAIRED):
        known: list[dict[str, float]] = [{}]
        for kind, some in kinds.items():
            values = _measured(some, measure)
            if values not in known:
                known.append(values)
                found.append(Spread(dataset, kind, measure, values))
    return found


def _measured(some: Sequence[Paper], measure: str) -> dict[str, float]:
    if measure == BASELINE:
        return {one.source: one.baseline for one in some}
    if measure == PAIRED:
        both = [one for one in some if {"opm", "ogm"} <= one.gains.keys()]
        return {one.source: round(one.gains["opm"] - one.gains["ogm"], 6) for one in both}
    return {one.source: one.gains[measure] for one in some if measure in one.gains}


# ---- left out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """What of later papers' accuracies of AS_PRINTED has no part: how many of another split, of other inputs or weights
    or copied; how many of another fusion or network; and the gains among them, in points."""

    other_data: int
    other_model: int
    gains: list[str]


def left_out(dataset: str) -> LeftOut:
    """What of later papers' accuracies on a data set has no part."""
    counted = {(one.source, value.method) for one in papers(dataset) for value in one.values.values()}
    printed: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    counts = {True: 0, False: 0}
    for row in later_papers.printed():
        method, _, added = row["method"].partition(" (")
        if (row["dataset"], row["metric"]) != (dataset, "acc") or method not in AS_PRINTED:
            continue
        same_data = later_split(row) == official_split(dataset)
        if same_data and row["model"] == MODEL and (row["source"], method) in counted:
            continue
        counts[same_data] += 1
        what = ", ".join(filter(None, [row["model"] or "fusion not named", added.rstrip(")")]))
        printed[row["source"], what][method] = float(row["value"])
    gains = [
        f"{short(source)}, {what}: {name} {value - of['joint']:+.1f}"
        for (source, what), of in printed.items()
        for name, value in of.items()
        if "joint" in of and name != "joint"
    ]
    return LeftOut(counts[False], counts[True], gains)
