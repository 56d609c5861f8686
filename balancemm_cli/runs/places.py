"""Where a run lies: each run once, wherever under the folder of runs it was trained."""

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from balancemm_cli.config.run import RunConfig, read_config
from balancemm_cli.errors import BmmError


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
        return sorted(_run_folders(self.root))


def _name(config: RunConfig, data_hash: str) -> str:
    return f"{config.method}-{config.variant}-s{config.seed}-{config.hash(data_hash)[:8]}"


def _may_be(name: str, config: RunConfig) -> bool:
    return name.startswith(f"{config.method}-") and f"-s{config.seed}-" in name


def _run_folders(root: Path) -> Iterator[Path]:
    """Through links too, but never twice through one folder."""
    seen: set[str] = set()
    for place, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or "config.toml" in files:
            inner.clear()
        if real not in seen and "config.toml" in files:
            yield Path(place)
        seen.add(real)


def _is_run(folder: Path, config: RunConfig, data_hash: str) -> bool:
    """Whether the folder's files say that it is this run; one that can't be read is another."""
    try:
        found = read_config(folder / "config.toml")
        hashes = json.loads((folder / "result.json").read_text("utf-8"))["hashes"]
        return hashes["data"] == data_hash and found.hash(data_hash) == config.hash(data_hash)
    except (BmmError, OSError, ValueError, KeyError, TypeError):
        return False
