"""TSM, Temporal Shift Module (Lin et al., ICCV 2019; arXiv 1811.08383, Sec. 3 and 4; Table 9 of the paper).

In the 2-D CNN that sees a clip's frames, an eighth of the channels (`tsm.division` = 8) is moved to the frame before
and an eighth to the frame after, in each residual block before its first convolution ("residual shift": the shortcut
sees the map as it was). What is moved in from beyond the clip's ends is zero. The scores of the frames are averaged, as
in TSN.

1. Shifted is what has frames, that is [B, C, T, H, W]: pictures and flow. A spectrogram's encoder is the usual one.
2. A clip of a single frame is left as it is; the official code would set a quarter of its channels to zero.
3. Frames are chosen as for TSN, `frames.choice = "segments"`; TSM's paper uses 8 or 16, the paper states no number.
4. Training, head and split are as in tsn.py.
Shift and network are those of the authors' code (mit-han-lab/temporal-shift-module), to a relative 1e-7.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from balancemm_cli.models.encoders import Choice, Encoder, FrameEncoder, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.models.tsn import check_pictures
from balancemm_cli.origin import Origin


class TSMSettings(ModelSettings):
    """Into how many parts the channels are divided, of which one moves each way."""

    division: int = Field(default=8, ge=2)


class TSM(Network):
    """TSN whose encoders exchange channels between neighbouring frames."""

    origin: ClassVar = Origin(
        "Lin, Gan, Han, ICCV 2019, arXiv 1811.08383",
        "mit-han-lab/temporal-shift-module",
        "numbers",
        "clips of a single frame are not shifted",
    )

    Settings = TSMSettings

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "TSM":
        """The recipe's encoder with shifts. UsageError without a modality of pictures, and for an unknown encoder."""
        assert isinstance(settings, TSMSettings)
        check_pictures("tsm", inputs)
        encoders = make_encoders(choice, inputs)
        for one in encoders.values():
            if isinstance(one, FrameEncoder):
                ShiftedFrames(one, settings.division)
        return cls(encoders, Concat(widths(encoders), classes, settings))


class ShiftedFrames:
    """Makes an encoder's residual blocks shift. Its weights keep their names, so weights files fit as before."""

    def __init__(self, encoder: Encoder, division: int) -> None:
        from torchvision.models.resnet import BasicBlock, Bottleneck

        self.division = division
        self.frames = 1  # of each clip in the batch at hand
        encoder.register_forward_pre_hook(self._count)
        for block in encoder.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                block.conv1.register_forward_pre_hook(self._shift)

    def _count(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self.frames = inputs[0].shape[2] if inputs[0].ndim == 5 else 1

    def _shift(self, _: nn.Module, maps: tuple[Tensor]) -> tuple[Tensor]:
        return (shift(maps[0], self.frames, self.division),)


def shift(maps: Tensor, frames: int, division: int) -> Tensor:
    """Maps [B · frames, C, H, W] with C // division channels of the next frame and as many of the one before."""
    if frames == 1:
        return maps
    clips, moved = maps.unflatten(0, (len(maps) // frames, frames)), maps.shape[1] // division
    from_next = pad(clips[:, 1:, :moved], (0, 0, 0, 0, 0, 0, 0, 1))
    from_last = pad(clips[:, :-1, moved : 2 * moved], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([from_next, from_last, clips[:, :, 2 * moved :]], 2).flatten(0, 1)
