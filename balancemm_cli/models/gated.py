"""Gated fusion (Kiela et al., AAAI 2018, arXiv 1802.02892; Arevalo et al., 2017, arXiv 1702.01992).

Two modalities: f = W (σ(U h^g) ⊙ V h^o) + b, where either may be the gate g (Kiela et al., "gated"). Three or more:
the gated multimodal unit, f = W Σ_m (z^m ⊙ tanh(V^m h^m)) + b, z^m = σ(Z^m [h^1 … h^M]) (Arevalo et al.).

1. With two modalities the gate is the first one of the data set unless `gated.gate` names another: the audio, as by
   `x_gate=True` in OGM-GE_CVPR2022 and as the default of BML_TPAMI2024's class. BML's configuration says
   `x_gated=False`, which makes it the visual one, but nothing there reads it. The papers don't say.
2. `gated.gate` can be named for three or more as well: it then gates the sum of the others' projections, which with
   two is the published form. `gated.gate=each` gives the gated multimodal unit for two also.
3. Of two modalities, Arevalo et al. tie the gates (z and 1 − z); here each has its own, as they write for more.
4. U, V and V^m have biases, as in the authors' code; Kiela et al. and Arevalo et al. print none. Z^m has none.
5. Their outputs have `gated.width` numbers, 512 as in the code; Xavier weights and zero biases, as there.
6. f does not split. A modality's own logits are its projection as it is before gating, through the output layer: U h^g,
   V h^o, or tanh(V^m h^m). This is the uni-modal part that the authors' fusions return, and their answer in issue 20 of
   OGM-GE_CVPR2022. Zero-out is the option: there the gate meets the V of a zero, which is its bias, zero at first.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.fusion import (
    Features,
    Fusion,
    ModelSettings,
    Unimodal,
    need_several,
    one_of,
    through,
)
from balancemm_cli.models.heads import linear_head
from balancemm_cli.origin import Origin

EACH = "each"


class Gated(Fusion):
    """Projected features through a gate that another modality, or with three or more all of them, opens."""

    origin: ClassVar = Origin(
        "Kiela, Grave, Joulin, Mikolov, AAAI 2018, arXiv 1802.02892",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "numbers",
        "three and more modalities: the unit of arXiv 1702.01992, after its equation",
    )

    revision = 2

    class Settings(ModelSettings):
        """Which modality is the gate, the projections' width, and what a modality's own logits are."""

        gate: str | None = None  # None: the first one of two, each of more
        width: int = Field(default=512, gt=0)
        unimodal: Unimodal = "before-fusion"

    @classmethod
    def misnames(cls, settings: Mapping[str, object], modalities: int) -> str:
        """See Fusion."""
        each = settings.get("gate") == EACH or (settings.get("gate") is None and modalities > 2)
        return "" if each else "with one gate it names the gated one, whichever is the stronger"

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        need_several("gated", widths)
        of_each = settings.gate == EACH or (settings.gate is None and len(widths) > 2)
        self.gate = None if of_each else one_of("gated.gate", settings.gate, widths)
        self.project = nn.ModuleDict(
            {name: linear_head(width, settings.width) for name, width in widths.items()}
        )
        if self.gate is None:
            self.gates = nn.Linear(sum(widths.values()), len(widths) * settings.width, bias=False)
            for gate in self.gates.weight.detach().chunk(len(widths)):
                nn.init.xavier_normal_(gate)
        self.head = linear_head(settings.width, classes)
        self.before_fusion = settings.unimodal == "before-fusion"

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        projected = {name: self.project[name](feature) for name, feature in features.items()}
        if self.gate is None:
            opened = self.gates(torch.cat(list(features.values()), -1)).sigmoid().chunk(len(features), -1)
            parts = [z * h.tanh() for z, h in zip(opened, projected.values(), strict=True)]
            return self.head(torch.stack(parts).sum(0))
        gate = projected.pop(self.gate).sigmoid()
        return self.head(gate * torch.stack(list(projected.values())).sum(0))

    def unimodal_logits(self, features: Features, bias_split: Sequence[float] | None) -> dict[str, Tensor]:
        """The projection before gating through the output layer, or zero-out estimation, see 6 above."""
        if bias_split is not None or not self.before_fusion:
            return super().unimodal_logits(features, bias_split)
        projected = {name: through(layer, features[name]) for name, layer in self.project.items()}
        if self.gate is None:
            projected = {name: value.tanh() for name, value in projected.items()}
        return {name: through(self.head, value) for name, value in projected.items()}
