"""One head for the features of every modality, whose answers are fused after it: what MLA and ReconBoost train.

    f^m = H(h^m),   f = Σ_m λ^m f^m

`fusion` says what λ is:

- `entropy` (MLA, Zhang et al., CVPR 2024, arXiv 2311.10707): of each sample λ^m ∝ exp(−e^m) with Σ_m λ^m = 1, where
  e^m = −Σ_c p_c log p_c is the entropy of p = softmax(f^m): the surer a modality is, the more it counts. No gradient
  flows through λ.
- `mean`: 1 / M.
- `sum` (ReconBoost, Hua et al., ICML 2024, arXiv 2405.09321): one number for all, which is trained, from 1 on.

H is a linear layer, or two with a ReLU between them where `hidden` gives a width. Choices, and where the official codes
(Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation, huacong/ReconBoost) differ:

1. MLA's code takes the softmax of its entropy over the samples of a test batch in place of the classes, and adds up all
   of it to one number a modality and batch. Here each sample has its own, so that its prediction depends on no other;
   given one sample's logits its function computes that. Without `--dynamic` it takes 0.55 and 0.45 for λ: `mean`.
2. All features have 512 or 768 numbers there. Here one of another width than the widest passes a linear layer before H.
3. ReconBoost's H has one layer of 256 between; for sentiment it is linear.
4. M modalities, and features of each segment. A modality that is set to zero answers H(0).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, Unimodal
from balancemm_cli.models.heads import linear_head, mlp_head
from balancemm_cli.origin import Origin


class SharedHead(Fusion):
    """One head for all modalities, their answers weighed by how sure each is, averaged, or added up and scaled."""

    origin: ClassVar = Origin(
        "Zhang, Yoon, Bansal, Yao, CVPR 2024, arXiv 2311.10707",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "numbers",
        "the entropy is that of each sample, not of a test batch",
    )

    class Settings(ModelSettings):
        """How the modalities' answers are fused, the width of the head's hidden layer, and a modality's own logits."""

        fusion: Literal["entropy", "mean", "sum"] = "entropy"
        hidden: int | None = Field(default=None, gt=0)  # None: the head is linear
        unimodal: Unimodal = "before-fusion"

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        self.answers = Answers(widths, classes, settings.hidden)
        self.rule, self.before_fusion = settings.fusion, settings.unimodal == "before-fusion"
        self.rate = nn.Parameter(torch.ones(())) if self.rule == "sum" else None

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        return self.fuse(self.answers(features))

    def fuse(self, alone: Mapping[str, Tensor]) -> Tensor:
        """The prediction [B, C] from the logits [B, C] of the modalities, which may be some of all."""
        logits = torch.stack(list(alone.values()))
        if self.rate is not None:
            return self.rate * logits.sum(0)
        if self.rule == "mean":
            return logits.mean(0)
        return (certainty(logits.detach()) * logits).sum(0)

    def logits_alone(self, features: Features, detached: bool = False) -> dict[str, Tensor]:
        """What the head answers to each modality, or zero-out estimation."""
        if not self.before_fusion:
            return super().logits_alone(features, detached)
        weights = dict(self.answers.named_parameters()) if detached else {}
        return functional_call(
            self.answers, {name: weight.detach() for name, weight in weights.items()}, features
        )


class Answers(nn.Module):
    """The shared head, and before it a layer for each modality whose features are not as wide as the widest."""

    def __init__(self, widths: Mapping[str, int], classes: int, hidden: int | None) -> None:
        super().__init__()
        widest = max(widths.values())
        self.head = linear_head(widest, classes) if hidden is None else mlp_head(widest, classes, hidden)
        self.widen = nn.ModuleDict(
            {name: linear_head(width, widest) for name, width in widths.items() if width < widest}
        )

    def wide(self, name: str, feature: Tensor) -> Tensor:
        """What the head is given of a modality's feature [B, …, D_m]: [B, …, D], D being the widest's width."""
        return self.widen[name](feature) if name in self.widen else feature

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Features to the logits [B, C] of each modality."""
        return {name: self.head(self.wide(name, feature)) for name, feature in features.items()}


def certainty(logits: Tensor) -> Tensor:
    """λ [M, B, 1] of logits [M, B, C], see `entropy` above."""
    logs = logits.log_softmax(-1)
    return (logs.exp() * logs).sum(-1, keepdim=True).softmax(0)
