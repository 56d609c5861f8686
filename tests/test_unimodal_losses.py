"""Uni-modal losses added: the loss and its gradients by hand."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step, take_step_with_drops
from torch.nn.functional import cross_entropy

from balancemm_cli.methods.base import Step
from balancemm_cli.methods.unimodal_losses import UnimodalLosses
from balancemm_cli.random_streams import RandomStreams


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_and_the_update_by_hand(modalities, weight):
    network, methods, inputs = made("unimodal-losses", modalities, weight=weight)
    by_hand = copy.deepcopy(network)
    features = by_hand.encode(inputs)
    heads = by_hand.extras["unimodal-losses"]
    expected = cross_entropy(by_hand.classify(features), LABELS)
    for name, feature in features.items():
        logits = feature @ heads[name].weight.T + heads[name].bias
        expected = expected + weight * cross_entropy(logits, LABELS)
    expected.backward()
    loss, _ = take_step(network, methods, inputs, lr=0.1)
    torch.testing.assert_close(loss, expected.detach())
    for trained, weights in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, weights - 0.1 * weights.grad)


def test_without_weight_it_is_the_baseline():
    network, methods, inputs = made("unimodal-losses", 3, weight=0.0)
    plain, _, _ = made("baseline", 3)
    take_step(network, methods, inputs, lr=0.1)
    take_step(plain, [], inputs, lr=0.1)
    trained = network.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained[name], value)


def test_heads_see_undropped_features_of_samples_that_kept_something():
    loss, by_hand, features, kept, expected = take_step_with_drops("unimodal-losses")
    for name, feature in features.items():
        logits = by_hand.extras["unimodal-losses"][name](feature)
        expected = expected + cross_entropy(logits[kept], LABELS[kept])
    torch.testing.assert_close(loss, expected.detach())


def test_tokens_are_averaged_and_no_samples_are_no_loss():
    network, methods, _ = made("unimodal-losses", 1)
    tokens = torch.randn(6, 2, 3, 64)
    step = Step(0, RandomStreams(0), LABELS, features={"audio": tokens})
    found = methods[0].on_loss(torch.zeros(()), step)
    heads = network.extras["unimodal-losses"]
    expected = cross_entropy(heads["audio"](tokens.mean((1, 2))), LABELS)
    torch.testing.assert_close(found, expected)
    nothing = Step(0, RandomStreams(0, batch=3, first=3), LABELS[:0], features={"audio": tokens[:0]})
    assert methods[0].on_loss(torch.zeros(()), nothing) == 0


def test_heads_depend_on_the_seed_and_are_kept_with_the_network():
    first, second = (made("unimodal-losses", 3)[0].state_dict() for _ in range(2))
    assert "extras.unimodal-losses.visual.weight" in first
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert isinstance(made("unimodal-losses", 3)[1][0], UnimodalLosses)
