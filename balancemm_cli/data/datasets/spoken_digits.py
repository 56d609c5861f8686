"""Spoken and written digits: the recordings of Free Spoken Digit Dataset, each with a picture of the same digit.

The recordings lie in a clone of its repository as recordings/<digit>_<speaker>_<index>.wav; the pictures are the 1,797
of scikit-learn's `load_digits`, 8×8 pixels of 17 levels. By the data set's own README the indices 0 to 4 are for
testing; 5 to 9 are our validation part.

The pairs are ours, by a rule that gives the same on every machine. The pictures are shared out by `split_by_rule`, so
that none is in two splits. In a split, the recordings of a digit and its pictures are each put into the order of the
SHA-256 of their names; the n-th recording gets the n-th picture, and, where there are fewer pictures, they are taken in
turn. So a picture of validation or test stands beside one recording, one of training beside two or three.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import accept_other, no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, content_of, frames, waveform
from balancemm_cli.data.datasets.published import Published, clone_files
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.data.splitting import RULE, SHARES, split_by_rule
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PAIRING = 1  # raised when a line below changes which picture stands beside a recording
SPLIT = f"pairs-{PAIRING}-rule-{RULE}"
TEST, VALIDATION = range(5), range(5, 10)  # indices of recordings
CLASSES = [str(digit) for digit in range(10)]
NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
RATE, SIZE = 8000, 64  # Hz, and pixels that the 8 of a picture are scaled to
LEVELS = 16  # of a picture's pixels, from 0 for paper to this for ink
MODALITIES = {"audio": waveform(RATE), "visual": frames(SIZE, SIZE, 1.0)}

RECORDINGS, COUNT = "recordings", 3000
RECORDINGS_SHA256 = "af75446b997f59aabbc4d0b434cdf21628ce0c3086cc594562bff60117bdd431"
PICTURES_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
REPOSITORY = "https://github.com/Jakobovski/free-spoken-digit-dataset"
HOW_TO_GET = (
    f"Clone {REPOSITORY} into data/raw/spoken-digits, or name the clone with --source; the pictures come with "
    "scikit-learn."
)


@dataclass(frozen=True, slots=True)
class Picture(Clip):
    """A picture of `load_digits`: `pixels` are its 64 levels, row by row."""

    has_file: ClassVar[bool] = False

    pixels: bytes = b""

    def size(self) -> int:
        """The bytes of the pixels."""
        return len(self.pixels)

    def describe(self) -> list[Any]:
        """The pixels."""
        return [self.pixels.hex()]

    def read(self, spec: Spec, waived: frozenset[str]) -> list[bytes]:
        """One JPEG file, grey values from black for paper to white for ink, scaled as pictures of files are."""
        import numpy as np
        from PIL import Image

        from balancemm_cli.data.reading.media import encode_jpeg

        levels = np.frombuffer(self.pixels, np.uint8).reshape(8, 8)
        grey = Image.fromarray(np.rint(levels * (255 / LEVELS)).astype(np.uint8))
        scaled = grey.resize((spec["width"], spec["height"]), Image.Resampling.BICUBIC)
        return [encode_jpeg(np.asarray(scaled.convert("RGB")))]


class SpokenDigits(Dataset):
    """Spoken digits: 3,000 recordings of six speakers, each with a written digit of the same class (real data)."""

    name = "spoken-digits"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = (SPLIT,)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The recordings in the clone `source`, or in a folder of them. InputError where there are none, where a file
        has a name of another form, and for other recordings than the official ones unless `allow_missing`."""
        no_lists(self.name, splits)
        need_folder(source, HOW_TO_GET)
        below = f"{RECORDINGS}/" if (source / RECORDINGS).is_dir() else ""
        names = sorted(files_below(source / below, frozenset({".wav"})))
        if not names:
            raise InputError(f"{source / below} holds no .wav file. {HOW_TO_GET}")
        notes: list[str] = []
        if difference := _difference(source / below, names):
            what = "the recordings of Free Spoken Digit Dataset"
            accept_other(source / below, what, difference, HOW_TO_GET, allow_missing, notes)
        pixels, labels = pictures()
        samples = []
        for name, (split, picture) in paired(source / below, names, labels).items():
            clips: dict[str, Clip] = {
                "audio": Clip(source, below + name),
                "visual": Picture(source, f"load_digits#{picture}", pixels=pixels[picture].tobytes()),
            }
            samples.append(Sample(name.removesuffix(".wav"), split, name[0], clips))
        return Plan(
            self.name,
            samples,
            CLASSES,
            MODALITIES,
            "test of the recordings' authors, else our own; pairs by a fixed rule; the speakers are in all splits",
            notes,
            HOW_TO_GET,
            clip_seconds=0.4,
            split_name=SPLIT,
            official_lists=not notes,
        )

    def official_files(self, source: Path, plan: Plan) -> Published:
        """Git's hashes of the recordings in the clone `source`."""
        return clone_files(source, [RECORDINGS], HOW_TO_GET)


def pictures() -> "tuple[np.ndarray, list[str]]":
    """Pixels, uint8 [1797, 64], and digits of scikit-learn's pictures. InputError where they are others."""
    import numpy as np
    import sklearn
    from sklearn.datasets import load_digits

    pixels, digits = (np.asarray(values).astype(np.uint8) for values in load_digits(return_X_y=True))
    if hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest() != PICTURES_SHA256:
        raise InputError(
            f"load_digits of scikit-learn {sklearn.__version__} has other pictures than 1.9 has. Install that version."
        )
    return pixels, [str(digit) for digit in digits]


def paired(folder: Path, names: Iterable[str], labels: list[str]) -> dict[str, tuple[str, int]]:
    """The split of each recording and the number of its picture, by the rule above; `labels` are those of the pictures.
    InputError for a name of another form."""
    recordings = defaultdict(list)
    for name in names:
        if not (match := NAME.fullmatch(name)):
            raise InputError(
                f"{folder / name} has not a name like 7_jackson_32.wav: digit, speaker, index. {HOW_TO_GET}"
            )
        recordings[_split(int(match[3])), match[1]].append(name)
    kept = defaultdict(list)
    numbers = {f"picture-{number:04d}": number for number in range(len(labels))}
    parts = split_by_rule({name: [labels[number]] for name, number in numbers.items()}, SHARES)
    for name, number in numbers.items():
        kept[parts[name], labels[number]].append(name)
    found = {}
    for place, own in recordings.items():
        shown = _in_order(kept[place])
        for turn, name in enumerate(_in_order(own)):
            found[name] = place[0], numbers[shown[turn % len(shown)]]
    return {name: found[name] for name in names}


def _split(index: int) -> str:
    return "test" if index in TEST else "val" if index in VALIDATION else "train"


def _in_order(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{PAIRING}/{name}".encode()).hexdigest())


def _difference(folder: Path, names: list[str]) -> str:
    """What tells the recordings from the official ones; empty where nothing does."""
    if len(names) != COUNT:
        return f"it has {len(names):,} files, those {COUNT:,}"
    lines = "\n".join(f"{content_of([folder / name])}  {name}" for name in names)
    same = hashlib.sha256(lines.encode()).hexdigest() == RECORDINGS_SHA256
    return "" if same else "the content of its files is another"
