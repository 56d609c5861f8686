"""Encoders' tokens, for models that attend to them: [B, T, D] a modality, zeros where there is nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from balancemm_cli.models.encoders import (
    FrameEncoder,
    SequenceShape,
    Shape,
    StepEncoder,
)


def tokens(encoder: nn.Module, inputs: Tensor, grid: int) -> Tensor:
    """Inputs (see encoders) to tokens [B, T, D].

    Of pictures and spectrograms the positions of the encoder's last map, averaged over frames and pooled to grid ×
    grid; of sequences the steps that their encoder makes, with zeros for padding; one where it makes none, as of a
    vector or a bag of words.
    """
    if isinstance(encoder, StepEncoder):
        return encoder.steps(inputs)[0]
    if not isinstance(encoder, FrameEncoder):
        return encoder(inputs)[:, None]
    if inputs.ndim == 4:
        maps = encoder.maps(inputs)
    else:
        maps = encoder.maps(inputs.transpose(1, 2).flatten(0, 1))
        maps = maps.unflatten(0, (len(inputs), inputs.shape[2])).mean(1)
    return nn.functional.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def lengths(inputs: Mapping[str, Shape], grid: int) -> dict[str, int]:
    """No modality has more tokens."""
    return {
        name: shape.length if isinstance(shape, SequenceShape) else grid**2 for name, shape in inputs.items()
    }


def absent(tokens: Tensor) -> Tensor:
    """Which tokens hold zeros alone: padding, and all those of a modality that a method drops. Bool [B, T]."""
    return (tokens == 0).all(2)


def with_one_more(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tokens with a sample of zeros behind the others, for a process that a small batch left none: torch's
    attention needs one. They are joined, so that the encoders take part in the backward."""
    return {name: torch.cat([f, f.new_zeros((1, *f.shape[1:]))]) for name, f in features.items()}
