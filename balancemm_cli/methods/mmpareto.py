"""MMPareto (Wei, Hu, ICML 2024; arXiv 2405.17730, Sec. 3, Algorithm 1).

Each modality has a linear head of its own, whose cross-entropy L_u^m is added to the multimodal loss L. For each
encoder, with g = ∂L/∂θ^m and u = ∂L_u^m/∂θ^m: where cos(g, u) > 0 they weigh the same, a = ½; else a is that of the
vector of least norm, a = argmin ‖a g + (1 − a) u‖² in [0, 1]. The gradient becomes h = 2 a g + 2 (1 − a) u, brought to
the norm of g + u if it is shorter, times γ > 1. Choices, and where the official code (GeWu-Lab/MMPareto_ICML2024)
differs:

1. Lengths are compared for an encoder's gradient as a whole (paper) or for each weight tensor (official).
2. γ = 1.5 (official code).
3. u is the whole gradient that backward left less g: of a network whose encoders share weights or see one another, u is
   that of all uni-modal losses.
4. The model's own further losses (its auxiliary predictions) count as part of L. Heads and fusion are not modulated.
"""

from itertools import accumulate
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.heads import UnimodalHeads
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class MMPareto(Method):
    """Uni-modal objectives whose gradients are blended with the multimodal one without conflict."""

    origin: ClassVar = Origin(
        "Wei, Hu, ICML 2024, arXiv 2405.17730",
        "GeWu-Lab/MMPareto_ICML2024",
        "numbers",
        "lengths are compared by encoder; the code's, by tensor, are variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        gamma: float = Field(default=1.5, gt=0)
        each_tensor: bool = False  # compare lengths tensor by tensor

    VARIANTS: ClassVar = {"paper": {}, "official": {"each_tensor": True}}
    two_backwards: ClassVar = True

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.heads: UnimodalHeads | None = None
        self._encoders: list[list[nn.Parameter]] = []  # the weights of each modality's encoder
        self._multimodal: list[Tensor] = []  # g of each modality in this step, as one vector

    def attach(self, network: Network, classes: int) -> nn.Module:
        """One linear head for each modality."""
        self.heads = UnimodalHeads(network.widths, classes)
        self._encoders = [list(encoder.parameters()) for encoder in network.encoders.values()]
        return self.heads

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """Compute the gradients of the multimodal loss, then add the uni-modal losses."""
        assert self.heads is not None
        if self.settings.active(step.epoch):
            weights = [weight for encoder in self._encoders for weight in encoder]
            found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
            flat = step.total(torch.cat([gradient.reshape(-1) for gradient in found]))
            self._multimodal = list(flat.split([_size(encoder) for encoder in self._encoders]))
        for logits in self.heads(step.features, step.task.axes).values():
            loss = loss + step.mean(step.losses(logits))
        return loss

    def on_gradients(self, network: Network, step: Step) -> None:
        """Blend the two gradients of each encoder."""
        multimodal, self._multimodal = self._multimodal, []
        for weights, g in zip(self._encoders, multimodal, strict=False):
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            assert len(gradients) == len(weights)
            both = torch.cat([gradient.reshape(-1) for gradient in gradients])
            blended = blend(g, both - g)
            sizes = [gradient.numel() for gradient in gradients] if self.settings.each_tensor else [len(g)]
            parts = [
                self.settings.gamma * h * (t.norm() / h.norm().clamp_min(1e-30)).clamp_min(1)
                for h, t in zip(blended.split(sizes), both.split(sizes), strict=True)
            ]
            flat = torch.cat(parts)
            ends = accumulate(gradient.numel() for gradient in gradients)
            shaped = [
                flat[end - gradient.numel() : end].view(gradient.shape)
                for end, gradient in zip(ends, gradients, strict=True)
            ]
            torch._foreach_copy_(gradients, shaped)  # pyright: ignore[reportPrivateImportUsage]


def blend(g: Tensor, u: Tensor) -> Tensor:
    """2 a g + 2 (1 − a) u of two gradients [N]."""
    a = share(g, u)
    return 2 * a * g + 2 * (1 - a) * u


def share(g: Tensor, u: Tensor) -> Tensor:
    """a of two gradients [N]: ½ where they agree, else that of least norm."""
    difference = u - g
    least = (difference @ u / (difference @ difference).clamp_min(1e-30)).clamp(0, 1)
    return torch.where(g @ u > 0, 0.5, least)


def _size(weights: list[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)
