"""Split lists and annotation files: read as text, and compared with the official ones."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from balancemm_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class Official:
    """A list as its authors published it: what it is, the number of its entries, the SHA-256 of its text (as
    `read_text` gives it, without newlines at its end but one), and how to get it."""

    what: str
    count: int
    sha256: str
    how_to_get: str


def read_text(path: Path) -> str:
    """A UTF-8 text file without byte order mark and carriage returns. InputError where it is absent or no text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no file {path}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    if text.startswith("version https://git-lfs"):
        raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_official(
    path: Path, text: str, count: int, official: Official, allow_other: bool, notes: list[str]
) -> None:
    """Compare a list of `count` entries with the official one. A difference is an InputError, or a note where
    other lists are allowed."""
    found = hashlib.sha256((text.strip("\n") + "\n").encode()).hexdigest()
    if found == official.sha256:
        return
    if count != official.count:
        difference = f"it has {count:,} entries, that one {official.count:,}"
    else:
        difference = f"its SHA-256 is {found[:12]}…, that one's {official.sha256[:12]}…"
    if not allow_other:
        raise InputError(
            f"{path} is not {official.what}: {difference}. {official.how_to_get} "
            "Pass --allow-missing to use this list nevertheless."
        )
    notes.append(f"{path.name} is not {official.what}: {difference}.")


def find_file(splits: Path, names: list[str], how_to_get: str) -> Path:
    """The first of `names` (paths in a clone, or in a folder of the lists alone) that is there below `splits`.
    InputError where none is."""
    if not splits.is_dir():
        raise InputError(f"There is no folder {splits}. {how_to_get}")
    for name in names:
        if (splits / name).is_file():
            return splits / name
    raise InputError(f"{splits} holds no {' nor '.join(names)}. {how_to_get}")


def no_lists(name: str, splits: Path | None) -> None:
    """UsageError where split lists are given to a data set that has none."""
    if splits is not None:
        raise UsageError(f"Data set '{name}' has no split lists; leave --splits away.")


def plain_name(name: str, where: str) -> str:
    """A name out of a list that is to be a file's; InputError where it is a path, which could lead anywhere."""
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise InputError(
            f"{where}: '{name}' is a path or nothing where a plain name belongs. Get the list anew."
        )
    return name
