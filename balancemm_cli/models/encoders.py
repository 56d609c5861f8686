"""Encoders: one modality's input to one feature vector a sample.

Every encoder has `features`, the length of that vector, and `modulated()`, the weights whose gradients OGM
scales. Spectrograms come as [B, 1, F, T]; pictures as [B, C, T, H, W] with the T frames on axis 2; feature
sequences as [B, T, D], filled up with zeros; texts as the places of their words [B, T], filled up with 0. Features
that were taken at several positions of a picture come as [B, T, P, D]. A task with an answer for each of S segments
has inputs [B, S, …], each segment one of these, and features [B, S, D].
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from balancemm_cli.errors import unknown
from balancemm_cli.shapes import SegmentShape, SequenceShape, Shape

if TYPE_CHECKING:  # torchvision takes a second to import, which a report has no need of
    from torchvision.models.resnet import BasicBlock


class Encoder(nn.Module):
    """Base of the encoders."""

    features: int

    def modulated(self) -> list[nn.Parameter]:
        """The weights of two or more axes: convolutions in a CNN, matrices in an MLP or a transformer."""
        return [weight for weight in self.parameters() if weight.ndim >= 2]

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Fit what is not trained by gradients, once, before a run's first step; into buffers.

        Each call of `batches` gives the modality's training inputs from the first to the last, not augmented. All
        processes of a run fit, and then take the first one's buffers.
        """


class FrameEncoder(Encoder):
    """A 2-D CNN run on each frame; its map is averaged over all positions and frames (Sec. 4.2)."""

    stage_widths: tuple[int, ...]  # channels of the map that each stage gives; the last is `features`

    @property
    def trunk(self) -> nn.Module:
        """The module whose state a file of weights holds; its first weight is that of the stem."""
        return self

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """The parts of the CNN, each of which takes the map [N, C, H, W] of the one before to a smaller one."""
        raise NotImplementedError

    def maps(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] to feature maps [N, features, h, w]."""
        for stage in self.stages():
            pictures = stage(pictures)
        return pictures

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, T, H, W] to [B, features]."""
        if inputs.ndim == 4:
            return self.maps(inputs).mean((2, 3))
        batch, _, frames = inputs.shape[:3]
        maps = self.maps(inputs.transpose(1, 2).flatten(0, 1))
        return maps.mean((2, 3)).unflatten(0, (batch, frames)).mean(1)


class ResNet(FrameEncoder):
    """One of torchvision's ResNets without its classifier, for any number of input channels."""

    builder: str  # its name in torchvision.models

    def __init__(self, channels: int) -> None:
        from torchvision import models

        super().__init__()
        self.body = getattr(models, self.builder)()
        del self.body.fc
        if channels != 3:
            self.body.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")

    @property
    def trunk(self) -> nn.Module:
        """torchvision's module, so that its files of weights fit."""
        return self.body

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Stem and first layer (H/4), then the second (H/8), third (H/16) and fourth (H/32)."""
        return [self._first, self.body.layer2, self.body.layer3, self.body.layer4]

    def _first(self, pictures: Tensor) -> Tensor:
        body = self.body
        return body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(pictures)))))


class ResNet18(ResNet):
    """torchvision's ResNet-18; 512 features."""

    features = 512
    stage_widths = (64, 128, 256, 512)
    builder = "resnet18"


class ResNet34(ResNet):
    """torchvision's ResNet-34; 512 features."""

    features = 512
    stage_widths = (64, 128, 256, 512)
    builder = "resnet34"


class ResNet50(ResNet):
    """torchvision's ResNet-50, whose blocks are bottlenecks; 2,048 features."""

    features = 2048
    stage_widths = (256, 512, 1024, 2048)
    builder = "resnet50"


class SmallResNet(FrameEncoder):
    """Three residual blocks of width 16, 32 and 64, for small pictures on a CPU; 64 features.

    The stem halves the resolution by averaging, not by a stride, which would alias what is a few pixels wide.
    """

    features = 64
    stage_widths = (16, 32, 64)

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

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Stem and first block (H/2), then the second (H/4) and third (H/8)."""
        return [self._first, self.blocks[1], self.blocks[2]]

    def _first(self, pictures: Tensor) -> Tensor:
        return self.blocks[0](self.stem(pictures))


def _block(inputs: int, outputs: int, stride: int) -> "BasicBlock":
    from torchvision.models.resnet import BasicBlock, conv1x1

    if stride == 1 and inputs == outputs:
        return BasicBlock(inputs, outputs)
    shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)


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

    def steps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D], [B, T, P, D] (averaged over P) or [B, T], T no more than the shape's length, to what the layers
        make of each step.

        Returns that [B, T, 128], zeros for padding, and ones for the steps that are no padding, else zeros [B, T, 1].
        """
        if inputs.ndim == 4:
            inputs = inputs.mean(2)
        if not len(inputs):  # of a process that a small batch left nothing: torch's attention needs a sample
            # joined, not in its place: a network before this one has to take part in the backward
            values, weights = self.steps(torch.cat([inputs, inputs.new_zeros((1, *inputs.shape[1:]))]))
            return values[:0], weights[:0]
        present = inputs != 0 if inputs.ndim == 2 else (inputs != 0).any(2)
        # A sample of padding alone (a missing modality) keeps its first step: the softmax needs something.
        first = torch.arange(present.shape[1], device=present.device) == 0
        present = present | (first & ~present.any(1, keepdim=True))
        values = self.project(inputs) + self.positions[: inputs.shape[1]]
        values = self.layers(values, src_key_padding_mask=~present)
        weights = present.to(values.dtype)[..., None]
        return values * weights, weights

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D], [B, T, P, D] or [B, T], T no more than the shape's length, to [B, 128]."""
        values, weights = self.steps(inputs)
        return values.sum(1) / weights.sum(1)


class VectorEncoder(Encoder):
    """One linear layer and a ReLU on a vector, or on the vectors of several positions, over which it averages."""

    features = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(width, self.features), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, …, D] to [B, 128]."""
        return self.project(inputs.flatten(1, -2)).mean(1)


class SegmentEncoder(Encoder):
    """An encoder run on each segment."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.features = encoder, encoder.features

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, S, …] to [B, S, features]."""
        return self.encoder(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


ENCODERS: dict[str, type[FrameEncoder]] = {
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "small": SmallResNet,
}


def widths(encoders: Mapping[str, Encoder]) -> dict[str, int]:
    """The length of each modality's feature vector."""
    return {name: encoder.features for name, encoder in encoders.items()}


def make_encoders(encoder: str, inputs: Mapping[str, Shape]) -> dict[str, Encoder]:
    """An encoder a modality: the one of that name for pictures and spectrograms, a transformer for sequences, a
    linear layer for sequences of one step; for segments, such a one on each of them.

    UsageError for an unknown name.
    """
    if encoder not in ENCODERS:
        raise unknown("encoder", encoder, ENCODERS)
    return {name: _make(encoder, shape) for name, shape in inputs.items()}


def _make(encoder: str, shape: Shape) -> Encoder:
    if isinstance(shape, SegmentShape):
        return SegmentEncoder(_make(encoder, shape.each))
    if isinstance(shape, int):
        return ENCODERS[encoder](shape)
    return VectorEncoder(shape.width) if shape.length == 1 and not shape.words else SequenceTransformer(shape)
