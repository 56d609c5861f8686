"""VGGSound as clips of 10 s, by the lists of its authors.

Layout: clips of 10 s in any folders, named by YouTube id and first second; both together are the key, since
several clips are cut from one video. Split: vggsound.csv of the authors' repository (headerless: id, first
second, label, train or test), or its train.csv and test.csv (`<id>_<second>.mp4,label`). The csv has 291 rows
more, all "extending ladders", a 310th label that is in none of the authors' other files; they are left out.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from sys import intern

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import (
    OTHER_LISTS,
    Official,
    accept_other,
    check_official,
    find_file,
    read_text,
)
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.datasets.tree import need_folder
from balancemm_cli.data.datasets.youtube import ID, files_by_id, start_second
from balancemm_cli.errors import InputError

MODALITIES = {"audio": waveform(16000), "visual": frames(256, 340, 1.0)}
DESCRIPTION = "the authors' split"
SECONDS = 10  # of a clip; some files are shorter

HOW_TO_GET = (
    "Get the clips from https://www.robots.ox.ac.uk/~vgg/data/vggsound/ or its copy on Hugging Face, Loie/VGGSound, "
    "and put them into data/raw/vggsound (in any folders), or name their folder with --source."
)
HOW_TO_GET_LISTS = (
    "Clone https://github.com/hche11/VGGSound, which holds data/vggsound.csv, and name the clone with "
    "--splits."
)
LISTS = ["data/vggsound.csv", "vggsound.csv", "data/train.csv", "train.csv"]

EXTRA_LABEL = "extending ladders"
# vggsound.csv was not at hand to be hashed, so it is recognised by its rows (hche11/VGGSound, issue 19) and by the
# SHA-256 of its sorted labels, a line each, which are those of stat.csv.
ROWS = {"train": 183971, "test": 15496}
ROWS_OF_PAIR = {"train": 183730, "test": 15446}  # of train.csv and test.csv, without EXTRA_LABEL
LABELS = 309
LABELS_SHA256 = "45c537f971c8ea8e175c8cebd4bdd2b4c4f579dd4e3c4309e4be6e482168b871"
TEST = Official(
    "the test list of VGGSound",
    15446,
    "ef8a4aedf87e9b7b67befc7148907ce060108ee59c9e5aeb869e4c0fb63d98fd",
    HOW_TO_GET_LISTS,
)

FILE = re.compile(rf"({ID})_([0-9]{{1,6}})\.mp4")
VIDEO = re.compile(ID)
SECOND = re.compile(r"[0-9]{1,6}")

Row = tuple[str, int, str, str]  # YouTube id, first second, label, split


class VGGSound(Dataset):
    """VGGSound: 199,176 clips of YouTube videos in 309 classes of sounds whose source can be seen (audio and video)."""

    name = "vggsound"
    HOW_TO_GET = HOW_TO_GET

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The samples of the lists, which are looked for in `splits` or else in `source`, with their files.

        InputError for absent media or lists, and for other lists than the authors', unless `allow_missing`, which
        takes them and notes it.
        """
        need_folder(source, HOW_TO_GET)
        notes: list[str] = []
        path = find_file(splits or source, LISTS, HOW_TO_GET_LISTS)
        if path.name == "vggsound.csv":
            rows, expected = _read_csv(path), ROWS
        else:
            rows, expected = _read_pair(path, allow_missing, notes), ROWS_OF_PAIR
        _check_rows(path, rows, expected, allow_missing, notes)
        official = not notes
        rows = _without_extra_label(rows, notes)
        _refuse_repeats(path, rows)
        files = files_by_id(source)
        samples = [_sample(source, files, *row) for row in rows]
        classes = sorted({sample.label for sample in samples})
        return Plan(
            self.name,
            samples,
            classes,
            MODALITIES,
            DESCRIPTION if official else OTHER_LISTS,
            notes,
            HOW_TO_GET,
            clip_seconds=SECONDS,
            split_name="official",
            official_lists=official,
        )


def _read_csv(path: Path) -> list[Row]:
    rows = []
    for where, cells in _lines(path):
        if not (
            len(cells) == 4
            and VIDEO.fullmatch(cells[0])
            and SECOND.fullmatch(cells[1])
            and cells[2]
            and cells[3] in ROWS
        ):
            raise _wrong(where, cells, "---g-f_I2yQ,1,people marching,test")
        rows.append((cells[0], int(cells[1]), intern(cells[2]), intern(cells[3])))
    return rows


def _read_pair(path: Path, allow_other: bool, notes: list[str]) -> list[Row]:
    rows = []
    for split in ROWS:
        file = path.with_name(f"{split}.csv")
        before = len(rows)
        for where, cells in _lines(file):
            match = FILE.fullmatch(cells[0])
            if match is None or len(cells) != 2 or not cells[1]:
                raise _wrong(where, cells, "glLQrEijrKg_000300.mp4,playing hammond organ")
            rows.append((match[1], int(match[2]), intern(cells[1]), split))
        if split == "test":  # train.csv was not at hand to be hashed
            check_official(file, read_text(file), len(rows) - before, TEST, allow_other, notes)
    return rows


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of a csv that are not blank, each with its place for messages."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        for cells in reader:
            if cells:
                yield f"{path}, line {reader.line_num}", cells
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: this is no CSV ({error}). {HOW_TO_GET_LISTS}"
        ) from None


def _wrong(where: str, cells: list[str], form: str) -> InputError:
    return InputError(
        f"{where}: '{','.join(cells)[:80]}' is not of the form {form} (labels with commas in quotes). Use the lists "
        "as they are."
    )


def _check_rows(
    path: Path, rows: list[Row], expected: dict[str, int], allow_other: bool, notes: list[str]
) -> None:
    """Compare lists with the authors', by their numbers of rows and their labels; as lists.check_official."""
    counts = Counter(split for _, _, _, split in rows)
    labels = sorted({label for _, _, label, _ in rows} - {EXTRA_LABEL})
    if counts != expected:
        difference = (
            f"it has {counts['train']:,} train and {counts['test']:,} test clips, those {expected['train']:,} and "
            f"{expected['test']:,}"
        )
    elif hashlib.sha256("".join(label + "\n" for label in labels).encode()).hexdigest() != LABELS_SHA256:
        difference = f"its {len(labels)} labels are not the {LABELS} of the data set"
    else:
        return
    accept_other(path, "of the lists of VGGSound", difference, HOW_TO_GET_LISTS, allow_other, notes)


def _without_extra_label(rows: list[Row], notes: list[str]) -> list[Row]:
    kept = [row for row in rows if row[2] != EXTRA_LABEL]
    if len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept):,} rows of '{EXTRA_LABEL}' are left out: it is none of the 309 classes, and the "
            "authors' copy has no files of it."
        )
    return kept


def _refuse_repeats(path: Path, rows: list[Row]) -> None:
    keys: set[tuple[str, int]] = set()
    for video, start, _, _ in rows:
        if (video, start) in keys:
            raise InputError(
                f"{path} lists the clip of {video} at {start} s twice. Use the lists as they are."
            )
        keys.add((video, start))


def _sample(
    source: Path, files: dict[str, list[str]], video: str, start: int, label: str, split: str
) -> Sample:
    """A sample with its file; of several, the one in the fewest folders."""
    official = f"{video}_{start:06d}.mp4"
    names = [name for name in files.get(video, []) if start_second(name) == start]
    clip = Clip(source, min(names, key=lambda name: (name.count("/"), name), default=official))
    return Sample(official.removesuffix(".mp4"), split, label, {"audio": clip, "visual": clip})
