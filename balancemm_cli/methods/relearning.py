"""Diagnosing and re-learning (Wei, Li, Feng, Hu, ECCV 2024; arXiv 2407.09705).

How far an encoder has learned its training samples beyond what holds for others is diagnosed by how well its features
cluster: P is the purity of k-means with as many clusters as classes, the share of samples whose label is the most
frequent one of their cluster. Each `period` epochs each encoder goes part of the way back to its start,

    θ^m ← α^m θ^m_0 + (1 − α^m) θ^m,   α^m = tanh(λ |P^m_train − P^m_val|)

so that a modality which learned what does not hold is taken back far, and one that has hardly learned stays as it is.
Choices, and where the official code (GeWu-Lab/Diagnosing_Relearning_ECCV2024, code/ours.py) differs:

1. λ = 3, period 20, at most 3 times: its script for CREMA-D. The paper's text was not at hand.
2. `seed`: k-means begins at random numbers of the run (paper); in the code always at those of seed 0 (official).
3. Features are scaled to −1 … 1 over the samples of each part, number by number, and are those of evaluation mode, as
   in the code; training samples as they are trained on. Of features with more than one axis their mean is taken.
4. Weights alone go back, of the whole encoder: running statistics and the optimiser's momentum stay, as in the code.
5. The start is that of the training: with pretrained encoders these, as also the code would keep them.
6. M modalities in place of two; with one it re-learns that one.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import Batches, Epoch, Method, MethodSettings, Step
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class Relearning(Method):
    """Diagnosing and re-learning: encoders that learned what does not hold go part of the way back to their start."""

    origin: ClassVar = Origin(
        "Wei, Li, Feng, Hu, ECCV 2024, arXiv 2407.09705",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        "numbers",
        "k-means begins at the run's random numbers; the code's fixed ones are variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        strength: float = Field(default=3.0, ge=0)  # λ
        period: int = Field(default=20, ge=1)  # in epochs
        times: int = Field(default=3, ge=1)  # at most
        seed: int | None = Field(default=None, ge=0, lt=2**32)  # of k-means; None: the run's

    needs_classes: ClassVar[bool] = True  # for the purity of clusters
    VARIANTS: ClassVar = {"paper": {}, "official": {"seed": 0}}
    METRICS: ClassVar = ("alpha",)  # how far the encoders went back before this epoch; 0 where they did not

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.classes = 0
        self.start: dict[str, Tensor] = {}  # θ_0 by the weight's name among the encoders
        self.alpha: Tensor | None = None  # [M]

    @classmethod
    def needs_validation(cls, settings: Settings) -> bool:
        """See the base."""
        return True

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the number of classes; there are no modules to train."""
        self.classes = classes
        return None

    @torch.no_grad()
    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Keep the start, before the first epoch; diagnose and take back, where it is due."""
        weights = dict(network.encoders.named_parameters())
        self.start = self.start or {name: weight.clone() for name, weight in weights.items()}
        count = len(self.modalities)
        self.alpha = next(iter(weights.values())).new_zeros(count)
        if not self.is_due(epoch.number):
            return
        self.alpha = torch.tanh(self.settings.strength * self.gaps(network, epoch).to(self.alpha))
        for name, alpha in zip(self.modalities, self.alpha, strict=True):
            for key, weight in network.encoders[name].named_parameters(prefix=name):
                weight.copy_(alpha * self.start[key] + (1 - alpha) * weight)

    def is_due(self, epoch: int) -> bool:
        """Whether encoders go back before an epoch, counted from 0: after those of 1 + period, 1 + 2 period, …"""
        done, left = divmod(epoch - 1, self.settings.period)
        return epoch > 0 and left == 0 and 0 < done <= self.settings.times

    def gaps(self, network: Network, epoch: Epoch) -> Tensor:
        """|P_train − P_val| [M], on the CPU."""
        network.eval()
        parts = [features(network, epoch, epoch.batches(1.0, "relearning"))]
        parts.append(features(network, epoch, epoch.validation()))
        network.train()
        found = []
        for name in self.modalities:
            purities = [
                self._purity(of[name], labels, f"{part}/{name}", epoch)
                for part, (of, labels) in enumerate(parts)
            ]
            found.append(abs(purities[0] - purities[1]))
        # processes may round otherwise: their mean is the same in all
        gaps = epoch.total(torch.tensor([*found, 1.0], device=next(network.parameters()).device)).cpu()
        return gaps[:-1] / gaps[-1]

    def _purity(self, values: np.ndarray, labels: np.ndarray, name: str, epoch: Epoch) -> float:
        seed = self.settings.seed
        drawn = epoch.streams.key(f"relearning/{name}") % 2**32 if seed is None else seed
        return purity(values, labels, self.classes, drawn)

    def on_step_end(self, step: Step) -> None:
        """Record how far the encoders went back."""
        assert self.alpha is not None
        step.metrics["alpha"] = self.alpha

    def state_dict(self) -> dict[str, Tensor]:
        """The weights at the start, and how far the encoders went back."""
        found = {} if self.alpha is None else {"alpha": self.alpha}
        return found | {f"start/{name}": weight for name, weight in self.start.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.alpha = state.get("alpha")
        begins = "start/"
        self.start = {
            name.removeprefix(begins): weight for name, weight in state.items() if name.startswith(begins)
        }


def features(network: Network, epoch: Epoch, batches: Batches) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features [N, D] by modality and labels [N] of these samples, of all processes and in their order."""
    found: dict[str, list[Tensor]] = {name: [] for name in network.modalities}
    targets = []
    for inputs, labels in batches:
        for name, values in network.encode(inputs).items():
            found[name].append(values.flatten(1, -2).mean(1).cpu() if values.ndim > 2 else values.cpu())
        targets.append(labels.cpu())
    whole = {name: torch.cat(epoch.gathered(values)).numpy() for name, values in found.items()}
    return whole, torch.cat(epoch.gathered(targets)).numpy()


def purity(values: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> float:
    """The share of samples whose label [N] is the most frequent of their cluster, of features [N, D]."""
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import MinMaxScaler

    scaled = MinMaxScaler((-1, 1)).fit_transform(values)
    clusters = KMeans(min(classes, len(scaled)), random_state=seed).fit_predict(scaled)
    return sum(np.bincount(labels[clusters == one]).max() for one in np.unique(clusters)) / len(labels)
