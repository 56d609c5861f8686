"""DMRN: audio-guided visual attention, an LSTM a modality, dual multimodal residual fusion (Tian, Shi, Li, Duan, Xu,
"Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, arXiv 1803.08842, Sec. 4.2 to 4.4).

Attention and LSTMs as in avga.py. With U^m two linear layers of their width and a tanh between them, a block gives

    f = ½ (U^a h^a + U^v h^v),   h^v ← tanh(h^a + f),   h^a ← tanh(h^v + f),

and the logits are one linear layer of ½ (h^a + h^v) after the last block.

1. Crosswise, as in the authors' code (YapengTian/AVE-ECCV18, models_fusion.py, TBMRF_Net): what becomes of one modality
   comes from the other's h. In the paper it comes from its own; with one block, `dmrn.blocks` = 1 as there, the logits
   are the same. All blocks have the same U.
2. The authors' weights of it were fine-tuned from those of avga; here it is trained from nothing, its attention from
   Xavier's uniform distribution, as theirs was there.
3. As 2 to 5 of avga.py. Our paper has no row of this network.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.fusion import Features
from balancemm_cli.models.guided_attention import Courses, CourseSettings, GuidedNetwork
from balancemm_cli.models.heads import linear_head
from balancemm_cli.origin import Origin


class DMRNSettings(CourseSettings):
    """How often the courses are fused, by the same weights."""

    blocks: int = Field(default=1, gt=0)


class ResidualFusion(Courses):
    """Both courses, each with what they share added, to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: DMRNSettings, guide: str) -> None:
        super().__init__(widths, classes, settings, guide)
        self.blocks = settings.blocks
        self.transforms = nn.ModuleDict({name: _transform(2 * settings.width) for name in widths})
        self.head = linear_head(2 * settings.width, classes)

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        return self.head(self.merge(*self.hidden(features)))

    def merge(self, guide: Tensor, other: Tensor) -> Tensor:
        """h of the guide and of the other modality [B, S, 2 · width] to their residual fusion, of the same shape."""
        for _ in range(self.blocks):
            shared = (self.transforms[self.guide](guide) + self.transforms[self.other](other)) / 2
            guide, other = torch.tanh(other + shared), torch.tanh(guide + shared)
        return (guide + other) / 2


def _transform(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))


class DMRN(GuidedNetwork):
    """Audio-guided visual attention, LSTMs and residual fusion; an answer for each segment."""

    origin: ClassVar = Origin(
        "Tian, Shi, Li, Duan, Xu, ECCV 2018, arXiv 1803.08842",
        "YapengTian/AVE-ECCV18",
        "numbers",
        "attention as printed; not fine-tuned from avga",
    )

    Settings = DMRNSettings
    name = "dmrn"
    fuse = ResidualFusion
