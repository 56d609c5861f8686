"""Encoders that keep the positions of a picture, and the attention over these that a second modality guides.

Shared by the networks for event localisation, whose inputs are segments of clips. The guide gives one vector per
segment [B, S, D], the other modality its vectors at P positions [B, S, P, D].
"""

from collections.abc import Mapping

import torch
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
)
from balancemm_cli.models.fusion import one_of


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

    weights = softmax over positions of w · tanh(W_v U_v(v) + W_a U_a(a)), U a linear layer with a ReLU to 512, W_v and
    W_a to `attention` = 49 numbers.
    """

    def __init__(self, guide: int, width: int, hidden: int = 512, attention: int = 49) -> None:
        super().__init__()
        self.of_guide = nn.Sequential(
            nn.Linear(guide, hidden), nn.ReLU(), nn.Linear(hidden, attention, bias=False)
        )
        self.of_map = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, attention, bias=False)
        )
        self.score = nn.Linear(attention, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def weights(self, guide: Tensor, maps: Tensor) -> Tensor:
        """[B, S, D] and [B, S, P, D'] to the weights of the positions [B, S, P]."""
        return self.score(torch.tanh(self.of_map(maps) + self.of_guide(guide)[:, :, None]))[..., 0].softmax(
            -1
        )

    def forward(self, guide: Tensor, maps: Tensor) -> Tensor:
        """[B, S, D] and [B, S, P, D'] to [B, S, D']."""
        return (self.weights(guide, maps)[..., None] * maps).sum(2)


def both_ways(width: int, hidden: int) -> nn.LSTM:
    """A bidirectional LSTM over the segments: [B, S, width] to [B, S, 2 · hidden]."""
    return nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
