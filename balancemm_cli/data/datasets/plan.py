"""What a data set module gives to prepare: its samples, where their media lie, and how to store them."""

import errno
import hashlib
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from balancemm_cli.data.kinds import Features, Frames, Spec, Tokens, Waveform, kind_of

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "val", "test")
SETS = (
    "labels"  # the extra of samples with any number of labels: 1 for each class that is one of them, else 0
)

YOUNG = "young"  # the stamp of a file that changed just now, and may change again unnoticed
YOUNG_NS = 2 * 10**9  # until when a file is young: file systems keep times to 2 s or better
# what a data set writes into its plan's `modalities`
waveform, frames = Waveform.make_spec, Frames.make_spec
features, tokens = Features.make_spec, Tokens.make_spec

COMPUTED = "computed "  # the `source` in the spec of flow that is not stored, before the name of the method


@dataclass(frozen=True, slots=True)
class Clip:
    """The part of a media file that holds one modality of a sample; a subclass reads other forms of data.

    `name` is the path below `root` as the data set writes it, for hashes and rejected.csv; `start` and `end`
    are in seconds, None for the file's own.
    """

    has_file: ClassVar[bool] = True  # else its content lies in the lists

    root: Path
    name: str
    start: float | None = None
    end: float | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / self.name

    @property
    def medium(self) -> str:
        """The name of the content that the clip is read from; clips of one name have one content."""
        return self.name

    def size(self) -> int | None:
        """The size of the file in bytes, None where it is missing; 0 of a link that leads to itself, which is read as
        unreadable."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return 0

    def stamp(self) -> str | None:
        """What changes whenever the content may have changed, read from the file's entry; None where it is missing."""
        return stamp_of([self.path])

    def content(self) -> str:
        """The SHA-256 of the content, in hexadecimal. OSError where it cannot be read."""
        return content_of([self.path])

    def describe(self) -> list[Any]:
        """All that decides what is read, but the file's content, as plain values."""
        return [self.name, self.start, self.end]

    def read(self, spec: Spec, waived: frozenset[str]) -> Any:  # noqa: ANN401 - by kind
        """What a shard holds of it, by its kind. `waived` as in Sample. Raises media.MediaError."""
        return kind_of(spec).decode(self.path, self.start, self.end, waived)


def stamp_of(paths: list[Path]) -> str | None:
    """Size, time of the last write, time of the last change and inode of a file, or a hash of those of several with
    their names; YOUNG where one changed just now; None where one is missing."""
    facts = []
    youngest = 0
    for path in paths:
        try:
            entry = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            facts.append("a link to itself")
            continue
        facts.append(f"{entry.st_size}-{entry.st_mtime_ns}-{entry.st_ctime_ns}-{entry.st_ino}")
        youngest = max(youngest, entry.st_ctime_ns)
    return YOUNG if time.time_ns() - youngest < YOUNG_NS else _together(paths, facts)


def content_of(paths: list[Path]) -> str:
    """SHA-256 of a file, or of the names and hashes of several, in hexadecimal. OSError where one cannot be read."""
    hashes = []
    for path in paths:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(f"{path} is no file")  # reading a pipe would never end
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return _together(paths, hashes)


def _together(paths: list[Path], facts: list[str]) -> str:
    """The fact of one file, or a hash of the names and facts of several."""
    if len(facts) == 1:
        return facts[0]
    lines = [f"{path.name}/{fact}" for path, fact in zip(paths, facts, strict=True)]
    return hashlib.sha256("/".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Held(Clip):
    """Numbers that were read with the lists, as those of a table: `values` are the bytes of float32 [T, …], T steps of
    the shape that the modality's spec has. `name` says where they stand, for rejected.csv. Made by `held`."""

    has_file: ClassVar[bool] = False

    values: bytes = b""

    def size(self) -> int:
        """The bytes of the numbers."""
        return len(self.values)

    def describe(self) -> list[Any]:
        """The numbers, by their SHA-256; where they stand does not matter."""
        return [hashlib.sha256(self.values).hexdigest()]

    def read(self, spec: Spec, waived: frozenset[str]) -> "np.ndarray":
        """float32 [T, …]."""
        import numpy as np

        return np.frombuffer(self.values, np.float32).reshape(-1, *Features(spec).step)


@dataclass(frozen=True, slots=True)
class Cell(Clip):
    """What a cell of a list says itself. `name` says where it stands, for rejected.csv."""

    has_file: ClassVar[bool] = False

    text: str = ""

    def size(self) -> int:
        """The bytes of the text."""
        return len(self.text.encode())

    def describe(self) -> list[Any]:
        """The text; where it stands does not matter."""
        return [self.text]

    def read(self, spec: Spec, waived: frozenset[str]) -> Any:  # noqa: ANN401 - by kind
        """What a shard holds of it, by its kind."""
        return kind_of(spec).parse(self.text)


def held(root: Path, name: str, numbers: "np.ndarray") -> Held:
    """A clip of numbers [D] or [T, D] that are at hand, kept as float32. ValueError for what is not finite there."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(numbers, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite, or too large for float32.")
    return Held(root, name, values=values.tobytes())


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: a clip for each modality.

    `defect` says what is known to be wrong with it, though it is kept; `waived` names the checks that are
    left out for that reason ("truncated", "silent"). `extras` are the values of the plan's further columns.
    """

    id: str
    split: str
    label: str
    clips: dict[str, Clip]
    defect: str = ""
    waived: frozenset[str] = frozenset()
    extras: dict[str, Any] = field(default_factory=dict)


def labels_of(sample: Sample, classes: Sequence[str]) -> list[str]:
    """The classes of a sample: its label, or all that its extra SETS marks."""
    marks = sample.extras.get(SETS)
    return (
        [sample.label] if marks is None else [name for name, one in zip(classes, marks, strict=True) if one]
    )


@dataclass(frozen=True)
class Plan:
    """All samples of a data set in the order of its lists.

    `modalities` as in the manifest of a prepared set; `classes` in the order of their indices; `split_description`
    says in a few words whose split it is, for every report; `notes` are sentences for the user and the
    manifest; `remedy` says how to get files that are missing. `extras` are further columns of the shards, a
    name and one of store.EXTRAS each. `about_classes` says what to do where a class lacks samples; `clip_seconds`
    is the usual length of a clip, for estimates.

    What a number may be compared with depends on three facts: `split_name` is one of the data set's SPLIT_NAMES,
    `official_lists` says whether its lists are those that were published, by SHA-256 or count (None where there are
    no lists), and `reader` is the data set that made the plan, by its name in the table; `prepare` enters it.
    """

    name: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, Spec]
    split_description: str = ""
    notes: list[str] = field(default_factory=list)
    remedy: str = ""
    extras: dict[str, str] = field(default_factory=dict)
    about_classes: str = ""
    clip_seconds: float = 10.0
    split_name: str = ""
    official_lists: bool | None = None
    reader: str = ""
