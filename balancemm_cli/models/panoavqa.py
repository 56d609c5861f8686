"""PanoAVQA: a transformer with layers of each modality's own and layers across them (Yun, Yu, Yang, Lee, Kim,
"Pano-AVQA: Grounded Audio-Visual Question Answering on 360° Videos", ICCV 2021, Sec. 4; Table 7 of the paper).

Each modality's tokens, projected and with a position each, go through layers of their own. In a layer across, each
modality attends to the next one in turn (question to audio, audio to visual, visual to question), then to itself, and
goes through a feed-forward layer. The modalities' pooled vectors, concatenated, go through linear, GELU, layer norm,
linear to the answers.

Choices, beside the authors' code (HS-YN/PanoAVQA, model/lavit.py, whose layers are BERT's):
1. Layers as there: post-norm, exact GELU, four times the width inside, layer norms with eps 1e-12, all matrices from
   N(0, 0.02²) and all biases from 0. Width 512 (768 there), a layer a modality and two across, since the recipe's
   encoders come before (tokens.py; maps pooled to 4 × 4); there, on ready features, it is 9 layers of the question's
   own, 5 of each other modality's and 5 across. All are settings; `panoavqa.text_layers` is of texts. No dropout, and
   nothing pretrained: neither language model nor the other objectives.
2. A token is ½ (LN(P x) + LN(e)), e a learned position. There e is a projection of the coordinates of an object or a
   sound, which belong to 360° videos; words have LN(x + e), e a learned position.
3. A modality is pooled to the mean of its tokens, through a linear layer with a tanh; there its first token is taken,
   which is the question's class token, but no special one of sound or pictures.
4. A token of zeros is left out of the attention and of the mean: padding, and a modality that a method drops, but for a
   first token, which says only that there is the modality. One that `bmm eval --missing` takes away has inputs of
   zeros, of which its encoder still makes tokens (of a sequence one): these are attended to as any other.
Any number of modalities from two on.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, make_encoders, sort_of, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.models.network import Network
from balancemm_cli.models.tokens import absent, lengths, tokens, with_one_more
from balancemm_cli.origin import Origin

GRID = 4
EPS = 1e-12  # of the layer norms


class PanoAVQASettings(ModelSettings):
    """The size of the transformer; `text_layers` None: as many as `layers`."""

    width: int = Field(default=512, gt=0, multiple_of=64)
    layers: int = Field(default=1, gt=0)
    text_layers: int | None = Field(default=None, gt=0)
    cross_layers: int = Field(default=2, gt=0)


class PanoAVQA(Network):
    """A transformer a modality, and layers in which each modality attends to the next one."""

    origin: ClassVar = Origin(
        "Yun, Yu, Yang, Lee, Kim, ICCV 2021",
        "HS-YN/PanoAVQA",
        "numbers",
        "the layer across is held; fewer and smaller layers, mean pooling, no coordinates",
    )

    revision = 2
    Settings = PanoAVQASettings

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "PanoAVQA":
        """UsageError for one modality alone, and for an unknown encoder."""
        assert isinstance(settings, PanoAVQASettings)
        encoders = make_encoders(choice, inputs)
        of_texts = settings.text_layers or settings.layers
        depths = {
            name: of_texts if sort_of(shape) == "texts" else settings.layers for name, shape in inputs.items()
        }
        return cls(encoders, CrossLayers(widths(encoders), lengths(inputs, GRID), depths, classes, settings))

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to tokens [B, T_m, D_m] a modality."""
        return {name: tokens(self.encoders[name], inputs[name], GRID) for name in self.modalities}


class CrossLayers(Fusion):
    """Tokens [B, T_m, D_m], T_m at most `lengths[m]`, to logits [B, C], with `depths[m]` layers of a modality's own."""

    def __init__(
        self,
        widths: Mapping[str, int],
        lengths: Mapping[str, int],
        depths: Mapping[str, int],
        classes: int,
        settings: PanoAVQASettings,
    ) -> None:
        super().__init__(widths, classes, settings)
        need_several("panoavqa", widths)
        width, names = settings.width, list(widths)
        sizes = width, width // 64, 4 * width
        self.project = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(given, width), _norm(width)) for name, given in widths.items()}
        )
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(length, width)) for name, length in lengths.items()}
        )
        self.place = nn.ModuleDict({name: _norm(width) for name in names})
        self.own = nn.ModuleDict(
            {name: nn.ModuleList(_layer(*sizes) for _ in range(depths[name])) for name in names}
        )
        self.across = nn.ModuleList(CrossLayer(names, *sizes) for _ in range(settings.cross_layers))
        self.pool = nn.ModuleDict({name: nn.Sequential(nn.Linear(width, width), nn.Tanh()) for name in names})
        total = width * len(names)
        self.head = nn.Sequential(
            nn.Linear(total, 2 * total), nn.GELU(), _norm(2 * total), nn.Linear(2 * total, classes)
        )
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, features: Features) -> Tensor:
        """To logits [B, C]."""
        if not len(next(iter(features.values()))):
            return self(with_one_more(features))[:0]
        left_out = {name: _left_out(f) for name, f in features.items()}
        values = {name: self._placed(name, f) for name, f in features.items()}
        for name, layers in self.own.items():
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                values[name] = layer(values[name], src_key_padding_mask=left_out[name])
        for layer in self.across:
            values = layer(values, left_out)
        return self.head(
            torch.cat([self._pooled(name, values[name], left_out[name]) for name in features], 1)
        )

    def _placed(self, name: str, tokens: Tensor) -> Tensor:
        positions = self.positions[name][: tokens.shape[1]]
        return (self.project[name](tokens) + self.place[name](positions)) / 2

    def _pooled(self, name: str, values: Tensor, left_out: Tensor) -> Tensor:
        present = (~left_out).to(values.dtype)[..., None]
        return self.pool[name]((values * present).sum(1) / present.sum(1))


class CrossLayer(nn.Module):
    """Attention of each modality to the next one's tokens, the last one's to the first, as they all were before it;
    then a transformer layer on the own ones."""

    def __init__(self, names: Sequence[str], width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.next_one = dict(zip(names, [*names[1:], names[0]], strict=True))
        self.attention = nn.ModuleDict(
            {name: nn.MultiheadAttention(width, heads, batch_first=True) for name in names}
        )
        self.norm = nn.ModuleDict({name: _norm(width) for name in names})
        self.own = nn.ModuleDict({name: _layer(width, heads, inner) for name in names})

    def forward(self, values: Mapping[str, Tensor], left_out: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens [B, T_m, W], and which of them no one attends to, bool [B, T_m], to tokens of the same shape."""
        return {
            name: self.own[name](self._seen(name, values, left_out), src_key_padding_mask=left_out[name])
            for name in values
        }

    def _seen(self, name: str, values: Mapping[str, Tensor], left_out: Mapping[str, Tensor]) -> Tensor:
        own, other = values[name], values[self.next_one[name]]
        mask = left_out[self.next_one[name]]
        seen, _ = self.attention[name](own, other, other, key_padding_mask=mask, need_weights=False)
        return self.norm[name](own + seen)


def _layer(width: int, heads: int, inner: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(width, heads, inner, 0.0, "gelu", EPS, batch_first=True)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPS)


def _left_out(tokens: Tensor) -> Tensor:
    """Absent tokens, bool [B, T], but for the first one where all are."""
    gone = absent(tokens)
    first = torch.arange(gone.shape[1], device=gone.device) == 0
    return gone & ~(first & gone.all(1, keepdim=True))
