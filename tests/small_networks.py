"""Networks of one to five modalities with their methods, as a run makes them, a batch for them, and a step."""

import torch

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
