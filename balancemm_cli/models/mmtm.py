"""MMTM, multimodal transfer modules between the encoders (Joze et al., CVPR 2020, arXiv 1911.08670; Table 3).

After a stage, with S^m the average over positions of modality m's map A^m (squeeze),

    Z = max(0, W [S^1 … S^M] + b),   A^m ← 2 σ(W^m Z + b^m) ⊙ A^m,   channel by channel (joint excitation).

Where paper, code (haamoon/mmtm, mmtm.py) and this file differ:

1. The gate is the paper's 2 σ(…), which is 1 at zero; the code leaves out the 2.
2. Z has 1 / r of the squeezed channels, r = `mmtm.ratio` = 4, as in the paper. The code has 2 / r with r = 4. The ReLU
   on it is the code's.
3. Modules stand after all stages but the first: after the second, third and fourth of a ResNet, as in the code.
4. What a gate scales goes on to the next stage. In the code's network for video and skeletons, the video's first two
   scaled maps go nowhere.
5. The code has a linear head a modality and averages their logits. Here features are concatenated into one linear
   layer: the same functions, with W^m / M for W^m, and the split of concat (Sec. 3.1) is exact.
6. All frames of a sample are squeezed together and share a gate. M modalities share one Z; the paper has two.
7. A modality's feature comes after the gates: each modality alone (f^m, or where another is dropped) is without the
   others' features but not without their gates, which belong to its encoding.
8. A sequence's transformer is one stage, at the last level, and its vector is gated there, as the code gates vectors. A
   level with a single modality has no module; where every encoder is of one stage, there is one after it.
9. Modules start from torch's linear layers, as in the code.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Encoder, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Concat, Fusion, ModelSettings, need_several
from balancemm_cli.models.network import Network
from balancemm_cli.models.stages import Course, levels


class MMTMSettings(ModelSettings):
    """The size of the modules' joint representation."""

    ratio: float = Field(default=4, gt=0)


class Transfer(nn.Module):
    """One transfer module, for squeezed maps of `widths` channels a modality."""

    def __init__(self, widths: Mapping[str, int], ratio: float) -> None:
        super().__init__()
        total = sum(widths.values())
        joint = max(1, int(total / ratio))
        self.squeeze = nn.Linear(total, joint)
        self.excite = nn.ModuleDict({name: nn.Linear(joint, width) for name, width in widths.items()})

    def forward(self, squeezed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages [B, C_m] to gates [B, C_m] between 0 and 2, a modality."""
        joint = self.squeeze(torch.cat([squeezed[name] for name in self.excite], 1)).relu()
        return {name: 2 * layer(joint).sigmoid() for name, layer in self.excite.items()}


class MMTM(Network):
    """Encoders that gate each other's channels between their stages, and a linear head on all features."""

    Settings = MMTMSettings

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion, ratio: float) -> None:
        super().__init__(encoders, fusion)
        self.levels = levels(encoders)
        self.transfers = nn.ModuleDict(
            {
                str(level): Transfer(present, ratio)
                for level, present in enumerate(self.levels)
                if len(present) > 1 and (level > 0 or len(self.levels) == 1)
            }
        )

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "MMTM":
        """The model for these inputs. UsageError for a single one, and for an unknown encoder."""
        assert isinstance(settings, MMTMSettings)
        encoders = make_encoders(choice, inputs)
        need_several("mmtm", widths(encoders))
        return cls(encoders, Concat(widths(encoders), classes, settings), settings.ratio)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to features [B, D_m] a modality."""
        courses = {name: Course(encoder, inputs[name]) for name, encoder in self.encoders.items()}
        for level, present in enumerate(self.levels):
            for name in present:
                courses[name].advance()
            if str(level) in self.transfers:
                gates = self.transfers[str(level)]({name: courses[name].pooled() for name in present})
                for name, gate in gates.items():
                    courses[name].scale(gate)
        return {name: course.pooled() for name, course in courses.items()}
