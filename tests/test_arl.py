"""ARL: the coefficients by hand, and the update from gradients that autograd takes apart."""

import copy
import math

import pytest
import torch
from small_networks import LABELS, made, take_step
from torch.nn.functional import cross_entropy

from balancemm_cli.methods.arl import ARL
from balancemm_cli.methods.base import Step
from balancemm_cli.random_streams import RandomStreams

LN3 = math.log(3)


def coefficients(logits, **settings):
    names = [f"m{m}" for m in range(len(logits))]
    method = ARL(ARL.Settings(**settings), names)
    return method.coefficients(torch.tensor(logits), Step(0, RandomStreams(0), torch.zeros(1)))


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_two_modalities_by_hand():
    """Of sizes ln 3 and 2 ln 3; softmax of (0, ln 3) is (¼, ¾), of (−ln 3, ln 3) it is (⅒, ⁹⁄₁₀)."""
    first, second = entropy(0.25), entropy(0.1)
    inverse = torch.tensor([1 / first, 1 / second])  # the least share, 0.3, is not reached
    assert second / (first + second) > 0.3
    inverse = inverse / inverse.sum()
    expected = torch.softmax(5 * torch.tensor([2 / 3, 1 / 3]) * inverse, 0)
    found = coefficients([[[0.0, LN3]], [[-LN3, LN3]]], temperature=5)
    torch.testing.assert_close(found, expected)


def test_a_certain_modality_counts_as_the_least_share():
    """Of a certainty beyond measure the entropy's share is 0, and counts as 0.3: v = (1 / 0.3, 1) / (1 / 0.3 + 1)."""
    found = coefficients([[[-50.0, 50.0]], [[0.0, 0.0]]], temperature=1)
    v = 10 / 13
    torch.testing.assert_close(found, torch.softmax(torch.tensor([0.0 * v, 1.0 * (1 - v)]), 0))
    both = coefficients([[[-50.0, 50.0]], [[-500.0, 500.0]]], temperature=0)
    torch.testing.assert_close(both, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("modalities", [3, 5])
def test_more_modalities_by_hand(modalities):
    """All equally sure, the m-th one m + 1 times as large: only what the model depends on tells them apart."""
    logits = [[[m + 1.0, m + 1.0], [-m - 1.0, -m - 1.0]] for m in range(modalities)]
    total = sum(range(1, modalities + 1))
    others = torch.tensor([(total - m - 1) / total / (modalities - 1) for m in range(modalities)])
    found = coefficients(logits, temperature=6.0)
    torch.testing.assert_close(found, torch.softmax(6 * others / modalities, 0))
    assert found.argmax() == 0 and found.sum().item() == pytest.approx(1)
    # the first one certain: its entropy is none, the others' are even, and its bound is 0.6 / M
    logits[0] = [[-99.0, 99.0], [-99.0, 99.0]]
    shares = torch.tensor([0.6 / modalities, *[1 / (modalities - 1)] * (modalities - 1)])
    sizes = torch.tensor([99.0, *range(2, modalities + 1)])
    others = (1 - sizes / sizes.sum()) / (modalities - 1)
    inverse = (1 / shares) / (1 / shares).sum()
    found = coefficients(logits, temperature=6.0)
    torch.testing.assert_close(found, torch.softmax(6 * others * inverse, 0))


@pytest.mark.parametrize("model", ["concat", "sum"])
@pytest.mark.parametrize("modalities", [2, 3, 5])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_update_by_hand(model, modalities, variant):
    network, methods, inputs = made("arl", modalities, model, variant, gamma=3.0, clip=1e6)
    twin = copy.deepcopy(network)
    found, step = take_step(network, methods, inputs, epoch=6, lr=0.1)
    features = twin.encode(inputs)
    loss = cross_entropy(twin.classify(features), LABELS)
    for logits in twin.logits_alone(features).values():  # the shared weights are trained by these too
        loss = loss + 3 * cross_entropy(logits, LABELS)
    loss.backward()
    torch.testing.assert_close(found, loss.detach())
    k = step.metrics["coefficient"]
    assert k.sum().item() == pytest.approx(1)
    even = torch.full((modalities,), 1 / modalities)
    assert torch.equal(k, even) if variant == "official" else (k - even).abs().max() > 1e-3
    parts = [(*pair, 1 + factor) for *pair, factor in zip(*encoders(network, twin), k, strict=True)]
    for new, old, factor in [*parts, (network.fusion, twin.fusion, 1)]:
        for weight, before in zip(new.parameters(), old.parameters(), strict=True):
            torch.testing.assert_close(weight, before - 0.1 * factor * before.grad)


def encoders(*networks):
    return [network.encoders.values() for network in networks]


def test_epochs_before_the_first_one_have_plain_losses():
    network, methods, inputs = made("arl", 3, variant="official", gamma=3.0)
    twin = copy.deepcopy(network)
    found, step = take_step(network, methods, inputs, epoch=5, lr=0.1)
    features = twin.encode(inputs)
    loss = cross_entropy(twin.classify(features), LABELS)
    loss = loss + sum(cross_entropy(logits, LABELS) for logits in twin.logits_alone(features).values())
    loss.backward()
    torch.testing.assert_close(found, loss.detach())
    assert not step.metrics["coefficient"].any()
    for weight, before in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight, before - 0.1 * before.grad)
