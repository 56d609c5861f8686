"""Wikipedia's featured articles: a picture and a text each, in ten classes (Rasiwasia et al., ACM Multimedia 2010).

Wikipedia.mat and Wikipedia-test.mat, as https://github.com/ChuanbinZhang/Multi-view-datasets has them: cells `X`
with 128 numbers of each picture (SIFT words) and 10 of each text (topics), `y` with the class from 1, and in the former
their names, `class_meaning`. Its `view_meaning` names the two the other way round. The test rows are in Wikipedia.mat
as well; they are found there by their numbers and taken out of training, of which a fixed rule then cuts a validation
part. Where two of its rows have one picture, they stay together.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import accept_other, no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, features, held
from balancemm_cli.data.datasets.published import Facts, Published
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.data.splitting import RULE_SPLIT, alike, split_by_rule
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

WIDTHS = {"visual": 128, "text": 10}  # in the order of the cells
OF_TRAINING = {"train": 0.8, "val": 0.2}
ALL, TEST = "Wikipedia.mat", "Wikipedia-test.mat"
SHA256 = {
    ALL: "6eed8527704611dff921243d86dbec5621312b8c6636086ae3677508b5d3cb03",
    TEST: "c31d313a4e0e2ad699446782ac492119bc57e8b23ce620e4326cafb560870552",
}
ROWS = {ALL: 2866, TEST: 693}
LARGEST = 2**28  # bytes of a file; the larger of the official ones has 1.1 MB
REPOSITORY = "https://github.com/ChuanbinZhang/Multi-view-datasets"
HOW_TO_GET = (
    f"Get {ALL} and {TEST} from {REPOSITORY} and put both into data/raw/wikipedia, or name their folder "
    "with --source."
)


@dataclass(frozen=True)
class Rows:
    """What a file holds: float64 [N, width] of each modality, the class of each row from 0, and the names of classes,
    none where the file has none."""

    numbers: dict[str, "np.ndarray"]
    labels: list[int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def keys(self) -> list[tuple[bytes, bytes, int]]:
        """What tells a row from others: picture, text and class."""
        both = zip(*self.numbers.values(), self.labels, strict=True)
        return [(picture.tobytes(), text.tobytes(), label) for picture, text, label in both]


class Wikipedia(Dataset):
    """Wikipedia: 2,866 pictures with their texts in 10 classes, as ready features (real data)."""

    name = "wikipedia"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = (f"official-{RULE_SPLIT}",)

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The rows of the two files in `source`. InputError for an absent file or one of another form, and for other
        content unless `allow_missing`."""
        no_lists(self.name, splits)
        places = _find(source)
        notes: list[str] = []
        files = {name: _read(source / place, allow_missing, notes) for name, place in places.items()}
        official = not notes
        full, test = files[ALL], files[TEST]
        if any(label >= len(full.names) for rows in files.values() for label in rows.labels):
            raise InputError(f"A class in {source} has no name in 'class_meaning' of {ALL}. {HOW_TO_GET}")
        known = set(test.keys())
        kept = [row for row, key in enumerate(full.keys()) if key not in known]
        parts = _validation(full, kept)
        samples = [
            *_samples(source, places[ALL], full, full.names, parts),
            *_samples(source, places[TEST], test, full.names, dict.fromkeys(range(len(test)), "test")),
        ]
        return Plan(
            self.name,
            samples,
            full.names,
            {modality: features(1, width) for modality, width in WIDTHS.items()},
            "test as published, taken out of the full file; validation by a fixed rule",
            [*notes, *_shared(full, kept, test)],
            HOW_TO_GET,
            split_name=self.SPLIT_NAMES[0],
            official_lists=official,
        )

    def official_files(self, source: Path, plan: Plan) -> Published:
        """The SHA-256 of the two files in the repository."""
        names = {clip.name for sample in plan.samples for clip in sample.clips.values()}
        facts = {name: Facts(None, SHA256[Path(name).name]) for name in names}
        return Published(f"commit 03ead31 of {REPOSITORY}", facts, HOW_TO_GET)


def _find(source: Path) -> dict[str, str]:
    """The path of each file below the source."""
    need_folder(source, HOW_TO_GET)
    places = {}
    for name in (ALL, TEST):
        found = [path for path in files_below(source, frozenset({".mat"})) if Path(path).name == name]
        if len(found) != 1:
            several = f"{len(found)} files {name} ({', '.join(found[:2])})" if found else f"no {name}"
            raise InputError(f"{source} holds {several}. {HOW_TO_GET}")
        places[name] = found[0]
    return places


