"""The discrepancy against hand-worked numbers and a plain loop over samples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from balancemm_cli.methods.discrepancy import DiscrepancySettings, measure
from balancemm_cli.runs.schema import Discrepancy

LN3 = math.log(3)
# Two samples of class 0 and two classes: softmax gives 3/4 (audio) and 1/2 (visual) to the true class.
LOGITS = {"audio": torch.tensor([[LN3, 0.0], [LN3, 0.0]]), "visual": torch.zeros(2, 2)}
LABELS = torch.tensor([0, 0])


def test_by_hand():
    found = measure(LOGITS, LABELS, DiscrepancySettings())
    assert found.scores.tolist() == pytest.approx([1.5, 1.0])
    assert found.rho.tolist() == pytest.approx([1.5, 2 / 3])
    assert found.ahead.tolist() == [True, False]
    assert found.z.tolist() == pytest.approx([math.tanh(0.5), math.tanh(-1 / 3)])


def test_a_result_takes_the_largest_there_is():
    """Features that are not standardised can give it: the other modality's score of a whole batch vanishes."""
    logits = {"audio": torch.tensor([[999.0, 0.0]]), "visual": torch.tensor([[-999.0, 0.0]])}
    found = measure(
        {name: own.expand(4096, 2) for name, own in logits.items()},
        torch.zeros(4096, dtype=int),
        DiscrepancySettings(),
    )
    assert 1e15 < found.rho[0] == TypeAdapter(Discrepancy).validate_python(found.rho[0].item())


def test_difference_and_sigmoid_by_hand():
    found = measure(LOGITS, LABELS, DiscrepancySettings(form="difference", z="sigmoid"))
    assert found.rho.tolist() == pytest.approx([0.5, -0.5])
    assert found.ahead.tolist() == [True, False]
    assert found.z.tolist() == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])


def test_three_modalities_by_hand():
    thirds = torch.tensor([[0.0, LN3], [0.0, LN3]])  # 1/4 for the true class
    found = measure({**LOGITS, "touch": thirds}, LABELS, DiscrepancySettings())
    assert found.scores.tolist() == pytest.approx([1.5, 1.0, 0.5])
    assert found.rho.tolist() == pytest.approx([(1.5 + 3) / 2, (1 / 1.5 + 2) / 2, (1 / 3 + 1 / 2) / 2])


@settings(max_examples=50, deadline=None)
@given(
    modalities=st.sampled_from([2, 3, 5]),
    batch=st.integers(1, 7),
    classes=st.integers(2, 6),
    form=st.sampled_from(["ratio", "difference"]),
    seed=st.integers(0, 10_000),
)
def test_against_a_loop(modalities, batch, classes, form, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = {f"m{m}": torch.randn(batch, classes, generator=generator) for m in range(modalities)}
    labels = torch.randint(classes, (batch,), generator=generator)
    found = measure(logits, labels, DiscrepancySettings(form=form))
    scores = []
    for values in logits.values():
        total = 0.0
        for row, label in zip(values.tolist(), labels.tolist(), strict=True):
            total += math.exp(row[label]) / sum(math.exp(value) for value in row)
        scores.append(total)
    for m, mine in enumerate(scores):
        others = [score for j, score in enumerate(scores) if j != m]
        terms = [mine / other if form == "ratio" else mine - other for other in others]
        assert found.rho[m].item() == pytest.approx(sum(terms) / len(others), rel=1e-4, abs=1e-5)


def test_a_score_of_zero_stays_finite():
    hopeless = torch.tensor([[-1000.0, 0.0], [-1000.0, 0.0]])
    found = measure({"audio": LOGITS["audio"], "visual": hopeless}, LABELS, DiscrepancySettings())
    assert found.rho.isfinite().all() and found.z.tolist() == pytest.approx([1.0, math.tanh(-1)])
