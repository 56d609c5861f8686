"""What every task-oriented network must do: train under OPM and OGM, and give each modality's own logits."""

import torch

from balancemm_cli.config.run import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS


def steps_with_opm_and_ogm(network, inputs, steps=3, labels=None, task=TASKS["classification"]):
    """Real steps on one batch; every weight that takes part must have moved, by a finite gradient."""
    names = list(inputs)
    methods = [METHODS[name](METHODS[name].Settings(), names) for name in ("opm", "ogm")]
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.01))
    if labels is None:
        labels = torch.arange(len(next(iter(inputs.values())))) % 4
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for index in range(steps):
        step = Step(0, RandomStreams(0, 0, index), labels, task=task)
        loss = train_step(network, methods, optimizer, inputs, step, DiscrepancySettings())
        assert loss.isfinite() and step.metrics["q"].shape == step.metrics["k"].shape == (len(names),)
    assert all(
        weight.isfinite().all() and not torch.equal(weight, before[name])
        for name, weight in network.named_parameters()
    )
    assert all(network.modulated()[name] for name in names)


def zeroed_alone(network, inputs):
    """Each modality's logits are the output with the other features at zero; nothing in the network changes."""
    features = network.encode(inputs)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = network.unimodal_logits(features)
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for kept in features:
        alone = {name: value if name == kept else value * 0 for name, value in features.items()}
        torch.testing.assert_close(found[kept], network.classify(alone), rtol=1e-4, atol=1e-5)
