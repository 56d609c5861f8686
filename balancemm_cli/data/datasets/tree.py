"""The files below a folder of media."""

import os
from collections.abc import Iterator
from pathlib import Path

from balancemm_cli.errors import InputError


def need_folder(folder: Path, how_to_get: str) -> None:
    """InputError where a folder is absent, empty or no folder."""
    if not folder.exists():
        raise InputError(f"There is no folder {folder}. {how_to_get}")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder. {how_to_get}")
    if not any(folder.iterdir()):
        raise InputError(f"The folder {folder} is empty. {how_to_get}")


def files_below(root: Path, suffixes: frozenset[str] | None = None) -> Iterator[str]:
    """The files below `root` by their paths from there, sorted by folder, with one of the `suffixes` (in small
    letters).

    Hidden files and folders are left out. A link is followed to a file within the tree and passed over to a
    folder within it, which is met anyway; InputError for a link that leads out of the tree.
    """
    real = os.path.realpath(root)
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name = folder + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                _refuse_outside(entry.path, real)
                if entry.is_dir():
                    continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(name + "/")
            elif suffixes is None or os.path.splitext(entry.name)[1].lower() in suffixes:
                yield name


def refuse_outside(path: Path, root: Path) -> None:
    """InputError where a file lies outside `root` by way of a link."""
    _refuse_outside(str(path), os.path.realpath(root))


def _refuse_outside(path: str, real_root: str) -> None:
    target = os.path.realpath(path)
    if os.path.commonpath([target, real_root]) != real_root:
        raise InputError(
            f"{path} is a link to {target}, outside of the data set's folder. Copy the file into the folder, or name "
            "with --source a folder that holds all of it."
        )
