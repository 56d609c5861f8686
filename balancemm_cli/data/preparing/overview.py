"""What is prepared in a folder: the sets with their counts, and what is unfinished or damaged."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    from balancemm_cli.data.store import PreparedSet

FEW_CLASSES = 10  # up to here the samples of each class are named


class Found(NamedTuple):
    """A folder of prepared data. `whole` says whether it holds every sample that the lists ask for, `summary` its
    counts or what is wrong with it, `facts` are further lines; `unfinished` ones are to become a set or part of one."""

    folder: Path
    whole: bool
    summary: str
    facts: list[str]
    unfinished: bool = False


def find(root: Path) -> Iterator[Found]:
    """What is prepared in `root`, or `root` itself, by name; the shards' hashes are left to `verify`. InputError where
    it is no folder."""
    from balancemm_cli.data import store

    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}. Prepare a data set with `bmm prepare`, or name another folder."
        )
    for folder in [root] if (root / store.MANIFEST).is_file() else sorted(root.iterdir()):
        if not folder.is_dir():
            continue
        if folder.name.startswith(".") and folder.name.endswith(".partial"):
            yield Found(folder, False, "unfinished; run the same `bmm prepare` command to go on", [], True)
        elif (folder / "part.json").is_file():
            yield Found(
                folder, False, "one part of a set; `bmm prepare` with --join puts them together", [], True
            )
        elif (folder / store.MANIFEST).exists() or any(folder.glob("*.arrow")):
            yield _open(folder)


def verify(folder: Path) -> int:
    """Read a prepared set whole and compare it with its manifest. Returns how many bytes its shards have; InputError
    where something is damaged or no whole set."""
    from balancemm_cli.data import store

    prepared = store.open_set(folder)
    size = prepared.verify()
    for split in prepared.counts:
        prepared.split(split)
    return size


def _open(folder: Path) -> Found:
    from balancemm_cli.data import store

    try:
        prepared = store.open_set(folder)
        return Found(folder, prepared.counts == prepared.expected, _summary(prepared), list(_facts(prepared)))
    except (InputError, OSError) as error:
        return Found(folder, False, str(error), [])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        what = f"{folder / store.MANIFEST} is damaged. Delete the folder {folder} and prepare it again."
        return Found(folder, False, what, [])


def _summary(prepared: "PreparedSet") -> str:
    splits = [f"{split} {_of(count, prepared.expected[split])}" for split, count in prepared.counts.items()]
    state = "" if prepared.counts == prepared.expected else "incomplete; "
    return f"{prepared.name}, {_bytes(_size(prepared.folder))}; {state}{', '.join(splits)}"


def _facts(prepared: "PreparedSet") -> Iterator[str]:
    if prepared.reader is not None:
        lists = {True: ", official lists", False: ", other lists than the official ones", None: ""}
        yield f"  data set  {prepared.reader}, split {prepared.split_name}{lists[prepared.official_lists]}"
    if prepared.split_description:
        yield f"  split     {prepared.split_description}"
    for split, count in prepared.counts.items():
        yield f"  {split:<8}  {_of(count, prepared.expected[split])} samples: {_balance(prepared, split)}"
        rejected = prepared.manifest["splits"][split]["rejected"]
        if rejected:
            reasons = ", ".join(f"{number:,} {kind}" for kind, number in rejected.items())
            yield f"            rejected: {reasons}"
    kept = len(prepared.manifest["defects_kept"])
    if kept:
        yield f"  defects   {kept:,} samples are kept in spite of a known defect"
    yield f"  hashes    content {prepared.content_hash[:12]}, lists {prepared.splits_hash[:12]}"


def _balance(prepared: "PreparedSet", split: str) -> str:
    """The samples of each class, or the fewest and most of a class where there are many classes."""
    numbers = _class_counts(prepared, split)
    if len(numbers) <= FEW_CLASSES:
        return ", ".join(f"{name} {n:,}" for name, n in zip(prepared.classes, numbers, strict=True))
    return f"{len(numbers):,} classes of {min(numbers):,} to {max(numbers):,}"


def _class_counts(prepared: "PreparedSet", split: str) -> list[int]:
    """The samples of each class. InputError where a shard is missing or damaged."""
    import numpy as np

    return np.bincount(prepared.split(split).labels, minlength=len(prepared.classes)).tolist()


def _of(count: int, expected: int) -> str:
    return f"{count:,}" if count == expected else f"{count:,} of {expected:,}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
