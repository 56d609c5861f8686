"""MLA, of "Multimodal Representation Learning by Alternating Unimodal Adaptation" (Zhang, Yoon, Bansal, Yao, CVPR 2024;
arXiv 2311.10707).

The modalities learn in turn through one shared head H: each batch is for one update a modality, by its own loss

    L^m = CE(H(h^m), y)

of its encoder and the head, which is by then what the modality before has made of it. So that the head keeps that, its
gradient is turned away from what it was given so far. With h the mean of the batch's features, P = 1 at first,

    P ← P − k kᵀ / (α + h · k),   k = P h,   P ← P / ‖P‖,   ∇W ← ∇W P

before each update but the first. Predicted is what the modalities say, the surer one the more: models/shared_head.py.
Choices, and where the official code (Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation) differs:

1. The code never does that to the gradient: GSPlugin looks for a weight called "module.weight", and the head's are
   "weight" and "bias". `projection=false`, the variant official, is what it computes.
2. Written there for h · k is k hᵀ, a matrix, by which it would divide number by number. The paper's text was not at
   hand; recursive least squares, after which its equation is known to be made, have h · k. The norm ‖P‖ is the code's.
3. α = 0.1^(1 + t): t is the share of the training that is done, and in the code that of the epoch.
4. `coasting`: the code pins torch 1.8, where zero_grad leaves gradients of zero, so that the encoders of former turns
   move on in later ones by momentum and decay. In the paper's updates, and with torch 2 in the code's, they rest.
5. The order is that of the modalities. M of them; with one it is that modality's training.
6. It needs model shared-head with a linear head. Which λ fuses the modalities is that model's own setting.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.models.network import Network
from balancemm_cli.models.shared_head import Answers, SharedHead
from balancemm_cli.origin import Origin


class MLA(Method):
    """Alternating unimodal adaptation: modalities in turn on a shared head, which keeps what former ones taught it."""

    origin: ClassVar = Origin(
        "Zhang, Yoon, Bansal, Yao, CVPR 2024, arXiv 2311.10707",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "numbers",
        "the head's gradient is turned away from earlier features; the code never reaches that line, variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        projection: bool = True  # of the head's gradient
        coasting: bool = False  # whether the encoders of former turns go on by momentum and decay

    VARIANTS: ClassVar = {"paper": {}, "official": {"projection": False, "coasting": True}}
    TRIED_ON: ClassVar = ("shared-head", ())
    two_backwards: ClassVar[bool] = True  # one a turn

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.answers: Answers | None = None
        self.away: Tensor | None = None  # P [D, D]; None before the first update

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the head; there are no modules to train. UsageError where no linear head is for all modalities."""
        if not isinstance(network.fusion, SharedHead) or not isinstance(
            network.fusion.answers.head, nn.Linear
        ):
            raise UsageError(
                "Method mla needs one linear head for all modalities: take model shared-head, without "
                "shared-head.hidden."
            )
        self.answers = network.fusion.answers
        return None

    def turns(self, step: Step) -> Sequence[Sequence[str]]:
        """One update a modality."""
        return [[name] for name in self.modalities]

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss of the modality whose turn it is, in place of that of the prediction.

        Where that is not finite, neither is this: such a batch must change nothing, in any turn.
        """
        assert self.answers is not None
        (logits,) = self.answers({name: step.features[name] for name in step.turn}).values()
        return torch.where(loss.isfinite(), step.mean(step.losses(logits)), loss.detach())

    def on_gradients(self, network: Network, step: Step) -> None:
        """Turn the head's gradient away, and let the encoders of former turns coast, if so set."""
        (name,) = step.turn
        if self.settings.coasting:
            former = self.modalities[: self.modalities.index(name)]
            for weight in (weight for of in former for weight in network.encoders[of].parameters()):
                weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        if self.settings.projection:
            assert self.answers is not None
            gradient = self.answers.head.weight.grad
            assert isinstance(gradient, Tensor)
            if self.away is None:
                self.away = torch.eye(gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
            else:
                done = 0.0 if step.progress is None else step.progress
                wide = self.answers.wide(name, step.features[name].detach())
                self.away = turned(self.away, mean(wide, step), 0.1 * 0.1**done)
                gradient.copy_(gradient @ self.away)

    def state_dict(self) -> dict[str, Tensor]:
        """What the head's gradient is turned by."""
        return {} if self.away is None else {"away": self.away}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it."""
        self.away = state.get("away")


def mean(feature: Tensor, step: Step) -> Tensor:
    """The mean [D] over the samples of the whole batch of a feature [B, …, D] that each process has its part of."""
    count, _ = step.streams.samples(len(feature))
    return step.total(feature.sum(0)).div(count).view(-1, feature.shape[-1]).mean(0)


def turned(away: Tensor, mean: Tensor, alpha: Tensor | float) -> Tensor:
    """P [D, D] after features of this mean [D]."""
    k = away @ mean
    away = away - torch.outer(k, k) / (alpha + mean @ k)
    return away / away.norm()
