"""AVE as the feature files of its authors, for a source without videos.

`audio_feature.h5` holds VGGish vectors [N, 10, 128], `visual_feature.h5` the last maps of VGG-19 [N, 10, 7, 7, 512],
and `labels.h5` for each second which event it shows, or background, as ones among zeros [N, 10, 29]; all three under
`avadataset`, a row for each line of Annotations.txt. `train_order.h5`, `val_order.h5` and `test_order.h5` say under
`order` which rows, from 0, are a set's (by the author, issue 11 of YapengTian/AVE-ECCV18).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.plan import Clip, Spec, features
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

FILES = {"audio": "audio_feature.h5", "visual": "visual_feature.h5"}
NAME, ORDER = "avadataset", "order"
SECONDS = 10
OFFICIAL = {"audio": (SECONDS, 128), "visual": (SECONDS, 7, 7, 512)}
HOW_TO_GET = (
    "Get audio_feature.h5, visual_feature.h5, labels.h5 and the three *_order.h5 by the links of "
    "https://github.com/YapengTian/AVE-ECCV18 and put them beside Annotations.txt."
)


@dataclass(frozen=True, slots=True)
class FeatureRow(Clip):
    """One modality of a line of Annotations.txt: a row of its file."""

    row: int = 0

    @property
    def medium(self) -> str:
        """The row: the file holds those of all samples."""
        return f"{self.name}#{self.row}"

    def content(self) -> str:
        """The SHA-256 of the row's numbers, as the file has them."""
        values = self._values()
        return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).hexdigest()

    def describe(self) -> list[Any]:
        """The file's name and the row."""
        return [self.name, self.row]

    def read(self, spec: Spec, waived: frozenset[str]) -> "np.ndarray":
        """float32 [10, …]. MediaError for numbers that are not finite."""
        import numpy as np

        from balancemm_cli.data.reading.media import MediaError

        with np.errstate(over="ignore", invalid="ignore"):
            values = self._values().astype(np.float32)
        if not np.isfinite(values).all():
            raise MediaError("not finite", f"row {self.row} holds infinite numbers or NaN")
        return values

    def _values(self) -> "np.ndarray":
        from balancemm_cli.data.reading import hdf5

        return hdf5.read(self.path, NAME, HOW_TO_GET, self.row)


def are_in(root: Path) -> bool:
    """Whether the folder holds any of the feature files."""
    return any((root / name).is_file() for name in FILES.values())


def modalities(root: Path, rows: int, allow_other: bool, notes: list[str]) -> dict[str, Spec]:
    """The specs of the modalities. InputError for files of another form than described above, or of fewer rows than
    Annotations.txt has; for other sizes than the official ones unless `allow_other`, which notes them."""
    from balancemm_cli.data.reading import hdf5

    specs = {}
    for modality, name in FILES.items():
        found = hdf5.shape(root / name, NAME, HOW_TO_GET)
        official = OFFICIAL[modality]
        if len(found) != 1 + len(official) or found[0] != rows or found[1] != SECONDS or 0 in found:
            raise _other_shape(root / name, found, (rows, *official))
        if found[1:] != official:
            if not allow_other:
                raise _other_shape(root / name, found, (rows, *official))
            notes.append(f"{name} has features of the shape {found[1:]}, the official one {official}.")
        positions = found[2] * found[3] if modality == "visual" else 1
        specs[modality] = features(SECONDS, found[-1], positions)
    return specs


def orders(root: Path, rows: int) -> dict[str, list[int]]:
    """The rows of each set. InputError for numbers that are no rows, and for a row that comes twice."""
    from balancemm_cli.data.reading import hdf5

    found, seen = {}, set()
    for split in ("train", "val", "test"):
        path = root / f"{split}_order.h5"
        numbers = hdf5.read(path, ORDER, HOW_TO_GET).reshape(-1).tolist()
        for number in numbers:
            if not 0 <= number < rows or number != int(number) or number in seen:  # NaN is in no range
                raise InputError(
                    f"{path}: {number} is no row of the {rows:,} of Annotations.txt, or comes twice. {HOW_TO_GET}"
                )
            seen.add(number)
        found[split] = [int(number) for number in numbers]
    return found


def check_labels(root: Path, events: list[tuple[str, list[bool]]]) -> None:
    """Compare labels.h5 with Annotations.txt: for each line its category and the seconds in which the event is there.

    The file's numbers of the categories are its own; the last one is background. A line without length is passed
    over. InputError with the first line that differs.
    """
    import numpy as np

    from balancemm_cli.data.reading import hdf5

    path = root / "labels.h5"
    labels = hdf5.read(path, NAME, HOW_TO_GET)
    if labels.ndim != 3 or labels.shape[:2] != (len(events), SECONDS) or labels.shape[2] < 2:
        raise _other_shape(path, labels.shape, (len(events), SECONDS, 29))
    one_each = ((labels == 1).sum(2) == 1) & ((labels != 0).sum(2) == 1)
    chosen, background = labels.argmax(2), labels.shape[2] - 1
    numbers: dict[str, int] = {}
    for line, (category, there) in enumerate(events):
        shown = chosen[line][np.array(there)]
        if not any(there):
            continue
        number = numbers.setdefault(category, int(shown[0]))
        expected = np.where(there, number, background)
        if not (one_each[line].all() and (chosen[line] == expected).all() and number != background):
            raise InputError(
                f"{path} and Annotations.txt differ in line {line + 1} ('{category}'). {HOW_TO_GET}"
            )
    if len(set(numbers.values())) < len(numbers):
        raise InputError(f"{path} has one number for two categories of Annotations.txt. {HOW_TO_GET}")


def clips(root: Path, row: int) -> dict[str, Clip]:
    """The clips of a row."""
    return {modality: FeatureRow(root, name, row=row) for modality, name in FILES.items()}


def _other_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> InputError:
    return InputError(f"'{NAME}' of {path} has the shape {found}, where {expected} belongs. {HOW_TO_GET}")
