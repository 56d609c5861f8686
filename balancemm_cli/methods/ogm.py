"""OGM, On-the-fly Gradient Modulation with Gaussian noise (Sec. 3.4, Eq. 11 to 17, Algorithm 2).

g ← k^m · g + h for each modulated weight of modality m's encoder; k^m = 1 unless m is ahead; h has zero mean and
the standard deviation σ of that weight's un-modulated gradient, plus 1e-8, and goes to all modalities. Paper and
official code (OGM-GE_CVPR2022, BML_TPAMI2024) differ in:

1. Ahead, k^m = max(0, 1 − α · z(ρ^m)) with z = tanh(ρ − 1) (paper) or 1 − tanh(α · ρ^m) (official).
2. All epochs (paper) or epochs 0 to 50 (official; the TPAMI script says 60).
3. The TPAMI script's OPM warm-up (epochs 0 to 5) switches OGM off too; here each method has a range of its own.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.draws import Draws
from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.methods.discrepancy import Discrepancy
from balancemm_cli.models.network import Network


class OGM(Method):
    """On-the-fly Gradient Modulation: weaken the gradient of the modality that is ahead, and add noise."""

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=0.4, ge=0)  # the paper sweeps 0.2 to 0.6 (Fig. 9) and states no choice
        coefficient: Literal["1-alpha*z(rho)", "1-tanh(alpha*rho)"] = "1-alpha*z(rho)"
        noise: Literal["gaussian", "uniform", "laplace", "none"] = "gaussian"
        noise_scale: float = Field(default=1.0, ge=0)  # in units of σ
        noise_target: Literal["all", "dominant"] = "all"

    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"coefficient": "1-tanh(alpha*rho)", "alpha": 0.8, "last_epoch": 50},
    }

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings

    def on_gradients(self, network: Network, step: Step) -> None:
        """Scale the gradients by k, then add the noise."""
        assert step.discrepancy is not None
        if not self.settings.active(step.epoch):
            return
        k = self.coefficient(step.discrepancy)
        step.figures["k"] = k
        gradients = [
            [weight.grad for weight in weights if weight.grad is not None]
            for weights in network.modulated().values()
        ]
        deviations = [self._noise_deviations(grads) for grads in gradients]
        for factor, grads in zip(k.unbind(), gradients, strict=True):
            torch._foreach_mul_(grads, factor)  # pyright: ignore[reportPrivateImportUsage]
        if self.settings.noise == "none":
            return
        for m, (grads, sigmas) in enumerate(zip(gradients, deviations, strict=True)):
            if self.settings.noise_target == "dominant":
                sigmas = [sigma * step.discrepancy.ahead[m] for sigma in sigmas]
            noise = self._noise(grads, step.draws, f"noise/{self.modalities[m]}")
            torch._foreach_addcmul_(grads, noise, sigmas)  # pyright: ignore[reportPrivateImportUsage]

    def coefficient(self, discrepancy: Discrepancy) -> Tensor:
        """k [M]: 1 where a modality is not ahead."""
        if self.settings.coefficient == "1-tanh(alpha*rho)":
            k = 1 - torch.tanh(self.settings.alpha * discrepancy.rho)
        else:
            k = (1 - self.settings.alpha * discrepancy.z).clamp_min(0)
        return torch.where(discrepancy.ahead, k, 1.0)

    def _noise_deviations(self, grads: list[Tensor]) -> list[Tensor]:
        return [self.settings.noise_scale * (grad.std() + 1e-8) for grad in grads]

    def _noise(self, grads: list[Tensor], draws: Draws, purpose: str) -> list[Tensor]:
        """Independent numbers of zero mean and unit variance, shaped like `grads`, from one draw."""
        sizes = [grad.numel() for grad in grads]
        flat = grads[0].new_empty(sum(sizes))
        generator = draws.generator(purpose, flat.device)
        match self.settings.noise:
            case "gaussian":
                flat.normal_(generator=generator)
            case "uniform":
                flat.uniform_(-(3**0.5), 3**0.5, generator=generator)
            case "laplace":
                other = torch.empty_like(flat).exponential_(generator=generator)
                flat.exponential_(generator=generator).sub_(other).mul_(0.5**0.5)
        return [part.view_as(grad) for part, grad in zip(flat.split(sizes), grads, strict=True)]
