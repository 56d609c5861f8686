"""The optimiser: torch's fused SGD or AdamW, with an update that can be skipped on the device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from balancemm_cli.config.recipe import OptimizerSettings


def build_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Fused SGD or AdamW over all parameters of `network`."""
    parameters = list(network.parameters())
    lr, decay = settings.lr, settings.weight_decay
    if settings.name == "adamw":
        optimizer = AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        names = ["exp_avg", "exp_avg_sq"]
    else:
        optimizer = SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay, fused=True)
        names = ["momentum_buffer"] if settings.momentum else []
    # torch creates these in the first update, which may be skipped. With zeros the first update is the same.
    for parameter in parameters if names else []:
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in names}
        if settings.name == "adamw":
            optimizer.state[parameter]["step"] = torch.zeros((), device=parameter.device)
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


def update(optimizer: Optimizer, skip: Tensor, held: Iterable[tuple[Tensor, nn.Module]] = ()) -> None:
    """Update the weights and clear the gradients. Where the 0-dim bool `skip` is true, nothing changes; where that of a
    module in `held` is, nothing of that module does.

    The device decides, so Python does not wait for the value. Skipped are weights, weight decay, momentum and step
    counts.
    """
    former = [(hold, tensor, tensor.detach().clone()) for hold, tensor in _tensors(optimizer, held)]
    optimizer.found_inf = skip.float()  # pyright: ignore[reportAttributeAccessIssue] - the fused kernels read it
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for hold, tensor, before in former:
            tensor.copy_(torch.where(hold, before, tensor))


def _tensors(
    optimizer: Optimizer, modules: Iterable[tuple[Tensor, nn.Module]]
) -> Iterable[tuple[Tensor, Tensor]]:
    """All that an update of these modules changes."""
    for hold, module in modules:
        for weight in module.parameters():
            yield hold, weight
            yield from ((hold, value) for value in optimizer.state[weight].values())
