"""The optimiser: torch's fused SGD or AdamW, with an update that the device itself can leave out."""

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from balancemm_cli.engine.config import OptimizerSettings


def build_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """SGD or AdamW over all parameters of `network`."""
    parameters = list(network.parameters())
    if settings.name == "adamw":
        return AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    optimizer = SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    if settings.momentum:
        # torch leaves a buffer uninitialised when the very first update is skipped; zeros give the same first step.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def learning_rate(settings: OptimizerSettings, epoch: int) -> float:
    """The step schedule: lr · gamma^(epoch // step_epochs)."""
    if settings.step_epochs is None:
        return settings.lr
    return settings.lr * settings.gamma ** (epoch // settings.step_epochs)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def update(optimizer: Optimizer, skip: Tensor) -> None:
    """Step and clear the gradients; where the 0-dim bool `skip` is true nothing changes.

    The fused kernels read `found_inf` on the device, so Python never waits to know it. Skipping covers weights,
    weight decay, momentum and step counts.
    """
    optimizer.found_inf = skip.float()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    optimizer.zero_grad()
