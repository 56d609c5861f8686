"""A module's own learning rate, against torch's own parameter groups."""

import copy

import pytest
import torch
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer, set_learning_rate, update

FACTORS = (0.0, 0.3, 1.0, 7.5)
NEVER = torch.tensor(False)


pytestmark = pytest.mark.usefixtures("in_float64")


def layers():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(3, 2) for _ in range(len(FACTORS) + 1)])


def give_gradients(network, step):
    for k, weight in enumerate(network.parameters()):
        weight.grad = torch.sin(torch.arange(weight.numel()) + k + 10.0 * step).view_as(weight)


def in_groups(network, settings):
    """torch's optimiser with a parameter group a layer, the last at the plain rate."""
    factors = (*FACTORS, 1.0)
    groups = [
        {"params": layer.parameters(), "lr": settings.lr * factor}
        for layer, factor in zip(network, factors, strict=True)
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_it_is_what_a_parameter_group_with_that_rate_computes(name):
    settings = OptimizerSettings(name=name, lr=0.1, momentum=0.9, weight_decay=0.1)
    ours, theirs = layers(), layers()
    optimizer, grouped = build_optimizer(ours, settings), in_groups(theirs, settings)
    for step in range(6):
        for network in (ours, theirs):
            give_gradients(network, step)
        rates = [(torch.tensor(factor), layer) for factor, layer in zip(FACTORS, ours, strict=False)]
        update(optimizer, NEVER, rates=rates)
        grouped.step()
        if step == 2:  # a schedule
            set_learning_rate(optimizer, 0.01)
            for group in grouped.param_groups:
                group["lr"] *= 0.1
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        for key, value in optimizer.state[own].items():
            torch.testing.assert_close(value, grouped.state[other][key].to(value.dtype), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_factor_of_one_a_skipped_update_and_a_weight_without_gradient_stay_to_the_bit(name):
    torch.set_default_dtype(torch.float32)
    settings = OptimizerSettings(name=name, lr=0.1, momentum=0.9, weight_decay=0.1)
    ours = layers()
    plain = copy.deepcopy(ours)
    optimizers = [build_optimizer(network, settings) for network in (ours, plain)]
    for step in range(3):
        for network in (ours, plain):
            give_gradients(network, step)
            network[0].bias.grad = None
        update(optimizers[0], NEVER, rates=[(torch.tensor(1.0), ours)])
        update(optimizers[1], NEVER)
        torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=0, atol=0)
    before = copy.deepcopy(ours.state_dict())
    give_gradients(ours, 3)
    update(optimizers[0], torch.tensor(True), rates=[(torch.tensor(3.7), ours)])
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_a_held_module_stays_whatever_its_rate_and_two_rates_are_multiplied():
    settings = OptimizerSettings(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.1)
    ours, theirs = layers(), layers()
    optimizer = build_optimizer(ours, settings)
    give_gradients(ours, 0)
    held = [(torch.tensor(True), ours[0])]
    twice = [(torch.tensor(factor), ours[1]) for factor in (0.5, 3.0)]
    update(optimizer, NEVER, held, [(torch.tensor(2.0), ours[0]), *twice])
    torch.testing.assert_close(ours[0].state_dict(), theirs[0].state_dict(), rtol=0, atol=0)
    assert all(not optimizer.state[weight]["momentum_buffer"].any() for weight in ours[0].parameters())
    give_gradients(theirs, 0)
    for weight, old in zip(ours[1].parameters(), theirs[1].parameters(), strict=True):
        torch.testing.assert_close(weight, old - 0.1 * 1.5 * (old.grad + 0.1 * old), rtol=1e-12, atol=1e-12)
