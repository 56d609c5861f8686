"""The shapes of a network's inputs: what a kind of modality gives, and an encoder takes."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SequenceShape:
    """A sequence of at most `length` steps: of `width` numbers each, at one or more positions, or of words out of
    `words`."""

    length: int
    width: int = 0
    words: int = 0
    positions: int = 1


@dataclass(frozen=True)
class SegmentShape:
    """`count` segments of a clip, each of the shape `each`."""

    count: int
    each: int | SequenceShape


# of a modality's inputs: channels of pictures or spectrograms, a sequence's shape, or that of segments
Shape = int | SequenceShape | SegmentShape


def segmented(shape: int | SequenceShape, count: int) -> SegmentShape:
    """A modality's shape cut into `count` segments of equal length."""
    if isinstance(shape, SequenceShape):
        shape = replace(shape, length=shape.length // count)
    return SegmentShape(count, shape)
