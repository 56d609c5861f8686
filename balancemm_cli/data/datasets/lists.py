"""Split lists and annotation files: read as text, and compared with the official ones."""

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from balancemm_cli.errors import InputError, UsageError

BINARY = {b"PAR1": "Parquet file", b"PK": "zip archive, or a spreadsheet"}  # by their first bytes
OTHER_LISTS = "other lists than the official ones"  # the split of a plan that uses such


@dataclass(frozen=True)
class Official:
    """A list as its authors published it: what it is, the number of its entries, the SHA-256 of its text (as
    `read_text` gives it, without newlines at its end but one), and how to get it. A list that was not at hand to
    be hashed has none, and where its length is not known exactly, `count` says between which numbers it lies."""

    what: str
    count: int | range
    sha256: str | None
    how_to_get: str


def read_text(path: Path) -> str:
    """A UTF-8 text file without byte order mark and carriage returns. InputError where it is absent or no text."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a folder, a pipe or a device, not a file of text. Name a file.")
    try:
        return decode_text(path, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no file {path}.") from None


def decode_text(path: Path, content: bytes) -> str:
    """As `read_text`, of the content of a file, which may lie within another one."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = next((f", but a {what}" for head, what in BINARY.items() if content.startswith(head)), "")
        raise InputError(f"{path} is not UTF-8 text{other} (byte {error.start}). Save it as UTF-8.") from None
    if text.startswith("version https://git-lfs"):
        raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_official(
    path: Path, text: str, count: int, official: Official, allow_other: bool, notes: list[str]
) -> None:
    """Compare a list of `count` entries with the official one. A difference is an InputError, or a note where
    other lists are allowed."""
    counts = range(official.count, official.count + 1) if isinstance(official.count, int) else official.count
    found = hashlib.sha256((text.strip("\n") + "\n").encode()).hexdigest()
    if found == official.sha256 or (official.sha256 is None and count in counts):
        return
    if count not in counts:
        expected = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
        difference = f"it has {count:,} entries, that one {expected}"
    else:
        difference = f"its SHA-256 is {found[:12]}…, that one's {str(official.sha256)[:12]}…"
    accept_other(path, official.what, difference, official.how_to_get, allow_other, notes)


def accept_other(
    path: Path, what: str, difference: str, how_to_get: str, allow_other: bool, notes: list[str]
) -> None:
    """Note that a list is not `what` it should be; InputError where other lists are not allowed."""
    if not allow_other:
        raise InputError(
            f"{path} is not {what}: {difference}. {how_to_get} "
            "Pass --allow-missing to use this list nevertheless."
        )
    notes.append(f"{path.name} is not {what}: {difference}.")


def find_file(splits: Path, names: list[str], how_to_get: str) -> Path:
    """The first of `names` (paths in a clone, or in a folder of the lists alone) that is there below `splits`.
    InputError where none is."""
    if not splits.is_dir():
        raise InputError(f"There is no folder {splits}. {how_to_get}")
    for name in names:
        if (splits / name).is_file():
            return splits / name
    raise InputError(f"{splits} holds no {' nor '.join(names)}. {how_to_get}")


def read_rows(path: Path, required: Iterable[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a CSV file, and the cells of each row that is not blank by header, with its line number.

    InputError, with the line, where it is no CSV with the `required` columns, plain names and as many cells a row.
    """
    lines = csv_lines(path, read_text(path))
    if not lines:
        raise InputError(f"{path} is empty. Write a header and a row a sample.")
    header = lines[0][1]
    if missing := [column for column in required if column not in header]:
        signs = [name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in header[0]]
        remedy = f"Its cells are parted by {signs[0]}; save it with commas." if signs else "Add it."
        raise InputError(
            f"{path} has no column '{missing[0]}'; its header is {', '.join(header)[:200]}. {remedy}"
        )
    for column in header:
        if not column or header.count(column) > 1:
            raise InputError(
                f"{path} has a column without a name or two of one name ('{column}'). Rename it, or leave it out."
            )
    if len(lines) == 1:
        raise InputError(f"{path} has a header, but no sample. Write a row a sample.")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}. "
                "Put quotes around cells with commas."
            )
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def csv_lines(path: Path, text: str, separator: str = ",", remedy: str = "") -> list[tuple[int, list[str]]]:
    """The cells of each row of a CSV text that is not blank, with its line number. InputError, with the line and the
    `remedy`, where it is none."""
    csv.field_size_limit(2**31 - 1)  # a cell may be a whole text
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        said = f"{path}, line {reader.line_num}: this is no CSV ({error}). {remedy}"
        raise InputError(said.strip()) from None
    return [(number, cells) for number, cells in lines if any(cells)]


def number_in(text: str) -> float:
    """A number as a person writes it; NaN for anything else."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


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


def numbered(names: Iterable[str]) -> list[str]:
    """The names, with #2, #3 … behind those that were there before, so that each is a sample's own."""
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique


def in_two_splits(videos: dict[str, set[str]]) -> list[str]:
    """Notes on how many videos two splits share; `videos` gives those of each split."""
    shared = {(one, two): len(videos[one] & videos[two]) for one, two in combinations(videos, 2)}
    return [
        f"{count:,} video(s) are in {one} as well as in {two}; they stay in both, as listed."
        for (one, two), count in shared.items()
        if count
    ]
