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
3. ReLU in each layer, and after it batch normalisation, which the authors' recipe (Kaldi) has and the paper does not.
   In the segment layers a batch of a single sample is normalised by the running statistics.
4. The features are what segment7 gives, trained with the task; the original takes segment6 of a network that was
   trained to tell speakers, and compares by PLDA.
5. OGM-GE's repository has another model of this name (models/old_models/avmodel_x.py): a ready voice embedding of 256
   numbers through a linear layer. That is `concat` on a modality of features.
6. The deviation is the biased one, of the variance plus 1e-5; Kaldi's is biased too, SpeechBrain's is not.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.fusion import ModelSettings
from balancemm_cli.models.sound import SoundNetwork, bands
from balancemm_cli.origin import Origin

CONTEXT = 15  # frames that the first three layers span
# frames that each frame layer sees, and the steps between them
CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
CHANNELS = (512, 512, 512, 512, 1500)


class XVectorSettings(ModelSettings):
    """How many bands of frequency the network sees."""

    bands: int = Field(default=64, gt=0)


class XVector(Encoder):
    """The time-delay network: log spectrograms [B, 1, F, T], T at least 15, to [B, width].

    `channels` are the widths of the five frame layers, `width` that of the segment layers.
    """

    def __init__(
        self, settings: XVectorSettings, channels: Sequence[int] = CHANNELS, width: int = 512
    ) -> None:
        super().__init__()
        self.bands, self.features = settings.bands, width
        self.scale = nn.BatchNorm1d(self.bands, affine=False)
        layers = zip([self.bands, *channels[:-1]], channels, CONTEXTS, strict=True)
        self.frames = nn.Sequential(*(_frame_layer(given, made, *context) for given, made, context in layers))
        self.segment = nn.Sequential(_segment_layer(2 * channels[-1], width), _segment_layer(width, width))
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
        values = self.frames(self.scale(bands(inputs, self.bands)))
        return self.segment(statistics(values.to(torch.get_default_dtype())))


def statistics(values: Tensor) -> Tensor:
    """Mean and standard deviation over time: [B, C, T] to [B, 2 C]."""
    mean = values.mean(2)
    variance = (values - mean[..., None]).square().mean(2)  # torch.var warns of a batch of no samples
    return torch.cat([mean, (variance + 1e-5).sqrt()], 1)


def _frame_layer(inputs: int, outputs: int, context: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, context, dilation=dilation)
    return nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm1d(outputs))


def _segment_layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), SampleNorm(outputs))


class SampleNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors [B, C]; a single one, which has no deviation, by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C] to [B, C]."""
        if len(input) != 1 or not self.training:
            return super().forward(input)
        return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class XVectorNetwork(SoundNetwork):
    """x-vector for sound, the recipe's encoder for pictures, concatenated."""

    origin: ClassVar = Origin(
        "Snyder, Garcia-Romero, Sell, Povey, Khudanpur, ICASSP 2018",
        "kaldi-asr/kaldi",
        "others",
        "the layers are held against SpeechBrain's, which is not its authors'; Kaldi's biased deviation",
    )

    revision = 2
    Settings = XVectorSettings
    name = "x-vector"
    sound = XVector
