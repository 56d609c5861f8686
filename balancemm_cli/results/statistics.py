"""What runs over several seeds can say: spread, intervals, comparisons, and how sure they are.

Values are in the unit of what is compared (accuracies: fractions). Nothing here guesses: where there are too few
runs for a figure it is None, and the reader is told so.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats

GAP = "—"
LEVEL = 0.95  # of every interval that is shown
TOST_LEVEL = 0.90  # of the interval by which two one-sided tests decide, each of them at 5 %
POWER = 0.8  # with which the minimum detectable effect would be seen, and equivalence shown
MIN_SEEDS = 3  # shared ones, for a test over seeds: of two, one degree of freedom is left
MOST_SEEDS = 500  # that anybody is advised to train
EXACT = 8  # things of which all orders are counted, 40,320 of so many
ROUNDING = 1e-12  # a deviation below it is that of equal values


@dataclass(frozen=True)
class Summary:
    """What `n` runs say: their mean and sample standard deviation (n − 1), None for a single run."""

    mean: float
    std: float | None
    n: int

    @property
    def spread(self) -> float | None:
        """The deviation where there is one; None for a single run, and for values that are all equal."""
        return None if self.std is None or self.std < ROUNDING else self.std

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of the mean at LEVEL; None without any spread."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """Student's t interval of the mean; None for a single run and for equal values, of which no spread is known."""
        if self.spread is None:
            return None
        low, high = stats.t.interval(level, self.n - 1, self.mean, self.spread / self.n**0.5)
        return float(low), float(high)

    @property
    def prediction(self) -> tuple[float, float] | None:
        """Student's t interval, at LEVEL, of one more value of the kind, which is not known yet; None where `interval`
        is."""
        if self.spread is None:
            return None
        low, high = stats.t.interval(LEVEL, self.n - 1, self.mean, self.spread * (1 + 1 / self.n) ** 0.5)
        return float(low), float(high)


def summarize(values: Sequence[float]) -> Summary | None:
    """The Summary of `values`, in their unit; None where there are none."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(float(np.mean(values)), std, len(values))


def format_summary(summary: Summary | None, scale: float = 1.0, decimals: int = 1) -> str:
    """Write mean ± standard deviation (n), as in "95.1 ± 0.4 (3)"; "95.1 (1)" for one run, "—" for none.

    `scale` is 100 for fractions that are shown in %.
    """
    if summary is None:
        return GAP
    mean = f"{summary.mean * scale:.{decimals}f}"
    spread = "" if summary.std is None else f" ± {summary.std * scale:.{decimals}f}"
    return f"{mean}{spread} ({summary.n})"


def wilson(correct: int, count: int) -> tuple[float, float]:
    """Wilson's interval of an accuracy, `correct` of `count` test samples: of this one network, whatever its seed.

    It knows nothing of what training again would give, so it is shown and decides nothing.
    """
    found = stats.binomtest(correct, count).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def within_bounds(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval of an accuracy, kept within 0 and 1."""
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


# ---- the same as a printed number ----------------------------------------------------------------------------


