"""How the made data in CMU-MOSI's form are drawn.

The sentiment is the sum of three parts: ±1.4 of the text, ±0.8 of the voice, ±0.8 of the face, each sign equally
frequent and of its own. A part is a pattern in a third of a sequence's steps, in white noise of standard deviation 1;
those of the text are longest, so it is learnt first. The sign of the sum is that of the text unless both others say
otherwise, and so with each of them: one modality alone is right in 75 %, two in 75 % and all three always. Sequences
have lengths of their own, and the voice has some -inf, as the original.

The arrays are smaller than MMSA's.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.cmu_mosi import CMUMosi
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.made.common import MadeAs, generator, patterns

if TYPE_CHECKING:
    import numpy as np

COUNTS = {"train": 800, "valid": 100, "test": 600}
SHAPES = {"text": (12, 24), "audio": (30, 5), "vision": (24, 20)}  # steps and numbers
PARTS = {"text": 1.4, "audio": 0.8, "vision": 0.8}  # of the sentiment
LENGTHS = {"text": 4.0, "audio": 2.0, "vision": 2.0}  # of the patterns, in each step that holds one
VERSION = 1  # raised when a number above or a line below changes what is written
NAME = "unaligned_made.pkl"


class SyntheticCMUMosi(MadeAs):
    """Made data in the form of MMSA's pickle of CMU-MOSI: a sentiment that words, voice and face each tell in part."""

    name = "synthetic-cmu-mosi"
    OF = "CMU-MOSI"
    HOW_TO_GET = "These data are built in: `bmm prepare synthetic-cmu-mosi` makes them."
    VERSION = VERSION
    COUNTS = COUNTS

    def read(self, source: Path) -> Plan:
        """The segments that `make` wrote, read as CMU-MOSI's pickle is."""
        return CMUMosi().plan(source, None, True)

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """The pickle, so many segments a fold."""
        content = {fold: _fold(fold, count) for fold, count in counts.items()}
        (folder / NAME).write_bytes(pickle.dumps(content, protocol=4))


def draw(fold: str, number: int) -> tuple[dict[str, np.ndarray], dict[str, int], float]:
    """Segment `number` of a fold: float32 arrays [steps, numbers] by key, the steps in use, and the sentiment.

    Every eight segments have each combination of signs once.
    """
    import numpy as np

    random = generator("synthetic-cmu-mosi", VERSION, fold, number)
    arrays, lengths, sentiment = {}, {}, 0.0
    for place, (key, (steps, width)) in enumerate(SHAPES.items()):
        bit = number >> place & 1
        sentiment += PARTS[key] * (2 * bit - 1)
        length = int(random.integers(steps // 2, steps + 1))
        values = random.standard_normal((steps, width))
        holds = random.permutation(length)[: length // 3]
        values[holds] += LENGTHS[key] * patterns(2, width, key)[bit]
        if key == "audio":
            values[random.integers(length), random.integers(width)] = -np.inf
        values[length:] = 0
        arrays[key], lengths[key] = values.astype(np.float32), length
    return arrays, lengths, round(sentiment, 1)


def _fold(fold: str, count: int) -> dict[str, Any]:
    import numpy as np

    drawn = [draw(fold, number) for number in range(count)]
    content: dict[str, Any] = {key: np.stack([arrays[key] for arrays, _, _ in drawn]) for key in SHAPES}
    for key in ("audio", "vision"):
        content[f"{key}_lengths"] = [lengths[key] for _, lengths, _ in drawn]
    content["id"] = [f"{fold}{number // 20:04d}$_${number % 20}" for number in range(count)]
    content["regression_labels"] = np.array([sentiment for _, _, sentiment in drawn], np.float32)
    return content
