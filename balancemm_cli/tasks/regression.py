"""Regression on CMU-MOSI: the sentiment from -3 to 3 as a number (MMSA's task; beside the paper's classification).

The loss is the absolute error, as in MMSA and MulT. The paper defines its score for classes only; here the score of
the truth is exp(-|f - y|), as the softmax of the true class is exp(-cross-entropy): 1 for a prediction without error.

Answers are read as two classes, negative (< 0) and non-negative, so that accuracy, F1 and the paired tests are those
of the classification; the metrics of the number itself come beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from balancemm_cli.tasks.base import Task

LARGEST = 3.0  # the sentiment's range is -3 to 3
ABOVE_HALF = 0.5 + 2**-24  # the next number after 1/2 in float32, in which predictions.arrow keeps scores


class Regression(Task):
    """One number per sample, in -3 to 3."""

    column = "regression"
    one_class = False
    probabilities = False

    def classes(self, classes: Sequence[str]) -> list[str]:
        """What the number's sign says."""
        return ["negative", "non-negative"]

    def outputs(self, classes: Sequence[str]) -> int:
        """One: the number."""
        return 1

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The absolute error of each sample: predictions [B, 1], labels [B] to [B]."""
        return (logits[:, 0] - labels).abs()

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """exp(-|f - y|): [M, B, 1] and [B] to [M, B]."""
        return (-(logits[..., 0] - labels).abs()).exp()

    def predict(self, logits: Tensor) -> Tensor:
        """The number itself [B, 1]."""
        return logits

    def choose(self, logits: Tensor) -> Tensor:
        """1 for non-negative, 0 for negative: int64 [B]."""
        return (logits[..., 0] >= 0).long()

    def classes_of(self, labels: Tensor) -> Tensor:
        """1 for non-negative, 0 for negative: int64 [B]."""
        return (labels >= 0).long()

    def answers(self, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two scores for the sign, the logistic function of the number and what is left to 1; and the true sign.

        The function is 1/2 at 0, and rounded to it near by: of non-negative numbers the score is at least ABOVE_HALF.
        """
        from scipy.special import expit

        values = predictions[:, 0].astype(np.float64)
        positive = np.where(values >= 0, expit(values).clip(ABOVE_HALF), expit(values))
        return np.stack([1 - positive, positive], 1), (labels >= 0).astype(np.int64)

    def kept(self, columns: Mapping[str, np.ndarray], samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers themselves."""
        return columns["value"][:, None], columns["truth"]

    def constant(self, labels: np.ndarray, width: int) -> np.ndarray:
        """The median of the numbers, [N, 1]: no other constant has a smaller MAE."""
        return np.full((len(labels), 1), np.median(labels))

    def metrics(
        self, predictions: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None
    ) -> dict[str, Any]:
        """`mae`, `correlation` (Pearson's; None where all predictions are equal) and `accuracy_7`, of seven classes:
        both numbers cut to -3 … 3 and rounded, halves to the even one (datasets.md, section 5)."""
        values, truth = predictions[:, 0].astype(np.float64), labels.astype(np.float64)
        rounded = [np.round(numbers.clip(-LARGEST, LARGEST)) for numbers in (values, truth)]
        spread = values.std() > 0 and truth.std() > 0
        return {
            "mae": float(np.abs(values - truth).mean()),
            "correlation": float(np.corrcoef(values, truth)[0, 1]) if spread else None,
            "accuracy_7": float((rounded[0] == rounded[1]).mean()),
        }

    def columns(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """`value` and `truth`, float32."""
        return {"value": predictions[:, 0].astype(np.float32), "truth": labels.astype(np.float32)}
