"""Multi-label classification: any number of the classes a sample, each decided by itself.

The loss of a sample is the mean over the classes of the binary cross-entropy. The paper defines its score for one class
a sample (Eq. 6); here it is exp(−loss), the geometric mean over the classes of the probability of the true decision, as
the softmax of the true class is exp(−cross-entropy).

Answers are the decisions, one for each class of each sample: accuracy is the share of them that is right, mAP the mean
over the classes of the average precision of the samples' probabilities, macro-F1 the mean over the classes of the F1 of
"is one of the labels".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from balancemm_cli.tasks.base import Task, by_sample


class MultiLabel(Task):
    """Any number of classes a sample; labels are [B, C], 1 for each class that is one of them, else 0."""

    column = "labels"
    one_class = False

    def classes(self, classes: Sequence[str]) -> list[str]:
        """The two decisions."""
        return ["not a label", "a label"]

    def outputs(self, classes: Sequence[str]) -> int:
        """One logit a class."""
        return len(classes)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the classes of the binary cross-entropy: logits and labels [B, C] to [B]."""
        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """exp(−loss): [M, B, C] and [B, C] to [M, B]."""
        true = labels.to(logits.dtype).expand_as(logits)
        return (-binary_cross_entropy_with_logits(logits, true, reduction="none").mean(-1)).exp()

    def predict(self, logits: Tensor) -> Tensor:
        """The probabilities of both decisions, [B, C, 2]."""
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], -1)

    def choose(self, logits: Tensor) -> Tensor:
        """1 for each class whose logit is above 0: int64 [B, C]."""
        return (logits > 0).long()

    def answers(self, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The decisions one after another: [N, C, 2] and [N, C] to [N · C, 2] and [N · C]."""
        return predictions.reshape(-1, 2), labels.reshape(-1)

    def kept(self, columns: Mapping[str, np.ndarray], samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The decisions of each sample."""
        return by_sample(columns, samples)

    def constant(self, labels: np.ndarray, width: int) -> np.ndarray:
        """The shares of both decisions on each class."""
        shares = labels.mean(0, dtype=np.float64)
        return np.broadcast_to(np.stack([1 - shares, shares], -1), (*labels.shape, 2))

    def metrics(
        self, predictions: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None
    ) -> dict[str, Any]:
        """`map` and `macro_f1` over the classes that are a label of some sample, in the place of those over the two
        decisions, and how many other classes there are."""
        from sklearn.metrics import average_precision_score, f1_score

        chosen, present = predictions.argmax(2), labels.any(0)
        found: dict[str, Any] = {}
        if present.any():
            scores, truth = predictions[:, present, 1], labels[:, present]
            found["map"] = float(average_precision_score(truth, scores, average="macro"))
            found["macro_f1"] = float(f1_score(truth, chosen[:, present], average="macro", zero_division=0))  # pyright: ignore[reportArgumentType]
        if not present.all():
            found["map_classes_left_out"] = int((~present).sum())
        return found
