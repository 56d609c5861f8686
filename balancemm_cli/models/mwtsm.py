"""MWTSM-style windows: sound and pictures encoded window by window, and a model of their course in time (Table 8).

The paper's Table 8 has a row "MWTSM" on CREMA-D; no source of that name is at hand, and the paper's text on it is
not enough to rebuild it. What stands here is what the row stands for, audio-visual modelling over windows of time, in
plain choices. Near to it are works on CREMA-D by Ghaleb et al. (ACII 2019; Multimedia Tools and Applications 2023:
a transformer encoder over the time windows of each modality) and Birhala et al. (TSP 2020; arXiv 2007.04364: windows
of sound and pictures), but it repeats none of them. Its numbers can't be expected to be the paper's.

1. Windows: `mwtsm.windows` of equal length, a clip's length over their number, rounded up, and spread evenly, so
   that the first begins with the clip and the last ends with it. They are not drawn, and the same in all modalities.
2. The recipe's encoder gives a feature a window: of the spectrogram's part; of pictures the mean over the window's
   frames, each of which is encoded once. With fewer frames than windows some windows share a frame.
3. In time: the transformer that sequences get everywhere here (two pre-norm layers of width 128, learned
   positions), averaged over the windows, one for each modality.
4. Fusion is `concat`, so that the split is exact.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.models.encoders import (
    Choice,
    Encoder,
    FrameEncoder,
    SequenceShape,
    SequenceTransformer,
    Shape,
    make_encoders,
    widths,
)
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.models.tsn import check_pictures
from balancemm_cli.origin import Origin


class MWTSMSettings(ModelSettings):
    """Into how many windows a clip is cut."""

    windows: int = Field(default=4, gt=0)


class MWTSM(Network):
    """Windows of each modality through the recipe's encoder and a transformer; concatenated."""

    origin: ClassVar = Origin(
        "named in Table 8 alone; no paper of that name was found",
        None,
        "equations",
        "plain choices in the place of what the paper does not describe",
    )

    Settings = MWTSMSettings

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "MWTSM":
        """The model for these inputs. UsageError where all are sequences, and for an unknown encoder."""
        assert isinstance(settings, MWTSMSettings)
        check_pictures("mwtsm", inputs)
        encoders = {
            name: WindowEncoder(one, settings.windows) if isinstance(one, FrameEncoder) else one
            for name, one in make_encoders(choice, inputs).items()
        }
        return cls(encoders, Concat(widths(encoders), classes, settings))


class WindowEncoder(Encoder):
    """A CNN on each window and a transformer over the windows: [B, C, F, T] or [B, C, T, H, W] to [B, 128]."""

    features = SequenceTransformer.features

    def __init__(self, encoder: FrameEncoder, windows: int) -> None:
        super().__init__()
        self.encoder, self.windows = encoder, windows
        self.course = SequenceTransformer(SequenceShape(windows, width=encoder.features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of the whole clip."""
        return self.course(self.by_window(inputs))

    def by_window(self, inputs: Tensor) -> Tensor:
        """The CNN's features of each window [B, windows, D]."""
        batch = len(inputs)
        if inputs.ndim == 4:
            parts = torch.stack([inputs[..., part] for part in spread(inputs.shape[3], self.windows)], 1)
            return self.encoder(parts.flatten(0, 1)).unflatten(0, (batch, self.windows))
        frames = self.encoder(inputs.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, inputs.shape[2]))
        return torch.stack([frames[:, part].mean(1) for part in spread(inputs.shape[2], self.windows)], 1)


def spread(length: int, windows: int) -> list[slice]:
    """Windows of equal length, evenly spread, that cover all of `length` steps."""
    size = -(-length // windows)
    starts = [round(index * (length - size) / max(windows - 1, 1)) for index in range(windows)]
    return [slice(start, start + size) for start in starts]
