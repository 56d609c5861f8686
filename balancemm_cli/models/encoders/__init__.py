"""Encoders: one modality's input to one feature vector a sample.

Every encoder has `features`, the length of that vector, and `modulated()`, the weights whose gradients OGM
scales. Spectrograms come as [B, 1, F, T]; pictures as [B, C, T, H, W] with the T frames on axis 2; feature
sequences as [B, T, D], filled up with zeros; texts as the places of their words [B, T], filled up with 0. Features
that were taken at several positions of a picture come as [B, T, P, D]. A task with an answer for each of S segments
has inputs [B, S, …], each segment one of these, and features [B, S, D].
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from balancemm_cli.errors import UsageError, unknown
from balancemm_cli.models.encoders.base import Encoder
from balancemm_cli.models.encoders.pictures import FrameEncoder, ResNet18, ResNet34, ResNet50, SmallResNet
from balancemm_cli.models.encoders.sequences import (
    SequenceTransformer,
    SeriesConvolution,
    SeriesTransformer,
    StepEncoder,
    TextBag,
    VectorEncoder,
    VectorMLP,
)
from balancemm_cli.shapes import SegmentShape, SequenceShape, Shape

__all__ = [
    "ENCODERS",
    "Choice",
    "Encoder",
    "FrameEncoder",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "SegmentEncoder",
    "SegmentShape",
    "SequenceShape",
    "SequenceTransformer",
    "Shape",
    "SmallResNet",
    "StepEncoder",
    "VectorEncoder",
    "make_encoders",
    "sort_of",
    "widths",
]

ENCODERS: dict[str, dict[str, Callable[[Any], Encoder]]] = {
    "pictures": {"resnet18": ResNet18, "resnet34": ResNet34, "resnet50": ResNet50, "small": SmallResNet},
    "vectors": {"mlp": VectorMLP},
    "series": {"transformer": SeriesTransformer, "conv1d": SeriesConvolution},
    "texts": {"transformer": SequenceTransformer, "bag": TextBag},
}
"""What a modality can be, and the encoders that fit it by their names. Those of pictures, and of spectrograms, are made
from a number of channels, the others from a SequenceShape."""

USUAL: dict[str, Callable[[Any], Encoder]] = {
    "vectors": VectorEncoder,
    "series": SequenceTransformer,
    "texts": SequenceTransformer,
}
"""The encoders of what has no name of one: these take numbers as they are."""


@dataclass(frozen=True)
class Choice:
    """Which encoders a run has: `pictures` for pictures and spectrograms, but for what is `named`, by modality or by
    one of the words of ENCODERS for all modalities of that sort; a modality's own name comes first."""

    pictures: str
    named: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """UsageError for a name that no encoder has, whether it is used or not."""
        if self.pictures not in ENCODERS["pictures"]:
            raise unknown("encoder", self.pictures, ENCODERS["pictures"], " of pictures")
        known = {name for of_sort in ENCODERS.values() for name in of_sort}
        for key, name in self.named.items():
            if name not in known:
                raise unknown("encoder", name, known, f" (of '{key}')")

    def of(self, modality: str, shape: Shape) -> str | None:
        """The name of a modality's encoder; None: the usual one. UsageError for one that does not fit."""
        sort = sort_of(shape)
        name = self.named.get(modality) or self.named.get(sort)
        if name is None and sort == "pictures":
            name = self.pictures
        if name is not None and name not in ENCODERS[sort]:
            raise UsageError(
                f"Encoder {name} does not fit '{modality}', which is one of the {sort}. Take "
                f"{' or '.join(ENCODERS[sort])}."
            )
        return name


class SegmentEncoder(Encoder):
    """An encoder run on each segment."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.features = encoder, encoder.features

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Fit the encoder to all segments."""
        self.encoder.fit(lambda: (inputs.flatten(0, 1) for inputs in batches()))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, S, …] to [B, S, features]."""
        return self.encoder(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


def widths(encoders: Mapping[str, Encoder]) -> dict[str, int]:
    """The length of each modality's feature vector."""
    return {name: encoder.features for name, encoder in encoders.items()}


def sort_of(shape: Shape) -> str:
    """Which of ENCODERS' words a modality is; of segments, each of them."""
    if isinstance(shape, SegmentShape):
        return sort_of(shape.each)
    if isinstance(shape, int):
        return "pictures"
    if shape.words:
        return "texts"
    return "vectors" if shape.length == 1 else "series"


def make_encoders(choice: Choice, inputs: Mapping[str, Shape]) -> dict[str, Encoder]:
    """An encoder a modality: the one that was chosen, else for sequences a transformer, and for sequences of one step a
    linear layer; for segments, such a one on each of them.

    UsageError for an unknown name, and for an encoder that does not fit its modality.
    """
    return {name: _make(choice.of(name, shape), shape) for name, shape in inputs.items()}


def _make(encoder: str | None, shape: Shape) -> Encoder:
    if isinstance(shape, SegmentShape):
        return SegmentEncoder(_make(encoder, shape.each))
    sort = sort_of(shape)
    return USUAL[sort](shape) if encoder is None else ENCODERS[sort][encoder](shape)
