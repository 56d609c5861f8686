"""AVGA: audio-guided visual attention, an LSTM a modality, concatenation (Tian, Shi, Li, Duan, Xu, "Audio-Visual Event
Localization in Unconstrained Videos", ECCV 2018, arXiv 1803.08842, Sec. 4.2 and 4.3; Table 7 of the paper).

Attention as in guided_attention.py; bidirectional LSTMs of width 128 give h^a and h^v [B, S, 256], and

    logits = W₂ ReLU(W₁ ReLU([h^a, h^v]) + b₁) + b₂,   64 hidden numbers.

This is att_Net of the authors' code (YapengTian/AVE-ECCV18, models.py), "A+V-att" in their paper.

1. Our paper's tables have a row "AVGA" and say no more. It is read as A+V-att: the one that has no part but the
   attention, and the one that the code trains from nothing. The other network with it is dmrn.py.
2. The code adds the guide's numbers along the positions, the printed equation along the hidden numbers: `attention` is
   "official" or "paper". The default is "paper", since the other takes exactly 49 positions.
3. Code and paper start from VGG-19 and VGGish features, which have no encoder to train. Here each modality has one: a
   linear layer with a ReLU to 128 on such features, the recipe's CNN on media. Its vectors are what is dropped or set
   to zero; attention, LSTMs and fusion belong to what comes after, and OGM does not modulate them.
4. The code trains the softmax's outputs by the mean over the classes of the binary cross-entropy of their sigmoids
   (MultiLabelSoftMarginLoss). Here the loss is the task's, the cross-entropy.
5. `avga.guide` names the modality that guides; the first one unless it is set (audio, on AVE).
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from balancemm_cli.models.fusion import Features
from balancemm_cli.models.guided_attention import Courses, CourseSettings, GuidedNetwork, xavier
from balancemm_cli.origin import Origin


class Concatenation(Courses):
    """Both courses side by side, through a hidden layer of 64, to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: CourseSettings, guide: str) -> None:
        super().__init__(widths, classes, settings, guide)
        self.head = xavier(
            nn.Sequential(nn.Linear(4 * settings.width, 64), nn.ReLU(), nn.Linear(64, classes))
        )

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        return self.head(torch.cat(self.hidden(features), -1).relu())


class AVGA(GuidedNetwork):
    """Audio-guided visual attention, LSTMs and concatenation; an answer for each segment."""

    origin: ClassVar = Origin(
        "Tian, Shi, Li, Duan, Xu, ECCV 2018, arXiv 1803.08842",
        "YapengTian/AVE-ECCV18",
        "numbers",
        "attention as printed; the code's is avga.attention=official",
    )

    revision = 2
    Settings = CourseSettings
    name = "avga"
    fuse = Concatenation
