"""OGM*: raise the gradient of the weaker modality, instead of weakening that of the dominant one (Table 13).

g ← k^m · g + h with k^m = `factor` where another modality is ahead and m is not, else 1; the noise h is OGM's.

1. The factor is 4, as in the official code (BML_TPAMI2024, main.py, `use_OGM_plus`), in both variants: there a
   growing factor, 1 + tanh(α · ρ), is commented out.
2. With three modalities and more, all that are not ahead are raised. The code knows two.
3. All epochs (paper), or epochs 6 to 60 (official: its script ends at 60, and its warm-up covers 0 to 5).
4. Where all are even, nothing is raised; the code raises its first modality.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.discrepancy import Discrepancy
from balancemm_cli.methods.ogm import GradientModulation
from balancemm_cli.origin import Origin


class OGMStar(GradientModulation):
    """OGM the other way round: multiply the gradient of the modality that lags, and add noise."""

    origin: ClassVar = Origin(
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582",
        "GeWu-Lab/BML_TPAMI2024",
        "equations",
        "all epochs; the code's 6 to 60 are variant official; nothing is raised where all are even",
    )

    class Settings(GradientModulation.Settings):
        """The factor, and OGM's noise and epochs."""

        factor: float = Field(default=4.0, ge=1)

    VARIANTS: ClassVar = {"paper": {}, "official": {"first_epoch": 6, "last_epoch": 60}}
    METRICS: ClassVar = ("k_star",)  # 1 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.factor = settings.factor

    def coefficient(self, discrepancy: Discrepancy) -> Tensor:
        """k [M]: the factor where a modality is behind one that is ahead, else 1."""
        behind = ~discrepancy.ahead & discrepancy.ahead.any()
        return torch.where(behind, self.factor, torch.ones_like(discrepancy.rho))
