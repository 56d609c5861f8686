"""Heads: the fused feature to the logits of the classes."""

from torch import nn


def linear_head(features: int, classes: int) -> nn.Linear:
    """One linear layer, Xavier weights and zero bias (Sec. 3.1: W, b)."""
    layer = nn.Linear(features, classes)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def mlp_head(features: int, classes: int, hidden: int = 512) -> nn.Sequential:
    """A multi-layer classifier: linear, ReLU, linear (Sec. 4.3.7, Table 10; the paper states no width)."""
    return nn.Sequential(linear_head(features, hidden), nn.ReLU(), linear_head(hidden, classes))
