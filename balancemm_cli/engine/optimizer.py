"""The optimiser: torch's fused SGD, Adam or AdamW, with an update that can be skipped on the device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from balancemm_cli.config.recipe import OptimizerSettings

ADAPTIVE = {"adam": Adam, "adamw": AdamW}  # with decay in the gradient, and beside it


def build_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Fused SGD, Adam or AdamW over all parameters of `network`."""
    parameters = list(network.parameters())
    lr, decay = settings.lr, settings.weight_decay
    if settings.name in ADAPTIVE:
        optimizer = ADAPTIVE[settings.name](parameters, lr=lr, weight_decay=decay, fused=True)
        names = ["exp_avg", "exp_avg_sq"]
    else:
        optimizer = SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay, fused=True)
        names = ["momentum_buffer"] if settings.momentum else []
    # torch creates these in the first update, which may be skipped. With zeros the first update is the same.
    for parameter in parameters if names else []:
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in names}
        if settings.name in ADAPTIVE:
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


def update(
    optimizer: Optimizer,
    skip: Tensor,
    held: Iterable[tuple[Tensor, nn.Module]] = (),
    rates: Iterable[tuple[Tensor, nn.Module]] = (),
) -> None:
    """Update the weights and clear the gradients. Where the 0-dim bool `skip` is true, nothing changes; where that of a
    module in `held` is, nothing of that module does. The learning rate of a module in `rates` is multiplied by its
    0-dim factor.

    The device decides, so Python does not wait for the value. Skipped are weights, weight decay, momentum and step
    counts.
    """
    moved = [(factor, *_copied(module)) for factor, module in rates]
    former = [(hold, tensor, tensor.detach().clone()) for hold, tensor in _tensors(optimizer, held)]
    optimizer.found_inf = skip.float()  # pyright: ignore[reportAttributeAccessIssue] - the fused kernels read it
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for factor, weights, before in moved:
            _scale_move(factor, weights, before)
        for hold, tensor, before in former:
            tensor.copy_(torch.where(hold, before, tensor))


def _copied(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The weights of a module that an update changes, and copies of them."""
    weights = [weight.detach() for weight in module.parameters() if weight.grad is not None]
    return weights, [weight.clone() for weight in weights]


def _scale_move(factor: Tensor, weights: list[Tensor], before: list[Tensor]) -> None:
    """Multiply what an update did to weights by a factor. SGD, Adam and AdamW move a weight in proportion to the
    learning rate, and keep no state that depends on it: so it is the update at a learning rate of so many times.

    Where the factor is 1, or the update was skipped, the weights stay to the bit as they are.
    """
    if weights:
        moves = torch._foreach_sub(weights, before)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(moves, factor - 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(weights, moves)  # pyright: ignore[reportPrivateImportUsage]


def _tensors(
    optimizer: Optimizer, modules: Iterable[tuple[Tensor, nn.Module]]
) -> Iterable[tuple[Tensor, Tensor]]:
    """All that an update of these modules changes."""
    for hold, module in modules:
        for weight in module.parameters():
            yield hold, weight
            yield from ((hold, value) for value in optimizer.state[weight].values())
