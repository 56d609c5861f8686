"""PSP, positive sample propagation (Zhou, Zheng, Zhong, Wang, "Positive Sample Propagation along the Audio-Visual Event
Line", CVPR 2021; arXiv 2104.00239, Sec. 3; Table 7 of the paper).

Attention (guided_attention.py) and bidirectional LSTMs of width 128 give a and v [B, S, 256]. With v_i = ReLU(W^v_i v)
and a_i = ReLU(W^a_i a), i = 1, 2, the similarity of all pairs of segments is β = ReLU(v_2 a_1ᵀ / √256). Its rows, and
those of βᵀ, are divided by their sums; entries up to τ = 0.095 become 0, and what is left is divided by its sums again.
Each modality takes up the segments that agree with it, v' = v + γ^va a_2 and a' = a + γ^av v_1; the logits come from
½ (norm(ReLU(W^v v')) + norm(ReLU(W^a a'))) through a hidden layer of 64.

Details, from the authors' code (jasongief/PSP_CVPR_2021, fully_model.py), and where this differs:
1. As there: two linear layers without bias on the guide before all else (256, 128) and on what the attention gives,
   one layer norm for both modalities, the hidden layer, and that the limit τ gets no gradient.
2. No dropout (0.1 there).
3. Without the pair similarity loss, which the code adds for fully supervised training: it compares the similarity of
   the two modalities with which seconds show an event, and so needs labels where a model has none.
4. Encoders as in avga.py; `psp.guide` likewise.
"""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings
from balancemm_cli.models.guided_attention import GuidedAttention, both_ways, encoders_with_maps
from balancemm_cli.models.network import Network

HIDDEN = 128
SMALL = 1e-8  # what a sum of zeros is divided by


class PSP(Network):
    """Positive sample propagation between the segments of two modalities; an answer for each segment."""

    segmentwise = True

    class Settings(ModelSettings):
        """Which modality guides the attention (None: the first), and the limit τ of a pair's share."""

        guide: str | None = None
        threshold: float = Field(default=0.095, ge=0, lt=1)

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "PSP":
        """UsageError unless there are two modalities, one of which has pictures or one vector per segment."""
        assert isinstance(settings, cls.Settings)
        encoders, guide = encoders_with_maps("psp", choice, inputs, settings.guide)
        return cls(encoders, Propagation(widths(encoders), classes, settings, guide))


class Propagation(Fusion):
    """Features [B, S, D] of the guide and [B, S, P, D] of the other modality to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: PSP.Settings, guide: str) -> None:
        super().__init__(widths, classes, settings)
        self.guide, self.threshold = guide, settings.threshold
        (self.other,) = widths.keys() - {guide}
        self.narrow = nn.ModuleDict({name: _narrow(width) for name, width in widths.items()})
        self.attention = GuidedAttention(HIDDEN, widths[self.other])
        self.courses = nn.ModuleDict({name: both_ways(HIDDEN, HIDDEN) for name in widths})
        self.first, self.second, self.last = (
            nn.ModuleDict({name: _layer(2 * HIDDEN, 2 * HIDDEN) for name in widths}) for _ in range(3)
        )
        self.norm = nn.LayerNorm(2 * HIDDEN, eps=1e-6)
        self.head = nn.Sequential(_layer(2 * HIDDEN, 64), nn.ReLU(), _layer(64, classes))

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        guide = self.narrow[self.guide](features[self.guide])
        other = self.narrow[self.other](self.attention(guide, features[self.other]))
        audio, visual = self.courses[self.guide](guide)[0], self.courses[self.other](other)[0]
        return self.head(self.propagate(audio, visual))

    def propagate(self, audio: Tensor, visual: Tensor) -> Tensor:
        """a and v [B, S, 256] to the fusion of what both are after the exchange [B, S, 256]."""
        audio_1, audio_2 = (layer[self.guide](audio).relu() for layer in (self.first, self.second))
        visual_1, visual_2 = (layer[self.other](visual).relu() for layer in (self.first, self.second))
        pairs = (visual_2 @ audio_1.mT / visual_2.shape[-1] ** 0.5).relu()
        visual = visual + positive(pairs, self.threshold) @ audio_2
        audio = audio + positive(pairs.mT, self.threshold) @ visual_1
        fused = [
            self.norm(self.last[name](h).relu()) for name, h in ((self.guide, audio), (self.other, visual))
        ]
        return (fused[0] + fused[1]) / 2


def positive(pairs: Tensor, threshold: float) -> Tensor:
    """Similarities [B, S, S], not negative, to the shares of each row's positive samples, γ [B, S, S]."""
    shares = pairs / (pairs.sum(-1, keepdim=True) + SMALL)
    shares = shares * (shares > threshold)
    return shares / (shares.sum(-1, keepdim=True) + SMALL)


def _narrow(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 256, bias=False), nn.Linear(256, HIDDEN, bias=False))


def _layer(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer
