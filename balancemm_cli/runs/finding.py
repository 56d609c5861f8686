"""Finds run folders. A run folder is one that holds a config.toml or a result.json."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from balancemm_cli.config.run import RunConfig, read_config, settings_by_key
from balancemm_cli.data.store import file_hash
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.runs.folder import is_locked, read_environments
from balancemm_cli.runs.schema import Result, first_fault

ADVICE = "Run 'bmm train' first, or name the folder of your runs."


@dataclass(frozen=True)
class Run:
    """A run folder and what its result.json says. `config` is None where config.toml is missing, damaged, or names what
    this version does not know."""

    folder: Path
    result: Result
    config: RunConfig | None = None

    @cached_property
    def settings(self) -> dict[str, object]:
        """config.toml by the keys that --set takes; empty where the file is missing or damaged."""
        try:
            return settings_by_key((self.folder / "config.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """Each environment that the run was trained in; several where it was resumed in another one."""
        return read_environments(self.folder)

    @property
    def environment(self) -> dict[str, Any]:
        """The last environment; empty where environment.json is missing or damaged."""
        return self.environments[-1] if self.environments else {}

    @property
    def suite(self) -> str | None:
        """The suite that it was trained for, as far as the folder tells."""
        return self.environment.get("suite")


def read_all(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """All readable runs, and a line for each run folder that is not; a folder reached twice counts once."""
    runs, unreadable = [], []
    for folder in run_folders(folders):
        try:
            runs.append(read_run(folder))
        except InputError as error:
            unreadable.append(str(error))
    return runs, unreadable


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Each run folder under `folders`, at any depth and through links, once. InputError where one does not exist."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. {ADVICE}")
        for place, inner, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # a link back to where this came from has no end
                inner.clear()
                continue
            seen.add(real)
            if "config.toml" in files or "result.json" in files:
                found.append(Path(place))
    return sorted(found)


def read_run(folder: Path) -> Run:
    """The run in `folder`. InputError that names the folder where its result.json can't be used, or where config.toml
    is no longer what the run was trained with.

    The settings hash is computed anew from config.toml, so that runs of all versions are told apart by one rule.
    """
    try:
        result = Result.model_validate_json((folder / "result.json").read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder}: no result.json yet, the run has not started or was stopped.") from None
    except OSError as error:
        raise InputError(f"{folder}: result.json cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise InputError(
            f"{folder}: result.json is damaged ({first_fault(error)}); train this run again."
        ) from None
    path = folder / "config.toml"
    if result.config_hash and path.is_file() and file_hash(path) != result.config_hash:
        raise InputError(
            f"{folder}: config.toml was changed after the run was trained. Restore it, or train the run again."
        )
    try:
        config = read_config(path)
    except BmmError:
        return Run(folder, result)
    settings = config.hash(result.hashes.data, with_seed=False)
    hashes = result.hashes.model_copy(update={"settings": settings})
    return Run(folder, result.model_copy(update={"hashes": hashes}), config)


def state_of(run: Run) -> str:
    """The status in words. A run that is killed can't write that it is: its lock tells, which ends with it."""
    if run.result.status != "running":
        return run.result.status
    try:
        return "running" if is_locked(run.folder) else "killed, or running on another machine"
    except OSError:  # in a copy without the lock
        return "running"
