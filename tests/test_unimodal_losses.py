"""Uni-modal losses added: the loss and its gradients by hand."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.unimodal_losses import UnimodalLosses
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def made(method="unimodal-losses", modalities=3, **given):
    """Network and methods as a run makes them, and a batch."""
    shapes = dict(list(SHAPES.items())[:modalities])
    overrides = [("encoder", "small"), *((f"unimodal-losses.{key}", value) for key, value in given.items())]
    config = resolve("crema-d", method=method, overrides=overrides)
    methods = config.build_methods(list(shapes))
    network = config.build_network(shapes, list("abcd"), methods)
    inputs = {
        "audio": torch.randn(6, 1, 16, 16),
        "visual": torch.randn(6, 3, 2, 16, 16),
        "text": torch.randn(6, 5, 3),
    }
    return network, methods, {name: inputs[name] for name in shapes}


def take_step(network, methods, inputs, **optimizer):
    step = Step(0, RandomStreams(0), LABELS, torch.tensor(0.5))
    updates = build_optimizer(network, OptimizerSettings(momentum=0, weight_decay=0, **optimizer))
    return train_step(network, methods, updates, inputs, step, DiscrepancySettings()), step


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_and_the_update_by_hand(modalities, weight):
    network, methods, inputs = made(modalities=modalities, weight=weight)
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
    network, methods, inputs = made(weight=0.0)
    plain, _, _ = made("baseline")
    take_step(network, methods, inputs, lr=0.1)
    take_step(plain, [], inputs, lr=0.1)
    trained = network.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained[name], value)


def test_heads_see_undropped_features_of_samples_that_kept_something():
    network, methods, inputs = made("moddrop+unimodal-losses")
    methods[0].probabilities = (0.6, 0.6, 0.6)
    by_hand = copy.deepcopy(network)
    loss, step = take_step(network, methods, inputs)
    kept = step.keep.any(1)
    assert 0 < kept.sum() < 6 and not step.keep[kept].all()
    features = by_hand.encode(inputs)
    dropped = {name: feature * step.keep[:, m, None] for m, (name, feature) in enumerate(features.items())}
    expected = cross_entropy(by_hand.classify(dropped)[kept], LABELS[kept])
    for name, feature in features.items():
        logits = by_hand.extras["unimodal-losses"][name](feature)
        expected = expected + cross_entropy(logits[kept], LABELS[kept])
    torch.testing.assert_close(loss, expected.detach())


def test_tokens_are_averaged_and_no_samples_are_no_loss():
    network, methods, _ = made(modalities=1)
    tokens = torch.randn(6, 2, 3, 64)
    step = Step(0, RandomStreams(0), LABELS, features={"audio": tokens})
    found = methods[0].on_loss(torch.zeros(()), step)
    heads = network.extras["unimodal-losses"]
    expected = cross_entropy(heads["audio"](tokens.mean((1, 2))), LABELS)
    torch.testing.assert_close(found, expected)
    nothing = Step(0, RandomStreams(0, batch=3, first=3), LABELS[:0], features={"audio": tokens[:0]})
    assert methods[0].on_loss(torch.zeros(()), nothing) == 0


def test_heads_depend_on_the_seed_and_are_kept_with_the_network():
    first, second = (made()[0].state_dict() for _ in range(2))
    assert "extras.unimodal-losses.visual.weight" in first
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert isinstance(made()[1][0], UnimodalLosses)
