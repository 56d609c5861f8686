"""Dropout on the fused features (Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout, JMLR 2014).

Every number of the concatenated features becomes zero with probability p, independently of all others (Sec. 4); it
therefore does not matter which number belongs to which modality. The comparison is Table 6.

1. Kept numbers are divided by 1 − p in training ("inverted", as `torch.nn.Dropout`), where the original multiplies
   the weights by 1 − p at test time: the same in expectation, and evaluation needs no change.
2. p is 0.5, the original's choice for hidden units: no rate of Table 6 is known.
3. The discrepancy is that of undropped features, as for every method here.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.origin import Origin


class Dropout(Method):
    """Drop single numbers of the features with one rate, which subclasses change from step to step."""

    origin: ClassVar = Origin(
        "Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, JMLR 2014",
        None,
        "equations",
        "kept numbers are scaled in training, as by torch.nn.Dropout",
    )

    class Settings(MethodSettings):
        """The rate p."""

        rate: float = Field(default=0.5, ge=0, lt=1)

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings

    def rate(self, step: Step) -> float | Tensor:
        """The probability with which a number is dropped in this step: a number or a 0-dim tensor."""
        return self.settings.rate

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Features [B, …] with zeros in random places, the rest scaled up."""
        rate, kind = self.rate(step), type(self).__name__
        dropped = {}
        for name, feature in features.items():
            u = step.streams.uniform(tuple(feature.shape), f"{kind}/{name}", feature.device)
            dropped[name] = feature * (u >= rate) / (1 - rate)
        return dropped
