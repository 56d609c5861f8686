"""What the statistics of a report promise, and how often they keep it: simulations with seeds of their own.

Intervals of a gain, meant to hold the gain on all samples of the kind in 95 % of cases: over the seeds alone (Student's
t), over new seeds and new samples (the two-way analysis that `gain-new-samples` shows), and a two-level percentile
bootstrap, which was tried for it. Then the words of a verdict by where the true mean lies.

    python benchmarks/statistics/coverage.py          # about three minutes on one core
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from balancemm_cli.results.statistics import over_new_samples, summarize, wilson
from balancemm_cli.results.verdicts import decide

LEVELS = np.array([0.6, 0.8])  # of baseline and method, in deviations of the samples' hardness
SAMPLES = 744  # CREMA-D's test split
Gains = NDArray[np.float64]
Interval = tuple[float, float] | None


def gains(generator: np.random.Generator, seeds: int, by_seed: float, own: float, noise: float) -> Gains:
    """[seeds, samples] of a method over its baseline: deviations of the level by seed, of what each of the two finds
    hard beyond what both do (1), and of what is left to chance."""
    hardness = generator.normal(0, 1, SAMPLES) + generator.normal(0, own, (2, 1, SAMPLES))
    level = LEVELS[:, None, None] + generator.normal(0, by_seed, (2, seeds, 1))
    right = level + hardness + generator.normal(0, noise, (2, seeds, SAMPLES)) > 0
    return right[1].astype(float) - right[0]


def truth(by_seed: float, own: float, noise: float) -> float:
    """The gain on all samples and seeds."""
    shares = stats.norm.cdf(LEVELS / (1 + by_seed**2 + own**2 + noise**2) ** 0.5)
    return float(shares[1] - shares[0])


def over_seeds(gained: Gains, generator: np.random.Generator) -> Interval:
    """Student's t over the seeds."""
    summary = summarize(gained.mean(1).tolist())
    return summary and summary.interval


def two_way(gained: Gains, generator: np.random.Generator) -> Interval:
    """The interval of the report."""
    return over_new_samples(gained)


def bootstrap(gained: Gains, generator: np.random.Generator, draws: int = 400) -> Interval:
    """Two levels, seeds and samples each drawn with replacement; the percentiles of the mean."""
    seeds, samples = gained.shape
    times = generator.multinomial(samples, [1 / samples] * samples, draws) / samples
    picked = generator.multinomial(seeds, [1 / seeds] * seeds, draws) / seeds
    low, high = np.quantile((times @ gained.T * picked).sum(1), [0.025, 0.975])
    return float(low), float(high)


def covered(repeats: int) -> Iterator[str]:
    """A line a world: how often each interval holds the true gain."""
    generator = np.random.default_rng(0)
    for seeds in (3, 5):
        for world in ((0.02, 0.6, 0.4), (0.05, 0.6, 0.4), (0.1, 0.6, 0.4), (0.03, 0.3, 0.8), (0.2, 0.3, 0.3)):
            held = dict.fromkeys((over_seeds, two_way, bootstrap), 0)
            for _ in range(repeats):
                gained = gains(generator, seeds, *world)
                for interval in held:
                    low, high = interval(gained, generator) or (0.0, 0.0)
                    held[interval] += low <= truth(*world) <= high
            shares = "  ".join(f"{100 * count / repeats:9.1f}" for count in held.values())
            yield f"{seeds:5}  {world[0]:7} {world[1]:4} {world[2]:6}  {shares}"


def words(repeats: int) -> Iterator[str]:
    """A line a true mean: how often a verdict within ±2 points is each word, of three seeds and of one by Wilson's."""
    generator = np.random.default_rng(1)
    for off in (0.0, 0.01, 0.02, 0.03, 0.05):
        values = generator.normal(0.75 + off, 0.01, (repeats, 3))
        found = [decide(summary, 0.73, 0.77) for row in values.tolist() if (summary := summarize(row))]
        alone = [wilson(round(value * 15_446), 15_446) for value in values[:, 0]]
        by_wilson = sum(low >= 0.73 and high <= 0.77 for low, high in alone)
        shares = "  ".join(f"{100 * found.count(word) / repeats:9.1f}" for word in ("reproduced", "better"))
        yield f"{100 * off:5.0f}  {shares}  {100 * by_wilson / repeats:20.1f}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    print(f"How often an interval of 95 % holds the gain on all samples, {SAMPLES} of which are tested (%)")
    print("seeds  by seed  own  noise  over seeds    two-way  bootstrap")
    print(*covered(repeats), sep="\n")
    print("\nWords within ±2 points, deviation 1 point, by the true difference in points (%)")
    print("  off  reproduced     better  reproduced by Wilson of one run, 15,446 samples")
    print(*words(4 * repeats), sep="\n")


if __name__ == "__main__":
    main()
