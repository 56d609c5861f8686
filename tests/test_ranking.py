"""Ranks, tests over data sets and intervals over seeds: against scipy, Demšar's worked example, and simulations."""

import numpy as np
import pytest
from scipy import stats

from balancemm_cli.results.ranking import (
    OverSeeds,
    cliques,
    critical_difference,
    friedman,
    ranks,
    wilcoxon,
)
from balancemm_cli.results.statistics import holm

# Demšar, JMLR 7 (2006), Table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],  # printed as equal, ranked as different
        [0.957, 0.978, 0.946, 0.970],
    ]
)
TIED = 1 - 78 / (
    14 * 4 * (4**2 - 1)
)  # by which scipy corrects χ² for the ties of that table; Demšar does not


def test_the_worked_example_of_the_critical_difference():
    mean = ranks(DEMSAR).mean(0)
    np.testing.assert_allclose(mean, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    found = friedman(DEMSAR)
    printed = found.chi_square * TIED
    assert printed == pytest.approx(9.28, abs=0.005)
    assert 13 * printed / (14 * 3 - printed) == pytest.approx(3.69, abs=0.005)
    assert found.p < 0.05  # as he finds
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_its_bars():
    """At 0.05 nothing is told apart, as he finds; by his 1.12 (at 0.10) C4.5 is worse than +m and +m+cf."""
    mean = ranks(DEMSAR).mean(0).tolist()
    assert cliques(mean, critical_difference(4, 14)) == [[3, 1, 2, 0]]
    assert cliques(mean, 1.12) == [[3, 1, 2], [2, 0]]
    assert cliques([1.0, 3.0, 5.0], 0.5) == []


# Demšar, Table 5 (a): q for the Nemenyi test at 0.05, by the number of methods
@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_printed_critical_values(methods, q):
    assert critical_difference(methods, 30) == pytest.approx(
        q * (methods * (methods + 1) / (6 * 30)) ** 0.5, abs=5e-4 * methods
    )


def test_friedman_is_scipys_and_iman_and_davenports_is_the_variance_ratio_of_the_ranks():
    random = np.random.default_rng(0)
    scores = random.normal(size=(9, 5)).round(1)  # with ties
    found = friedman(scores)
    chi_square, p = stats.friedmanchisquare(*scores.T)
    assert (found.chi_square, found.p_chi_square) == pytest.approx((chi_square, p))
    placed = ranks(scores)
    between = 9 * ((placed.mean(0) - 3) ** 2).sum() / 4
    rest = ((placed - placed.mean(0) - placed.mean(1, keepdims=True) + 3) ** 2).sum() / (8 * 4)
    assert found.f == pytest.approx(between / rest)
    assert found.p == pytest.approx(stats.f.sf(between / rest, 4, 32))


def test_where_all_are_equal_or_all_agree():
    assert friedman(np.ones((6, 4))).p == 1
    assert friedman(np.tile([0.1, 0.2, 0.3], (6, 1))).p == 0


def test_wilcoxon_is_scipys_with_holms_correction():
    pairs = wilcoxon(DEMSAR[:, :3])
    plain = [
        stats.wilcoxon((DEMSAR[:, a] - DEMSAR[:, b]).round(12)).pvalue for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert list(pairs.values()) == pytest.approx(holm(plain))
    assert wilcoxon(np.ones((6, 2)))[0, 1] == 1


# ---- over seeds ---------------------------------------------------------------------------------------------


def test_win_rates_and_improvement_by_hand():
    """Two data sets of two seeds; equal runs count half."""
    runs = [np.array([[0.9, 0.8], [0.7, 0.8]]), np.array([[0.5, 0.4], [0.6, 0.5]])]
    over = OverSeeds(runs)
    # (0.9 > both; 0.7 < both): 1/2. (0.5 > 0.4, = 0.5; 0.6 > both): 3.5/4.
    assert over.improvement(0, 1).value == pytest.approx((0.5 + 0.875) / 2)
    assert over.improvement(1, 0).value == pytest.approx(1 - (0.5 + 0.875) / 2)
    assert [one.value for one in over.win_rates()] == pytest.approx([0.6875, 0.3125])
    assert [one.value for one in over.mean_ranks()] == pytest.approx([(1.5 + 1) / 2, (1.5 + 2) / 2])


def test_improvement_is_mann_and_whitneys_statistic():
    random = np.random.default_rng(1)
    runs = [random.normal(size=(7, 3)) for _ in range(4)]
    u = [stats.mannwhitneyu(scores[:, 0], scores[:, 2]).statistic / 49 for scores in runs]
    assert OverSeeds(runs).improvement(0, 2).value == pytest.approx(np.mean(u))


def test_a_single_seed_has_no_interval():
    over = OverSeeds([np.array([[0.5, 0.4]]), np.array([[0.5, 0.4], [0.6, 0.5]])])
    assert over.mean_ranks()[0].interval is None and over.improvement(0, 1).interval is None


def test_intervals_contain_the_number_and_end_where_it_can():
    runs = [np.array([[0.9, 0.1, 0.5]] * 5) for _ in range(5)]
    over = OverSeeds(runs)
    assert over.win_rates()[0].interval == pytest.approx((1, 1))
    assert over.mean_ranks()[1].interval == pytest.approx((3, 3))


def test_intervals_are_the_same_each_time():
    runs = [np.random.default_rng(3).normal(size=(5, 3)) for _ in range(5)]
    assert OverSeeds(runs).win_rates() == OverSeeds(runs).win_rates()


@pytest.mark.long
@pytest.mark.parametrize(("datasets", "seeds", "methods"), [(5, 5, 4), (14, 5, 3)])
def test_intervals_cover_the_truth_in_95_of_100_cases(datasets, seeds, methods):
    """Within 93 to 97 %, over 400 simulated reports of normal runs whose means and deviations differ."""
    random = np.random.default_rng(1)
    mean, std = random.normal(0, 0.5, (datasets, methods)), random.uniform(0.5, 1.5, (datasets, methods))
    apart = (mean[:, :, None] - mean[:, None]) / np.hypot(std[:, :, None], std[:, None])
    better = stats.norm.cdf(apart).mean(0)
    wins = (better.sum(1) - 0.5) / (methods - 1)
    covered = {"wins": [], "improvement": [], "ranks": []}
    for trial in range(400):
        over = OverSeeds(
            list(mean[:, None] + std[:, None] * random.normal(size=(datasets, seeds, methods))), 300, trial
        )
        found = {
            "wins": (over.win_rates(), wins),
            "improvement": ([over.improvement(one, 0) for one in range(1, methods)], better[1:, 0]),
            "ranks": (over.mean_ranks(), 1 + (methods - 1) * (1 - wins)),
        }
        for name, (estimates, truth) in found.items():
            covered[name] += [
                one.interval[0] <= value <= one.interval[1]
                for one, value in zip(estimates, truth, strict=True)
            ]
    shares = {name: np.mean(hits) for name, hits in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
