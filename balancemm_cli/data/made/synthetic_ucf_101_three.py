"""How the made data in UCF-101's form are drawn.

A square of one of three colours, at a place drawn for each clip, moves in one of four directions before a background of
noise that stands still; what leaves the picture comes in again on the other side. A class is a colour and a direction,
so there are 12. With all noise known the first picture tells the colour alone (right in 1 of 4), flow the direction
alone (1 of 3), and the difference of both pictures the colour and the axis, but not which way (1 of 2): it is the same
as that of the way back. RGB or the difference together with flow tell all (`CEILINGS`).

A clip has two pictures and so one moment. They are of 64 × 85 pixels, not 256 × 340, and the flow, which is known, is
written into grey pictures as the published pack has it, without OpenCV.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.datasets.ucf_101_three import UCF101Three
from balancemm_cli.data.made.common import MadeAs, generator

if TYPE_CHECKING:
    import numpy as np

COLOURS = {"Red": (60, -30, -30), "Green": (-30, 60, -30), "Blue": (-30, -30, 60)}  # beside grey
MOTIONS = {"Right": (8, 0), "Left": (-8, 0), "Down": (0, 8), "Up": (0, -8)}  # pixels to the right and down
CLASSES = [colour + motion for colour in COLOURS for motion in MOTIONS]
CEILINGS = {"rgb": 1 / 4, "flow": 1 / 3, "rgb-difference": 1 / 2, "all": 1.0}
COUNTS = {"train": 480, "test": 480}
GROUPS = {"train": range(8, 26), "test": range(1, 8)}  # of people and backgrounds, as in the official split 1
HEIGHT, WIDTH, SIDE = 64, 85, 24  # pixels, of the pictures and of the square
GREY, BACKGROUND, SENSOR = (
    128,
    20.0,
    4.0,
)  # the background's mean and deviation; deviation from picture to picture
FLOW_NOISE = 2.0  # pixels
VERSION = 1  # raised when a number above or a line below changes what is written


class SyntheticUCF101Three(MadeAs):
    """Made data in the form of UCF-101's packs, with a class that is a look and a motion: pictures alone can't tell
    it."""

    name = "synthetic-ucf-101-three"
    OF = "UCF-101"
    HOW_TO_GET = "These data are built in: `bmm prepare synthetic-ucf-101-three` makes them."
    VERSION = VERSION
    COUNTS = COUNTS

    def read(self, source: Path) -> Plan:
        """The clips that `make` wrote, read as UCF-101's packs are."""
        return UCF101Three().plan(source, None, True)

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Packs and lists, so many clips a split."""
        _write(folder, counts)


def draw(split: str, number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Clip `number` of a split: its pictures, uint8 [2, 64, 85, 3], the motion between them, float64 [64, 85, 2] in
    pixels to the right and down, and its class."""
    import numpy as np

    random = generator("synthetic-ucf-101-three", VERSION, split, number)
    label = number % len(CLASSES)
    colour, motion = divmod(label, len(MOTIONS))
    place = int(random.integers(HEIGHT)), int(random.integers(WIDTH))
    background = GREY + BACKGROUND * random.standard_normal((HEIGHT, WIDTH, 1))
    to_right, down = list(MOTIONS.values())[motion]
    noise = SENSOR * random.standard_normal((2, HEIGHT, WIDTH, 3))
    scenes = [
        scene(background, place, colour),
        scene(background, (place[0] + down, place[1] + to_right), colour),
    ]
    pictures = np.rint(np.clip(np.stack(scenes) + noise, 0, 255)).astype(np.uint8)
    flow = FLOW_NOISE * random.standard_normal((HEIGHT, WIDTH, 2))
    return pictures, flow + square(place)[..., None] * (to_right, down), label


def square(place: tuple[int, int]) -> np.ndarray:
    """Where the square is, bool [64, 85], with its upper left corner at a row and a column."""
    import numpy as np

    first = np.zeros((HEIGHT, WIDTH), bool)
    first[:SIDE, :SIDE] = True
    return np.roll(first, place, (0, 1))


def scene(background: np.ndarray, place: tuple[int, int], colour: int) -> np.ndarray:
    """A picture without noise, [64, 85, 3]: the square before the background [64, 85, 1]."""
    import numpy as np

    front = GREY + np.array(list(COLOURS.values())[colour], float)
    return np.where(square(place)[..., None], front, background)


def _write(folder: Path, counts: dict[str, int]) -> None:
    from balancemm_cli.data.reading.flow import as_picture

    lists = folder / "ucfTrainTestlist"
    lists.mkdir(exist_ok=True)
    numbered = [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    (lists / "classInd.txt").write_text("\n".join(numbered) + "\n")
    for split, count in counts.items():
        lines = []
        for number in range(count):
            pictures, flow, label = draw(split, number)
            clip = _name(split, number, CLASSES[label])
            for index, picture in enumerate(pictures, 1):
                _save(folder / "jpegs_256" / clip / f"frame{index:06}.jpg", picture)
            for axis, letter in enumerate("uv"):
                _save(folder / "tvl1_flow" / letter / clip / "frame000001.jpg", as_picture(flow[..., axis]))
            ending = f" {label + 1}" if split == "train" else ""
            lines.append(f"{CLASSES[label]}/{clip}.avi{ending}")
        (lists / f"{split}list01.txt").write_text("\n".join(lines) + "\n")


def _name(split: str, number: int, label: str) -> str:
    groups = GROUPS[split]
    clip, group = divmod(number // len(CLASSES), len(groups))
    return f"v_{label}_g{groups[group]:02}_c{clip + 1:02}"


def _save(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, "JPEG", quality=95)
