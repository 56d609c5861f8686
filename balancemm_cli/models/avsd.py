"""AVSD: attention by a factor graph over the modalities (Schwartz, Schwing, Hazan, "A Simple Baseline for Audio-Visual
Scene-Aware Dialog", CVPR 2019; arXiv 1904.05876; and, with Yu, "Factor Graph Attention", CVPR 2019; Table 7 of the
paper).

Each modality's tokens x^m_t are averaged with weights softmax_t(λ^m · (θ, θ^m, θ^1, …)), where of a token
    θ = u^m · ReLU(V^m x)                                         says what it is worth by itself,
    θ^n = mean over the tokens y of n of cos(E^mn x, E^nm y)      how well it agrees with modality n (and with its own),
and λ^m are learned. The averages are concatenated; a hidden layer of half the width with a tanh leads to the answers.

1. The paper answers in words, by an LSTM; as in MUSIC-AVQA's comparison (Li et al., CVPR 2022) the answers here are
   classes. There is no history of a dialog, and no caption.
2. Factors as in the authors' code (idansc/simple-avsd, atten.py), in the form for modalities of any length: there the
   similarities can be weighted by position instead. A pair of modalities has one pair of maps E for both directions;
   of a modality with itself the two maps differ. λ starts at 1 for each factor, which the code draws. No prior.
3. Tokens come from the recipe's encoders (tokens.py; maps pooled to 4 × 4); the code has an LSTM on the question and
   ready features. No dropout, no batch normalisation of the hidden layer.
4. A token of zeros has no weight and no part in a mean: padding, and a modality that a method drops, whose average is
   zero and which agrees with nothing. One that `bmm eval --missing` takes away has inputs of zeros, of which its
   encoder still makes tokens (of a sequence one): these have weights as any other.
Any number of modalities from two on.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network
from balancemm_cli.models.tokens import absent, tokens, with_one_more
from balancemm_cli.origin import Origin

GRID = 4


class AVSD(Network):
    """Attention to tokens that agree with those of the other modalities (factor graph attention)."""

    origin: ClassVar = Origin(
        "Schwartz, Schwing, Hazan, CVPR 2019, arXiv 1904.05876",
        "idansc/simple-avsd",
        "numbers",
        "the attention is held; answers are classes; no prior, no dropout",
    )

    revision = 2

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "AVSD":
        """UsageError for one modality alone, and for an unknown encoder."""
        encoders = make_encoders(choice, inputs)
        return cls(encoders, FactorGraphAttention(widths(encoders), classes, settings))

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to tokens [B, T_m, D_m] a modality."""
        return {name: tokens(self.encoders[name], inputs[name], GRID) for name in self.modalities}


class FactorGraphAttention(Fusion):
    """Tokens [B, T_m, D_m] to logits [B, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__(widths, classes, settings)
        need_several("avsd", widths)
        self.alone = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
                for name, width in widths.items()
            }
        )
        # E^mn stands under m and n; of a pair of modalities both take the greater width
        self.embed = nn.ModuleDict(
            {
                own: nn.ModuleDict(
                    {other: nn.Linear(widths[own], max(widths[own], widths[other])) for other in widths}
                )
                for own in widths
            }
        )
        self.embed_again = nn.ModuleDict({name: nn.Linear(width, width) for name, width in widths.items()})
        self.shares = nn.ParameterDict({name: nn.Parameter(torch.ones(1 + len(widths))) for name in widths})
        total = sum(widths.values())
        self.head = nn.Sequential(nn.Linear(total, total // 2), nn.Tanh(), linear_head(total // 2, classes))

    def forward(self, features: Features) -> Tensor:
        """To logits [B, C]."""
        if not len(next(iter(features.values()))):
            return self(with_one_more(features))[:0]
        return self.head(torch.cat([self.attend(name, features) for name in features], 1))

    def attend(self, name: str, features: Features) -> Tensor:
        """The weighted average of a modality's tokens, [B, D]."""
        return (self.weights(name, features)[..., None] * features[name]).sum(1)

    def weights(self, name: str, features: Features) -> Tensor:
        """The weights of a modality's tokens, [B, T]; equal ones where all are absent."""
        own = features[name]
        factors = [self.alone[name](own)[..., 0], *(self.agreement(name, n, features) for n in features)]
        scores = (torch.stack(factors, -1) * self.shares[name]).sum(-1)
        left_out = absent(own)
        left_out = left_out & ~left_out.all(1, keepdim=True)
        return scores.masked_fill(left_out, -torch.inf).softmax(1)

    def agreement(self, name: str, other: str, features: Features) -> Tensor:
        """θ^n of a modality's tokens [B, T]: the mean cosine with the other's tokens; 0 where that has none."""
        of_own = self._of(name, other)
        of_other = self.embed_again[name] if other == name else self._of(other, name)
        left = nn.functional.normalize(of_own(features[name]), dim=-1)
        right = nn.functional.normalize(of_other(features[other]), dim=-1)
        present = (~absent(features[other])).to(right.dtype)[..., None]
        mean = (right * present).sum(1) / present.sum(1).clamp_min(1)
        return (left @ mean[..., None])[..., 0]

    def _of(self, own: str, other: str) -> nn.Module:
        of_own = self.embed[own]
        assert isinstance(of_own, nn.ModuleDict)
        return of_own[other]
