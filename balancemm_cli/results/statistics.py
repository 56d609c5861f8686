"""What runs over several seeds can say: spread, intervals, comparisons, and how sure they are.

Values are in the unit of what is compared (accuracies: fractions). Nothing here guesses: where there are too few
runs for a figure it is None, and the reader is told so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

GAP = "—"
LEVEL = 0.95  # of every interval
POWER = 0.8  # with which the minimum detectable effect would be seen
MIN_SEEDS = 3  # shared ones, for a test over seeds: of two, one degree of freedom is left
ROUNDING = 1e-12  # a deviation below it is that of equal values
DRAWS = 10_000  # of the bootstrap
BLOCK = 100  # draws at a time, which bounds the memory
BOOTSTRAP_SEED = 2410_11582  # the paper's number


@dataclass(frozen=True)
class Summary:
    """What `n` runs say: their mean and sample standard deviation (n − 1), None for a single run."""

    mean: float
    std: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of the mean; None for a single run."""
        if self.std is None:
            return None
        half = stats.t.ppf((1 + LEVEL) / 2, self.n - 1) * self.std / self.n**0.5
        return self.mean - half, self.mean + half


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
    """Wilson's interval of an accuracy, `correct` of `count` test samples: what one run alone can say."""
    found = stats.binomtest(correct, count).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


# ---- a method against the baseline ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The differences of two groups of runs, seed by seed."""

    difference: Summary  # mine − other's, over the shared seeds
    p: float | None  # two-sided, of the paired t-test; None with fewer than MIN_SEEDS, or without any spread
    effect: float | None  # Cohen's d_z: the mean difference in units of the differences' deviation
    detectable: (
        float | None
    )  # the smallest true difference that so many seeds would show with probability POWER


def compare(mine: Mapping[int, float], other: Mapping[int, float]) -> Comparison | None:
    """Compare values by seed over the seeds that both have; None where they share none."""
    shared = sorted(set(mine) & set(other))
    difference = summarize([mine[seed] - other[seed] for seed in shared])
    if difference is None:
        return None
    if difference.n < MIN_SEEDS or difference.std is None or difference.std < ROUNDING:
        return Comparison(difference, None, None, None)
    t = difference.mean / (difference.std / difference.n**0.5)
    p = 2 * float(stats.t.sf(abs(t), difference.n - 1))
    detectable = minimum_detectable(difference.std, difference.n)
    return Comparison(difference, p, difference.mean / difference.std, detectable)


def minimum_detectable(std: float, n: int) -> float:
    """The true difference at which a paired t-test over `n` seeds of that deviation has the power POWER."""
    return _detectable_shift(n) * std / n**0.5


@cache
def _detectable_shift(n: int) -> float:
    """That difference in units of the standard error."""
    freedom = n - 1
    critical = stats.t.ppf((1 + LEVEL) / 2, freedom)

    def missing(shift: float) -> float:  # the other tail has no part in it: it is below 1e-4 there
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    return optimize.brentq(missing, 0, critical + 5)  # pyright: ignore[reportReturnType]


def bootstrap(gains: NDArray[np.floating]) -> NDArray[np.float64]:
    """Percentile intervals [K, 2] of the mean gains, by a paired bootstrap over the test samples.

    `gains` [K, samples] holds for K comparisons on the same samples what each gains: its predictions of the one
    that are right less those of the other, as the mean over the seeds. DRAWS draws of a fixed seed serve all
    comparisons, and rounding can't move them: the same figures on every machine.
    """
    count = gains.shape[1]
    generator = np.random.Generator(np.random.PCG64(BOOTSTRAP_SEED))
    means = np.empty((DRAWS, len(gains)))
    for first in range(0, DRAWS, BLOCK):
        drawn = generator.integers(0, count, (BLOCK, count)) + count * np.arange(BLOCK)[:, None]
        times = np.bincount(drawn.ravel(), minlength=BLOCK * count).reshape(BLOCK, count)
        means[first : first + BLOCK] = (times @ gains.T / count)[: DRAWS - first]
    means.sort(0)
    tail = round(DRAWS * (1 - LEVEL) / 2)
    return means[[tail, DRAWS - 1 - tail]].round(9).T


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of one table, in the given order; None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = highest
    return adjusted
