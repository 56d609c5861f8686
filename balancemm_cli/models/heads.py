"""Heads: the fused feature to the logits of the classes."""

from collections.abc import Mapping

from torch import Tensor, nn


def linear_head(features: int, classes: int) -> nn.Linear:
    """One linear layer, Xavier weights and zero bias (Sec. 3.1: W, b)."""
    layer = nn.Linear(features, classes)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def mlp_head(features: int, classes: int, hidden: int = 512) -> nn.Sequential:
    """A multi-layer classifier: linear, ReLU, linear (Sec. 4.3.7, Table 10; the paper states no width)."""
    return nn.Sequential(linear_head(features, hidden), nn.ReLU(), linear_head(hidden, classes))


class UnimodalHeads(nn.ModuleDict):
    """A linear head of each modality's own, which methods with uni-modal objectives attach.

    Features are [B, D_m], or [B, …, D_m], averaged over what is between (tokens); logits are [B, C], or [B, S, C] for
    an answer a segment, of features [B, S, …, D_m].
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__({name: linear_head(width, classes) for name, width in widths.items()})

    def forward(self, features: Mapping[str, Tensor], axes: int = 1) -> dict[str, Tensor]:
        """Features to logits a modality, with the first `axes` axes of the features: 1 for [B, C]."""
        return {
            name: self[name](feature if feature.ndim == axes + 1 else feature.flatten(axes, -2).mean(axes))
            for name, feature in features.items()
        }
