"""Low-rank multimodal fusion (Liu et al., ACL 2018, arXiv 1806.00064, Sec. 3).

The outer product of all features, each with a 1 appended, into one linear layer whose weight tensor has rank r:
f = Σ_i Π_m (W_i^m [h^m; 1]) + b, the products taken class by class. Any number of modalities. Left open, or
different in the code of Liu et al. and in that of the paper reproduced here (BML_TPAMI2024, models/fusion_model.py):

1. The ranks are added up after the product, as the decomposition asks for (and both codes do); the paper's last line
   exchanges sum and product.
2. They are added up plainly, as printed. Both codes weight them, which the factors W can do themselves: with the
   weights of the ranks multiplied into one modality's factor, the logits are those of both codes.
3. The output is the logits, as in both codes: no layer stands behind it.
4. The rank is 4 unless `lmf.rank` says otherwise, as in BML_TPAMI2024; the paper searches for it.
5. The paper states no initial weights, and both codes draw all of W around zero. There a modality that is dropped
   multiplies the others by nearly nothing: of eight modalities, none can be measured alone. Here what meets the
   appended 1 starts at 1, so that the product begins as a sum plus interactions; the rest is Xavier normal a
   factor, divided by √(r M), so that it does not grow with the number of factors.
"""

from collections.abc import Mapping
from functools import reduce
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.origin import Origin


class LMF(Fusion):
    """All products of the modalities' features into a linear layer of low rank (low-rank multimodal fusion)."""

    origin: ClassVar = Origin(
        "Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency, ACL 2018, arXiv 1806.00064",
        "Justin1904/Low-rank-Multimodal-Fusion",
        "numbers",
        "the weights of the ranks are folded into the factors; another start",
    )

    class Settings(ModelSettings):
        """The rank."""

        rank: int = Field(default=4, gt=0)

    def __init__(self, widths: Mapping[str, int], classes: int, settings: Settings) -> None:
        super().__init__(widths, classes, settings)
        need_several("lmf", widths)
        self.rank = settings.rank
        self.factors = nn.ModuleDict(
            {name: nn.Linear(width, settings.rank * classes) for name, width in widths.items()}
        )
        self.bias = nn.Parameter(torch.zeros(classes))
        for factor in self.factors.values():
            assert isinstance(factor, nn.Linear)
            for weight in factor.weight.detach().chunk(settings.rank):
                nn.init.xavier_normal_(weight, (settings.rank * len(widths)) ** -0.5)
            nn.init.ones_(factor.bias)

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        factors = (self.factors[name](feature) for name, feature in features.items())
        product = reduce(torch.mul, factors)  # the gradient of torch.prod would wait for the device
        return product.unflatten(-1, (self.rank, -1)).sum(-2) + self.bias
