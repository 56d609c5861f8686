"""Calibration: whether the score of the predicted class says how often it is right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of equal width, as in Guo et al.


def calibration(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, Any]:
    """The expected calibration error (Guo et al., ICML 2017, Eq. 3) and its reliability bins.

    `scores` [N, C] softmax, `labels` [N]. A sample's confidence is its highest score; a bin holds the confidences in
    (low, high]. `ece` = Σ_b n_b / N · |accuracy_b − confidence_b|. An empty bin has neither: None.
    """
    confidence = scores.max(1).astype(np.float64)
    edges = np.arange(BINS + 1) / BINS
    places = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)  # rounding may pass 1
    counts = np.bincount(places, minlength=BINS)
    sure = np.bincount(places, confidence, BINS)
    right = np.bincount(places, scores.argmax(1) == labels, BINS)
    bins = [
        {
            "low": float(edges[place]),
            "high": float(edges[place + 1]),
            "count": int(count),
            "confidence": float(sure[place] / count) if count else None,
            "accuracy": float(right[place] / count) if count else None,
        }
        for place, count in enumerate(counts)
    ]
    return {"ece": float(np.abs(right - sure).sum() / len(labels)), "bins": bins}
