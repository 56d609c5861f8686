"""Classification metrics on scores: accuracy, mAP (Eq. 19) and macro-F1 (Eq. 20). Fractions in 0–1.

Needs numpy only. `scores` is [N, C] floats (softmax), `labels` is [N] integers
in 0 … C − 1.
"""

import numpy as np
from numpy.typing import NDArray


def accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Share of the samples whose highest score is at their label."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def mean_average_precision(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[float, int]:
    """The mean over classes of average precision (Eq. 19), and the number of classes left out of it.

    A class without a positive sample has no average precision and is left out. The values equal sklearn's
    `average_precision_score`, tied scores counted as one threshold; all classes are computed at once, because
    this runs each epoch.
    """
    positive = labels[:, None] == np.arange(scores.shape[1])
    present = positive.any(axis=0)
    precisions = _average_precision(scores[:, present], positive[:, present])
    return float(precisions.mean()), int((~present).sum())


def _average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each column; `scores` and `positive` are [N, C], each column with a positive."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.take_along_axis(positive, order, axis=0).cumsum(axis=0)
    precision = hits / np.arange(1, len(scores) + 1)[:, None]
    # A threshold lies after the last of equal scores: elsewhere recall does not step.
    threshold = np.ones(scores.shape, dtype=bool)
    threshold[:-1] = ranked[1:] != ranked[:-1]
    at_threshold = np.where(threshold, hits, 0)
    before = np.zeros_like(hits)
    before[1:] = np.maximum.accumulate(at_threshold, axis=0)[:-1]
    steps = np.where(threshold, hits - before, 0)
    return (steps * precision).sum(axis=0) / hits[-1]


def macro_f1(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The mean of the F1 of the classes that occur as a label or as a prediction.

    F1 of a class is 2 · TP / (2 · TP + FP + FN) (Eq. 20 for two classes).
    """
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    marked = np.bincount(predicted, minlength=classes) + np.bincount(labels, minlength=classes)
    occurs = marked > 0
    return float(np.mean(2 * hits[occurs] / marked[occurs]))


def evaluate_scores(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float | int]:
    """All metrics under the keys of result.json: accuracy, map, macro_f1; fractions in 0–1.

    `map_classes_left_out` is there only where classes without a sample were left out of `map`.
    ValueError for no samples, for shapes that do not fit, and for scores that are not finite.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise ValueError(f"Scores of shape {scores.shape} and labels of shape {labels.shape} do not fit.")
    if not np.isfinite(scores).all():
        raise ValueError("The scores are not all finite numbers.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Labels {labels.min()} to {labels.max()} do not fit {scores.shape[1]} classes.")
    precision, left_out = mean_average_precision(scores, labels)
    values: dict[str, float | int] = {
        "accuracy": accuracy(scores, labels),
        "map": precision,
        "macro_f1": macro_f1(scores, labels),
    }
    if left_out:
        values["map_classes_left_out"] = left_out
    return values
