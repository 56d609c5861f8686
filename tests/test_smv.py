"""SMV: Shapley values from all orders of the modalities, and which samples are drawn again."""

from itertools import permutations

import pytest
import torch
from small_networks import LABELS, made

from balancemm_cli.methods.base import Epoch
from balancemm_cli.methods.smv import lagging, rightness, shapley


def epoch_of(inputs, number=5):
    """The six samples of a network's batch, four times."""
    return Epoch(number, lambda *_: iter(()), training=lambda: iter([(inputs, LABELS)] * 4))


def worth(network, inputs, chosen):
    """|S| where the modalities S alone give the right answer, else 0, [B]."""
    features = network.encode(inputs)
    alone = {
        name: feature if m in chosen else torch.zeros_like(feature)
        for m, (name, feature) in enumerate(features.items())
    }
    return len(chosen) * (network.classify(alone).argmax(1) == LABELS).double()


@pytest.mark.parametrize("model", ["concat", "sum", "mlp"])
@pytest.mark.parametrize("modalities", [2, 3, pytest.param(5, marks=pytest.mark.long)])
def test_a_value_is_the_mean_gain_over_all_orders(model, modalities):
    network, _, inputs = made("smv", modalities, model)
    values = shapley(rightness(network, epoch_of(inputs)))
    assert network.training and values.shape == (24, modalities)
    network.eval()
    expected = torch.zeros(6, modalities, dtype=torch.float64)
    orders = list(permutations(range(modalities)))
    for order in orders:
        for k, m in enumerate(order):
            before = worth(network, inputs, order[:k]) if k else 0
            expected[:, m] += (worth(network, inputs, order[: k + 1]) - before) / len(orders)
    torch.testing.assert_close(values, expected.repeat(4, 1))
    assert expected.any()


def test_a_sample_is_drawn_again_the_more_often_the_less_a_modality_was_worth_to_it():
    _, (method,), inputs = made("smv", 2)
    values = torch.tensor([[1.5, 0.5], [0.0, 1.0], [-0.5, 0.5], [1.0, 1.0]])
    rows, keep = method._of_samples(values, epoch_of(inputs))
    assert rows.tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert keep.int().tolist() == [[0, 1], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_modality_that_lags_is_drawn_for_a_share_of_all_samples(alpha):
    _, (method,), inputs = made("smv", 3, level="modality", part=0.5, alpha=alpha)
    values = torch.tensor([[1.0, 0.25, 0.5]]).repeat(40, 1)
    rows, keep = method._of_modality(values, epoch_of(inputs))
    assert len(rows) == int(40 * alpha * 2 / 3 * 0.5) and keep.shape == (len(rows), 3)
    assert (keep == torch.tensor([False, True, False])).all()
    assert len(set(rows.tolist())) >= len(rows) / 2 and (rows < 40).all()


def test_who_lags_is_told_by_the_mean_of_the_others():
    assert lagging(torch.tensor([0.2, 0.8])) == (0, pytest.approx(0.4))
    assert lagging(torch.tensor([1.0, 0.7, 0.1])) == (2, pytest.approx(0.5))


def test_nothing_is_drawn_before_the_warm_up_ends():
    network, (method,), inputs = made("smv", 2, warmup=3)
    method.on_epoch_start(network, epoch_of(inputs, 2))
    assert method.further_samples() is None
    method.on_epoch_start(network, epoch_of(inputs, 3))
    rows, keep = method.further_samples()
    assert len(rows) == len(keep) > 0 and (keep.sum(1) == 1).all()
