"""Reads the runs that there are."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from balancemm_cli.config.recipe import parse_toml
from balancemm_cli.config.run import RunConfig, config_of
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.runs.folder import is_locked
from balancemm_cli.runs.places import run_folders
from balancemm_cli.runs.reading import read_bytes, read_environments, read_predictions, read_settings
from balancemm_cli.runs.schema import NAMES, Environment, Result, Selection, first_fault

SEED = re.compile(rb"(?m)^seed = (\d{1,18})$")  # a line of config.toml


@dataclass(frozen=True)
class Run:
    """A run folder and what its result.json says. `config` is None where config.toml names what this version does not
    know. What is no run, but was computed from some, has these as `members`.

    `owner` is whose it is, empty for those of folders; `claimed` are the selections that no predictions bear out, and
    `doubts` what runs of others say against it. `packed` is its place in a bundle, which was unpacked into `folder`.
    """

    folder: Path
    result: Result
    config: RunConfig | None = None
    members: tuple["Run", ...] = ()
    owner: str = ""
    claimed: frozenset[Selection] = frozenset()
    doubts: tuple[str, ...] = ()
    packed: Path | None = None

    @property
    def place(self) -> Path:
        """Where it is, for a person: its folder, or that within the bundle."""
        return self.packed or self.folder

    @cached_property
    def settings(self) -> dict[str, object]:
        """config.toml by the keys that --set takes."""
        if self.config:
            return self.config.by_key
        try:
            return read_settings(self.folder)
        except (OSError, ValueError):
            return {}

    @cached_property
    def environments(self) -> list[Environment]:
        """What the run was trained with, one for each time that it was resumed elsewhere; of nulls where that is not
        known."""
        try:
            return read_environments(self.folder) or [Environment()]
        except (OSError, ValueError):
            return [Environment()]

    def predictions(self, selection: Selection) -> pa.Table:
        """What it predicted on the test part at an epoch rule, see `read_predictions`. InputError where the file is
        absent or can't be read."""
        if not (self.folder / "predictions.arrow").is_file():
            remedy = "Ask for a bundle with it." if self.packed else "Copy it there, or train this run again."
            raise InputError(f"{self.place} has no predictions.arrow. {remedy}")
        return read_predictions(self.folder, selection)

    @property
    def suite(self) -> str | None:
        """The suite that it was trained for, as far as the folder tells."""
        return self.environments[-1].suite

    @property
    def device(self) -> str | None:
        """The one device on which the whole run was trained; None where it is not known, or were several."""
        found = {one.device for one in self.environments}
        return found.pop() if len(found) == 1 else None


def read_all(
    folders: Sequence[Path], of_others: Callable[[Path], bool] = lambda _: False
) -> tuple[list[Run], list[str]]:
    """All readable runs, and a line for each folder that is not; a folder reached twice counts once.

    Unreadable ones for which `of_others` holds are not mentioned.
    """
    runs, unreadable = [], []
    for folder in run_folders(folders, unreadable):
        try:
            runs.append(read_run(folder))
        except InputError as error:
            unreadable += [] if of_others(folder) else [str(error)]
    return runs, unreadable


def read_run(folder: Path) -> Run:
    """The run in `folder`. InputError that names the folder where its result.json can't be used, or where config.toml
    is missing or no longer what the run was trained with: it tells on which samples the run was tested.

    The settings hash is computed anew from config.toml, so that runs of all versions are told apart by one rule.
    """
    try:
        result = Result.model_validate_json(read_bytes(folder / "result.json"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no result.json yet, the run has not started or was stopped.") from None
    except OSError as error:
        raise InputError(f"{folder}: result.json cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        if any(one["loc"] == ("format",) and one["type"] == "literal_error" for one in error.errors()):
            raise InputError(
                f"{folder}: result.json is of a format that this version of bmm does not know. Take a newer bmm."
            ) from None
        raise InputError(
            f"{folder}: result.json is damaged ({first_fault(error)}); train this run again."
        ) from None
    except ValueError as error:
        raise InputError(f"{folder}: result.json cannot be read ({error}).") from None
    config = _config(folder, result)
    if config is None:
        return Run(folder, result)
    settings = config.hash(result.hashes.data, with_seed=False)
    hashes = result.hashes.model_copy(update={"settings": settings})
    return Run(folder, result.model_copy(update={"hashes": hashes}), config)


def _config(folder: Path, result: Result) -> RunConfig | None:
    """The configuration of a run, None where it can't be read. InputError where config.toml is no longer the one that
    the run was trained with."""
    path = folder / "config.toml"
    try:
        content = read_bytes(path)
    except (OSError, ValueError):
        raise _unknown(folder, "missing or can't be read") from None
    if result.config_hash not in (None, hashlib.sha256(content).hexdigest()):
        raise InputError(
            f"{folder}: config.toml was changed after the run was trained. Restore it, or train the run again."
        )
    try:
        config = _parsed(content, path)
    except BmmError:  # of another version, or with a method that is not installed
        return _of_another_version(folder, result)
    said = {name: getattr(config, name) for name in NAMES} | {"tested_on": config.settings.tested_on}
    for name, value in said.items():
        if value != getattr(result, name):
            raise InputError(
                f"{folder}: result.json and config.toml differ in '{name}'. Train this run again."
            )
    if result.status == "finished" and result.epochs not in (None, config.settings.epochs):
        raise InputError(
            f"{folder}: result.json says that it finished after {result.epochs} epochs, and config.toml plans "
            f"{config.settings.epochs}. Train this run again."
        )
    return config


def _of_another_version(folder: Path, result: Result) -> None:
    """InputError where config.toml, which this version can't use, does not bear out on which samples the run was
    tested."""
    try:
        settings = read_settings(folder)
    except (OSError, ValueError):
        settings = {}
    if not settings:
        raise _unknown(folder, "damaged")
    if settings.get("tested_on", "test") != result.tested_on:
        raise InputError(
            f"{folder}: result.json and config.toml differ in 'tested_on'. Train this run again."
        )


def _unknown(folder: Path, fault: str) -> InputError:
    return InputError(
        f"{folder}: config.toml is {fault}, so that neither its settings nor on which samples it was tested is known. "
        "Restore it, or train the run again."
    )


def _parsed(content: bytes, path: Path) -> RunConfig:
    """The configuration in a config.toml. Those of one row of a report differ in the line of the seed alone, so that
    one of them is parsed for all."""
    seeds = SEED.findall(content)
    if len(seeds) != 1:
        return config_of(parse_toml(content, path), str(path))
    return _parsed_once(SEED.sub(b"seed = 0", content)).model_copy(update={"seed": int(seeds[0])})


@lru_cache(maxsize=4096)
def _parsed_once(content: bytes) -> RunConfig:
    return config_of(parse_toml(content, Path("config.toml")), "config.toml")


def state_of(run: Run) -> str:
    """The status in words. A run that is killed can't write that it is: its lock tells, which ends with it."""
    if run.result.status != "running":
        return run.result.status
    try:
        return "running" if is_locked(run.folder) else "killed, or running on another machine"
    except OSError:  # in a copy without the lock
        return "running"
