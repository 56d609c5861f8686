"""Networks of one to five modalities with their methods, as a run makes them, a batch for them, and a step."""

import copy

import torch
from torch.nn.functional import cross_entropy

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

SHAPES = {
    "audio": 1,
    "visual": 3,
    "text": SequenceShape(5, width=3),
    "depth": 1,
    "flow": SequenceShape(1, width=4),
}
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def made(method, modalities, model="concat", variant="paper", **given):
    """Network and methods, with settings of the last method or by their whole keys, and the inputs by modality."""
    shapes = dict(list(SHAPES.items())[:modalities])
    of = method.split("+")[-1]
    keys = {key if "." in key else f"{of}.{key}": value for key, value in given.items()}
    overrides = [("encoder", "small"), *keys.items()]
    config = resolve("crema-d", model=model, method=method, variant=variant, overrides=overrides)
    methods = config.build_methods(list(shapes))
    network = config.build_network(shapes, list("abcd"), methods)
    torch.manual_seed(modalities)
    inputs = {
        "audio": torch.randn(6, 1, 16, 16),
        "visual": torch.randn(6, 3, 2, 16, 16),
        "text": torch.randn(6, 5, 3),
        "depth": torch.randn(6, 1, 16, 16),
        "flow": torch.randn(6, 1, 4),
    }
    return network, methods, {name: inputs[name] for name in shapes}


def take_step(network, methods, inputs, epoch=0, **optimizer):
    """One update by plain gradient descent: the loss and the step."""
    step = Step(epoch, RandomStreams(0), LABELS, torch.tensor(0.5))
    updates = build_optimizer(network, OptimizerSettings(momentum=0, weight_decay=0, **optimizer))
    return train_step(network, methods, updates, inputs, step, DiscrepancySettings()), step


def take_step_with_drops(method, **settings):
    """Take a step of a method behind moddrop, of three modalities, in which some samples lose all and some a part.

    The loss; and for the method's part of it by hand: the network as it was before, its undropped features, which
    samples kept something, and the loss of the prediction on these.
    """
    network, methods, inputs = made(f"moddrop+{method}", 3, **settings)
    methods[0].probabilities = (0.6, 0.6, 0.6)
    before = copy.deepcopy(network)
    loss, step = take_step(network, methods, inputs)
    kept = step.keep.any(1)
    assert 0 < kept.sum() < 6 and not step.keep[kept].all()
    features = before.encode(inputs)
    dropped = {name: feature * step.keep[:, m, None] for m, (name, feature) in enumerate(features.items())}
    return loss, before, features, kept, cross_entropy(before.classify(dropped)[kept], LABELS[kept])
