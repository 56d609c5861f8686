"""Encoders stage by stage, for models that connect the modalities between the stages.

A CNN has several (see FrameEncoder.stages); a sequence's transformer is one stage, whose map is its vector [B, D].
Stages are counted from the end, so that the last ones of all encoders stand at the same level.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from balancemm_cli.models.encoders import Encoder, FrameEncoder


def stage_widths(encoder: Encoder) -> tuple[int, ...]:
    """The channels of the map that each stage gives."""
    return encoder.stage_widths if isinstance(encoder, FrameEncoder) else (encoder.features,)


def levels(encoders: Mapping[str, Encoder]) -> list[dict[str, int]]:
    """The modalities that have a stage at each level, with the channels there; at the last one all have."""
    of_each = {name: stage_widths(encoder) for name, encoder in encoders.items()}
    depth = max(map(len, of_each.values()))
    return [
        {name: own[back] for name, own in of_each.items() if len(own) >= -back} for back in range(-depth, 0)
    ]


class Course:
    """One input on its way through an encoder: its `map` [N, C, h, w] after each stage, N = B · T frames."""

    def __init__(self, encoder: nn.Module, inputs: Tensor) -> None:
        """Inputs as the encoder takes them."""
        self.map, self.frames = inputs, 1
        self._stages: list[Callable[[Tensor], Tensor]] = [encoder]
        if isinstance(encoder, FrameEncoder):
            self._stages = encoder.stages()
            if inputs.ndim == 5:
                self.frames = inputs.shape[2]
                self.map = inputs.transpose(1, 2).flatten(0, 1)

    def advance(self) -> None:
        """Go through the next stage."""
        stage, *self._stages = self._stages
        self.map = stage(self.map)

    def pooled(self) -> Tensor:
        """The map's average over all positions and frames [B, C]."""
        if self.map.ndim == 2:
            return self.map
        means = self.map.mean((2, 3))
        return means.unflatten(0, (len(means) // self.frames, self.frames)).mean(1)

    def scale(self, factors: Tensor) -> None:
        """Multiply each channel of the map, at all positions and frames, by `factors` [B, C]."""
        if self.map.ndim == 2:
            self.map = self.map * factors
        else:
            each = factors[:, None].expand(-1, self.frames, -1).flatten(0, 1)
            self.map = self.map * each[..., None, None]
