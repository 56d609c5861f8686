"""Cross-modal attention over the encoders' tokens, in the manner of VATT (Akbari et al., NeurIPS 2021; Table 3).

With t_j^m the tokens of modality m (arXiv 2104.11178, Sec. 3.1 and 3.2),

    z = [a; GELU(P^m t_j^m) + LN(e_j^m) for all m and j],   f = W LN(transformer(z))_0 + b,

a learned class token a, a projection P^m and learned positions e^m a modality, and one transformer for all. The paper
uses VATT as a cross-modal network in Table 3 and says no more; VATT itself cuts raw signals into patches, and its
backbone takes one modality at a time, to be aligned by contrastive losses. Hence:

1. Tokens are what the recipe's encoders see: of pictures and spectrograms the last map, averaged over frames (as
   everywhere here) and pooled to `vatt.grid` × `vatt.grid` positions; of sequences the steps of their transformer.
2. The tokens of all modalities attend to each other. There are no contrastive losses and no pretraining.
3. A token of zeros is left out of the attention, as VATT's DropToken leaves tokens out: padding, and whatever a
   dropped modality has. The class token stays, so each modality alone is that modality's tokens alone. One that
   `bmm eval --missing` takes away has inputs of zeros, of which its encoder still makes tokens (of a sequence one).
4. Layers are VATT's (pre-norm, GELU, 64 numbers a head, four times the width inside, layer norms with eps 1e-6), but
   two of width 512 instead of twelve of 768, since encoders come before. No dropout: the gradients are to differ by
   what methods do. The layer of 1,024 with GELU that follows there is left out.
5. As in the authors' code (google-research/google-research, vatt, transformers.py and uvatt.py) the projection has a
   GELU, and positions go through a layer norm before they are added, so that they count as much as the tokens from the
   start. Each modality has a position table of its own, which also tells modalities apart; there a table an axis is
   added up.
6. Matrices are Xavier, layer by layer (torch.nn.TransformerEncoder starts all as one); a and e^m are N(0, 1 / width),
   cut at two deviations, as there.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Encoder, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network
from balancemm_cli.models.tokens import absent, lengths, tokens, with_one_more
from balancemm_cli.origin import Origin

EPS = 1e-6  # of the layer norms


class VATTSettings(ModelSettings):
    """The size of the transformer, and into how many tokens a map is pooled."""

    width: int = Field(default=512, gt=0, multiple_of=64)
    layers: int = Field(default=2, gt=0)
    grid: int = Field(default=4, gt=0)


class CrossAttention(Fusion):
    """A transformer over the tokens of all modalities. Features are [B, T_m, D_m], T_m at most `lengths[m]`."""

    def __init__(
        self, widths: Mapping[str, int], lengths: Mapping[str, int], classes: int, settings: VATTSettings
    ) -> None:
        super().__init__(widths, classes, settings)
        need_several("vatt", widths)
        width = settings.width
        self.project = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(given, width), nn.GELU()) for name, given in widths.items()}
        )
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(_drawn(length, width)) for name, length in lengths.items()}
        )
        self.place = nn.ModuleDict({name: nn.LayerNorm(width, eps=EPS) for name in widths})
        self.token = nn.Parameter(_drawn(width))
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, "gelu", EPS, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, settings.layers, nn.LayerNorm(width, eps=EPS), enable_nested_tensor=False
        )
        for module in (self.project, self.layers):
            for weight in module.parameters():
                if weight.ndim >= 2:
                    nn.init.xavier_uniform_(weight)
        self.head = linear_head(width, classes)

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        batch = len(next(iter(features.values())))
        if not batch:
            return self(with_one_more(features))[:0]
        shown = [self.token.expand(batch, 1, -1)]
        shown += [self._placed(name, tokens) for name, tokens in features.items()]
        left_out = torch.cat([absent(f) for f in features.values()], 1)
        left_out = torch.cat([torch.zeros_like(left_out[:, :1]), left_out], 1)
        return self.head(self.layers(torch.cat(shown, 1), src_key_padding_mask=left_out)[:, 0])

    def _placed(self, name: str, tokens: Tensor) -> Tensor:
        return self.project[name](tokens) + self.place[name](self.positions[name][: tokens.shape[1]])


def _drawn(*shape: int) -> Tensor:
    deviation = shape[-1] ** -0.5
    return nn.init.trunc_normal_(torch.empty(shape), std=deviation, a=-2 * deviation, b=2 * deviation)


class VATT(Network):
    """One transformer over the tokens of all encoders (cross-modal attention)."""

    origin: ClassVar = Origin(
        "Akbari, Yuan, Qian, Chuang, Chang, Cui, Gong, NeurIPS 2021, arXiv 2104.11178",
        "google-research/google-research",
        "equations",
        "one joint transformer of two layers of width 512, without the last projection",
    )

    revision = 2
    Settings = VATTSettings

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion, grid: int) -> None:
        super().__init__(encoders, fusion)
        self.grid = grid

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "VATT":
        """The model for these inputs. UsageError for a single one, and for an unknown encoder."""
        assert isinstance(settings, VATTSettings)
        encoders = make_encoders(choice, inputs)
        fusion = CrossAttention(widths(encoders), lengths(inputs, settings.grid), classes, settings)
        return cls(encoders, fusion, settings.grid)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to tokens [B, T_m, D_m] a modality; zeros where a sequence has padding."""
        return {name: tokens(self.encoders[name], inputs[name], self.grid) for name in self.modalities}
