"""x-vector (Snyder et al., ICASSP 2018, Sec. 2.1 and Table 1): a time-delay network as the encoder of sound (Table 8).

    layer      context           widths            layer       widths
    frame1     t − 2 … t + 2     bands × 5 → 512   pooling     mean and deviation over time, 1,500 → 3,000
    frame2     t − 2, t, t + 2   1,536 → 512       segment6    3,000 → 512
    frame3     t − 3, t, t + 3   1,536 → 512       segment7    512 → 512
    frame4, 5  t                 512 → 512, 1,500

1. Input: `x-vector.bands` equal parts of the recipe's log spectrogram's frequencies, 64 by default. The original
   has 24 mel filters; parts of equal width would be too broad for that. Of a recipe's mel bank they are mel bands.
2. Bands are scaled by mean and deviation over clips, by batch normalisation. The original takes off the mean of a
   sliding window of 3 s; that is a whole clip of CREMA-D, which would lose its loudness and mean spectrum. There
   is no detection of speech.
3. ReLU in each layer, as in the paper; after it batch normalisation in the frame layers, as the authors' recipe
   (Kaldi) has it. The recipe has it in the segment layers too, where a batch of a single sample would have none.
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
            nn.BatchNorm1d(self.bands, affine=False),
            _frame_layer(self.bands, 512, 5, 1),
            _frame_layer(512, 512, 3, 2),
            _frame_layer(512, 512, 3, 3),
            _frame_layer(512, 512, 1, 1),
            _frame_layer(512, 1500, 1, 1),
        )
        self.segment = nn.Sequential(nn.Linear(3000, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """UsageError for spectrograms of fewer than 15 frames."""
        if inputs.shape[-1] < CONTEXT:
            raise UsageError(
                f"Model x-vector needs spectrograms of {CONTEXT} frames or more, and these have {inputs.shape[-1]}. "
                "Use a smaller waveform.hop or more waveform.seconds."
            )
        values = self.frames(bands(inputs, self.bands))
        return self.segment(statistics(values.to(torch.get_default_dtype())))


def statistics(values: Tensor) -> Tensor:
    """Mean and standard deviation over time: [B, C, T] to [B, 2 C]."""
    mean = values.mean(2)
    variance = (values - mean[..., None]).square().mean(2)  # torch.var warns of a batch of no samples
    return torch.cat([mean, (variance + 1e-5).sqrt()], 1)


def _frame_layer(inputs: int, outputs: int, context: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, context, dilation=dilation)
    return nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm1d(outputs))


class XVectorNetwork(SoundNetwork):
    """x-vector for sound, the recipe's encoder for pictures, concatenated."""

    Settings = XVectorSettings
    name = "x-vector"
    sound = XVector
