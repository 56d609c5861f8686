"""AGM, Adaptive Gradient Modulation (Li, Li, Hu, Lei, Li, Zhou, ICCV 2023; arXiv 2308.07686, Sec. 3).

The mono-modal response φ^m of the output Φ is its Shapley value, Φ(S) being the output with the modalities outside S
set to zero: φ^m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · (Φ(S ∪ m) − Φ(S)), Φ(∅) = 0. Then Φ = Σ_m φ^m. With
s^m the mean cross-entropy of softmax(φ^m) over the batch and ŝ^m its running mean over all steps before,

    r^m = exp(mean_{j≠m} (s^j − s^m)),   τ^m = exp(mean_{j≠m} (ŝ^j − ŝ^m)),   κ^m = exp(α (τ^m − r^m))

and what flows back through φ^m is multiplied by κ^m. Choices, and where the official code (as far as public copies of
lihong2303/AGM_ICCV2023 show it) differs:

1. Zero are the features, not the inputs: no encoder runs twice.
2. The official code scales by backward hooks and takes Σ_m φ^m as the output. Here the loss keeps its value, and its
   gradient is that of the modulated sum: Φ and κ^m (φ^m − its own value) add up to the logits.
3. The fusion runs on the subsets in evaluation mode (both); here on the whole set as well, which matters only to a
   fusion with batch normalisation or dropout.
4. A sample's cross-entropy counts up to −log 1e-8 (official; the paper has no bound).
5. No clipping of gradients, which the official code does for some data sets. Epochs 0 to 20 (official), all (paper).
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.network import Network


class AGM(Method):
    """Adaptive Gradient Modulation: scale what flows back through each modality's share of the output."""

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=1.0, ge=0)

    VARIANTS: ClassVar = {"paper": {}, "official": {"last_epoch": 20}}
    METRICS: ClassVar = ("kappa",)  # κ; 1 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.network: Network | None = None
        self.mean: Tensor | None = None  # ŝ [M]
        self.steps: Tensor | None = None  # 0-dim: over which the mean goes

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, to compute its outputs for subsets of the modalities; there are no modules to train."""
        self.network = network
        return None

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with the same value and the modulated gradient."""
        if not self.settings.active(step.epoch):
            step.metrics["kappa"] = loss.new_ones(len(self.modalities))
            return loss
        assert self.network is not None
        output, responses = shapley(self.network, step.features)
        kappa = self.coefficient(self._scores(responses.detach(), step))
        step.metrics["kappa"] = kappa
        scales = kappa.view(-1, *[1] * (responses.ndim - 1))
        modulated = output.detach() + (scales * (responses - responses.detach())).sum(0)
        plain, scaled = (step.mean(step.losses(logits)) for logits in (output, modulated))
        return loss + (scaled - plain)

    def coefficient(self, scores: Tensor) -> Tensor:
        """κ [M] from this step's scores s [M]. Afterwards the scores are added to the running mean."""
        if self.mean is None or self.steps is None:
            self.mean, self.steps = torch.zeros_like(scores), scores.new_zeros(())
        kappa = torch.exp(self.settings.alpha * (ratios(self.mean) - ratios(scores)))
        self.steps = self.steps + 1
        self.mean = self.mean + (scores - self.mean) / self.steps
        return kappa

    def _scores(self, responses: Tensor, step: Step) -> Tensor:
        losses = torch.stack([step.losses(logits) for logits in responses])  # [M, B]
        count, _ = step.streams.samples(len(step.labels))
        return step.total(losses.clamp_max(-math.log(1e-8)).sum(1)) / count

    def state_dict(self) -> dict[str, Tensor]:
        """The running mean of the scores, and over how many steps it goes."""
        return {} if self.mean is None or self.steps is None else {"mean": self.mean, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the running mean."""
        self.mean, self.steps = state.get("mean"), state.get("steps")


def ratios(scores: Tensor) -> Tensor:
    """exp of the mean over the others of s^j − s^m, [M]."""
    count = len(scores)
    return torch.exp((scores.sum() - count * scores) / (count - 1))


def shapley(network: Network, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The output Φ [B, C] and the responses φ [M, B, C], with gradients to features and weights.

    One forward of fusion and head, over all 2^M − 1 subsets stacked on the batch axis, in evaluation mode.
    """
    count = len(features)
    first = next(iter(features.values()))
    places = torch.arange(count, device=first.device)
    subsets = (torch.arange(1, 2**count, device=first.device)[:, None] >> places) & 1  # [S, M], the last: all
    stacked = {
        name: (member.view(-1, *[1] * feature.ndim) * feature).flatten(0, 1)
        for (name, feature), member in zip(features.items(), subsets.unbind(1), strict=True)
    }
    training = network.fusion.training
    network.fusion.eval()
    outputs = network.classify(stacked).unflatten(0, (len(subsets), len(first)))  # [S, B, C]
    network.fusion.train(training)
    weights = shapley_weights(subsets.to(outputs.dtype))
    return outputs[-1], torch.einsum("sm,s...->m...", weights, outputs)


def shapley_weights(subsets: Tensor) -> Tensor:
    """The weight of each Φ(S) in each φ^m, [S, M]; `subsets` is [S, M], 1 where a modality is in the subset."""
    count = subsets.shape[1]
    size = subsets.sum(1, keepdim=True)

    def weight(others: Tensor) -> Tensor:  # |S|! (M − |S| − 1)! / M!, |S| = others < M
        logs = torch.lgamma(others + 1) + torch.lgamma(count - others) - math.lgamma(count + 1)
        return logs.exp()

    return torch.where(subsets == 1, weight(size - 1), -weight(size.clamp_max(count - 1)))
