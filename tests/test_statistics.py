"""Statistics against scipy, formulas written out, and simulations of what they promise."""

import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from balancemm_cli.results.statistics import (
    Summary,
    chance_of_equivalence,
    compare,
    format_summary,
    hedges,
    holm,
    minimum_detectable,
    over_new_samples,
    seeds_for_equivalence,
    summarize,
    wilson,
    within_bounds,
)
from balancemm_cli.results.verdicts import decide


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mean_and_sample_standard_deviation(values):
    summary = summarize(values)
    assert summary is not None and summary.std is not None
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(statistics.fmean(values))
    assert summary.std == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert summarize([0.5]) == Summary(0.5, None, 1)
    assert summarize([]) is None


@pytest.mark.parametrize(
    ("values", "scale", "decimals", "text"),
    [
        ([0.947, 0.951, 0.955], 100, 1, "95.1 ± 0.4 (3)"),
        ([0.951], 100, 1, "95.1 (1)"),
        ([1.5, 1.7], 1, 2, "1.60 ± 0.14 (2)"),
        ([], 100, 1, "—"),
    ],
)
def test_text(values, scale, decimals, text):
    assert format_summary(summarize(values), scale, decimals) == text


def test_the_interval_is_scipys():
    values = [0.61, 0.66, 0.58, 0.7]
    summary = summarize(values)
    assert summary is not None
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert summary.interval == pytest.approx((expected.low, expected.high))
    assert Summary(0.5, None, 1).interval is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    """95 % of the time, within 93 to 97 %: t over seeds, Wilson over samples."""
    generator = np.random.default_rng(0)
    held = {"t": 0, "wilson": 0}
    for _ in range(2000):
        summary = summarize(generator.normal(0.7, 0.03, 4).tolist())
        assert summary is not None and summary.interval is not None
        held["t"] += summary.interval[0] <= 0.7 <= summary.interval[1]
        low, high = wilson(int(generator.binomial(300, 0.73)), 300)
        held["wilson"] += low <= 0.73 <= high
    assert all(0.93 <= count / 2000 <= 0.97 for count in held.values()), held


def test_equal_values_have_no_interval():
    """Not even where rounding parts them; an interval of no width would decide whatever it is asked."""
    assert summarize([0.75, 0.75, 0.75]).interval is None
    assert summarize([0.1 + 0.2, 0.3, 0.3]).interval_at(0.9) is None


def test_an_interval_of_an_accuracy_is_kept_within_0_and_1():
    summary = summarize([0.97, 0.999, 0.99])
    assert summary is not None and summary.interval is not None and summary.interval[1] > 1
    assert within_bounds(summary.interval) == (summary.interval[0], 1.0)
    assert within_bounds((-0.1, 0.3)) == (0.0, 0.3) and within_bounds(None) is None


@pytest.mark.parametrize(("n", "chance"), [(3, 0.56), (5, 0.95)])
def test_the_chance_of_showing_equality_at_a_deviation_of_1_point_and_a_band_of_2(n, chance):
    assert chance_of_equivalence(0.01, n, 0.02) == pytest.approx(chance, abs=0.005)
    values = np.random.default_rng(n).normal(0.7, 0.01, (4000, n))
    shown = decided(values, 0.68, 0.72) == "reproduced"
    assert shown.mean() == pytest.approx(chance, abs=0.02)  # as the verdicts find it


def test_how_many_seeds_would_show_equality():
    assert seeds_for_equivalence(0.01, 0.02) == 4  # 83 %; three have 56 %
    assert chance_of_equivalence(0.01, 3, 0.02) < 0.8 <= chance_of_equivalence(0.01, 4, 0.02)
    assert seeds_for_equivalence(0.5, 0.02) is None
    assert chance_of_equivalence(1e-6, 3, 0.02) == pytest.approx(1)


