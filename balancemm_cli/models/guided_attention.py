"""Encoders that keep the positions of a picture, the attention over these that a second modality guides, and what the
networks for event localisation share beside it.

Their inputs are segments of clips. The guide gives one vector per segment [B, S, D], the other modality its vectors at
P positions [B, S, P, D].
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import (
    Choice,
    Encoder,
    FrameEncoder,
    SegmentEncoder,
    Shape,
    VectorEncoder,
    make_encoders,
    widths,
)
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, one_of
from balancemm_cli.models.network import Network

ATTENTION = 49  # numbers that the attention compares by, as many as positions in a map of VGG-19


class GuidedSettings(ModelSettings):
    """Which modality guides the attention (None: the first), and where its numbers are added, see GuidedAttention."""

    guide: str | None = None
    attention: Literal["paper", "official"] = "paper"


class CourseSettings(GuidedSettings):
    """The width of the LSTMs, in each direction."""

    width: int = Field(default=128, gt=0)


class GuidedNetwork(Network):
    """Base: two modalities, of which one guides the attention to the other's positions, and a fusion of both; an answer
    for each segment."""

    segmentwise = True
    name: ClassVar[str]
    fuse: ClassVar[Callable[..., Fusion]]  # from widths, classes, settings and the guide's name

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "GuidedNetwork":
        """UsageError unless there are two modalities, one of which has pictures or one vector per segment."""
        assert isinstance(settings, GuidedSettings)
        encoders, guide = encoders_with_maps(cls.name, choice, inputs, settings.guide)
        return cls(encoders, cls.fuse(widths(encoders), classes, settings, guide))


class MapEncoder(Encoder):
    """A segment's encoder without the average over its positions."""

    def __init__(self, encoder: FrameEncoder | VectorEncoder) -> None:
        super().__init__()
        self.encoder, self.features = encoder, encoder.features

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures [B, S, C, T, H, W], spectrograms [B, S, 1, F, T], vectors [B, S, T, (P,) D] to [B, S, P, features].

        The T frames or steps of a segment are averaged.
        """
        if isinstance(self.encoder, VectorEncoder):
            projected = self.encoder.project(inputs).mean(2)
            return projected if projected.ndim == 4 else projected[:, :, None]
        frames = inputs.flatten(0, 1)
        if frames.ndim == 4:
            frames = frames[:, :, None]  # of one frame
        maps = self.encoder.maps(frames.transpose(1, 2).flatten(0, 1)).flatten(2)
        return maps.unflatten(0, (*inputs.shape[:2], frames.shape[2])).mean(2).transpose(2, 3)


def encoders_with_maps(
    model: str, choice: Choice, inputs: Mapping[str, Shape], guide: str | None
) -> tuple[dict[str, Encoder], str]:
    """The usual encoder for the guide, one that keeps positions for the other modality; and the guide's name.

    UsageError unless there are two modalities, and where the other one can't have positions.
    """
    if len(inputs) != 2:
        raise UsageError(
            f"Model {model} takes two modalities, one that guides and one with positions; these are "
            f"{', '.join(inputs)}. Use concat."
        )
    guide = one_of(f"{model}.guide", guide, dict.fromkeys(inputs, 0))
    encoders = make_encoders(choice, inputs)
    (other,) = inputs.keys() - {guide}
    inner = encoders[other]
    assert isinstance(inner, SegmentEncoder)
    if not isinstance(inner.encoder, FrameEncoder | VectorEncoder):
        raise UsageError(
            f"Model {model} needs pictures or one vector per segment for '{other}', not a sequence. Use concat."
        )
    encoders[other] = MapEncoder(inner.encoder)
    return encoders, guide


class GuidedAttention(nn.Module):
    """Audio-guided visual attention (Tian et al., ECCV 2018, Eq. 1 and 2): a segment's vectors, averaged with weights.

    weights = softmax over positions p of w · tanh(W_v U_v(v_p) + q), q = W_a U_a(a), U a linear layer with a ReLU to
    512, W_v and W_a to 49 numbers. `rule` says what is added to the 49 numbers of a position: "paper" q, number by
    number; "official", as the authors' code broadcasts it, q_p to all of them, which takes 49 positions.
    """

    def __init__(
        self, guide: int, width: int, rule: str = "paper", hidden: int = 512, attention: int = ATTENTION
    ) -> None:
        super().__init__()
        self.rule = rule
        self.of_guide = nn.Sequential(
            nn.Linear(guide, hidden), nn.ReLU(), nn.Linear(hidden, attention, bias=False)
        )
        self.of_map = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, attention, bias=False)
        )
        self.score = nn.Linear(attention, 1, bias=False)
        xavier(self)

    def weights(self, guide: Tensor, maps: Tensor) -> Tensor:
        """[B, S, D] and [B, S, P, D'] to the weights of the positions [B, S, P].

        UsageError under the rule "official" unless there are as many positions as numbers.
        """
        of_map, of_guide = self.of_map(maps), self.of_guide(guide)
        if self.rule == "official" and of_map.shape[2] != of_guide.shape[2]:
            raise UsageError(
                f"attention=official adds one of {of_guide.shape[2]} numbers to each position, and there are "
                f"{of_map.shape[2]} positions. Take attention=paper, or pictures of another size."
            )
        axis = -1 if self.rule == "official" else 2
        return self.score(torch.tanh(of_map + of_guide.unsqueeze(axis)))[..., 0].softmax(-1)

    def forward(self, guide: Tensor, maps: Tensor) -> Tensor:
        """[B, S, D] and [B, S, P, D'] to [B, S, D']."""
        return (self.weights(guide, maps)[..., None] * maps).sum(2)


class Courses(Fusion):
    """Base of the fusions of both modalities' courses: features [B, S, D] of the guide and [B, S, P, D] of the other
    modality to h^m [B, S, 2 · width], by attention and a bidirectional LSTM a modality."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: CourseSettings, guide: str) -> None:
        super().__init__(widths, classes, settings)
        self.guide = guide
        (self.other,) = widths.keys() - {guide}
        self.attention = GuidedAttention(widths[guide], widths[self.other], settings.attention)
        self.courses = nn.ModuleDict(
            {name: both_ways(width, settings.width) for name, width in widths.items()}
        )

    def hidden(self, features: Features) -> tuple[Tensor, Tensor]:
        """h of the guide and of the other modality."""
        guide = features[self.guide]
        seen = self.attention(guide, features[self.other])
        return self.courses[self.guide](guide)[0], self.courses[self.other](seen)[0]


def both_ways(width: int, hidden: int) -> nn.LSTM:
    """A bidirectional LSTM over the segments: [B, S, width] to [B, S, 2 · hidden]."""
    return nn.LSTM(width, hidden, batch_first=True, bidirectional=True)


def xavier(module: nn.Module) -> nn.Module:
    """The module, with the weights of its linear layers drawn from Xavier's uniform distribution."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return module
