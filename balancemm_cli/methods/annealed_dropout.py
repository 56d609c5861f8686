"""Annealed dropout (Rennie, Goel, Thomas: Annealed Dropout Training of Deep Networks, SLT 2014).

Dropout of the fused features with a rate that falls linearly to zero: p(t) = p(0) · max(0, 1 − t / N).

1. t counts updates, so that the rate falls smoothly within an epoch too.
2. N, when the rate reaches zero, is a share of the whole training: `until`, 1 unless set.
3. p(0) = 0.5, and kept numbers are divided by 1 − p(t): see dropout.py.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Step
from balancemm_cli.methods.dropout import Dropout
from balancemm_cli.origin import Origin


class AnnealedDropout(Dropout):
    """Dropout with a rate that falls linearly to zero."""

    origin: ClassVar = Origin(
        "Rennie, Goel, Thomas, SLT 2014",
        None,
        "equations",
        "the rate falls with each update, over the whole training",
    )

    class Settings(Dropout.Settings):
        """The first rate p(0) is `rate`."""

        until: float = Field(default=1.0, gt=0, le=1)  # N as a share of all updates

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.until = settings.until

    def rate(self, step: Step) -> Tensor:
        """p(t), 0-dim."""
        assert step.progress is not None
        return self.settings.rate * (1 - step.progress / self.until).clamp_min(0)
