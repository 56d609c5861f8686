import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancemm_cli.results.statistics import Summary, format_summary, summarize


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
