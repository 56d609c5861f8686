"""Classification metrics: accuracy, mAP (Eq. 19) and macro-F1 (Eq. 20), fractions in 0–1.

`scores` is [N, C] floats (softmax), `labels` is [N] integers in 0 … C − 1. The values are those of scikit-learn's
accuracy_score, average_precision_score and f1_score to the bit; its checks take most of the time of few samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_average_precision(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[float, int]:
    """The mean over classes of average precision (Eq. 19), and the number of classes left out of it.

    A class without a positive sample has no average precision and is left out.
    """
    positive = labels[:, None] == np.arange(scores.shape[1])
    present = np.flatnonzero(positive.any(axis=0))
    precisions = [_average_precision(scores[:, label], positive[:, label]) for label in present]
    return float(np.mean(precisions)), scores.shape[1] - len(present)


def _average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Σ over thresholds of the precision times what recall gains there. Samples with equal scores [N] pass together;
    the sum begins at the lowest threshold, as scikit-learn's does."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of those with equal scores
    hits = np.cumsum(positive[order], dtype=np.float64)[last]
    recall = np.append((hits / hits[-1])[::-1], 0.0)
    return float(max(0.0, -np.sum(np.diff(recall) * (hits / (last + 1))[::-1])))


def _macro_f1(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> float:
    """The mean over the classes that have a sample of 2 TP / (2 TP + FP + FN)."""
    right, true, given = (
        np.bincount(found, minlength=classes).astype(np.float64)
        for found in (labels[labels == predicted], labels, predicted)
    )
    present = true > 0
    return float(np.mean(2 * right[present] / (true + given)[present]))


def evaluate_scores(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float | int]:
    """All metrics under the keys of result.json: accuracy, map, macro_f1; fractions in 0–1.

    Classes without a sample are left out of `map` and `macro_f1`, and `map_classes_left_out` counts them where there
    are any.
    ValueError for no samples, for shapes that do not fit, and for scores that are not finite.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise ValueError(f"Scores of shape {scores.shape} and labels of shape {labels.shape} do not fit.")
    if not np.isfinite(scores).all():
        raise ValueError("The scores are not all finite numbers.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Labels {labels.min()} to {labels.max()} do not fit {scores.shape[1]} classes.")
    predicted = scores.argmax(axis=1)
    precision, left_out = mean_average_precision(scores, labels)
    values: dict[str, float | int] = {
        "accuracy": float(np.mean(labels == predicted)),
        "map": precision,
        "macro_f1": _macro_f1(labels, predicted, scores.shape[1]),
    }
    if left_out:
        values["map_classes_left_out"] = left_out
    return values


def by_class(
    fused: NDArray[np.integer],
    alone: Mapping[str, NDArray[np.integer]],
    labels: NDArray[np.integer],
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """For each class its test samples (`support`), and the share of them that is right, in 0–1: fused (`accuracy`)
    and by each modality's own logits (`unimodal`). None for a class without a sample.

    All arrays are integers [N]: predicted classes, and `labels`.
    """
    support = np.bincount(labels, minlength=len(classes))

    def shares(predicted: NDArray[np.integer]) -> list[float | None]:
        right = np.bincount(labels[predicted == labels], minlength=len(classes))
        return [float(hits / count) if count else None for hits, count in zip(right, support, strict=True)]

    together = shares(fused)
    by_modality = {modality: shares(predicted) for modality, predicted in alone.items()}
    return {
        name: {
            "support": int(support[index]),
            "accuracy": together[index],
            "unimodal": {modality: found[index] for modality, found in by_modality.items()},
        }
        for index, name in enumerate(classes)
    }
