"""Methods over several data sets: ranks, the critical difference, the probability of improvement, and their intervals.

Scores are accuracies, larger is better. Ranks count from 1, the best; equal scores share the mean of their ranks.

The tests over data sets are Demšar's (JMLR 7, 2006): Friedman's, in the form of Iman and Davenport, asks whether any
method differs; where it says so, two methods differ by Nemenyi's test if their mean ranks are further apart than the
critical difference. Data sets are the sample of these tests, seeds are not: each data set gives one number a method.

Intervals are over seeds, on these data sets. A draw of the stratified bootstrap (as in rliable: Agarwal et al., NeurIPS
2021) takes of each data set some of its seeds with replacement, the same ones for all methods, one fewer than there
are: so the variance of a mean is estimated without bias (McCarthy and Snowden 1985), where draws of all n seeds give
(n − 1) / n of it, which is 20 % too little for five. The quantiles of the draws are then spread out as those of
Student's t are beyond those of a normal distribution, for the degrees of freedom that all data sets have together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from balancemm_cli.results.statistics import LEVEL, holm

MIN_DATASETS = 5
"""With five the smallest p-value that a signed-rank test can give is 0.06, and Friedman's test is far from exact."""
FEW_DATASETS = 10  # up to so many, the approximation of Friedman's test is rough
DRAWS = 2000

Scores = NDArray[np.float64]


def ranks(scores: Scores) -> Scores:
    """The rank of each method on each data set: scores [D, K] to [D, K]."""
    return stats.rankdata(-scores, axis=-1)


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over D data sets and K methods, and Iman and Davenport's less conservative form of it."""

    chi_square: float
    p_chi_square: float
    f: float
    p: float  # of Iman and Davenport's


def friedman(scores: Scores) -> Friedman:
    """Whether any of the methods differs: scores [D, K] with K ≥ 3. Ties are corrected for; where all are equal p is
    1."""
    datasets, methods = scores.shape
    if np.ptp(ranks(scores), axis=1).max() == 0:
        return Friedman(0.0, 1.0, 0.0, 1.0)
    chi_square, p = stats.friedmanchisquare(*np.round(scores, 12).T)
    left = datasets * (methods - 1) - chi_square
    if left <= 0:  # every data set ranks the methods alike
        return Friedman(float(chi_square), float(p), float("inf"), 0.0)
    f = (datasets - 1) * chi_square / left
    return Friedman(
        float(chi_square),
        float(p),
        float(f),
        float(stats.f.sf(f, methods - 1, (methods - 1) * (datasets - 1))),
    )


def critical_difference(methods: int, datasets: int) -> float:
    """Nemenyi's: mean ranks further apart than this differ at 1 − LEVEL, over all pairs together."""
    q = stats.studentized_range.ppf(LEVEL, methods, np.inf) / 2**0.5
    return float(q * (methods * (methods + 1) / (6 * datasets)) ** 0.5)


def cliques(mean_ranks: Sequence[float], difference: float) -> list[list[int]]:
    """The largest sets of methods, by their places, of which no two differ by more than `difference`; no set of one."""
    order = np.argsort(mean_ranks, kind="stable")
    found: list[list[int]] = []
    for start, first in enumerate(order):
        members = [
            int(one) for one in order[start:] if mean_ranks[one] - mean_ranks[first] <= difference + 1e-12
        ]
        if len(members) > 1 and not (found and set(members) <= set(found[-1])):
            found.append(members)
    return found


def wilcoxon(scores: Scores) -> dict[tuple[int, int], float]:
    """The p-value of Wilcoxon's signed-rank test over the data sets for each pair of methods, adjusted by Holm over all
    pairs: scores [D, K]. Pairs that are equal on all data sets have 1."""
    pairs = [(one, other) for one in range(scores.shape[1]) for other in range(one + 1, scores.shape[1])]
    p_values = [_signed_rank(scores[:, one] - scores[:, other]) for one, other in pairs]
    return {pair: p for pair, p in zip(pairs, holm(p_values), strict=True) if p is not None}


def _signed_rank(differences: Scores) -> float:
    differences = np.round(differences, 12)
    return 1.0 if not differences.any() else float(stats.wilcoxon(differences)[1])  # pyright: ignore[reportArgumentType, reportIndexIssue]


# ---- over seeds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A number and its LEVEL interval over seeds; None where a data set has a single seed."""

    value: float
    interval: tuple[float, float] | None


class OverSeeds:
    """What the runs of K methods on D data sets say: `runs` are scores [seeds, K] a data set, of the same seeds for all
    methods, whose number may differ from one data set to the next. Every figure is of a run, not of a mean over runs.
    """

    def __init__(self, runs: Sequence[Scores], draws: int = DRAWS, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.repeated = min(len(scores) for scores in runs) > 1
        self.freedom = sum(len(scores) - 1 for scores in runs)
        weights = [_weights(len(scores), draws if self.repeated else 0, random) for scores in runs]
        self._better = np.mean(
            [
                np.einsum("ri,rj,ijab->rab", of, of, _compared(scores), optimize=True)
                for of, scores in zip(weights, runs, strict=True)
            ],
            axis=0,
        )
        self._ranks = np.mean([of @ ranks(scores) for of, scores in zip(weights, runs, strict=True)], axis=0)

    def mean_ranks(self) -> list[Estimate]:
        """Each method's rank among one run of each with the same seed, averaged over seeds, then over data sets."""
        return self._estimates(self._ranks, 1, self._ranks.shape[1])

    def improvement(self, one: int, other: int) -> Estimate:
        """The probability that a run of the one method is better than a run of the other: over all pairs of their runs
        on a data set, equal ones for a half, averaged over the data sets."""
        return self._estimates(self._better[:, one, other, None])[0]

    def win_rates(self) -> list[Estimate]:
        """The probability that a run of a method is better than a run of another one, drawn from the rest."""
        methods = self._better.shape[1]
        return self._estimates((self._better.sum(2) - 0.5) / (methods - 1))  # with itself, each is even

    def _estimates(self, drawn: Scores, least: float = 0, most: float = 1) -> list[Estimate]:
        """Of [1 + draws, N], the value itself first; intervals end at the least and the most that there can be."""
        if not self.repeated:
            return [Estimate(float(value), None) for value in drawn[0]]
        tail = (1 - LEVEL) / 2
        wider = stats.t.isf(tail, self.freedom) / stats.norm.isf(tail)
        beyond = wider * (np.quantile(drawn[1:], [tail, 1 - tail], axis=0) - drawn[0])
        low, high = (drawn[0] + [np.minimum(beyond[0], 0), np.maximum(beyond[1], 0)]).clip(least, most)
        return [
            Estimate(float(value), (float(a), float(b)))
            for value, a, b in zip(drawn[0], low, high, strict=True)
        ]


def _weights(count: int, draws: int, random: np.random.Generator) -> Scores:
    """How much each of `count` seeds counts, [1 + draws, count]: all the same, then by each draw."""
    drawn = random.integers(count, size=(draws, max(count - 1, 1)))
    counts = (drawn[:, :, None] == np.arange(count)).sum(1) / drawn.shape[1]
    return np.concatenate([np.full((1, count), 1 / count), counts])


def _compared(scores: Scores) -> Scores:
    """[n, n, K, K]: 1 where run i of method a is better than run j of method b, 1/2 where they are equal."""
    difference = scores[:, None, :, None] - scores[None, :, None, :]
    return (difference > 0) + 0.5 * (difference == 0)