@pytest.mark.long
@pytest.mark.parametrize("true", [0.68, 0.72])
@pytest.mark.parametrize("n", [3, 5])
def test_on_the_bands_end_no_more_than_5_percent_are_called_reproduced_or_better(true, n):
    """Where a single run's Wilson interval over 744 samples called 17 to 29 % reproduced."""
    values = np.random.default_rng(n).normal(true, 0.004, (4000, n))
    words = decided(values, 0.68, 0.72)
    assert (words == "reproduced").mean() == pytest.approx(0.05, abs=0.012)
    beyond = "better" if true > 0.7 else "worse"
    assert (words == beyond).mean() == pytest.approx(0.05, abs=0.012)
    assert set(words) == {"reproduced", beyond, "undecided"}


def decided(values, low, high):
    """The word on each row of [draws, seeds]."""
    return np.array([decide(summarize(row), low, high) for row in values.tolist()])


def test_a_comparison_is_scipys_paired_t_test():
    mine, other = {0: 0.71, 1: 0.74, 2: 0.69, 3: 0.75, 9: 0.1}, {0: 0.66, 1: 0.7, 2: 0.68, 3: 0.69, 8: 0.9}
    found = compare(mine, other)
    expected = scipy.stats.ttest_rel([0.71, 0.74, 0.69, 0.75], [0.66, 0.7, 0.68, 0.69])
    assert found is not None and found.difference.n == 4
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert found.difference.interval == pytest.approx((low, high))
    d = 0.04 / statistics.stdev([0.05, 0.04, 0.01, 0.06])
    assert found.effect == pytest.approx(d * (1 - 3 / (4 * 3 - 1)), rel=0.01)  # Hedges (1981), approximately


@pytest.mark.parametrize(("mine", "p"), [({0: 0.5, 1: 0.7}, None), ({0: 0.6, 1: 0.6, 2: 0.6}, None)])
def test_no_p_value_of_two_seeds_nor_without_spread(mine, p):
    found = compare(mine, {0: 0.4, 1: 0.4, 2: 0.4})
    assert found is not None and found.p is p and found.difference.n == len(mine)
    assert compare({0: 0.5}, {1: 0.5}) is None
    equal_but_for_rounding = compare({0: 0.95, 1: 0.93, 2: 0.91}, {0: 0.90, 1: 0.88, 2: 0.86})
    assert equal_but_for_rounding is not None and equal_but_for_rounding.p is None


@pytest.mark.parametrize("freedom", [2, 4, 9, 30])
def test_hedges_correction_by_its_formula_and_by_simulation(freedom):
    exact = math.gamma(freedom / 2) / (math.sqrt(freedom / 2) * math.gamma((freedom - 1) / 2))
    assert hedges(freedom) == pytest.approx(exact)
    assert hedges(freedom) == pytest.approx(1 - 3 / (4 * freedom - 1), abs=0.01)
    values = np.random.default_rng(freedom).normal(0.8, 1, (40_000, freedom + 1))
    effects = hedges(freedom) * values.mean(1) / values.std(1, ddof=1)
    assert np.mean(effects) == pytest.approx(0.8, abs=0.04)  # not 1.42, as without it of three values


def test_the_minimum_detectable_effect_is_detected_as_often_as_it_says():
    """Of 20 pairs tables of power give 0.66 deviations (80 %, two-sided 5 %)."""
    assert minimum_detectable(1.0, 20) == pytest.approx(0.66, abs=0.005)
    generator = np.random.default_rng(4)
    differences = generator.normal(minimum_detectable(0.02, 5), 0.02, (4000, 5))
    p = scipy.stats.ttest_1samp(differences, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("seeds", "tests"), [(3, 3), (5, 3), (5, 8)])
def test_it_is_detected_as_often_by_the_adjusted_test_that_the_dagger_uses(seeds, tests):
    """One gain of that size among others of nothing; the smallest unadjusted one is hardly ever found."""
    generator = np.random.default_rng(5)
    found = {}
    for adjusted_for in (1, tests):
        true = np.zeros((4000, tests, 1))
        true[:, 0] = minimum_detectable(0.02, seeds, adjusted_for)
        values = generator.normal(true, 0.02, (4000, tests, seeds))
        p = scipy.stats.ttest_1samp(values, 0, axis=2).pvalue
        found[adjusted_for] = np.mean([(holm(row)[0] or 0) < 0.05 for row in p.tolist()])
    assert found[tests] == pytest.approx(0.8, abs=0.03)
    assert found[1] < 0.66


