"""Classification: one class per sample, cross-entropy (Sec. 3.1), the softmax of the true class as score (Eq. 6)."""

import torch
from torch import Tensor

from balancemm_cli.tasks.base import Task


class Classification(Task):
    """One class per sample."""

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of each sample: logits [B, C], labels int64 [B] to [B]."""
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the cross-entropies."""
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The softmax of the true class: [M, B, C] and [B] to [M, B]."""
        return true_class_scores(logits, labels)


def true_class_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """The softmax of the true class, of logits [M, B, …, C] and labels int64 [B, …]."""
    true_class = labels.expand(logits.shape[:-1])[..., None]
    return logits.softmax(-1).gather(-1, true_class)[..., 0]
