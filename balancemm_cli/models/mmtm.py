"""MMTM, multimodal transfer modules between the encoders (Joze et al., CVPR 2020, arXiv 1911.08670; Table 3).

After a stage, with S^m the average over positions of modality m's map A^m (squeeze),

    Z = max(0, W [S^1 … S^M] + b),   A^m ← 2 σ(W^m Z + b^m) ⊙ A^m,   channel by channel (joint excitation).

Where paper, code (haamoon/mmtm, mmtm.py) and this file differ:

1. The gate is the paper's 2 σ(…), which is 1 at zero, so that training starts from encoders without modules. The code
   leaves out the 2 (`mmtm.variant=official`): each map is halved at first.
2. Z has 1 / r of the squeezed channels, r = `mmtm.ratio` = 4, as in the paper. The code has 2 / r with r = 4
   (`mmtm.variant=official`). The ReLU on it is the code's.
3. Modules stand after all stages but the first: after the second, third and fourth of a ResNet, as in the code.
4. What a gate scales goes on to the next stage. In the code's network for video and skeletons, the video's first two
   scaled maps go nowhere.
5. The code has a linear head a modality and averages their logits. Here features are concatenated into one linear
   layer, which can do the same, and the split of concat (Sec. 3.1) is exact: OPM and OGM, which Table 3 trains on this
   network, are defined on one prediction. `mmtm.heads=branches` gives the code's heads, trained by the sum of their own
   cross-entropies in place of that of the average, as greedy re-balancing's code trains this network
   (nyukat/greedy_multimodal_learning, train.py). What a modality predicts alone is then what its own head does.
6. All frames of a sample are squeezed together and share a gate. M modalities share one Z; the paper has two.
7. A modality's feature comes after the gates: each modality alone (f^m, or where another is dropped) is without the
   others' features but not without their gates, which belong to its encoding.
8. A sequence's transformer is one stage, at the last level, and its vector is gated there, as the code gates vectors. A
   level with a single modality has no module; where every encoder is of one stage, there is one after it.
9. Modules start from torch's linear layers, as in the code. Heads start from Xavier weights and zero biases, as all of
   this project; the code's are torch's linear layers too.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Encoder, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Concat, Features, Fusion, ModelSettings, Step, Sum, need_several
from balancemm_cli.models.network import Network
from balancemm_cli.models.stages import Course, levels
from balancemm_cli.origin import Origin


class MMTMSettings(ModelSettings):
    """The modules as paper or code have them, the size of their joint representation, and the heads."""

    variant: Literal["paper", "official"] = "paper"
    ratio: float = Field(default=4, gt=0)
    heads: Literal["joint", "branches"] = "joint"


class Branches(Sum):
    """A head a modality, each trained by a loss of its own; the prediction is the average of their logits."""

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        return super().forward(features) / len(features)

    def objective(self, loss: Tensor, features: Features, step: Step) -> Tensor:
        """The sum of the heads' own losses, in place of that of the prediction."""
        own = [step.mean(step.losses(self.heads[name](feature))) for name, feature in features.items()]
        return torch.stack(own).sum()


class Transfer(nn.Module):
    """One transfer module, for squeezed maps of `widths` channels a modality."""

    def __init__(self, widths: Mapping[str, int], settings: MMTMSettings) -> None:
        super().__init__()
        total = sum(widths.values())
        self.factor = 2 if settings.variant == "paper" else 1  # of the gates
        joint = max(1, int(total * (2 / self.factor) / settings.ratio))
        self.squeeze = nn.Linear(total, joint)
        self.excite = nn.ModuleDict({name: nn.Linear(joint, width) for name, width in widths.items()})

    def forward(self, squeezed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages [B, C_m] to gates [B, C_m] between 0 and 2, or 0 and 1 as the code has them, a modality."""
        joint = self.squeeze(torch.cat([squeezed[name] for name in self.excite], 1)).relu()
        return {name: self.factor * layer(joint).sigmoid() for name, layer in self.excite.items()}


class MMTM(Network):
    """Encoders that gate each other's channels between their stages, and a linear head on all features or on each."""

    origin: ClassVar = Origin(
        "Joze, Shaban, Iuzzolino, Koishida, CVPR 2020, arXiv 1911.08670",
        "haamoon/mmtm",
        "numbers",
        "gates of 2σ, half the joint width, one head on all features; the code's modules are mmtm.variant=official",
    )

    Settings = MMTMSettings

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion, settings: MMTMSettings) -> None:
        super().__init__(encoders, fusion)
        self.levels = levels(encoders)
        self.transfers = nn.ModuleDict(
            {
                str(level): Transfer(present, settings)
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
        kind = Branches if settings.heads == "branches" else Concat
        return cls(encoders, kind(widths(encoders), classes, settings), settings)

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
