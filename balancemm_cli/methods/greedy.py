"""Balanced learning against greed (Wu, Jastrzębski, Cho, Geras, ICML 2022; arXiv 2202.05306, Sec. 4, Algorithm 1).

The conditional learning speed of a modality compares how fast the weights that bring it in are learned with how fast
those of the others are: s(m | rest; t) = log(Σ_i μ(θ^m; i) / Σ_i μ(θ^rest; i)), μ(θ; i) = ‖∂L/∂θ‖² / ‖θ‖² at step i.
After each regular step, if the speeds differ by more than a tolerance, Q re-balancing steps follow, in which the
faster modality is cut off: what it contributes is replaced by its running mean. The paper and its code
(nyukat/greedy_multimodal_learning) do this in networks joined by MMTM; here it is done to the features of any network:

1. θ^m is the encoder of m, by which m reaches the shared prediction; in MMTM's branch of another modality that is the
   gate made from m. The paper's s(m1 | m0) and s(m0 | m1) use two branches, each with a prediction of its own; with one
   prediction they are of opposite sign, and their difference d is twice the logarithm of the ratio.
2. What is replaced is the feature (mean over all samples of all steps so far), in MMTM the gates.
3. More than two modalities: the rest is the mean over the others; d is the greatest speed less the smallest; only the
   fastest is cut off.
4. Tolerance 0.01 in natural logarithms, Q = 5; the official code's 0.01 is in decimal ones, and it waits for two epochs
   (both in its configuration file), measuring from the start.
5. The encoder that is cut off gets no gradient in those steps; momentum and weight decay go on, as in any step.
"""

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.network import Network


class Greedy(Method):
    """Cut off the modality that is learned fastest for some steps."""

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        tolerance: float = Field(default=0.01, ge=0)  # α
        window: int = Field(default=5, gt=0)  # Q, in steps

    VARIANTS: ClassVar = {"paper": {}, "official": {"tolerance": 0.01 * math.log(10), "first_epoch": 2}}
    METRICS: ClassVar = ("cut",)  # 1 for the modality that is cut off

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.state: dict[str, Tensor] = {}

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Add the features to the running means, and replace those of a modality that is cut off by its mean."""
        if not self.state:
            self._begin(features)
        count, _ = step.streams.samples(len(step.labels))
        samples = self.state["samples"] = self.state["samples"] + count
        for name, feature in features.items():
            found, mean = step.total(feature.detach().sum(0)), self.state[f"mean/{name}"]
            self.state[f"mean/{name}"] = mean + (found - count * mean) / samples
        cut = self.state["cut"] & (self.state["left"] > 0)
        step.metrics["cut"] = cut.to(samples.dtype)
        return {
            name: torch.where(gone, self.state[f"mean/{name}"], feature)
            for (name, feature), gone in zip(features.items(), cut, strict=True)
        }

    def on_gradients(self, network: Network, step: Step) -> None:
        """After a regular step: measure the speeds, and begin to re-balance where they differ."""
        regular = self.state["left"] == 0
        rates = torch.stack([_rate(encoder.parameters()) for encoder in network.encoders.values()])
        rates = self.state["rates"] = self.state["rates"] + torch.where(regular, rates, 0)
        found = speeds(rates)
        begins = regular & (found.max() - found.min() > self.settings.tolerance)
        if not self.settings.active(step.epoch):
            begins = torch.zeros_like(begins)
        self.state["cut"] = torch.where(begins, found == found.max(), self.state["cut"])
        left = (self.state["left"] - 1).clamp_min(0)
        self.state["left"] = torch.where(begins, self.settings.window, left)

    def _begin(self, features: Mapping[str, Tensor]) -> None:
        first = next(iter(features.values()))
        zero = first.detach().new_zeros(())
        self.state = {
            "rates": zero.repeat(len(features)),  # Σ_i μ
            "left": zero.long(),  # re-balancing steps
            "cut": zero.bool().repeat(len(features)),
            "samples": zero,
            **{
                f"mean/{name}": torch.zeros_like(feature.detach().sum(0))
                for name, feature in features.items()
            },
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The speeds, the running means, and how many re-balancing steps are left."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.state = dict(state)


def speeds(rates: Tensor) -> Tensor:
    """Conditional learning speeds [M] from Σ_i μ [M]."""
    rates = rates.clamp_min(torch.finfo(rates.dtype).tiny)
    others = (rates.sum() - rates) / (len(rates) - 1)
    return rates.log() - others.clamp_min(torch.finfo(rates.dtype).tiny).log()


def _rate(weights: Iterable[nn.Parameter]) -> Tensor:
    """μ = ‖gradient‖² / ‖weights‖², over all weights that have a gradient."""
    trained = [(weight.grad, weight.detach()) for weight in weights if weight.grad is not None]
    gradients, values = (
        torch.stack(torch._foreach_norm(tensors)).square().sum()  # pyright: ignore[reportPrivateImportUsage]
        for tensors in map(list, zip(*trained, strict=True))
    )
    return gradients / values
