"""Gradient-Blending, offline (Wang, Tran, Feiszli, CVPR 2020; arXiv 1905.12681, Sec. 3, Algorithms 1 and 2).

The network gets a head of each modality's own, and the loss is Σ_k w_k L_k over these and the multimodal one. From the
training loss L^T and the loss L* on held-out samples at the start and after N epochs: generalisation G = L*_0 − L*_N,
overfitting O = (L*_N − L^T_N) − (L*_0 − L^T_0), overfitting-to-generalisation ratio |O / G|. The weights
w_k = G_k / O_k² / Z, Σ_k w_k = 1, make that ratio least. Before the run, one network a modality and one of all
modalities are trained to measure G_k and O_k. Choices:

1. N is that of the run, unless `epochs` says otherwise (Algorithm 2 measures once, over the whole training).
2. The trainings beforehand are plain, by the run's recipe; held out is the val split, else a fifth of the training
   samples, never test. They start afresh (as φ^0 does); the paper's start from the run's weights.
3. Losses are measured in evaluation mode on whole splits, not as means over an epoch's steps.
4. A G_k below 0 counts as 0, since a loss that rose is not to be followed backwards; the official code has no rule for
   it. But no loss is left out, for then nothing would train its head, or the fused prediction itself: each weighs at
   least `LEAST`, the least weight that the authors publish, and the rest is shared by G_k / O_k². If no loss fell,
   all weigh the same. |O_k| is at least 1e-4.
5. The official code (facebookresearch/VMZ, c2/lib/models/loss/loss_creator.py and c2/tutorials/gradient_blending.md)
   has no measurement: its weights are settings, as `weights` here.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Losses, Method, MethodSettings, Step, TrainPilot
from balancemm_cli.models.heads import UnimodalHeads
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin

LEAST = 0.009  # of sound, for an ip-CSN-152 on Kinetics-400: gradient_blending.md


class GBlending(Method):
    """Weigh the losses of each modality's own head and of the fused prediction by how well each generalises."""

    origin: ClassVar = Origin(
        "Wang, Tran, Feiszli, CVPR 2020, arXiv 1905.12681",
        "facebookresearch/VMZ",
        "equations",
        "weights are measured before the run, and at least 0.009; the code's are settings",
    )

    revision = 2

    class Settings(MethodSettings):
        """The settings; both variants are the paper's."""

        weights: tuple[float, ...] | None = None  # of each modality, then of all; None: measured
        epochs: int | None = Field(default=None, gt=0)  # to measure over; None: those of the run

        IDLE: ClassVar = {"epochs": ("weights", lambda given: given is not None)}

        @model_validator(mode="after")
        def _not_negative(self) -> "GBlending.Settings":
            if self.weights and (min(self.weights) < 0 or not sum(self.weights)):
                raise ValueError("g-blending.weights must not be negative, nor all zero")
            return self

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        if settings.weights is not None and len(settings.weights) != len(modalities) + 1:
            raise UsageError(
                f"g-blending.weights needs {len(modalities) + 1} numbers: one a modality, and one for all together."
            )
        self.heads: UnimodalHeads | None = None
        self.weights: Tensor | None = None  # [M + 1]

    def attach(self, network: Network, classes: int) -> nn.Module:
        """One linear head for each modality."""
        self.heads = UnimodalHeads(network.widths, classes)
        return self.heads

    def on_start(self, train_pilot: TrainPilot) -> None:
        """Measure the weights, unless they are given."""
        if self.settings.weights is None:
            parts = [*([name] for name in self.modalities), self.modalities]
            pilots = [train_pilot(part, self.settings.epochs) for part in parts]
            self.weights = torch.tensor(blend_weights([(pilot.before, pilot.after) for pilot in pilots]))

    def measured(self) -> dict[str, float]:
        """The weight of each modality's loss, and of that of all together."""
        names = [*self.modalities, "all"]
        return {} if self.weights is None else dict(zip(names, self.weights.tolist(), strict=True))

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The weighted sum of the losses."""
        assert self.heads is not None
        if self.weights is None:  # filled on the device: a copy from the host would wait for it
            self.weights = torch.stack([loss.new_full((), weight) for weight in self.settings.weights or ()])
        losses = [
            step.mean(step.losses(logits)) for logits in self.heads(step.features, step.task.axes).values()
        ]
        return self.weights @ torch.stack([*losses, loss])

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of the losses."""
        return {} if self.weights is None else {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the weights."""
        self.weights = state.get("weights")


def blend_weights(measured: Sequence[tuple[Losses, Losses]]) -> list[float]:
    """w_k ∝ G_k / O_k² above `LEAST`, from each training's (train, held-out) losses before and after it."""
    ratios = []
    for (train_before, held_before), (train_after, held_after) in measured:
        generalisation = max(held_before - held_after, 0.0)
        overfitting = (held_after - train_after) - (held_before - train_before)
        ratios.append(generalisation / max(abs(overfitting), 1e-4) ** 2)
    total = sum(ratios)
    shares = [ratio / total if total else 1 / len(ratios) for ratio in ratios]
    return [LEAST + (1 - len(shares) * LEAST) * share for share in shares]
