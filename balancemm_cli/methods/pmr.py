"""PMR, Prototypical Modal Rebalance (Fan, Xu, Wang, Wang, Guo, CVPR 2023; arXiv 2211.07089, Sec. 3).

Class prototypes c_k^m are means of features; they classify by p(k | h) ∝ exp(−‖h − c_k^m‖). The modality that lags is
pulled to its prototypes, L = L_CE + α Σ_m β^m L_PCE^m, and in the first epochs the entropy H of the one ahead is
raised, − μ β^lagging H^ahead. With two modalities and ρ = S^0 / S^1, S^m = Σ_i p(y_i | h_i^m), the paper's
coefficients are β^0 = clip(1 / ρ − 1, 0, 1) and β^1 = clip(ρ − 1, 0, 1). Choices, and where the official code
(fanyunfeng-bit/Modal-Imbalance-PMR) differs:

1. Coefficients as above (paper); 1 for the modality that lags, however little (official).
2. Entropy in the first epochs (paper; μ and how many are choices here); none in the official code.
3. New prototypes before each epoch, a share `momentum` of the old ones kept from the third on (both). They come from
   all features that the steps of the epoch before made, at no cost, so that the first epoch is trained plainly; or
   from a random `share` of the training batches, by the network in evaluation mode, before the first epoch as well:
   0.1 (official; on AVE and CG-MNIST it takes the validation samples, which is not offered here). `momentum` is the
   default of its command line; its published command lines have 0, and are the recipes named pmr-….
4. More than two modalities: β^m = clip(max_j S^j / S^m − 1, 0, 1), which is the above for two; the entropy is that of
   the modality of the greatest S, with the greatest β.
5. H is the mean over the batch. A class without a sample keeps its prototype, at first 0 (official: not a number).
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import Epoch, EpochRange, Method, Step
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class PMR(Method):
    """Prototypical Modal Rebalance: pull the features of the modality that lags to their class means."""

    origin: ClassVar = Origin(
        "Fan, Xu, Wang, Wang, Guo, CVPR 2023, arXiv 2211.07089",
        "fanyunfeng-bit/Modal-Imbalance-PMR",
        "numbers",
        "clipped β, entropy, and prototypes from the epoch's own steps; the code's rules are variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=1.0, ge=0)
        mu: float = Field(default=0.01, ge=0)  # weight of the entropy
        entropy_epochs: int = Field(default=5, ge=0)  # counted from `first_epoch`
        momentum: float = Field(default=0.2, ge=0, lt=1)
        share: float | None = Field(
            default=None, gt=0, le=1
        )  # of the training batches; None: of the steps' features
        coefficient: Literal["clip", "one"] = "clip"

        IDLE: ClassVar = {"mu": ("entropy_epochs", lambda epochs: epochs == 0)}

    needs_classes: ClassVar[bool] = True  # for their prototypes
    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"coefficient": "one", "entropy_epochs": 0, "last_epoch": 100, "share": 0.1},
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

    @torch.no_grad()
    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Make the prototypes of the epoch."""
        if self.settings.share is not None:
            network.eval()
            for inputs, labels in epoch.batches(self.settings.share, "pmr"):
                features = network.encode(inputs).values()
                self._add([feature.flatten(1) for feature in features], labels, epoch.total)
            network.train()
        if self.counts is not None:
            self._renew(self.counts, self.settings.momentum if epoch.number > 1 else 0)

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Keep the features, and add them to the class sums unless prototypes come from batches of their own."""
        self._features = [feature.flatten(1) for feature in features.values()]
        if self.settings.share is None:
            self._add([feature.detach() for feature in self._features], step.labels, step.total)
        return features

    def _add(self, features: list[Tensor], labels: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Add features [B, D_m] to the class sums."""
        own = torch.arange(self.classes, device=labels.device)
        members = (own[:, None] == labels).to(features[0].dtype)  # [C, B]
        found = [members @ feature for feature in features]
        widths = [feature.shape[1] for feature in features]
        *found, counts = total(torch.cat([*found, members.sum(1, keepdim=True)], 1)).split([*widths, 1], 1)
        if self.counts is None:
            self.sums, self.counts = found, counts[:, 0]
        else:
            self.sums = [old + new for old, new in zip(self.sums, found, strict=True)]
            self.counts = self.counts + counts[:, 0]

    def _renew(self, counts: Tensor, momentum: float) -> None:
        """The class means become the prototypes, which keep a share `momentum` of what they were."""
        before = self.prototypes or [torch.zeros_like(sums) for sums in self.sums]
        self.prototypes = [
            torch.where(counts[:, None] > 0, (1 - momentum) * (sums / counts[:, None]) + momentum * old, old)
            for sums, old in zip(self.sums, before, strict=True)
        ]
        self.sums, self.counts = [], None

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

    def _active(self, step: Step) -> bool:
        return bool(self.prototypes) and self.settings.active(step.epoch)

    def _early(self, step: Step) -> bool:
        return step.epoch < self.settings.first_epoch + self.settings.entropy_epochs

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