def chance_of_equivalence(std: float, n: int, band: float) -> float:
    """The probability that two one-sided tests over `n` seeds show a mean within ±`band`, where it truly is 0.

    `std` is the true deviation of a seed, in the unit of `band`. The tests show it where the TOST_LEVEL interval
    lies within the band, |mean| + t·s/√n ≤ band: the probability of that for a given s, over the distribution of s.
    """
    freedom = n - 1
    error = std / n**0.5
    critical = stats.t.ppf((1 + TOST_LEVEL) / 2, freedom)
    widest = min(band / (critical * error), stats.chi.isf(1e-12, freedom) / freedom**0.5)  # s / std

    def shown(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
        room = (band - critical * error * ratio) / error
        density = stats.chi.pdf(ratio * freedom**0.5, freedom) * freedom**0.5
        return (2 * stats.norm.cdf(room) - 1) * density

    return float(integrate.fixed_quad(shown, 0, widest, n=200)[0])


def seeds_for_equivalence(std: float, band: float) -> int | None:
    """The fewest seeds of that deviation with a `chance_of_equivalence` of POWER; None beyond MOST_SEEDS."""
    counts = range(2, MOST_SEEDS + 1)
    place = bisect_left(counts, POWER, key=lambda n: chance_of_equivalence(std, n, band))
    return counts[place] if place < len(counts) else None


# ---- a method against the baseline ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The differences of two groups of runs, seed by seed."""

    difference: Summary  # mine − other's, over the shared seeds
    p: float | None  # two-sided, of the paired t-test; None with fewer than MIN_SEEDS, or without any spread
    effect: (
        float | None
    )  # Hedges' g of the differences: their mean in units of their deviation, for few seeds


def compare(mine: Mapping[int, float], other: Mapping[int, float]) -> Comparison | None:
    """Compare values by seed over the seeds that both have; None where they share none."""
    shared = sorted(set(mine) & set(other))
    difference = summarize([mine[seed] - other[seed] for seed in shared])
    if difference is None:
        return None
    if difference.n < MIN_SEEDS or difference.spread is None:
        return Comparison(difference, None, None)
    t = difference.mean / (difference.spread / difference.n**0.5)
    p = 2 * float(stats.t.sf(abs(t), difference.n - 1))
    return Comparison(difference, p, hedges(difference.n - 1) * difference.mean / difference.spread)


def hedges(freedom: int) -> float:
    """Hedges' factor (1981, Eq. 6e), by which a standardised mean of few values is too large on average."""
    half = freedom / 2
    return float(np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / half**0.5)


def minimum_detectable(std: float, n: int, tests: int = 1) -> float:
    """The true difference at which a paired t-test over `n` seeds of that deviation has the power POWER.

    Of `tests` that are adjusted by Holm: at (1 − LEVEL) / tests, which the first of them to be found must pass.
    """
    return _detectable_shift(n, tests) * std / n**0.5


@cache
def _detectable_shift(n: int, tests: int) -> float:
    """That difference in units of the standard error."""
    freedom = n - 1
    critical = stats.t.isf((1 - LEVEL) / 2 / tests, freedom)

    def missing(shift: float) -> float:  # the other tail has no part in it: it is below 1e-4 there
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    return optimize.brentq(missing, 0, 3 * critical + 5)  # pyright: ignore[reportReturnType]


def over_new_samples(gains: NDArray[np.floating]) -> tuple[float, float] | None:
    """The LEVEL interval of a mean gain over other seeds and other test samples alike; None without spread or samples.

    `gains` [seeds, samples]: what each sample gains with each seed, right answers of the one less those of the other.
    Seeds and samples are crossed random effects: the variance of the mean is that between the seeds, which holds the
    rest's part, and that between the samples beyond it, from the mean squares of the two-way table; the degrees of
    freedom are Satterthwaite's. Of a single seed it is Student's t over the samples.
    """
    seeds, samples = gains.shape
    if samples < 2:
        return None
    mean, by_sample = gains.mean(), gains.mean(0)
    between = float(by_sample.var(ddof=1)) / samples
    if seeds == 1:
        parts = [(between, samples - 1)]
    else:
        by_seed = gains.mean(1)
        rest = gains - by_seed[:, None] - by_sample + mean
        error = float((rest**2).sum()) / ((seeds - 1) * (samples - 1)) / (seeds * samples)
        parts = [
            (max(float(by_seed.var(ddof=1)) / seeds, error), seeds - 1),
            (max(between - error, 0.0), samples - 1),
        ]
    variance = sum(part for part, _ in parts)
    if variance < ROUNDING**2:
        return None
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    low, high = stats.t.interval(LEVEL, freedom, float(mean), variance**0.5)
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of one table, in the given order; None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = highest
    return adjusted


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation of two numbers of the same things, and its two-sided p-value: of up to EXACT things
    the share of all orders that give one as large, of more by Student's t."""
    rho, p = stats.spearmanr(one, other)
    if len(one) <= EXACT:
        ranks, others = (stats.rankdata(values) - (len(one) + 1) / 2 for values in (one, other))
        found = np.abs(np.array([*permutations(ranks)]) @ others)
        p = np.mean(found >= abs(ranks @ others) * (1 - ROUNDING))
    return float(rho), float(p)  # pyright: ignore[reportArgumentType]
