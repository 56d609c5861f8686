"""Curriculum dropout (Morerio, Cavazza, Volpi, Vidal, Murino: Curriculum Dropout, ICCV 2017).

Dropout of the fused features that begins with none of it: a number is kept with probability
θ(t) = (1 − θ̄) · exp(−γ t) + θ̄, and γ = 10 / T for T updates, so that θ(T) is θ̄ but for 5e-5 of the way.

1. θ̄ = 1 − `rate` = 0.5, the original's choice for fully connected layers: no rate of Table 6 is known.
2. γ is given as `gamma` = γ · T, 10 as the paper says; its code sets γ for each data set by hand.
3. Kept numbers are divided by θ(t), as in the original's code: see dropout.py.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Step
from balancemm_cli.methods.dropout import Dropout
from balancemm_cli.origin import Origin


class CurriculumDropout(Dropout):
    """Dropout with a rate that grows from zero."""

    origin: ClassVar = Origin(
        "Morerio, Cavazza, Volpi, Vidal, Murino, ICCV 2017, arXiv 1703.06229",
        "pmorerio/curriculum-dropout",
        "equations",
        "γ = 10 / T as printed, where the code sets γ by hand for each data set",
    )

    class Settings(Dropout.Settings):
        """The last rate 1 − θ̄ is `rate`."""

        gamma: float = Field(default=10.0, gt=0)  # γ · T

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.gamma = settings.gamma

    def rate(self, step: Step) -> Tensor:
        """1 − θ(t), 0-dim."""
        assert step.progress is not None
        return self.settings.rate * (1 - (-self.gamma * step.progress).exp())
