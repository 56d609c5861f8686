"""What a data set module gives to prepare: its samples, where their media lie, and how to store them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balancemm_cli.errors import InputError, UsageError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """The part of a file that holds one modality of a sample.

    `name` is the path as the data set writes it, for hashes and rejected.csv; `start` and `end` are in
    seconds, None for the file's own.
    """

    path: Path
    name: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Sample:
    """One sample: a clip for each modality.

    `defect` says what is known to be wrong with it, though it is kept; `waived` names the checks that are
    left out for that reason ("truncated", "silent").
    """

    id: str
    split: str
    label: str
    clips: dict[str, Clip]
    defect: str = ""
    waived: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """All samples of a data set in the order of its lists.

    `modalities` as in the manifest of a prepared set; `classes` in the order of their indices; `notes` are
    sentences for the user and the manifest; `remedy` says how to get files that are missing.
    """

    name: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    remedy: str = ""


def waveform(rate: int) -> dict[str, Any]:
    """A modality of mono int16 waveforms at `rate` Hz."""
    return {"kind": "waveform", "rate": rate}


def frames(height: int, width: int, fps: float) -> dict[str, Any]:
    """A modality of JPEG frames of height × width pixels, `fps` a second."""
    return {"kind": "frames", "height": height, "width": width, "fps": fps, "channels": 3}


def need_folder(folder: Path, how_to_get: str) -> None:
    """InputError where a folder is absent, empty or no folder."""
    if not folder.exists():
        raise InputError(f"There is no folder {folder}. {how_to_get}")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder. {how_to_get}")
    if not any(folder.iterdir()):
        raise InputError(f"The folder {folder} is empty. {how_to_get}")


def no_lists(name: str, splits: Path | None) -> None:
    """UsageError where split lists are given to a data set that has none."""
    if splits is not None:
        raise UsageError(f"Data set '{name}' has no split lists; leave --splits away.")


def read_text(path: Path) -> str:
    """A UTF-8 text file without byte order mark and carriage returns. InputError where it is not text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    if text.startswith("version https://git-lfs"):
        raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
