"""Late fusion by a small transformer: the simple strong baseline of "Fusion or Confusion?" (arXiv 2512.22991).

With h^m the feature of modality m's encoder, one token a modality behind a learned class token a,

    z = [a; P^m h^m + e^m for all m],   f = W LN(transformer(z))_0 + b,

where P^m projects to one width and e^m tells the modalities apart. It is there to be beaten: the paper tunes 19 methods
on nine sets, and complex ones do not reliably beat such a fusion. Held against nothing but these equations; chosen
here:

1. One token a modality, the encoder's feature. The paper's encoders may hand on more; vatt is the model that does.
2. Two pre-norm layers (GELU, four times the width inside) of width 128 with a head for each 64 numbers. No dropout: the
   gradients are to differ by what methods do.
3. A feature of zeros, of a modality that a method drops, is a token of bias and e^m alone, so that the layers learn
   what an absent modality looks like. No token is left out of the attention.
4. Matrices are Xavier, layer by layer (torch.nn.TransformerEncoder starts all as one); a and e^m are N(0, 0.02²).
5. Of a task with segments, each segment is fused by itself.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.fusion import Features, Fusion, ModelSettings
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.tokens import with_one_more
from balancemm_cli.origin import Origin

PER_HEAD = 64  # numbers of an attention head


class LateTransformer(Fusion):
    """One token a modality through a small transformer with a class token (late fusion, a strong simple baseline)."""

    origin: ClassVar = Origin(
        "late fusion as in arXiv 2512.22991, which tunes such a network against 19 methods",
        None,
        "equations",
        "that paper was not read: the size and the class token are choices here",
    )

    class Settings(ModelSettings):
        """The size of the transformer."""

        width: int = Field(default=128, gt=0, multiple_of=PER_HEAD)
        layers: int = Field(default=2, gt=0)

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        width = settings.width
        self.project = nn.ModuleDict({name: linear_head(given, width) for name, given in widths.items()})
        self.tokens = nn.Parameter(0.02 * torch.randn(1 + len(widths), width))  # a, then e^m in order
        layer = nn.TransformerEncoderLayer(
            width, width // PER_HEAD, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, settings.layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        for weight in self.layers.parameters():
            if weight.ndim >= 2:
                nn.init.xavier_uniform_(weight)
        self.head = linear_head(width, classes)

    def forward(self, features: Features) -> Tensor:
        """Features [B, D_m] to logits [B, C]; [B, S, D_m] to [B, S, C]."""
        if not len(next(iter(features.values()))):
            return self(with_one_more(features))[:0]
        projected = [self.project[name](feature) for name, feature in features.items()]
        shown = torch.stack([torch.zeros_like(projected[0]), *projected], -2) + self.tokens
        answers = self.head(self.layers(shown.flatten(0, -3))[:, 0])
        return answers.view(*shown.shape[:-2], -1)
