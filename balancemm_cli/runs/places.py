"""Where a run lies: each run once, wherever under the folder of runs it was trained. A run folder is one that holds a
config.toml or a result.json."""

import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from balancemm_cli.config.run import RunConfig, read_config
from balancemm_cli.errors import BmmError, InputError

ADVICE = "Run 'bmm train' first, or name the folder of your runs."


class Places:
    """The run folders under `root`, which is looked through once, when a run is not at the place of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, config: RunConfig, data_hash: str) -> Path:
        """The folder of a run: where it was trained already, or where it belongs,
        `<root>/<dataset>/<model>/<method>-<variant>-s<seed>-<hash8>`.

        The same run may lie elsewhere: under another data set's name with the same content, under the other variant
        where its settings agree, or in the folder of a suite, where former versions put it.
        """
        own = self.root / config.dataset / config.model / _name(config, data_hash)
        if own.is_dir():
            return own
        alike = (folder for folder in self._folders if _may_be(folder.name, config))
        return next((folder for folder in alike if _is_run(folder, config, data_hash)), own)

    @cached_property
    def _folders(self) -> list[Path]:
        return run_folders([self.root]) if self.root.is_dir() else []


def _name(config: RunConfig, data_hash: str) -> str:
    return f"{config.method}-{config.variant}-s{config.seed}-{config.hash(data_hash)[:8]}"


def _may_be(name: str, config: RunConfig) -> bool:
    """False where the folder's name, as `_name` makes them, is that of another method or seed: it need not be read."""
    named = re.fullmatch(r"(.+)-s(\d+)-[0-9a-f]{8}", name)
    return named is None or (named[1].startswith(f"{config.method}-") and named[2] == str(config.seed))


def run_folders(folders: Sequence[Path], unreadable: list[str] | None = None) -> list[Path]:
    """Each run folder under `folders`, at any depth and through links, once. InputError where one does not exist.

    `unreadable` gets a line for each folder that can't be opened and each link that leads nowhere.
    """
    found: list[Path] = []
    seen: set[str] = set()
    lines = [] if unreadable is None else unreadable
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. {ADVICE}")
        for place, inner, files in os.walk(
            folder, onerror=lambda e: lines.append(_closed(e)), followlinks=True
        ):
            real = os.path.realpath(place)
            if real in seen:  # a link back to where this came from has no end
                inner.clear()
                continue
            seen.add(real)
            lines.extend(f"{link}: a link that leads nowhere." for link in _broken_links(place, files))
            if "config.toml" in files or "result.json" in files:
                found.append(Path(place))
    return sorted(found)


def _closed(error: OSError) -> str:
    return f"{error.filename}: this folder cannot be read ({error.strerror}), what it holds is not shown."


def _broken_links(place: str, files: Sequence[str]) -> list[Path]:
    return [path for name in files if (path := Path(place, name)).is_symlink() and not path.exists()]


def _is_run(folder: Path, config: RunConfig, data_hash: str) -> bool:
    """Whether the folder's files say that it is this run; one that can't be read is another."""
    try:
        found = read_config(folder / "config.toml")
        hashes = json.loads((folder / "result.json").read_text("utf-8"))["hashes"]
        return hashes["data"] == data_hash and found.hash(data_hash) == config.hash(data_hash)
    except (BmmError, OSError, ValueError, KeyError, TypeError):
        return False
