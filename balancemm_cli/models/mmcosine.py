"""MMCosine, the multi-modal cosine loss (Xu, Feng, Zhang, Hu, ICASSP 2023; arXiv 2303.05338, Sec. 2).

The feature of each modality and its part of the weight of each class are brought to length 1, so that neither the norm
of a feature nor that of a weight lets one modality outweigh the others:

    f_c = s · Σ_m cos(W_c^m, h^m),   trained by the cross-entropy of f

It is a head, for all that it changes is what is computed of the features: the loss is the usual one, any method trains
it, and s · cos(W^m, h^m) is the exact share of a modality. Choices, and where the official code
(GeWu-Lab/MMCosine_ICASSP23, main_CD.py) differs:

1. s is 10, the default and the command line of the code. There is no bias, in the code neither: the one of its layer
   has no part in the loss.
2. After training the code predicts by the layer without normalisation, Σ_m W^m h^m (and the bias it was started with),
   though it was trained as cosines, and only its uni-modal predictions are cosines: `mmcosine.prediction=linear`. Here
   the prediction is the one that was trained.
3. W^m is Xavier as all heads here; the code leaves torch's start. Its length has no part in the output, but the longer
   it is the smaller is the angle that one step turns it by.
4. M modalities in place of two. One that a method sets to zero has the share zero.
5. The code has the head behind a FiLM and a gate of both modalities for each other as well; here it is behind
   concatenation alone. Its supplementary contrastive loss has weight 0 by default, and is left out.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from balancemm_cli.models.fusion import Features, Fusion, ModelSettings
from balancemm_cli.origin import Origin


class MMCosine(Fusion):
    """Scaled cosines of each modality's feature with its weight of each class, added up (multi-modal cosine loss)."""

    origin: ClassVar = Origin(
        "Xu, Feng, Zhang, Hu, ICASSP 2023, arXiv 2303.05338",
        "GeWu-Lab/MMCosine_ICASSP23",
        "numbers",
        "predicts by cosines after training too; the code's way is mmcosine.prediction=linear",
    )

    class Settings(ModelSettings):
        """The scale s, and what is predicted from after training."""

        scale: float = Field(default=10.0, gt=0)
        prediction: Literal["cosine", "linear"] = "cosine"

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, classes, bias=False) for name, width in widths.items()}
        )
        for weight in self.heads.parameters():
            nn.init.xavier_normal_(weight)
        self.scale, self.linear = settings.scale, settings.prediction == "linear"

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        if self.linear and not self.training:
            return torch.stack([self.heads[name](feature) for name, feature in features.items()]).sum(0)
        return torch.stack(list(self.logits_alone(features).values())).sum(0)

    def logits_alone(self, features: Features, detached: bool = False) -> dict[str, Tensor]:
        """The exact split: the scaled cosines of each modality."""
        logits = {}
        for name, feature in features.items():
            weight = self.heads[name].get_parameter("weight")
            cosine = linear(normalize(feature, dim=-1), normalize(weight.detach() if detached else weight))
            logits[name] = self.scale * cosine
        return logits
