"""How the made data in MUSIC-AVQA's form are drawn.

A video's sound holds a number from 1 to 3 and a bit, its pictures too: for each a pattern in all of its steps, in white
noise of standard deviation 1. Nine questions are asked of each video, one of each type:

| type | the answer is | the question alone is right in |
|---|---|---|
| Audio-Counting, Visual-Counting | the number (three answers) | 1/3 |
| Audio-Comparative, Visual-Location | the bit (two answers) | 1/2 |
| Audio-Visual-Existential, -Comparative | "yes" where both bits are set | 3/4 |
| Audio-Visual-Location, -Counting, -Temporal | both bits (four answers) | 1/4 |

All numbers and bits are equally frequent. So of all questions the question alone tells 47/108 = 43.5 %; without it
neither sound nor pictures tell what is asked. Sound and question together tell (2 + 1/3 + 1/2 + 2 · 3/4 + 3 · 1/2) / 9
= 64.8 %, pictures and question as much, and all three everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.music_avqa import FEATURES, STEPS, STRIDE, MusicAVQA
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.made.common import MadeAs, generator, patterns

if TYPE_CHECKING:
    import numpy as np

COUNTS = {"train": 216, "val": 36, "test": 108}  # videos
LENGTH = 4.0  # of the patterns, in each step
NUMBERS = ("one", "two", "three", "four")
SIDES = ("left", "right", "middle", "outdoor")
INSTRUMENTS = ("tuba", "violin", "flute", "drum")
VERSION = 1  # raised when a number above or a line below changes what is written

# The text of each type's question, and its answer from the video's numbers and bits (those of sound, then of pictures).
QUESTIONS: dict[str, tuple[str, Callable[[int, int, int, int], str]]] = {
    "Audio-Counting": (
        "How many musical instruments were heard throughout the video?",
        lambda heard, a, seen, v: NUMBERS[heard],
    ),
    "Audio-Comparative": (
        "Is the first instrument louder than the second instrument?",
        lambda heard, a, seen, v: ("no", "yes")[a],
    ),
    "Visual-Counting": (
        "How many types of musical instruments appeared in the entire video?",
        lambda heard, a, seen, v: NUMBERS[seen],
    ),
    "Visual-Location": (
        "Is the performance indoor or outdoor?",
        lambda heard, a, seen, v: ("indoor", "outdoor")[v],
    ),
    "Audio-Visual-Existential": (
        "Is this sound from the instrument in the video?",
        lambda heard, a, seen, v: ("no", "yes")[a * v],
    ),
    "Audio-Visual-Comparative": (
        "Is the instrument on the left more rhythmic than the one beside it?",
        lambda heard, a, seen, v: ("no", "yes")[a * v],
    ),
    "Audio-Visual-Location": ("Where is the loudest instrument?", lambda heard, a, seen, v: SIDES[a + 2 * v]),
    "Audio-Visual-Counting": (
        "How many instruments are sounding in the video?",
        lambda heard, a, seen, v: NUMBERS[a + 2 * v],
    ),
    "Audio-Visual-Temporal": (
        "Which instrument makes sounds last?",
        lambda heard, a, seen, v: INSTRUMENTS[a + 2 * v],
    ),
}
CEILINGS = {"question": 47 / 108, "one modality and question": 35 / 54, "all": 1.0}


class SyntheticMusicAVQA(MadeAs):
    """Made data in the form of MUSIC-AVQA's features: questions whose answers are in sound, in pictures or in both."""

    name = "synthetic-music-avqa"
    OF = "MUSIC-AVQA"
    HOW_TO_GET = "These data are built in: `bmm prepare synthetic-music-avqa` makes them."
    VERSION = VERSION
    COUNTS = COUNTS

    def read(self, source: Path) -> Plan:
        """The questions that `make` wrote, read as MUSIC-AVQA's lists and features are."""
        return MusicAVQA().plan(source / "feats", source, True)

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Lists and feature files, so many videos a split."""
        _write(folder, counts)


def draw(split: str, number: int) -> tuple[dict[str, np.ndarray], tuple[int, int, int, int]]:
    """Video `number` of a split: its features [60, width] in float16, and the number and bit of sound and pictures.

    Every 36 videos have each combination once.
    """
    import numpy as np

    place = number % 36
    truth = (place % 3, place // 3 % 2, place // 6 % 3, place // 18)
    random, found = generator("synthetic-music-avqa", VERSION, split, number), {}
    for (modality, (_, width)), (count, bit) in zip(FEATURES.items(), (truth[:2], truth[2:]), strict=True):
        rows = patterns(5, width, modality)
        values = random.standard_normal((STEPS * STRIDE, width))
        found[modality] = (values + LENGTH * (rows[count] + rows[3 + bit])).astype(np.float16)
    return found, truth


def _write(folder: Path, counts: dict[str, int]) -> None:
    import numpy as np

    first = 0  # of the split's videos; their names are numbers, as those of real videos
    for split, count in counts.items():
        entries = []
        for number in range(count):
            arrays, truth = draw(split, number)
            video = f"{first + number:08d}"
            for modality, values in arrays.items():
                below = folder / "feats" / FEATURES[modality][0]
                below.mkdir(parents=True, exist_ok=True)
                np.save(below / f"{video}.npy", values)
            entries += _entries(video, 9 * (first + number), truth)
        (folder / f"avqa-{split}.json").write_text(json.dumps(entries))
        first += count


def _entries(video: str, first: int, truth: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    return [
        {
            "video_id": video,
            "question_id": first + place,
            "type": json.dumps(kind.rsplit("-", 1)),
            "question_content": text,
            "templ_values": "[]",
            "question_deleted": 0,
            "anser": answer(*truth),
        }
        for place, (kind, (text, answer)) in enumerate(QUESTIONS.items())
    ]
