"""What tasks share. Everything that depends on what a label is, is asked of a task."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor


def by_sample(columns: Mapping[str, np.ndarray], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N, A / N, C] and labels [N, A / N] of the columns of predictions.arrow, for tasks with several answers a
    sample."""
    scores = columns["scores"]
    return scores.reshape(samples, -1, scores.shape[-1]), columns["label"].reshape(samples, -1)


class Task:
    """What a sample's label is: the loss, the score of the true answer, the metrics, and what is kept of a test.

    Logits are [B, C]; of tasks with an answer for each segment of a sample [B, S, C]. An *answer* is what one row of
    predictions.arrow holds: that of a sample, or of one of its segments.
    """

    column: ClassVar[str] = "label"  # of a prepared split, which holds the labels
    groups: ClassVar[str | None] = None  # a further column, by whose values the metrics are broken down
    segments: ClassVar[int | None] = None  # into how many equal parts of time a sample's inputs are cut
    one_class: ClassVar[bool] = True  # whether a sample's label is one class, which some methods need
    probabilities: ClassVar[bool] = (
        True  # whether the scores of the answers are such, which can be calibrated
    )

    @property
    def axes(self) -> int:
        """How many axes features and logits have before their last one: 1, or 2 of a task with segments."""
        return 1 if self.segments is None else 2

    def classes(self, classes: Sequence[str]) -> list[str]:
        """The names of the answers, out of the data set's classes; as many as `answers` has scores."""
        return list(classes)

    def outputs(self, classes: Sequence[str]) -> int:
        """How many logits C a network gives."""
        return len(self.classes(classes))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample, [B]."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the samples' losses, 0-dim."""
        return self.losses(logits, labels).sum()

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The score of the true answer in 0–1 (Eq. 6): of logits [M, B, …, C] and labels [B, …], [M, B, …]."""
        raise NotImplementedError

    def predict(self, logits: Tensor) -> Tensor:
        """What a test keeps of the logits: the softmax of each answer, [B, …, C]."""
        return logits.softmax(-1)

    def choose(self, logits: Tensor) -> Tensor:
        """The answer that logits give: the place of its name among `classes`, int64 [B, …]."""
        return logits.argmax(-1)

    def classes_of(self, labels: Tensor) -> Tensor:
        """The true answers as places among `classes`: labels to int64 [B, …]."""
        return labels

    def answers(self, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores [A, C] and labels int64 [A] of all answers, sample by sample, from what `predict` kept."""
        return predictions, labels

    def kept(self, columns: Mapping[str, np.ndarray], samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The predictions and labels of so many samples that gave these columns of predictions.arrow (`scores` [A, C],
        `label` [A], and those of `columns`): `answers` the other way round."""
        return columns["scores"], columns["label"]

    def constant(self, labels: np.ndarray, width: int) -> np.ndarray:
        """The predictions [N, …, C] of who gives each sample the same answer, the most frequent one of `labels`: the
        share of each of the `width` answers C."""
        shares = np.bincount(labels.reshape(-1), minlength=width) / labels.size
        return np.broadcast_to(shares, (*labels.shape, width))

    def metrics(
        self, predictions: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None
    ) -> dict[str, Any]:
        """Metrics beyond accuracy, map and macro_f1, for result.json. `groups` [N]: the values of that column."""
        return {}

    def columns(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Further columns of predictions.arrow, one value per answer."""
        return {}
