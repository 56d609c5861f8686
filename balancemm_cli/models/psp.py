"""PSP, positive sample propagation (Zhou, Zheng, Zhong, Wang, "Positive Sample Propagation along the Audio-Visual Event
Line", CVPR 2021; arXiv 2104.00239, Sec. 3; Table 7 of the paper).

Attention (guided_attention.py) and bidirectional LSTMs of width 128 give a and v [B, S, 256]. With v_i = ReLU(W^v_i v)
and a_i = ReLU(W^a_i a), i = 1, 2, the similarity of all pairs of segments is β = ReLU(v_2 a_1ᵀ / √256). Its rows, and
those of βᵀ, are divided by their sums; entries up to τ become 0, and what is left is divided by its sums again. Each
modality takes up the segments that agree with it, v' = v + γ^va a_2 and a' = a + γ^av v_1, and with z^m =
norm(ReLU(W^m m')) the logits come from ½ (z^v + z^a) through a hidden layer of 64. The loss is (Eq. 8 and 9)

    CE + 100 · mean_t (s_t − g_t)²,   s = ReLU(cos(z^v, z^a)), divided by its sum over the clip's segments,

where g_t is 1 / (number of segments with an event) on these and 0 on background.

Details, from the authors' code (jasongief/PSP_CVPR_2021, fully_model.py), and where this differs:
1. As there: two linear layers without bias on the guide before all else (256, 128) and on what the attention gives,
   one layer norm for both modalities, the hidden layer, that the limit τ gets no gradient, τ = 0.099 (0.095 is that of
   its weakly supervised form), and the weight of the pair loss, which is not scaled with the batch.
2. No dropout (0.1 there).
3. A clip without an event has g = 0; there all its segments would count as an event's. AVE has no such clip.
4. A sample that a method robs of all modalities has no pair loss; one that lost one modality has that of what the
   network makes of its zeros, as the loss of the prediction has.
5. Attention, and encoders, as 2 and 3 of avga.py; `psp.guide` likewise. Unused layers of that code are left out.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from balancemm_cli.models.fusion import Features, Fusion, Step
from balancemm_cli.models.guided_attention import (
    GuidedAttention,
    GuidedNetwork,
    GuidedSettings,
    both_ways,
    xavier,
)
from balancemm_cli.origin import Origin

HIDDEN = 128
SMALL = 1e-8  # what a sum of zeros is divided by


class PSPSettings(GuidedSettings):
    """The limit τ of a pair's share, and the weight of the pair loss."""

    threshold: float = Field(default=0.099, ge=0, lt=1)
    pair_weight: float = Field(default=100, ge=0)


class Propagation(Fusion):
    """Features [B, S, D] of the guide and [B, S, P, D] of the other modality to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: PSPSettings, guide: str) -> None:
        super().__init__(widths, classes, settings)
        self.guide, self.threshold, self.pair_weight = guide, settings.threshold, settings.pair_weight
        self.background = classes - 1  # the last one, after all events
        (self.other,) = widths.keys() - {guide}
        self.narrow = nn.ModuleDict({name: _narrow(width) for name, width in widths.items()})
        self.attention = GuidedAttention(HIDDEN, widths[self.other], settings.attention)
        self.courses = nn.ModuleDict({name: both_ways(HIDDEN, HIDDEN) for name in widths})
        self.first, self.second, self.last = (
            nn.ModuleDict({name: _layer(2 * HIDDEN, 2 * HIDDEN) for name in widths}) for _ in range(3)
        )
        self.norm = nn.LayerNorm(2 * HIDDEN, eps=1e-6)
        self.head = nn.Sequential(_layer(2 * HIDDEN, 64), nn.ReLU(), _layer(64, classes))

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        guide, other = self.exchanged(features)
        return self.head((guide + other) / 2)

    def objective(self, loss: Tensor, features: Features, step: Step) -> Tensor:
        """The loss with the pair loss: the modalities are to agree where there is an event, of step.labels [B, S]."""
        similar = cosine_similarity(*self.exchanged(features), dim=-1).relu()
        events = (step.labels != self.background).to(similar.dtype)
        found, wanted = (one / (one.sum(-1, keepdim=True) + SMALL) for one in (similar, events))
        return loss + self.pair_weight * step.mean((found - wanted).square().mean(-1))

    def exchanged(self, features: Features) -> tuple[Tensor, Tensor]:
        """z of the guide and of the other modality [B, S, 256]."""
        guide = self.narrow[self.guide](features[self.guide])
        other = self.narrow[self.other](self.attention(guide, features[self.other]))
        return self.propagate(self.courses[self.guide](guide)[0], self.courses[self.other](other)[0])

    def propagate(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """a and v [B, S, 256] to what they are after the exchange, z^a and z^v [B, S, 256]."""
        audio_1, audio_2 = (layer[self.guide](audio).relu() for layer in (self.first, self.second))
        visual_1, visual_2 = (layer[self.other](visual).relu() for layer in (self.first, self.second))
        pairs = (visual_2 @ audio_1.mT / visual_2.shape[-1] ** 0.5).relu()
        visual = visual + positive(pairs, self.threshold) @ audio_2
        audio = audio + positive(pairs.mT, self.threshold) @ visual_1
        return self._last(self.guide, audio), self._last(self.other, visual)

    def _last(self, name: str, values: Tensor) -> Tensor:
        return self.norm(self.last[name](values).relu())


def positive(pairs: Tensor, threshold: float) -> Tensor:
    """Similarities [B, S, S], not negative, to the shares of each row's positive samples, γ [B, S, S]."""
    shares = pairs / (pairs.sum(-1, keepdim=True) + SMALL)
    shares = shares * (shares > threshold)
    return shares / (shares.sum(-1, keepdim=True) + SMALL)


def _narrow(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 256, bias=False), nn.Linear(256, HIDDEN, bias=False))


def _layer(width: int, outputs: int) -> nn.Module:
    return xavier(nn.Linear(width, outputs, bias=False))


class PSP(GuidedNetwork):
    """Positive sample propagation between the segments of two modalities; an answer for each segment."""

    origin: ClassVar = Origin(
        "Zhou, Zheng, Zhong, Wang, CVPR 2021, arXiv 2104.00239",
        "jasongief/PSP_CVPR_2021",
        "numbers",
        "attention as printed; no dropout",
    )

    revision = 2
    Settings = PSPSettings
    name = "psp"
    fuse = Propagation
