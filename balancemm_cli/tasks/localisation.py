"""Event localisation on AVE: which event each of the ten seconds shows, or none (Tian et al., ECCV 2018; Table 7).

Supervised: the loss is the mean over the seconds of the cross-entropy over 28 events and background, and accuracy is
the share of all seconds of the test set that are right ("global segment accuracy"). The discrepancy has one score a
second: S^m sums the softmax of the true answer over the seconds of the batch. A method that drops a modality drops it
for the whole clip, since that is what an encoder brings in.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.tasks.base import Task, by_sample
from balancemm_cli.tasks.classification import true_class_scores


class Localisation(Task):
    """One of the data set's events, or background, for each second of a clip."""

    column = "segments"
    segments: ClassVar[int | None] = 10
    one_class = False

    def classes(self, classes: Sequence[str]) -> list[str]:
        """The events, and background."""
        return [*classes, "background"]

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the seconds of the cross-entropy: logits [B, S, C], labels int64 [B, S] to [B]."""
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The softmax of the true answer of each second: [M, B, S, C] and [B, S] to [M, B, S]."""
        return true_class_scores(logits, labels)

    def answers(self, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The seconds one after another: [N, S, C] and [N, S] to [N · S, C] and [N · S]."""
        return predictions.reshape(-1, predictions.shape[-1]), labels.reshape(-1)

    def kept(self, columns: Mapping[str, np.ndarray], samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The seconds of each clip."""
        return by_sample(columns, samples)