# ---- over new samples ----------------------------------------------------------------------------------------


def test_of_one_seed_the_interval_is_students_over_the_samples():
    gained = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.7, 0.2])
    expected = scipy.stats.ttest_1samp(gained, 0).confidence_interval(0.95)
    assert over_new_samples(gained[None]) == pytest.approx((expected.low, expected.high))
    assert over_new_samples(np.zeros((3, 50))) is None and over_new_samples(np.ones((3, 1))) is None


def test_its_variance_is_that_of_the_two_way_table():
    """Against the mean squares of the analysis of variance, written out cell by cell."""
    table = np.array([[1.0, 0, 0, 1], [0, 0, -1, 1], [1, 1, 0, 1]])
    seeds, samples = table.shape
    mean = table.mean()
    of_seeds = samples * sum((row.mean() - mean) ** 2 for row in table) / (seeds - 1)
    of_samples = seeds * sum((column.mean() - mean) ** 2 for column in table.T) / (samples - 1)
    rest = sum(
        (table[i, j] - table[i].mean() - table[:, j].mean() + mean) ** 2
        for i in range(seeds)
        for j in range(samples)
    ) / ((seeds - 1) * (samples - 1))
    parts = (max(of_seeds, rest) / table.size, max(of_samples - rest, 0) / table.size)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (seeds - 1) + parts[1] ** 2 / (samples - 1))
    half = scipy.stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert over_new_samples(table) == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_it_holds_the_gain_on_all_samples_where_the_one_over_seeds_does_not(seeds):
    """Two methods, three or five seeds, 744 samples: intervals over seeds cover far less than their 95 %."""
    generator, held = np.random.default_rng(6), {"seeds": 0, "new samples": 0}
    for _ in range(400):
        gained = simulate_gains(generator, seeds, deviation=0.02 if seeds > 1 else 0)
        low, high = over_new_samples(gained) or (0, 0)
        held["new samples"] += low <= TRUE_GAIN <= high
        interval = summarize(gained.mean(1).tolist()).interval or (0, 0)
        held["seeds"] += interval[0] <= TRUE_GAIN <= interval[1]
    assert 0.92 <= held["new samples"] / 400 <= 0.99
    assert held["seeds"] / 400 < 0.92


OWN, NOISE = 0.6, 0.4  # deviations of what a method finds hard, and of what is left to chance
TRUE_GAIN = float(np.diff(scipy.stats.norm.cdf(np.array([0.6, 0.8]) / (1 + OWN**2 + NOISE**2) ** 0.5))[0])


def simulate_gains(generator, seeds, deviation, samples=744):
    """[seeds, samples] of two methods on the same samples, each with a hardness shared by both and one of its own."""
    hardness = generator.normal(0, 1, samples) + generator.normal(0, OWN, (2, 1, samples))
    level = np.array([0.6, 0.8])[:, None, None] + generator.normal(0, deviation, (2, seeds, 1))
    right = level + hardness + generator.normal(0, NOISE, (2, seeds, samples)) > 0
    return right[1].astype(float) - right[0]


def test_holm_by_hand():
    """Holm (1979): 0.01 · 4, 0.015 · 3, 0.03 · 2 and 0.04, none smaller than the one before."""
    assert holm([0.03, None, 0.01, 0.04, 0.015]) == pytest.approx([0.06, None, 0.04, 0.06, 0.045])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_by_its_formula(counts):
    k, n = counts
    z, share = statistics.NormalDist().inv_cdf(0.975), k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert wilson(k, n) == pytest.approx((middle - half, middle + half), abs=1e-9)
