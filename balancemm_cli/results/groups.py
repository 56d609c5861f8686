"""Finds run folders and puts together the runs that differ in nothing but their seed.

A run folder is one that holds a config.toml or a result.json. Nothing found is dropped in silence: whatever
does not enter a group is named, with its reason, in `Collection.left_out`.
"""

import json
import os
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from balancemm_cli.engine.config import WITHOUT_EFFECT
from balancemm_cli.engine.runs import is_locked
from balancemm_cli.errors import InputError, UsageError, first_of, unknown

Fraction = Annotated[float, Field(ge=0, le=1)]
Selection = Literal["last", "best-test", "best-val"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

_ADVICE = "Run 'bmm train' first, or name the folder of your runs."

NAMES = ("dataset", "model", "method", "variant", "recipe")
METHOD_ORDER = ("baseline", "opm", "ogm", "opm+ogm")  # as the paper's tables list them


class OfGroup(BaseModel):
    """The samples of one group of a test split, such as a type of question, and the share that is right."""

    count: int
    accuracy: Fraction


class Metrics(BaseModel):
    """What a network reaches on a split; fractions in 0–1, but for the metrics of a regression."""

    accuracy: Fraction
    map: Fraction
    macro_f1: Fraction
    unimodal: dict[str, Fraction] = {}
    map_classes_left_out: int = 0
    by_group: dict[str, OfGroup] = {}
    mae: FiniteFloat | None = None
    correlation: FiniteFloat | None = None
    accuracy_7: Fraction | None = None


class Selected(Metrics):
    """What a run reached at one selected epoch."""

    epoch: int


class Hashes(BaseModel, frozen=True):
    """The hashes of result.json. `protocol` is of the settings without the seed, and of the data."""

    protocol: str
    data: str
    splits: str | None = None


class Result(BaseModel):
    """A result.json of format 1; keys that the tables do not use are ignored."""

    format: Literal[1]
    status: Literal["finished", "diverged", "running", "interrupted"]
    dataset: str
    model: str
    method: str
    variant: str
    recipe: str
    seed: int
    epochs: int | None = None
    selections: dict[Selection, Selected] = {}
    rho: dict[str, FiniteFloat | None] = {}
    time: dict[str, FiniteFloat | None] = {}  # seconds, samples_per_second
    split: str = ""  # whose split it is, in words
    samples: dict[str, tuple[int, int]] = {}
    hashes: Hashes


def selection_named(name: str) -> Selection:
    """`name` as a Selection; UsageError where there is none of that name."""
    for selection in SELECTIONS:
        if selection == name:
            return selection
    raise unknown("selection", name, SELECTIONS)


@dataclass(frozen=True)
class Run:
    """A run folder and what its result.json says."""

    folder: Path
    result: Result

    @cached_property
    def settings(self) -> dict[str, object]:
        """config.toml by the keys that --set takes; empty where the file is missing or damaged."""
        try:
            return settings_by_key((self.folder / "config.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @cached_property
    def environment(self) -> dict[str, object]:
        """environment.json; empty where the file is missing or damaged."""
        try:
            content = json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Group:
    """Finished runs of one protocol, one a seed; `settings` sets it apart from groups of the same names."""

    runs: list[Run]
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def first(self) -> Result:
        """The result of the first run: what it says of names, data and hashes holds for all."""
        return self.runs[0].result

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return [run.result.seed for run in self.runs]

    @property
    def names(self) -> tuple[str, str, str, str, str]:
        """Data set, model, method, variant, recipe: what every table shows."""
        one = self.first
        return one.dataset, one.model, one.method, one.variant, one.recipe

    @cached_property
    def common(self) -> dict[str, object]:
        """The settings, the same for all runs of one protocol, with the hashes of data and splits."""
        settings = next((run.settings for run in self.runs if run.settings), {})
        hashes = {"data hash": self.first.hashes.data[:8]}
        if self.first.hashes.splits:
            hashes["splits hash"] = self.first.hashes.splits[:8]
        return {
            key: value for key, value in settings.items() if key not in {"seed", *WITHOUT_EFFECT}
        } | hashes


@dataclass(frozen=True)
class Collection:
    """The groups in the order of a table, and a line for each run or folder that is in none of them.

    `twins` are runs that were counted already, as those of a bundle beside their folders.
    """

    groups: list[Group]
    left_out: list[str]
    twins: list[str] = field(default_factory=list)


def collect(folders: Sequence[Path], selection: Selection, *, may_be_empty: bool = False) -> Collection:
    """Read every run under `folders` and group the finished ones that have this selection.

    InputError where a folder does not exist, or, unless it `may_be_empty`, where not one run can be shown (the
    message names why).
    """
    runs, left_out = _read_all(folders)
    if not runs and not left_out and not may_be_empty:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(f"There are no runs under {places}. {_ADVICE}")
    usable: list[Run] = []
    for run in runs:
        if run.result.status != "finished":
            left_out.append(f"{run.folder}: {_state(run)}, not averaged.")
        elif selection not in run.result.selections:
            left_out.append(f"{run.folder}: it has no '{selection}' epoch (no such split), not averaged.")
        else:
            usable.append(run)
    groups, twins = _group(usable)
    if not groups and not may_be_empty:
        raise InputError(f"No finished run to report. {first_of(left_out)}")
    return Collection(groups, left_out, twins)


def _read_all(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """All readable runs, and a line for each run folder that is not; a folder reached twice counts once."""
    runs, unreadable = [], []
    for folder in _run_folders(folders):
        try:
            runs.append(read_run(folder))
        except InputError as error:
            unreadable.append(str(error))
    return runs, unreadable


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """Each run folder under `folders`, at any depth and through links, once. InputError where one does not exist."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. {_ADVICE}")
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
    """The run in `folder`. InputError that names the folder where its result.json cannot be used."""
    try:
        return Run(folder, Result.model_validate_json((folder / "result.json").read_bytes()))
    except FileNotFoundError:
        raise InputError(f"{folder}: no result.json yet, the run has not started or was stopped.") from None
    except OSError as error:
        raise InputError(f"{folder}: result.json cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise InputError(
            f"{folder}: result.json is damaged ({first_fault(error)}); train this run again."
        ) from None


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a file, and where in it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"'{where}': {first['msg']}" if where else first["msg"]


def _state(run: Run) -> str:
    """The status in words. A run that is killed can't write that it is: its lock tells, which ends with it."""
    if run.result.status != "running":
        return run.result.status
    try:
        return "running" if is_locked(run.folder) else "killed, or running on another machine"
    except OSError:  # in a copy without the lock
        return "running"


def _group(runs: list[Run]) -> tuple[list[Group], list[str]]:
    """Group by the hashes; and a line for each seed that a group has already."""
    twins: list[str] = []
    by_hashes: dict[Hashes, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        seeds = by_hashes[run.result.hashes]
        twin = seeds.setdefault(run.result.seed, run)
        if twin is not run:
            twins.append(f"{run.folder}: the same settings and seed as {twin.folder}, counted once.")
    groups = [Group([seeds[seed] for seed in sorted(seeds)]) for seeds in by_hashes.values()]
    return sorted(_tell_apart(groups), key=_order), twins


def _tell_apart(groups: list[Group]) -> list[Group]:
    """Give groups of the same names the settings in which they differ."""
    families: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        families[group.names].append(group)
    return [one for family in families.values() for one in _with_differences(family)]


def _with_differences(family: list[Group]) -> list[Group]:
    if len(family) == 1:
        return family
    missing = "unset"
    keys = sorted(set().union(*(group.common for group in family)))
    differing = [
        key
        for key in keys
        if any(group.common.get(key, missing) != family[0].common.get(key, missing) for group in family)
    ]
    return [
        Group(
            group.runs,
            {key: group.common.get(key, missing) for key in differing}
            or {"protocol": group.first.hashes.protocol[:8]},
        )
        for group in family
    ]


def _order(group: Group) -> tuple:
    dataset, model, method, variant, recipe = group.names
    rank = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    joint = not model.startswith("unimodal-")
    return (
        dataset,
        joint,
        model,
        rank,
        method,
        variant,
        recipe,
        str(group.settings),
        group.first.hashes.protocol,
    )


def choose(groups: Sequence[Group], where: Sequence[str]) -> list[Group]:
    """The groups that meet every condition, each KEY=VALUE,… with the values that it allows.

    A key is one of NAMES or a setting as --set takes it. UsageError for a malformed condition, for a key that no group
    has, and where no group is left.
    """
    found = list(groups)
    for condition in where:
        key, equals, values = condition.partition("=")
        if not equals:
            raise UsageError(
                f"'{condition}' is no condition. Write --where KEY=VALUE, as in --where method=opm,ogm."
            )
        known = {name for group in groups for name in _facts(group)}
        if key not in known:
            raise unknown("column or setting", key, known)
        allowed = values.lower().split(",")
        found = [group for group in found if str(_facts(group).get(key)).lower() in allowed]
    if not found:
        raise UsageError(f"No group of runs has {' and '.join(where)}.")
    return found


def _facts(group: Group) -> dict[str, object]:
    return {**group.common, **dict(zip(NAMES, group.names, strict=True))}


def labels(groups: list[Group]) -> list[str]:
    """A short name for each group: its method, and of model, variant, recipe and settings what is needed."""
    parts = [
        {
            "method": group.first.method,
            "model": group.first.model,
            "variant": group.first.variant,
            "recipe": group.first.recipe,
            "settings": describe(group.settings),
        }
        for group in groups
    ]
    shown = ["method"]
    for name in ("model", "variant", "recipe", "settings"):
        texts = Counter(tuple(part[key] for key in shown) for part in parts)
        if any(count > 1 for count in texts.values()) and len({part[name] for part in parts}) > 1:
            shown.append(name)
    return [" · ".join(part[key] for key in shown if part[key]) for part in parts]


def columns_apart(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The columns that tell rows apart, by their heads: model and method, and what of the rest differs."""
    columns = {
        "Model": [group.first.model for group in groups],
        "Method": [group.first.method for group in groups],
    }
    others = {
        "Variant": [group.first.variant for group in groups],
        "Recipe": [group.first.recipe for group in groups],
    }
    columns |= {name: texts for name, texts in others.items() if len(set(texts)) > 1}
    if any(group.settings for group in groups):
        columns["Settings"] = [describe(group.settings) for group in groups]
    return columns


def settings_by_key(config: str) -> dict[str, object]:
    """The text of a config.toml by dotted keys, those of model and methods by the keys that --set takes.

    ValueError where it is no TOML.
    """
    content = tomllib.loads(config)
    of_methods, of_model = content.pop("methods", {}), content.pop("model_settings", {})
    return flatten({**content, **of_methods, str(content.get("model")): of_model})


def describe(settings: Mapping[str, object]) -> str:
    """Settings as a person reads them: "train.lr=0.02, train.epochs=24"."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def flatten(tree: Mapping[str, object], separator: str = ".") -> dict[str, object]:
    """Nested tables as one, their keys joined: {"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in flatten(value, separator).items()}
        else:
            flat[key] = value
    return flat