def _read(path: Path, allow_other: bool, notes: list[str]) -> Rows:
    """What a file holds, compared with the official one."""
    if path.stat().st_size > LARGEST:
        raise _other_form(path, f"it has {path.stat().st_size:,} bytes")
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
    rows = _rows(path, _load(path, content))
    if len(rows) != ROWS[path.name]:
        difference = f"it has {len(rows):,} rows, that one {ROWS[path.name]:,}"
    elif hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        difference = "its SHA-256 is another"
    else:
        return rows
    accept_other(path, f"{path.name} of {REPOSITORY}", difference, HOW_TO_GET, allow_other, notes)
    return rows


def _load(path: Path, content: bytes) -> dict[str, Any]:
    """The variables of a MATLAB file, in which nothing can be run."""
    from scipy.io import loadmat

    try:
        return loadmat(io.BytesIO(content))
    except Exception as error:  # whatever scipy raises over damaged bytes; it has no class of its own for all
        raise _other_form(path, f"scipy can't read it as a MATLAB file ({type(error).__name__})") from None


def _rows(path: Path, content: dict[str, Any]) -> Rows:
    """The variables, checked."""
    import numpy as np

    cells, classes = np.asarray(content.get("X")), np.asarray(content.get("y"))
    if cells.dtype != object or cells.size != len(WIDTHS):
        raise _other_form(path, f"it has no cells 'X' of {len(WIDTHS)} views")
    if classes.dtype.kind not in "uif" or not classes.size:
        raise _other_form(path, "it has no numbers 'y'")
    numbers = {}
    for (modality, width), cell in zip(WIDTHS.items(), cells.ravel(), strict=True):
        values = np.asarray(cell)
        if values.dtype.kind not in "uif" or values.shape != (classes.size, width):
            raise _other_form(
                path,
                f"the view '{modality}' is {values.dtype} {values.shape}, not {classes.size:,} × {width} numbers",
            )
        with np.errstate(over="ignore"):
            if not np.isfinite(values.astype(np.float32)).all():
                raise _other_form(path, f"the view '{modality}' holds a number that is not finite")
        numbers[modality] = values.astype(np.float64)
    labels = classes.ravel().astype(np.float64)
    if not (np.isfinite(labels).all() and (labels >= 1).all() and (labels == labels.round()).all()):
        raise _other_form(path, "'y' holds something else than classes from 1")
    return Rows(
        numbers, [int(label) - 1 for label in labels], _class_names(path, content.get("class_meaning"))
    )


def _class_names(path: Path, cells: Any) -> list[str]:  # noqa: ANN401 - whatever the file holds
    """The names of the classes; none where the file has none, as that of the test has not."""
    import numpy as np

    if cells is None:
        return []
    names = [str(text) for cell in np.asarray(cells).ravel() for text in np.asarray(cell).ravel()]
    if len(names) != len(set(names)) or not all(names):
        raise _other_form(path, f"'class_meaning' holds the names {names}")
    return names


def _other_form(path: Path, what: str) -> InputError:
    return InputError(f"{path} is not of the form of {REPOSITORY}: {what}. {HOW_TO_GET}")


def _validation(full: Rows, kept: list[int]) -> dict[int, str]:
    """The split of the rows that are left for training; those with one picture stay together."""
    names = {row: f"row-{row:04d}" for row in kept}
    groups = alike({name: full.numbers["visual"][row].tobytes() for row, name in names.items()})
    parts = split_by_rule({name: [str(full.labels[row])] for row, name in names.items()}, OF_TRAINING, groups)
    return {row: parts[name] for row, name in names.items()}


def _samples(
    source: Path, place: str, rows: Rows, classes: list[str], splits: Mapping[int, str]
) -> Iterator[Sample]:
    """The rows of a file that have a split; `place` is the file's below the source."""
    word = "test" if place.endswith(TEST) else "row"
    for row, split in splits.items():
        clips: dict[str, Clip] = {
            modality: held(source, place, numbers[row]) for modality, numbers in rows.numbers.items()
        }
        yield Sample(f"{word}-{row:04d}", split, classes[rows.labels[row]], clips)


def _shared(full: Rows, kept: list[int], test: Rows) -> list[str]:
    """Notes on the rows that are in both files, and on pictures that are in training and in test."""
    taken = len(full) - len(kept)
    notes = [f"{taken:,} of the {len(full):,} rows of {ALL} are in {TEST}, too, and taken out of training."]
    learnt = {full.numbers["visual"][row].tobytes() for row in kept}
    if again := sum(picture.tobytes() in learnt for picture in test.numbers["visual"]):
        notes.append(
            f"{again:,} pictures of the test are in training, too, with another text; they stay, as published."
        )
    return notes
