"""PMR, Prototypical Modal Rebalance (Fan, Xu, Wang, Wang, Guo, CVPR 2023; arXiv 2211.07089, Sec. 3).

Class prototypes c_k^m are means of features; they classify by p(k | h) ∝ exp(−‖h − c_k^m‖). The modality that lags is
pulled to its prototypes, L = L_CE + α Σ_m β^m L_PCE^m, and in the first epochs the entropy H of the one ahead is
raised, − μ β^lagging H^ahead. With two modalities and ρ = S^0 / S^1, S^m = Σ_i p(y_i | h_i^m), the paper's
coefficients are β^0 = clip(1 / ρ − 1, 0, 1) and β^1 = clip(ρ − 1, 0, 1). Choices, and where the official code
(fanyunfeng-bit/Modal-Imbalance-PMR) differs:

1. Coefficients as above (paper); 1 for the modality that lags, however little (official).
2. Entropy in the first epochs (paper; μ and how many are choices here); none in the official code.
3. New prototypes each epoch, a share `momentum` of the old ones kept (both). The official code makes a pass over a
   tenth of the training samples, in evaluation mode and before the first epoch as well. Here they come from all
   features that the epoch's steps made, at no cost; so the first epoch is trained plainly.
4. More than two modalities: β^m = clip(max_j S^j / S^m − 1, 0, 1), which is the above for two; the entropy is that of
   the modality of the greatest S, with the greatest β.
5. H is the mean over the batch. A class without a sample has its prototype at 0.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.network import Network


class PMR(Method):
    """Prototypical Modal Rebalance: pull the features of the modality that lags to their class means."""

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=1.0, ge=0)
        mu: float = Field(default=0.01, ge=0)  # weight of the entropy
        entropy_epochs: int = Field(default=5, ge=0)  # counted from `first_epoch`
        momentum: float = Field(default=0.2, ge=0, lt=1)
        coefficient: Literal["clip", "one"] = "clip"

    needs_classes: ClassVar[bool] = True  # for their prototypes
    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"coefficient": "one", "entropy_epochs": 0, "last_epoch": 100},
    }
    METRICS: ClassVar = ("beta",)  # β; 0 where a step has no objective

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.classes = 0
        self.prototypes: list[Tensor] = []  # [C, D_m] a modality; none in the first epoch
        self.sums: list[Tensor] = []  # [C, D_m] a modality: of this epoch's features so far
        self.counts: Tensor | None = None  # [C]
        self._features: list[Tensor] = []  # of this step, [B, D_m]

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the number of classes; there are no modules to train."""
        self.classes = classes
        return None

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Add the features to the class sums. At the start of an epoch the sums become prototypes."""
        if self._new_epoch(step):
            self._renew()
        self._features = [feature.flatten(1) for feature in features.values()]
        own = torch.arange(self.classes, device=step.labels.device)
        members = (own[:, None] == step.labels).to(self._features[0].dtype)  # [C, B]
        found = [members @ feature.detach() for feature in self._features]
        widths = [feature.shape[1] for feature in self._features]
        *found, counts = step.total(torch.cat([*found, members.sum(1, keepdim=True)], 1)).split(
            [*widths, 1], 1
        )
        if self.counts is None:
            self.sums, self.counts = found, counts[:, 0]
        else:
            self.sums = [old + new for old, new in zip(self.sums, found, strict=True)]
            self.counts = self.counts + counts[:, 0]
        return features

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """Add the prototype cross-entropies and, early on, the entropy."""
        features, self._features = self._features, []
        if not self._active(step):
            step.metrics["beta"] = loss.new_zeros(len(self.modalities))
            return loss
        pairs = zip(features, self.prototypes, strict=True)
        logits = torch.stack(
            [similarities(feature, prototypes) for feature, prototypes in pairs]
        )  # [M, B, C]
        logs = logits.log_softmax(-1)
        of_label = logs.gather(-1, step.labels.expand(len(logs), -1)[..., None])[..., 0]
        scores = step.total(of_label.detach().exp().sum(1))
        weights = step.metrics["beta"] = self.weights(scores)
        for weight, losses in zip(weights, -of_label, strict=True):
            loss = loss + self.settings.alpha * weight * step.mean(losses)
        if self._early(step):
            entropies = -(logs.exp() * logs).sum(-1)
            for ahead, entropy in zip(scores == scores.max(), entropies, strict=True):
                loss = loss - self.settings.mu * weights.max() * ahead * step.mean(entropy)
        return loss

    def weights(self, scores: Tensor) -> Tensor:
        """β [M] from the scores S [M]."""
        lag = scores.max() / scores.clamp_min(torch.finfo(scores.dtype).tiny) - 1
        return lag.clamp(0, 1) if self.settings.coefficient == "clip" else (lag > 0).to(scores.dtype)

    def _new_epoch(self, step: Step) -> bool:
        return step.streams.step == 0 and step.epoch > 0

    def _active(self, step: Step) -> bool:
        return bool(self.prototypes) and self.settings.active(step.epoch)

    def _early(self, step: Step) -> bool:
        return step.epoch < self.settings.first_epoch + self.settings.entropy_epochs

    def _renew(self) -> None:
        assert self.counts is not None
        means = [total / self.counts.clamp_min(1)[:, None] for total in self.sums]
        kept = self.settings.momentum
        if self.prototypes:
            pairs = zip(means, self.prototypes, strict=True)
            means = [(1 - kept) * new + kept * old for new, old in pairs]
        self.prototypes, self.sums, self.counts = means, [], None

    def state_dict(self) -> dict[str, Tensor]:
        """Prototypes, and the class sums of the epoch so far."""
        state = {
            f"prototype/{name}": value for name, value in zip(self.modalities, self.prototypes, strict=False)
        }
        if self.counts is not None:
            state |= {f"sum/{name}": value for name, value in zip(self.modalities, self.sums, strict=True)}
            state["counts"] = self.counts
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore prototypes and sums."""
        self.prototypes, self.sums = (
            [state[f"{kind}/{name}"] for name in self.modalities if f"{kind}/{name}" in state]
            for kind in ("prototype", "sum")
        )
        self.counts = state.get("counts")


def similarities(features: Tensor, prototypes: Tensor) -> Tensor:
    """−‖h − c‖ [B, C] of features [B, D] and prototypes [C, D]."""
    return -torch.cdist(features, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
