"""AVGA: audio-guided visual attention, an LSTM a modality, dual multimodal residual fusion (Tian, Shi, Li, Duan, Xu,
"Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, Sec. 4.2 to 4.4; Table 7 of the paper).

Attention as in guided_attention.py; bidirectional LSTMs of width 128 give h^a and h^v [B, S, 256]; with U^m two linear
layers of that width and a tanh between them, f = ½ (U^a h^a + U^v h^v), and the logits are one linear layer of
½ (tanh(h^a + f) + tanh(h^v + f)).

1. The paper names the network after its attention. The authors' code (YapengTian/AVE-ECCV18) has it with two heads:
   concatenation (models.py) and the residual fusion (models_fusion.py), which is the better one there and is used here.
2. That code adds f to the other modality's h; with one block that is the same sum.
3. Code and paper start from VGG-19 and VGGish features, which have no encoder to train. Here each modality has one: a
   linear layer with a ReLU to 128 on such features, the recipe's CNN on media. Its vectors are what is dropped or set
   to zero; attention, LSTMs and fusion belong to what comes after, and OGM does not modulate them.
4. `avga.guide` names the modality that guides; the first one unless it is set (audio, on AVE).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings
from balancemm_cli.models.guided_attention import GuidedAttention, both_ways, encoders_with_maps
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network

HIDDEN = 128


class AVGA(Network):
    """Audio-guided visual attention, LSTMs and residual fusion; an answer for each segment."""

    segmentwise = True

    class Settings(ModelSettings):
        """Which modality guides the attention; None: the first."""

        guide: str | None = None

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "AVGA":
        """UsageError unless there are two modalities, one of which has pictures or one vector per segment."""
        assert isinstance(settings, cls.Settings)
        encoders, guide = encoders_with_maps("avga", choice, inputs, settings.guide)
        return cls(encoders, ResidualFusion(widths(encoders), classes, settings, guide))


class ResidualFusion(Fusion):
    """Features [B, S, D] of the guide and [B, S, P, D] of the other modality to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings, guide: str) -> None:
        super().__init__(widths, classes, settings)
        self.guide = guide
        (self.other,) = widths.keys() - {guide}
        self.attention = GuidedAttention(widths[guide], widths[self.other])
        self.courses = nn.ModuleDict({name: both_ways(width, HIDDEN) for name, width in widths.items()})
        self.transforms = nn.ModuleDict({name: _transform(2 * HIDDEN) for name in widths})
        self.head = linear_head(2 * HIDDEN, classes)

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        guide = features[self.guide]
        seen = {self.guide: guide, self.other: self.attention(guide, features[self.other])}
        return self.head(self.fuse({name: self.courses[name](seen[name])[0] for name in features}))

    def fuse(self, hidden: Mapping[str, Tensor]) -> Tensor:
        """h^m [B, S, 256] to their residual fusion [B, S, 256]."""
        shared = torch.stack([self.transforms[name](h) for name, h in hidden.items()]).mean(0)
        return torch.stack([torch.tanh(h + shared) for h in hidden.values()]).mean(0)


def _transform(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
