"""SMV, sample-level modality valuation (Wei, Feng, Wang, Hu, CVPR 2024; arXiv 2309.06255).

What a modality is worth to a sample is its Shapley value, over all sets S of modalities,

    φ^m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · (v(S ∪ m) − v(S)),   v(S) = |S| where S alone is right, else 0

and before each epoch samples are drawn again with one modality alone, its features beside zeros for the others':

    sample      each sample with m as often as φ^m is below 1, below 0.4 and below −0.1: up to three times
    modality    a share α ⅔ |φ^m − mean_{k≠m} φ^k| of the samples, with the m that is furthest below the others; φ is
                the mean over a random part of the samples

Choices, and where the official code (GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation) differs:

1. The paper's text was not at hand: the numbers of times, the part (a fifth), α = 1 and the five epochs before the
   first valuation are the code's.
2. Samples are valued as they are, in evaluation mode; the code values samples that are augmented as in training.
3. The drawn samples are shuffled among all others, as in the code: an epoch has more steps. Their features, not their
   inputs, are zeros, so that batch normalisation in an encoder sees what it always sees.
4. The code gives its data set an argument that this does not take, and stops with an error; without it, it runs.
5. M modalities in place of two; with one there is nothing to leave out, so it is refused.
"""

from collections.abc import Mapping
from itertools import combinations
from math import factorial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Epoch, Method, MethodSettings, drop
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin

BELOW = (1.0, 0.4, -0.1)  # each of these that φ is below is another time
TWO_THIRDS = 2 / 3  # the largest φ of two modalities is 1.5


class SMV(Method):
    """Sample-level modality valuation: draw samples again with the modality alone that was worth little to them."""

    origin: ClassVar = Origin(
        "Wei, Feng, Wang, Hu, CVPR 2024, arXiv 2309.06255",
        "GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation",
        "numbers",
        "samples are valued without augmentation",
    )

    class Settings(MethodSettings):
        """The paper's settings, which are the official code's."""

        level: Literal["sample", "modality"] = "sample"
        warmup: int = Field(default=5, ge=0)  # epochs before the first valuation
        alpha: float = Field(default=1.0, ge=0)
        part: float = Field(default=0.2, gt=0, le=1)  # of the samples, whose mean tells of a modality

        IDLE: ClassVar = dict.fromkeys(("alpha", "part"), ("level", lambda level: level == "sample"))

    needs_classes: ClassVar[bool] = True  # for the right answer
    TRIED_ON: ClassVar = ("concat", ("smv.warmup=1",))

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.rows: Tensor | None = None  # [K] int64, of the samples drawn again in this epoch
        self.keep: Tensor | None = None  # [K, M] bool

    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Value all samples, and choose which of them are drawn again."""
        if epoch.number < self.settings.warmup:
            return
        values = shapley(rightness(network, epoch))
        chooser = self._of_samples if self.settings.level == "sample" else self._of_modality
        self.rows, self.keep = chooser(values, epoch)

    def further_samples(self) -> tuple[Tensor, Tensor] | None:
        """Those of the epoch."""
        return None if self.rows is None or self.keep is None else (self.rows, self.keep)

    def _of_samples(self, values: Tensor, epoch: Epoch) -> tuple[Tensor, Tensor]:
        """Rows [K] and what they keep [K, M], of the values φ [N, M]."""
        times = torch.stack([values < bound for bound in BELOW]).sum(0)
        alone = torch.eye(len(self.modalities), dtype=torch.bool)
        rows, modality = (
            torch.repeat_interleave(places, times.flatten())
            for places in torch.cartesian_prod(*map(torch.arange, times.shape)).unbind(1)
        )
        return rows, alone[modality]

    def _of_modality(self, values: Tensor, epoch: Epoch) -> tuple[Tensor, Tensor]:
        """The same for one modality, of random samples."""
        generator = np.random.default_rng(epoch.streams.key("smv"))
        count, modalities = values.shape
        part = generator.choice(count, int(count * self.settings.part) or 1)
        modality, share = lagging(values[torch.from_numpy(part)].mean(0))
        drawn = generator.choice(count, int(self.settings.alpha * share * count))
        keep = (torch.arange(modalities) == modality).expand(len(drawn), -1)
        return torch.from_numpy(drawn), keep.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """The samples drawn again in this epoch."""
        return {} if self.rows is None or self.keep is None else {"rows": self.rows, "keep": self.keep}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.rows, self.keep = state.get("rows"), state.get("keep")


def subsets(modalities: int) -> list[tuple[int, ...]]:
    """All sets of modalities but the empty one."""
    sizes = range(1, modalities + 1)
    return [chosen for size in sizes for chosen in combinations(range(modalities), size)]


@torch.no_grad()
def rightness(network: Network, epoch: Epoch) -> dict[tuple[int, ...], Tensor]:
    """Whether each training sample is answered rightly, bool [N] on the CPU, by the set of modalities that it keeps."""
    found: dict[tuple[int, ...], list[Tensor]] = {one: [] for one in subsets(len(network.modalities))}
    network.eval()
    for inputs, labels in epoch.training():
        features = network.encode(inputs)
        for chosen, parts in found.items():
            keep = torch.tensor([m in chosen for m in range(len(features))], device=labels.device)
            logits = network.classify(drop(features, keep.expand(len(labels), -1)))
            parts.append((logits.argmax(-1) == labels).cpu())
    network.train()
    return {chosen: torch.cat(epoch.gathered(parts)) for chosen, parts in found.items()}


def shapley(right: Mapping[tuple[int, ...], Tensor]) -> Tensor:
    """φ [N, M] in float64, from whether each set answers rightly [N]."""
    everything = max(right, key=len)
    worth = {chosen: len(chosen) * found.double() for chosen, found in right.items()}
    count = len(everything)
    values = []
    for m in everything:
        value = torch.zeros_like(worth[everything])
        for chosen in (one for one in worth if m in one):
            without = tuple(k for k in chosen if k != m)
            weight = factorial(len(without)) * factorial(count - len(chosen)) / factorial(count)
            value += weight * (worth[chosen] - (worth[without] if without else 0))
        values.append(value)
    return torch.stack(values, 1)


def lagging(values: Tensor) -> tuple[int, float]:
    """Of φ [M] the modality that is furthest below the mean of the others, and the share drawn again at α = 1."""
    behind = (values.sum() - len(values) * values) / (len(values) - 1)
    modality = int(behind.argmax())
    return modality, TWO_THIRDS * float(behind[modality])
