"""LFM: the alignment by hand, the weight of each epoch, and what it is learned from by differences of gradients."""

import copy
from math import log

import pytest
import torch
from small_networks import LABELS, made, take_step
from torch.nn.functional import cross_entropy

from balancemm_cli.methods.base import Epoch
from balancemm_cli.methods.lfm import LFM, alignment, fitted


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def of_probabilities(*rows):
    return [torch.tensor([row]).log() for row in rows]


def test_the_alignment_of_two_by_hand():
    """p = (½, ½) and q = (¼, ¾): r = (⅜, ⅝), and A = Σ r (ln r − ½ ln p q)."""
    expected = 3 / 8 * (log(3 / 8) - log(1 / 8) / 2) + 5 / 8 * (log(5 / 8) - log(3 / 8) / 2)
    found = alignment(of_probabilities([0.5, 0.5], [0.25, 0.75]))
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize("modalities", [3, 5])
def test_of_more_it_is_the_mean_over_pairs(modalities):
    """All but one agree: of M (M − 1) / 2 pairs the M − 1 with that one count."""
    alike = [[0.25, 0.75]] * (modalities - 1)
    one = alignment(of_probabilities([0.5, 0.5], [0.25, 0.75]))
    found = alignment(of_probabilities(*alike, [0.5, 0.5]))
    torch.testing.assert_close(found, one * 2 / modalities)
    torch.testing.assert_close(alignment(of_probabilities(*alike)), torch.zeros(1), atol=1e-7, rtol=0)


def test_certain_predictions_have_a_finite_alignment():
    logits = [torch.tensor([[300.0, -300.0]], requires_grad=True), torch.tensor([[-300.0, 300.0]])]
    alignment(logits).sum().backward()
    assert logits[0].grad.isfinite().all()


@pytest.mark.parametrize("model", ["concat", "sum"])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_the_loss_and_the_update_by_hand(model, modalities):
    network, methods, inputs = made("lfm", modalities, model, start=0.75)
    twin = copy.deepcopy(network)
    found, _ = take_step(network, methods, inputs, lr=0.1)
    features = twin.encode(inputs)
    logits = list(twin.logits_alone(features).values())
    total = 0
    for first in range(modalities):
        for second in range(first):
            p, q = logits[first].softmax(1), logits[second].softmax(1)
            r = (p + q) / 2
            total = total + (r * (r.log() - (p.log() + q.log()) / 2)).sum(1).mean()
    mean = total / (modalities * (modalities - 1) / 2)
    loss = 2 * (0.25 * cross_entropy(twin.classify(features), LABELS) + 0.75 * mean)
    loss.backward()
    torch.testing.assert_close(found, loss.detach())
    for weight, before in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight, before - 0.1 * before.grad)


def test_the_fitted_weight_falls_and_stays_after_the_last_epoch():
    network, methods, _ = made("lfm", 2, "sum", "official")
    found = []
    for number in (0, 50, 100, 150, 199, 200, 1000):
        methods[0].on_epoch_start(network, Epoch(number, lambda *_: iter(())))
        found.append(methods[0].weight.item())
    assert found[0] == pytest.approx(0.795376296)
    assert found[:5] == sorted(found[:5], reverse=True)
    assert found[4] == found[5] == found[6] == pytest.approx(1 - fitted(199), abs=1e-6)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("modalities", [2, 3, 5])  # the third is of sequences, through attention
def test_what_is_learned_from_by_differences_of_gradients(modalities):
    """g is the mean over the first weights of how much ∇L changes along ∇CE; the rate halves each 20 epochs."""
    network, methods, inputs = made("lfm", modalities, start=0.5, rate=10.0)
    (method,) = methods
    before = copy.deepcopy(network.state_dict())
    method.on_epoch_start(network, Epoch(45, lambda *_: iter([(inputs, LABELS)])))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in network.modules())
    assert all(weight.grad is None for weight in network.parameters())

    network.eval()
    weights = [*network.encoders.parameters(), *network.fusion.parameters()]

    def slopes(share):
        features = network.encode(inputs)
        loss = (1 - share) * cross_entropy(network.classify(features), LABELS)
        loss = loss + share * alignment(network.logits_alone(features).values()).mean()
        return torch.autograd.grad(loss, weights, materialize_grads=True)

    along, size = slopes(0.0), 1e-5
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, slope in zip(weights, along, strict=True):
                weight.add_(sign * size * slope)
        found.append(slopes(0.5)[0])
        with torch.no_grad():
            for weight, slope in zip(weights, along, strict=True):
                weight.sub_(sign * size * slope)
    g = ((found[0] - found[1]) / (2 * size)).mean()
    assert g.abs() > 1e-7
    assert 0.5 - method.weight.item() == pytest.approx((10 * 0.25 * g).item(), rel=1e-3)


def test_the_weight_is_kept_over_a_resume():
    network, methods, inputs = made("lfm", 2, rate=1e6)
    methods[0].on_epoch_start(network, Epoch(0, lambda *_: iter([(inputs, LABELS)])))
    assert methods[0].weight.item() in (pytest.approx(0.05), pytest.approx(0.95))
    again = LFM(LFM.Settings(), ["audio", "visual"])
    again.load_state_dict(methods[0].state_dict())
    assert torch.equal(again.weight, methods[0].weight)
