"""ModDrop (Neverova, Wolf, Taylor, Nebout: ModDrop, TPAMI 2016): drop modalities with fixed probabilities.

Each sample keeps modality m with probability 1 − p^m, independently of the others, else its feature is zero. It is
OPM with a q that never changes (Table 6).

1. Dropped is the feature that goes into the fusion, as OPM does; the original drops the inputs of the network that
   fuses pre-trained streams, and here nothing is pre-trained.
2. Kept features are not rescaled, as in the original.
3. A sample that lost every modality leaves the batch, as with OPM: it holds nothing to learn from.
4. 0.2 for each modality unless set: no probability of Table 6 is known. The CVPR paper's rows drop one modality
   alone: `[p, 0]` and `[0, p]`.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Method, MethodSettings, Step, drop, one_each
from balancemm_cli.origin import Origin

Probability = Annotated[float, Field(ge=0, le=1)]


class ModDrop(Method):
    """Drop each modality of each sample with a fixed probability.

    UsageError from the constructor for a number of probabilities other than that of the modalities.
    """

    origin: ClassVar = Origin(
        "Neverova, Wolf, Taylor, Nebout, TPAMI 2016, arXiv 1501.00102",
        None,
        "equations",
        "features are dropped, not inputs; the probabilities of Table 6 are not known",
    )

    class Settings(MethodSettings):
        """One probability for all modalities, or one each."""

        probability: Probability | tuple[Probability, ...] = 0.2

    METRICS: ClassVar = ("p",)  # the probability of a drop

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.probabilities = one_each("moddrop.probability", settings.probability, modalities)

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Drop features; what an earlier method dropped stays dropped."""
        u = step.streams.uniform((len(step.labels), len(features)), "moddrop", step.labels.device)
        p = torch.stack([u.new_full((), probability) for probability in self.probabilities])
        step.metrics["p"] = p
        keep = u >= p
        step.keep = keep if step.keep is None else step.keep & keep
        return drop(features, keep)
