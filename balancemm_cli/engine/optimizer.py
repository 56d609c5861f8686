"""The optimiser: torch's SGD or AdamW, fused or foreach, with an update that can be skipped on the device."""

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from balancemm_cli.config.recipe import OptimizerSettings, SpeedSettings

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def build_optimizer(
    network: nn.Module, settings: OptimizerSettings, speed: SpeedSettings | None = None
) -> Optimizer:
    """SGD or AdamW over all parameters of `network`, in the form that `speed` asks for (default: fused)."""
    parameters = list(network.parameters())
    fused = (speed or SpeedSettings()).optimizer == "fused"
    lr, decay = settings.lr, settings.weight_decay
    if settings.name == "adamw":
        # keeps the step counts on a GPU, so that an update can be skipped and captured there
        optimizer = AdamW(
            parameters,
            lr=lr,
            weight_decay=decay,
            capturable=parameters[0].is_cuda,
            fused=fused,
            foreach=not fused,
        )
        names = ["exp_avg", "exp_avg_sq"]
    else:
        optimizer = SGD(
            parameters,
            lr=lr,
            momentum=settings.momentum,
            weight_decay=decay,
            fused=fused,
            foreach=not fused,
        )
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


def update(optimizer: Optimizer, skip: Tensor) -> None:
    """Update the weights and clear the gradients. Where the 0-dim bool `skip` is true, nothing changes.

    The device decides, so Python does not wait for the value. Skipped are weights, weight decay, momentum and step
    counts.
    """
    if optimizer.defaults["fused"]:
        optimizer.found_inf = skip.float()  # pyright: ignore[reportAttributeAccessIssue] - the kernels read it
        optimizer.step()
    else:
        _step_unless(skip, optimizer)
    optimizer.zero_grad()


def _step_unless(skip: Tensor, optimizer: Optimizer) -> None:
    """Update, then choose between the bit patterns of before and after. This is exact, and NaN does not spread."""
    weights = [weight.detach() for group in optimizer.param_groups for weight in group["params"]]
    states = [value for state in optimizer.state.values() for value in state.values()]
    bits = [values.view(BITS[values.dtype]) for values in weights + states]
    skipped = skip.to(bits[0].dtype)
    before = torch._foreach_mul(bits, skipped)  # pyright: ignore[reportPrivateImportUsage]
    optimizer.step()
    torch._foreach_mul_(bits, 1 - skipped)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(bits, before)  # pyright: ignore[reportPrivateImportUsage]
