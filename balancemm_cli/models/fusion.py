"""Fusions: the features of all modalities to logits, and to the logits of each modality alone.

A fusion owns its head, for whether the logits split exactly over the modalities depends on both.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from balancemm_cli.errors import UsageError
from balancemm_cli.models.heads import linear_head, mlp_head
from balancemm_cli.origin import Origin
from balancemm_cli.settings import Section

Features = Mapping[str, Tensor]
Unimodal = Literal["before-fusion", "zero-out"]
"""Where a modality's own logits come from, in a fusion that does not split: what it brings to the fusion, sent through
the output layer alone, or the whole output with the other modalities' features at zero."""


class Step(Protocol):
    """What a model's own objective may know of a training step; `methods/base.py` has all of it."""

    labels: Tensor

    def losses(self, logits: Tensor) -> Tensor:
        """The loss of each sample [B] under the task, of logits [B, …, C]."""
        ...

    def mean(self, losses: Tensor) -> Tensor:
        """This process's part of the mean of `losses` [B] over the samples that kept a modality."""
        ...


class ModelSettings(Section):
    """A model's settings. A model names its own in a subclass."""


class Fusion(nn.Module):
    """Base of the fusions. Features are [B, D_m] a modality, in the order of the modalities; of a task with segments
    [B, S, D_m], and then logits are [B, S, C].

    `unimodal_logits` gives f^m [B, C] a modality with detached weights: a gradient can reach the features alone.
    UsageError from the constructor for a number of modalities that it can't fuse.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    origin: ClassVar[Origin | None] = None  # its paper and code, and what it was held against
    revision: ClassVar[int] = 1  # raised where a change moves its numbers at the same settings

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__()

    @classmethod
    def misnames(cls, settings: Mapping[str, object], modalities: int) -> str:
        """Whom ρ names under these settings of so many modalities, as a clause, where that need not be the one that is
        ahead; else nothing."""
        return ""

    def objective(self, loss: Tensor, features: Features, step: Step) -> Tensor:
        """The loss that training minimises (0-dim), from that of the prediction: a model whose own paper trains it by
        more than that adds the rest, of the features [B, …] that were fused and of the labels."""
        return loss

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        raise NotImplementedError

    def unimodal_logits(self, features: Features, bias_split: Sequence[float] | None) -> dict[str, Tensor]:
        """Zero-out estimation (Sec. 4.3.7), unless the fusion has something nearer."""
        if bias_split is not None:
            raise UsageError("discrepancy.bias_split needs model concat: only there the bias is shared.")
        return self.logits_alone(features, detached=True)

    def logits_alone(self, features: Features, detached: bool = False) -> dict[str, Tensor]:
        """What each modality gives without the others: the own output [B, C] with every other feature set to zero.

        What a method minimises of each modality through the shared weights: a gradient reaches these too, unless they
        are `detached`. One forward serves all modalities, stacked on the batch axis, in evaluation mode: batch-norm
        statistics stay as they are.
        """
        stacked = {
            name: torch.cat([feature if name == kept else torch.zeros_like(feature) for kept in features])
            for name, feature in features.items()
        }
        weights = {name: weight.detach() for name, weight in self.named_parameters()} if detached else {}
        training = self.training
        self.eval()
        logits = functional_call(self, weights, (stacked,)).chunk(len(features))
        self.train(training)
        return dict(zip(features, logits, strict=True))


def through(layer: nn.Module, feature: Tensor, detached: bool = True) -> Tensor:
    """A feature [B, D] through a linear layer, whose weights are detached or not."""
    assert isinstance(layer, nn.Linear)
    if not detached:
        return layer(feature)
    return linear(feature, layer.weight.detach(), layer.bias.detach())


def need_several(model: str, widths: Mapping[str, int]) -> None:
    """UsageError where there is but one modality to fuse."""
    if len(widths) < 2:
        (alone,) = widths
        raise UsageError(
            f"Model '{model}' fuses two or more modalities, and there is only '{alone}'. Use concat."
        )


def one_of(key: str, name: str | None, widths: Mapping[str, int]) -> str:
    """The modality that a setting names, the first one for None. UsageError where there is none of that name."""
    if name is not None and name not in widths:
        raise UsageError(f"{key} is '{name}', and the modalities are {', '.join(widths)}. Name one of them.")
    return next(iter(widths)) if name is None else name


class ConcatMLP(Fusion):
    """Concatenated features into a multi-layer classifier (Table 10)."""

    origin: ClassVar = Origin(
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582 (Table 10)",
        None,
        "equations",
        "the hidden width 512 is ours, for none is printed",
    )

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__(widths, classes, settings)
        self.head = mlp_head(sum(widths.values()), classes)

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        return self.head(torch.cat(list(features.values()), -1))


class Concat(Fusion):
    """Concatenated features into one linear layer: f = Σ_m W^m h^m + b (Sec. 3.1)."""

    origin: ClassVar = Origin(
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582",
        "GeWu-Lab/BML_TPAMI2024",
        "numbers",
    )

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__(widths, classes, settings)
        self.head = linear_head(sum(widths.values()), classes)

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        return self.head(torch.cat(list(features.values()), -1))

    def unimodal_logits(self, features: Features, bias_split: Sequence[float] | None) -> dict[str, Tensor]:
        """The exact split: W^m h^m + γ_m b with γ_m = 1 / M unless `bias_split` gives γ (Table 14)."""
        shares = [1 / len(features)] * len(features) if bias_split is None else bias_split
        if len(shares) != len(features):
            raise UsageError(f"discrepancy.bias_split needs {len(features)} numbers, one a modality.")
        weights = self.head.weight.detach().split([feature.shape[-1] for feature in features.values()], 1)
        bias = self.head.bias.detach()
        return {
            name: feature @ weight.T + share * bias
            for (name, feature), weight, share in zip(features.items(), weights, shares, strict=True)
        }


class Sum(Fusion):
    """One linear head a modality; the logits are added up. A head's own bias belongs to it whole."""

    origin: ClassVar = Origin(
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "numbers",
    )

    class Settings(ModelSettings):
        """Its settings."""

        average: bool = (
            False  # the logits, in place of their sum; each modality alone is its head all the same
        )

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__(widths, classes, settings)
        self.heads = nn.ModuleDict({name: linear_head(width, classes) for name, width in widths.items()})
        self.average = isinstance(settings, Sum.Settings) and settings.average

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        logits = torch.stack(list(self.logits_alone(features).values()))
        return logits.mean(0) if self.average else logits.sum(0)

    def logits_alone(self, features: Features, detached: bool = False) -> dict[str, Tensor]:
        """The exact split: each modality's own head."""
        return {name: through(self.heads[name], feature, detached) for name, feature in features.items()}
