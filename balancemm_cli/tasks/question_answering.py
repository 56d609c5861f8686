"""Question answering on MUSIC-AVQA: one of 42 answers a question (Li et al., CVPR 2022; Table 7).

Trained and scored as a classification over the answers; accuracy is also given for each of the nine types of question
and for the three kinds that these belong to (audio, visual, audio-visual).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from balancemm_cli.tasks.classification import Classification


class QuestionAnswering(Classification):
    """One answer per question, and its accuracy by the question's type, such as `Audio-Visual-Counting`."""

    groups: ClassVar[str | None] = "type"

    def metrics(
        self, predictions: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None
    ) -> dict[str, Any]:
        """`by_group`: for each type and each kind, its questions (`count`) and the share of right answers; nothing
        where the types are not known."""
        if groups is None:
            return {}
        right, types = predictions.argmax(1) == labels, np.array(groups)
        kinds = np.array([name.rpartition("-")[0] for name in types])
        return {"by_group": {**_shares(right, types), **_shares(right, kinds)}}


def _shares(right: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, float | int]]:
    return {
        str(name): {"count": int((groups == name).sum()), "accuracy": float(right[groups == name].mean())}
        for name in np.unique(groups)
    }
