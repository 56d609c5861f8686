"""OPM, On-the-fly Prediction Modulation (Sec. 3.3, Eq. 8, Algorithm 1).

q^m = q_base · (1 + λ · z(ρ^m)), at most 1, where modality m is ahead, else 0; each sample keeps modality m with
probability 1 − q^m, else its feature becomes zero. Paper and official code (BML_TPAMI2024) differ in:

1. q at step t comes from step t − 1 (paper) or from step t itself (official).
2. Executed at every step (paper) or on a batch with probability 0.7 (official).
3. Features are not rescaled (paper) or divided by 1 − θ, θ = Σ_m D_m q^m / Σ_m D_m (official).
4. No warm-up (paper), or epochs 0 to 5 unmodulated (official).
5. No gradient through q (paper). In the official code q is not detached, and the backward of the rescaling
   returns θ as the gradient of θ, so that θ · ∂θ/∂h is added to the gradient of every feature h: the same as ½ θ²
   added to the loss. It looks like a slip, but the authors' numbers were made with it (models/Classifier.py,
   `custom_autograd`).

Not the paper's is `q_of`, by which the rates are those of another modality or step: what is left of OPM where nothing
is adapted (docs/findings).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import EpochRange, Method, Step, drop
from balancemm_cli.methods.discrepancy import Discrepancy, measure
from balancemm_cli.origin import Origin

PAST = 1000  # steps


class OPM(Method):
    """On-the-fly Prediction Modulation: drop the features of the modality that is ahead."""

    origin: ClassVar = Origin(
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582",
        "GeWu-Lab/BML_TPAMI2024",
        "numbers",
        "q of the step before, no rescaling, no warm-up and every step; the code's rules are variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        q_base: float = Field(default=0.5, ge=0, le=1)
        lam: float = Field(default=0.5, ge=0)  # λ
        previous_step: bool = True  # use the q computed at step t − 1
        execute_probability: float = Field(default=1.0, ge=0, le=1)
        rescale: bool = False
        theta_gradient: bool = False
        # whose q a modality is dropped with: its own, that of the modality before it, or its own of any past step
        q_of: Literal["itself", "former-modality", "past-step"] = "itself"

    VARIANTS: ClassVar = {
        "paper": {},
        "official": {
            "previous_step": False,
            "execute_probability": 0.7,
            "rescale": True,
            "theta_gradient": True,
            "first_epoch": 6,
        },
    }

    by_rho: ClassVar = True
    METRICS: ClassVar = ("q",)  # with which features were dropped; 0 in a step that drops none

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.q: Tensor | None = None  # [M]: computed at the step before
        self.past: Tensor | None = None  # [K, M]: computed at the last K ≤ PAST steps, for q_of="past-step"
        self._penalty: Tensor | None = None  # ½ θ² of this step

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Drop features with the q of this step, and keep the q that the discrepancy gives for the next one."""
        assert step.discrepancy is not None
        computed = self._exchanged(self.drop_probability(step.discrepancy), step)
        q = self.q if self.settings.previous_step else computed
        self.q = computed
        if q is None or not self._executes(step):
            step.metrics["q"] = torch.zeros_like(computed)
            return features
        step.metrics["q"] = q
        if self.settings.theta_gradient:
            attached = measure(step.unimodal, step.labels, step.discrepancy.settings, step.total, step.task)
            self._penalty = self._theta(features, self.drop_probability(attached)) ** 2 / 2
        return self._drop(features, q, step)

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """Add the gradient of ½ θ² without its value, where `theta_gradient` is set."""
        penalty, self._penalty = self._penalty, None
        return loss if penalty is None else loss + penalty - penalty.detach()

    def drop_probability(self, discrepancy: Discrepancy) -> Tensor:
        """q [M] of Eq. 8."""
        q = self.settings.q_base * (1 + self.settings.lam * discrepancy.z)
        return torch.where(discrepancy.ahead, q, 0).clamp(0, 1)

    def _exchanged(self, q: Tensor, step: Step) -> Tensor:
        """q [M] as computed, or what `q_of` puts in its place."""
        if self.settings.q_of == "former-modality":
            return q.roll(1)
        if self.settings.q_of == "past-step":
            past = self.past = q[None] if self.past is None else torch.cat([self.past, q[None]])[-PAST:]
            return past[int(step.streams.chance("opm/past") * len(past))]
        return q

    def _executes(self, step: Step) -> bool:
        return (
            self.settings.active(step.epoch)
            and step.streams.chance("opm") < self.settings.execute_probability
        )

    def _drop(self, features: dict[str, Tensor], q: Tensor, step: Step) -> dict[str, Tensor]:
        u = step.streams.uniform((len(step.labels), len(features)), "drop", q.device)
        keep = u < 1 - q
        step.keep = keep if step.keep is None else step.keep & keep
        dropped = drop(features, keep)
        if not self.settings.rescale:
            return dropped
        scale = 1 / (1 - self._theta(features, q))
        return {name: feature * scale for name, feature in dropped.items()}

    def _theta(self, features: dict[str, Tensor], q: Tensor) -> Tensor:
        """θ (0-dim), the expected share of the features that is dropped."""
        widths = [feature.shape[1:].numel() for feature in features.values()]
        return torch.stack([width * share for width, share in zip(widths, q, strict=True)]).sum() / sum(
            widths
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The q for the next step, and of past ones where these are drawn from."""
        state = {"q": self.q, "past": self.past}
        return {name: value for name, value in state.items() if value is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.q, self.past = state.get("q"), state.get("past")
