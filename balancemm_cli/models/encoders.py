"""Encoders: one modality's input to one feature vector a sample.

Every encoder has `features`, the length of that vector, and `modulated()`, the weights whose gradients OGM
scales. Spectrograms come as [B, 1, F, T]; pictures as [B, C, T, H, W] with the T frames on axis 2; feature
sequences as [B, T, D], filled up with zeros; texts as the places of their words [B, T], filled up with 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, conv1x1


class Encoder(nn.Module):
    """Base of the encoders."""

    features: int

    def modulated(self) -> list[nn.Parameter]:
        """The weights of two or more axes: convolutions in a CNN, matrices in an MLP or a transformer."""
        return [weight for weight in self.parameters() if weight.ndim >= 2]


class FrameEncoder(Encoder):
    """A 2-D CNN run on each frame; its map is averaged over all positions and frames (Sec. 4.2)."""

    def maps(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] to feature maps [N, features, h, w]."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, T, H, W] to [B, features]."""
        if inputs.ndim == 4:
            return self.maps(inputs).mean((2, 3))
        batch, _, frames = inputs.shape[:3]
        maps = self.maps(inputs.transpose(1, 2).flatten(0, 1))
        return maps.mean((2, 3)).unflatten(0, (batch, frames)).mean(1)


class ResNet18(FrameEncoder):
    """torchvision's ResNet-18 without its classifier, for any number of input channels; 512 features."""

    features = 512

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = resnet18()
        del self.body.fc
        if channels != 3:
            self.body.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] to feature maps [N, 512, H/32, W/32]."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(pictures))))
        return body.layer4(body.layer3(body.layer2(body.layer1(x))))


class SmallResNet(FrameEncoder):
    """Three residual blocks of width 16, 32 and 64, for small pictures on a CPU; 64 features.

    The stem halves the resolution by averaging, not by a stride, which would alias what is a few pixels wide.
    """

    features = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        )
        self.blocks = nn.Sequential(_block(16, 16, 1), _block(16, 32, 2), _block(32, 64, 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] to feature maps [N, 64, H/8, W/8]."""
        return self.blocks(self.stem(pictures))


def _block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    if stride == 1 and inputs == outputs:
        return BasicBlock(inputs, outputs)
    shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)


@dataclass(frozen=True)
class SequenceShape:
    """A sequence of at most `length` steps: of `width` numbers each, or of words out of `words`."""

    length: int
    width: int = 0
    words: int = 0


class SequenceTransformer(Encoder):
    """A transformer encoder for feature sequences and texts, averaged over the steps that are not padding.

    The paper's CMU-MOSI rows use transformer encoders from scratch (Sec. 4.2) and state no size; here two
    pre-norm layers of width 128 with 4 heads, learned positions and no dropout.
    """

    features = 128

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        width = self.features
        if shape.words:
            self.project = nn.Embedding(shape.words, width, padding_idx=0)
        else:
            self.project = nn.Linear(shape.width, width)
        self.positions = nn.Parameter(0.02 * torch.randn(shape.length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] or [B, T], T no more than the shape's length, to [B, 128]."""
        if not len(inputs):  # of a process that a small batch left nothing: torch's attention needs a sample
            return self(inputs.new_zeros((1, *inputs.shape[1:])))[:0]
        present = inputs != 0 if inputs.ndim == 2 else (inputs != 0).any(2)
        # A sample of padding alone (a missing modality) keeps its first step: the softmax needs something.
        first = torch.arange(present.shape[1], device=present.device) == 0
        present = present | (first & ~present.any(1, keepdim=True))
        values = self.project(inputs) + self.positions[: inputs.shape[1]]
        values = self.layers(values, src_key_padding_mask=~present)
        weights = present.to(values.dtype)[..., None]
        return (values * weights).sum(1) / weights.sum(1)


ENCODERS: dict[str, type[FrameEncoder]] = {"resnet18": ResNet18, "small": SmallResNet}
