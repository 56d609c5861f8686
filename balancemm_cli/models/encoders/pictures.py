"""Encoders of pictures and spectrograms: 2-D CNNs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from balancemm_cli.models.encoders.base import Encoder

if TYPE_CHECKING:  # torchvision takes a second to import, which a report has no need of
    from torchvision.models.resnet import BasicBlock


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
