"""Statistics against scipy, formulas written out, and simulations of what they promise."""

import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from balancemm_cli.results.statistics import (
    Summary,
    bootstrap,
    compare,
    format_summary,
    holm,
    minimum_detectable,
    summarize,
    wilson,
)


def gains(mine, other):
    """[1, samples] from [seeds, samples] of what is right."""
    return (mine.astype(float) - other).mean(0, keepdims=True)


BOOTSTRAPPED = [0.061666667, 0.163333333]


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
    """95 % of the time, within 93 to 97 %: t over seeds, Wilson over samples, the bootstrap over paired samples."""
    generator = np.random.default_rng(0)
    held = {"t": 0, "wilson": 0}
    for _ in range(4000):
        summary = summarize(generator.normal(0.7, 0.03, 4).tolist())
        assert summary is not None and summary.interval is not None
        held["t"] += summary.interval[0] <= 0.7 <= summary.interval[1]
        low, high = wilson(int(generator.binomial(300, 0.73)), 300)
        held["wilson"] += low <= 0.73 <= high
    assert all(0.93 <= count / 4000 <= 0.97 for count in held.values()), held


def test_the_bootstraps_interval_holds_the_truth(monkeypatch):
    monkeypatch.setattr("balancemm_cli.results.statistics.DRAWS", 400)  # enough for each of many intervals
    generator, held = np.random.default_rng(1), 0
    for _ in range(1500):
        mine, other = (generator.random((1, 250)) < share for share in (0.75, 0.7))
        ((low, high),) = bootstrap(gains(mine, other))
        held += low <= 0.05 <= high
    assert 0.93 <= held / 1500 <= 0.97


def test_the_bootstrap_gives_these_figures_everywhere():
    generator = np.random.default_rng(2)
    mine, other = (generator.random((3, 200)) < share for share in (0.8, 0.7))
    found = bootstrap(np.concatenate([gains(mine, other), gains(other, mine)]))
    assert found[0].tolist() == BOOTSTRAPPED
    assert found[1].tolist() == pytest.approx([-BOOTSTRAPPED[1], -BOOTSTRAPPED[0]], abs=1e-9)


def test_the_bootstrap_agrees_with_scipys():
    generator = np.random.default_rng(3)
    mine, other = (generator.random((1, 400)) < share for share in (0.8, 0.7))
    found = scipy.stats.bootstrap(
        (mine[0].astype(float), other[0].astype(float)),
        lambda a, b, axis=-1: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert bootstrap(gains(mine, other))[0] == pytest.approx((found.low, found.high), abs=0.006)


def test_a_comparison_is_scipys_paired_t_test():
    mine, other = {0: 0.71, 1: 0.74, 2: 0.69, 3: 0.75, 9: 0.1}, {0: 0.66, 1: 0.7, 2: 0.68, 3: 0.69, 8: 0.9}
    found = compare(mine, other)
    expected = scipy.stats.ttest_rel([0.71, 0.74, 0.69, 0.75], [0.66, 0.7, 0.68, 0.69])
    assert found is not None and found.difference.n == 4
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert found.difference.interval == pytest.approx((low, high))
    assert found.effect == pytest.approx(0.04 / statistics.stdev([0.05, 0.04, 0.01, 0.06]))


@pytest.mark.parametrize(("mine", "p"), [({0: 0.5, 1: 0.7}, None), ({0: 0.6, 1: 0.6, 2: 0.6}, None)])
def test_no_p_value_of_two_seeds_nor_without_spread(mine, p):
    found = compare(mine, {0: 0.4, 1: 0.4, 2: 0.4})
    assert found is not None and found.p is p and found.difference.n == len(mine)
    assert compare({0: 0.5}, {1: 0.5}) is None
    equal_but_for_rounding = compare({0: 0.95, 1: 0.93, 2: 0.91}, {0: 0.90, 1: 0.88, 2: 0.86})
    assert equal_but_for_rounding is not None and equal_but_for_rounding.p is None


def test_the_minimum_detectable_effect_is_detected_as_often_as_it_says():
    """Of 20 pairs tables of power give 0.66 deviations (80 %, two-sided 5 %)."""
    assert minimum_detectable(1.0, 20) == pytest.approx(0.66, abs=0.005)
    generator = np.random.default_rng(4)
    differences = generator.normal(minimum_detectable(0.02, 5), 0.02, (4000, 5))
    p = np.array([scipy.stats.ttest_1samp(some, 0)[1] for some in differences])
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


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
