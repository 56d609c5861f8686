"""x-vector (Snyder et al., ICASSP 2018, Sec. 2.1 and Table 1): a time-delay network as the encoder of sound (Table 8).

    layer      context           widths            layer       widths
    frame1     t − 2 … t + 2     bands × 5 → 512   pooling     mean and deviation over time, 1,500 → 3,000
    frame2     t − 2, t, t + 2   1,536 → 512       segment6    3,000 → 512
    frame3     t − 3, t, t + 3   1,536 → 512       segment7    512 → 512
    frame4, 5  t                 512 → 512, 1,500

1. Input: `x-vector.bands` equal parts of the recipe's log spectrogram's frequencies, 64 by default. The original
   has 24 mel filters; parts of equal width would be too broad for that. Of a recipe's mel bank they are mel bands.
2. Each band's mean over the clip is taken off; the original takes it over a sliding window of 3 s, as long as a
   clip of CREMA-D. No detection of speech: the clips are cut to it.
3. ReLU, then batch normalisation, in each layer, as the authors' recipe (Kaldi) has it; the paper names ReLU alone.
4. The features are what segment7 gives, trained with the task; the original takes segment6 of a network that was
   trained to tell speakers, and compares by PLDA.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.fusion import ModelSettings
from balancemm_cli.models.sound import SoundNetwork, bands

CONTEXT = 15  # frames that the first three layers span


class XVectorSettings(ModelSettings):
    """How many bands of frequency the network sees."""

    bands: int = Field(default=64, gt=0)


class XVector(Encoder):
    """The time-delay network: log spectrograms [B, 1, F, T], T at least 15, to [B, 512]."""

    features = 512

    def __init__(self, settings: XVectorSettings) -> None:
        super().__init__()
        self.bands = settings.bands
        self.frames = nn.Sequential(
            _frame_layer(self.bands, 512, 5, 1),
            _frame_layer(512, 512, 3, 2),
            _frame_layer(512, 512, 3, 3),
            _frame_layer(512, 512, 1, 1),
            _frame_layer(512, 1500, 1, 1),
        )
        self.segment = nn.Sequential(_segment_layer(3000, 512), _segment_layer(512, 512))

    def forward(self, inputs: Tensor) -> Tensor:
        """UsageError for spectrograms of fewer than 15 frames."""
        if inputs.shape[-1] < CONTEXT:
            raise UsageError(
                f"Model x-vector needs spectrograms of {CONTEXT} frames or more, and these have {inputs.shape[-1]}. "
                "Use a smaller waveform.hop or more waveform.seconds."
            )
        values = bands(inputs, self.bands)
        values = self.frames(values - values.mean(2, keepdim=True))
        return self.segment(statistics(values.to(torch.get_default_dtype())))


def statistics(values: Tensor) -> Tensor:
    """Mean and standard deviation over time: [B, C, T] to [B, 2 C]."""
    return torch.cat([values.mean(2), (values.var(2, correction=0) + 1e-5).sqrt()], 1)


def _frame_layer(inputs: int, outputs: int, context: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, context, dilation=dilation)
    return nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm1d(outputs))


def _segment_layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs))


class XVectorNetwork(SoundNetwork):
    """x-vector for sound, the recipe's encoder for pictures, concatenated."""

    Settings = XVectorSettings
    name = "x-vector"
    sound = XVector
