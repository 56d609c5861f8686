"""Uni-modal losses added: L = CE(f, y) + w · Σ_m CE(U^m h^m + c^m, y), with a linear head (U^m, c^m) a modality.

The "uniform baseline" of MMPareto (Wei, Hu: MMPareto, ICML 2024), with which later papers compare too.

1. w = 1: the plain sum, as in MMPareto's code (uniform_baseline.py).
2. The heads are the method's own, beside the fusion's: they are trained with the network, and used in training alone.
   Uni-modal accuracy is still that of f^m (see opm.md), as for every other method.
3. They see undropped features, also beside a method that drops; a sample that lost every modality counts nowhere.
4. Features of several tokens [B, …, D] are averaged over them first.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.models.heads import UnimodalHeads
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class UnimodalLosses(Method):
    """Add the cross-entropy of a linear head on each modality's feature to the loss."""

    origin: ClassVar = Origin(
        "Wei, Hu, ICML 2024, arXiv 2405.17730 (the uniform baseline)",
        "GeWu-Lab/MMPareto_ICML2024",
        "numbers",
    )

    class Settings(MethodSettings):
        """The weight w of the added losses; the fused one has weight 1."""

        weight: float = Field(default=1.0, ge=0)

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.weight = settings.weight
        self.heads: UnimodalHeads | None = None

    def attach(self, network: Network, classes: int) -> nn.Module:
        """One linear head for each modality."""
        self.heads = UnimodalHeads(network.widths, classes)
        return self.heads

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with the weighted losses of the heads added."""
        assert self.heads is not None
        for logits in self.heads(step.features, step.task.axes).values():
            losses = step.losses(logits)
            loss = loss + self.weight * step.mean(losses)
        return loss
