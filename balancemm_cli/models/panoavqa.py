"""PanoAVQA: a transformer with layers of each modality's own and layers across them (Yun, Yu, Yang, Lee, Kim,
"Pano-AVQA: Grounded Audio-Visual Question Answering on 360° Videos", ICCV 2021, Sec. 4; Table 7 of the paper).

Each modality's tokens, projected and with a position each, go through layers of their own. In a layer across, each
modality attends to the next one in turn (question to audio, audio to visual, visual to question), then to itself, and
goes through a feed-forward layer. The modalities' pooled vectors, concatenated, go through linear, GELU, layer norm,
linear to the answers.

Choices, beside the authors' code (HS-YN/PanoAVQA, model/lavit.py, whose layers are BERT's):
1. Layers as there: post-norm, GELU, four times the width inside. Width 512 (768 there), one layer a modality and two
   across, since the recipe's encoders come before (tokens.py; maps pooled to 4 × 4); there they read ready features.
   All are settings. No dropout, and nothing pretrained: neither language model nor the other objectives.
2. There are no coordinates of objects or sound, which belong to 360° videos.
3. A modality is pooled to the mean of its tokens, through a linear layer with a tanh; there its first token is taken,
   which is the question's class token, but no special one of sound or pictures.
4. A token of zeros is left out of the attention and of the mean: padding, and a modality that a method drops, but for a
   first token, which says only that there is the modality. One that `bmm eval --missing` takes away has inputs of
   zeros, of which its encoder still makes tokens (of a sequence one): these are attended to as any other.
Any number of modalities from two on.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network
from balancemm_cli.models.tokens import absent, lengths, tokens, with_one_more

GRID = 4


class PanoAVQASettings(ModelSettings):
    """The size of the transformer."""

    width: int = Field(default=512, gt=0, multiple_of=64)
    layers: int = Field(default=1, gt=0)
    cross_layers: int = Field(default=2, gt=0)


class PanoAVQA(Network):
    """A transformer a modality, and layers in which each modality attends to the next one."""

    Settings = PanoAVQASettings

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "PanoAVQA":
        """UsageError for one modality alone, and for an unknown encoder."""
        assert isinstance(settings, PanoAVQASettings)
        encoders = make_encoders(choice, inputs)
        return cls(encoders, CrossLayers(widths(encoders), lengths(inputs, GRID), classes, settings))

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to tokens [B, T_m, D_m] a modality."""
        return {name: tokens(self.encoders[name], inputs[name], GRID) for name in self.modalities}


class CrossLayers(Fusion):
    """Tokens [B, T_m, D_m], T_m at most `lengths[m]`, to logits [B, C]."""

    def __init__(
        self, widths: Mapping[str, int], lengths: Mapping[str, int], classes: int, settings: PanoAVQASettings
    ) -> None:
        super().__init__(widths, classes, settings)
        need_several("panoavqa", widths)
        width, names = settings.width, list(widths)
        self.next_one = dict(zip(names, [*names[1:], names[0]], strict=True))
        self.project = nn.ModuleDict({name: nn.Linear(given, width) for name, given in widths.items()})
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(length, width)) for name, length in lengths.items()}
        )
        self.own = nn.ModuleDict({name: _layers(width, settings.layers) for name in names})
        self.across = nn.ModuleList(
            nn.ModuleDict({name: CrossLayer(width) for name in names}) for _ in range(settings.cross_layers)
        )
        self.pool = nn.ModuleDict({name: nn.Sequential(nn.Linear(width, width), nn.Tanh()) for name in names})
        total = width * len(names)
        self.head = nn.Sequential(
            nn.Linear(total, 2 * total), nn.GELU(), nn.LayerNorm(2 * total), linear_head(2 * total, classes)
        )

    def forward(self, features: Features) -> Tensor:
        """To logits [B, C]."""
        if not len(next(iter(features.values()))):
            return self(with_one_more(features))[:0]
        left_out = {name: _left_out(f) for name, f in features.items()}
        values = {
            name: self.project[name](f) + self.positions[name][: f.shape[1]] for name, f in features.items()
        }
        for name, layers in self.own.items():
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                values[name] = layer(values[name], src_key_padding_mask=left_out[name])
        for layer in self.across:
            assert isinstance(layer, nn.ModuleDict)
            values = {
                name: layer[name](
                    values[name], left_out[name], values[self.next_one[name]], left_out[self.next_one[name]]
                )
                for name in features
            }
        return self.head(
            torch.cat([self._pooled(name, values[name], left_out[name]) for name in features], 1)
        )

    def _pooled(self, name: str, values: Tensor, left_out: Tensor) -> Tensor:
        present = (~left_out).to(values.dtype)[..., None]
        return self.pool[name]((values * present).sum(1) / present.sum(1))


class CrossLayer(nn.Module):
    """Attention to another modality's tokens, then a transformer layer on the own ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.norm = nn.LayerNorm(width)
        (self.own,) = _layers(width, 1)

    def forward(self, own: Tensor, left_out: Tensor, other: Tensor, other_left_out: Tensor) -> Tensor:
        """Tokens [B, T, W] and [B, T', W] with the masks of what is left out, bool [B, T] and [B, T'], to [B, T, W]."""
        seen, _ = self.attention(own, other, other, key_padding_mask=other_left_out, need_weights=False)
        return self.own(self.norm(own + seen), src_key_padding_mask=left_out)


def _layers(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.TransformerEncoderLayer(width, width // 64, 4 * width, 0.0, "gelu", batch_first=True)
        for _ in range(count)
    )


def _left_out(tokens: Tensor) -> Tensor:
    """Absent tokens, bool [B, T], but for the first one where all are."""
    gone = absent(tokens)
    first = torch.arange(gone.shape[1], device=gone.device) == 0
    return gone & ~(first & gone.all(1, keepdim=True))
