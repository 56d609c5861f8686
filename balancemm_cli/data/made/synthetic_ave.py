"""How the made data in AVE's form are drawn.

An event lasts 3 to 9 of the ten seconds, drawn for each clip. While it is there, the sound holds one of 4 patterns and
the picture, at one of nine positions drawn each second, one of 7 others; together they name one of AVE's 28 categories.
All else is white noise (standard deviation 1), from which the patterns stand out: a classifier that knows them errs in
few of the seconds. With p the share of seconds with an event (0.6 in expectation), always saying background is right in
1 - p of them, sound alone in 1 - p + p / 7, sight alone in 1 - p + p / 4, both in all (`ceilings`).

The files are AVE's, but smaller: pictures have 3 × 3 positions and 64 numbers at each, not 7 × 7 and 512.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets import ave
from balancemm_cli.data.datasets.ave_features import FILES, NAME, ORDER, SECONDS
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.made.common import MadeAs, generator, patterns

if TYPE_CHECKING:
    import numpy as np

SOUNDS, SIGHTS = 4, 7
COUNTS = {"train": 560, "val": 56, "test": 280}
SOUND, SIGHT = 128, 64  # numbers
GRID = 3
LENGTH = 8.0  # of the patterns
SHORTEST, LONGEST = 3, 9  # seconds
VERSION = 1  # raised when a number above or a line below changes what is written


class SyntheticAVE(MadeAs):
    """Made data in the form of AVE's feature files, with an event at known seconds that takes ear and eye to name."""

    name = "synthetic-ave"
    OF = "AVE"
    HOW_TO_GET = "These data are built in: `bmm prepare synthetic-ave` makes them."
    VERSION = VERSION
    COUNTS = COUNTS

    def read(self, source: Path) -> Plan:
        """The clips that `make` wrote, read as AVE's feature files are."""
        return ave.AVE().plan(source, None, True)

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Feature files, orders and lists, so many clips a split."""
        _write(folder, counts)


def ceilings(events: np.ndarray) -> dict[str, float]:
    """What can be reached with nothing, one modality, and both, of bool [N, 10]: whether there is an event; as if
    noise hid no pattern."""
    share = float(events.mean())
    return {
        "background": 1 - share,
        "audio": 1 - share + share / SIGHTS,
        "visual": 1 - share + share / SOUNDS,
        "both": 1.0,
    }


def draw(split: str, number: int) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """Clip `number` of a split: sound [10, 128] and pictures [10, 3, 3, 64] in float32, the category, and the first
    second of the event and the one after its last."""
    import numpy as np

    random = generator("synthetic-ave", VERSION, split, number)
    category = number % len(ave.CLASSES)
    length = int(random.integers(SHORTEST, LONGEST + 1))
    start = int(random.integers(0, SECONDS - length + 1))
    sound = random.standard_normal((SECONDS, SOUND))
    pictures = random.standard_normal((SECONDS, GRID * GRID, SIGHT))
    places = random.integers(GRID * GRID, size=SECONDS)
    during = np.arange(start, start + length)
    sound[during] += LENGTH * patterns(SOUNDS, SOUND, "sound")[category % SOUNDS]
    pictures[during, places[during]] += LENGTH * patterns(SIGHTS, SIGHT, "sight")[category // SOUNDS]
    pictures = pictures.reshape(SECONDS, GRID, GRID, SIGHT)
    return sound.astype(np.float32), pictures.astype(np.float32), category, start, start + length


def _write(folder: Path, counts: dict[str, int]) -> None:
    import h5py
    import numpy as np

    clips = [(split, number) for split, count in counts.items() for number in range(count)]
    drawn = [draw(*clip) for clip in clips]
    labels = np.zeros((len(clips), SECONDS, ave.BACKGROUND + 1), np.float32)
    lines = []
    for row, ((split, number), (_, _, category, start, end)) in enumerate(zip(clips, drawn, strict=True)):
        name = ave.CLASSES[category]
        lines.append(f"{name}&{split}-{number:05d}&good&{start}&{end}")
        labels[row, :, ave.BACKGROUND] = 1
        labels[row, start:end, ave.BACKGROUND] = 0
        labels[row, start:end, category] = 1
    arrays = {FILES["audio"]: [one[0] for one in drawn], FILES["visual"]: [one[1] for one in drawn]}
    for name, values in {**arrays, "labels.h5": labels}.items():
        with h5py.File(folder / name, "w") as file:
            file.create_dataset(NAME, data=np.stack(list(values)))
    for split in counts:
        rows = [row for row, (of, _) in enumerate(clips) if of == split]
        with h5py.File(folder / f"{split}_order.h5", "w") as file:
            file.create_dataset(ORDER, data=np.array(rows))
    (folder / ave.ANNOTATIONS).write_text("\n".join([ave.HEADER, *lines]) + "\n")
