"""Evolutional dropout (Li, Gong, Yang: Improved Dropout for Shallow and Deep Learning, NIPS 2016, Fig. 1).

Multinomial dropout of the fused features x [B, d], with sampling probabilities of each mini-batch:

    p_i = sqrt(mean_j x_ji²) / Σ_i' sqrt(mean_j x_ji'²),   m_j ~ Mult(p_1, …, p_d; k),   x̂_ji = x_ji · m_ji / (k p_i)

1. k = d / 2, the original's choice, given as the share k / d. A number may be drawn several times (then it is scaled
   up), so more than half of them are zero.
2. The mask is a constant to the backward pass: no gradient goes through p.
3. The mini-batch is the whole one, also where processes share it.
4. Features of more axes than one (tokens) are taken as one long vector.
5. Numbers that are zero in the whole batch have p = 0 and stay zero.
"""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.origin import Origin


class EvolutionalDropout(Method):
    """Keep the numbers of the features that a multinomial draw hits, the large ones more likely than the small."""

    origin: ClassVar = Origin(
        "Li, Gong, Yang, NIPS 2016, arXiv 1602.02220",
        None,
        "equations",
        "k is half of the numbers, the paper's choice",
    )

    class Settings(MethodSettings):
        """How many draws a sample takes."""

        share: float = Field(default=0.5, gt=0)  # k / d

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.share = settings.share

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Features [B, …] times the mask of the concatenated features."""
        x = torch.cat([feature.detach().flatten(1) for feature in features.values()], 1)
        p = probabilities(step.total((x**2).sum(0)))
        k = max(1, round(self.share * len(p)))
        mask = hits(p, step.streams.uniform((len(x), k), "evolutional", x.device)) / torch.where(
            p > 0, k * p, 1
        )
        masks = mask.split([math.prod(feature.shape[1:]) for feature in features.values()], 1)
        return {
            name: feature * mine.view_as(feature)
            for (name, feature), mine in zip(features.items(), masks, strict=True)
        }


def probabilities(squares: Tensor) -> Tensor:
    """p [d] from the sums of squares [d] over the batch; all zero if those are."""
    roots = squares.sqrt()
    return roots / roots.sum().clamp_min(torch.finfo(roots.dtype).tiny)


def hits(p: Tensor, u: Tensor) -> Tensor:
    """How often each of the d numbers is drawn [B, d], of uniform numbers [B, k] by inverting the cumulative sum of p.

    `torch.multinomial` could not draw for a part of the batch, and knows no stream of numbers for each purpose.
    """
    edges = p.cumsum(0)
    drawn = torch.searchsorted(edges, u * edges[-1], right=True).clamp_max(len(p) - 1)
    return u.new_zeros(len(u), len(p)).scatter_add_(1, drawn, torch.ones_like(u))
