"""An adaptation of balanced learning against greed (Wu et al., ICML 2022; greedy.py has the method) to any network.

The paper and its code know two branches that gate each other. Elsewhere there are no such gates and one prediction, so
that what they do has no counterpart, and this is no method of theirs: its numbers stand beside none that are printed
for Greedy. What is kept is the schedule. How fast a modality's encoder is learned, compared to the others', is

    s(m | rest; t) = log(Σ_i μ(θ^m; i) / Σ_i μ(θ^rest; i)),   μ(θ; i) = ‖∂L/∂θ‖² / ‖θ‖² at step i.

After each regular step, if the greatest exceeds the smallest by more than a tolerance, Q re-balancing steps follow in
which the fastest modality is cut off: its feature is replaced by the running mean of that feature.

1. With one prediction s(m1 | m0) and s(m0 | m1) are of opposite sign, and their difference is twice the logarithm of
   the ratio. Of more modalities the rest is the mean over the others, and the fastest alone is cut off.
2. What is replaced is the feature (mean over all samples of all steps so far). The encoder that is cut off gets no
   gradient in those steps, where both of the paper's train in each; momentum and weight decay go on, as in any step.
3. Tolerance 0.01 in natural logarithms and Q = 5; as `official` stand the values of the authors' code for their method,
   0.01 in decimal logarithms and an epoch that is only measured.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from balancemm_cli.methods.base import Method, Step
from balancemm_cli.methods.greedy import Schedule, after_step, rate
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class GreedyAdaptation(Method):
    """Greedy's schedule on any network: cut off the modality that is learned fastest for some steps."""

    origin: ClassVar = Origin(
        "this project, after Wu, Jastrzębski, Cho, Geras, ICML 2022",
        None,
        "equations",
        "an adaptation to networks without MMTM: an encoder is cut off where the authors replace a gate",
    )

    class Settings(Schedule):
        """Greedy's, the tolerance in natural logarithms."""

    VARIANTS: ClassVar = {"paper": {}, "official": {"tolerance": 0.01 * math.log(10), "first_epoch": 1}}
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
        rates = torch.stack([rate(encoder.parameters()) for encoder in network.encoders.values()])
        rates = self.state["rates"] = self.state["rates"] + torch.where(regular, rates, 0)
        found = speeds(rates)
        left, cut = self.state["left"], self.state["cut"]
        self.state["left"], self.state["cut"] = after_step(self.settings, step, found, left, cut)

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
