"""FiLM, feature-wise linear modulation (Perez et al., AAAI 2018, arXiv 1709.07871, Eq. 1 and 2; Table 2).

One modality conditions the features h of all others, concatenated: f = W (γ ⊙ h + β) + b with (γ, β) a linear
layer of the conditioning feature. FiLM is given for a picture and one condition; left open or different elsewhere:

1. The conditioner is the first modality of the data set unless `film.conditioner` names another: the audio, as
   `x_film=True` in the code of the CVPR paper (OGM-GE_CVPR2022, models/fusion_modules.py). The papers don't say.
2. Of three or more modalities one conditions all others; with two that is the published form.
3. γ is what the layer gives, as printed in Eq. 2 and in that code. FiLM's authors let the layer give γ − 1
   (`film.gamma_baseline` 1), since a γ around zero hides what it modulates.
4. The layer is Xavier with zero bias, as all layers of that code; the modulated features keep their width.
5. f does not split. A modality's own logits are W h^m + b, its feature as it is before fusion through the output
   layer: the authors' answer in issue 20 of OGM-GE_CVPR2022 ("we select the uni-modal part before fusion"). Zero-out
   is the option: there the conditioner has γ and β of its own, while the other meets the γ of a bias, which is zero at
   first, so that ρ tells who conditions. It is the rule where W does not take h^m: for features of several widths, and
   for three and more modalities, of which W takes all but one.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

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


class FiLM(Fusion):
    """One modality's feature scales and shifts those of the others (feature-wise linear modulation)."""

    origin: ClassVar = Origin(
        "Perez, Strub, de Vries, Dumoulin, Courville, AAAI 2018, arXiv 1709.07871",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "numbers",
        "zero-out with three and more modalities, or features of several widths",
    )

    revision = 2

    class Settings(ModelSettings):
        """Which modality conditions, what γ is without a condition, and what a modality's own logits are."""

        conditioner: str | None = None  # None: the first one
        gamma_baseline: float = 0.0
        unimodal: Unimodal = "before-fusion"

    @classmethod
    def misnames(cls, settings: Mapping[str, object], modalities: int) -> str:
        """See Fusion, and 5 above."""
        return "it need not name the stronger one"

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        need_several("film", widths)
        self.conditioner = one_of("film.conditioner", settings.conditioner, widths)
        self.gamma_baseline = settings.gamma_baseline
        width = sum(widths.values()) - widths[self.conditioner]
        self.condition = linear_head(widths[self.conditioner], 2 * width)
        self.head = linear_head(width, classes)
        self.before_fusion = settings.unimodal == "before-fusion" and {width} == set(widths.values())

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        gamma, beta = self.condition(features[self.conditioner]).chunk(2, -1)
        others = torch.cat([feature for name, feature in features.items() if name != self.conditioner], -1)
        return self.head((self.gamma_baseline + gamma) * others + beta)

    def unimodal_logits(self, features: Features, bias_split: Sequence[float] | None) -> dict[str, Tensor]:
        """W h^m + b, or zero-out estimation, see 5 above."""
        if bias_split is not None or not self.before_fusion:
            return super().unimodal_logits(features, bias_split)
        return {name: through(self.head, feature) for name, feature in features.items()}
