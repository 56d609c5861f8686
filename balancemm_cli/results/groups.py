"""Puts together the runs that differ in nothing but their seed.

Nothing found is dropped in silence: whatever
does not enter a group is named, with its reason, in `Collection.left_out`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from balancemm_cli.config.recipe import WITHOUT_EFFECT, describe
from balancemm_cli.config.run import read_config
from balancemm_cli.config.suites import Suite
from balancemm_cli.errors import BmmError, InputError, UsageError, first_of, unknown
from balancemm_cli.runs.places import ADVICE
from balancemm_cli.runs.run import Run, read_all, state_of
from balancemm_cli.runs.schema import Hashes, Result, Selection
from balancemm_cli.runs.search import SearchRecord, read_searches

UNIMODAL = (
    "unimodal-"  # begins the name of a model of one modality, as models say, which nothing here imports
)
NAMES = ("dataset", "model", "method", "variant", "recipe")
METHOD_ORDER = ("baseline", "opm", "ogm", "opm+ogm")  # as the paper's tables list them


@dataclass(frozen=True)
class Group:
    """Finished runs of one protocol, one a seed; `differences` set it apart from groups of the same names.

    `searches` are the records of those that chose its settings.
    """

    runs: list[Run]
    differences: dict[str, object] = field(default_factory=dict)
    searches: tuple[SearchRecord, ...] = ()

    @property
    def first(self) -> Result:
        """The result of the first run: what it says of names, data and hashes holds for all."""
        return self.runs[0].result

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return [run.result.seed for run in self.runs]

    @property
    def trained(self) -> bool:
        """Whether its runs are such, and nothing that was computed from those of others (see references)."""
        return not self.runs[0].members

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


def collect(
    folders: Sequence[Path],
    selection: Selection,
    *,
    may_be_empty: bool = False,
    suite: tuple[str, Suite] | None = None,
) -> Collection:
    """Read every run under `folders` and group the finished ones that have this selection; with a name and a `suite`
    those alone that belong to it.

    InputError where a folder does not exist, or, unless it `may_be_empty`, where not one run can be shown (the
    message names why).
    """
    if suite:
        runs, left_out = read_all(folders, lambda folder: _of_another(folder, *suite))
        runs = [run for run in runs if _belongs(run, *suite)]
    else:
        runs, left_out = read_all(folders)
    if not runs and not left_out and not may_be_empty:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(f"There are no runs under {places}. {ADVICE}")
    usable: list[Run] = []
    tested = [run for run in runs if run.result.tested_on == "test"]
    if trials := len(runs) - len(tested):
        left_out.append(f"trials of `bmm tune` ({trials}), whose numbers are of validation samples.")
    for run in tested:
        if run.result.status != "finished":
            left_out.append(f"{run.folder}: {state_of(run)}, not averaged.")
        elif selection not in run.result.selections:
            left_out.append(f"{run.folder}: it has no '{selection}' epoch (no such split), not averaged.")
        else:
            usable.append(run)
    groups, twins = _group(usable)
    searches, damaged = read_searches(folders)
    left_out += damaged
    groups = [replace(one, searches=tuple(searches.get(one.first.hashes.settings, ()))) for one in groups]
    if not groups and not may_be_empty:
        raise InputError(f"No finished run to report. {first_of(left_out)}")
    return Collection(groups, left_out, twins)


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
    return arranged(groups), twins


def arranged(groups: list[Group]) -> list[Group]:
    """Groups in the order of a table, those of the same names with the settings in which they differ."""
    return sorted(_tell_apart(groups), key=_order)


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
        replace(
            group,
            differences={key: group.common.get(key, missing) for key in differing}
            or {"settings hash": group.first.hashes.settings[:8]},
        )
        for group in family
    ]


def _order(group: Group) -> tuple:
    dataset, model, method, variant, recipe = group.names
    rank = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    joint = group.trained and not model.startswith(UNIMODAL)
    return (
        dataset,
        joint,
        model,
        rank,
        method,
        variant,
        recipe,
        str(group.differences),
        group.first.hashes.settings,
    )


def _belongs(run: Run, name: str, suite: Suite) -> bool:
    """Whether a run belongs to a suite: it is one that the suite plans, or was trained for it as it was then, which its
    folder tells; former versions put it into a folder of the suite's name."""
    return name in (run.suite, *run.folder.parts[-3:-2]) or (
        run.config is not None and suite.plans(run.config)
    )


def _of_another(folder: Path, name: str, suite: Suite) -> bool:
    """Whether a folder that holds no readable run is that of a run which the suite does not plan."""
    try:
        return name not in folder.parts[-3:-2] and not suite.plans(read_config(folder / "config.toml"))
    except BmmError:
        return False


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
            "method": group.first.method if group.trained else group.first.model,
            "model": group.first.model,
            "variant": group.first.variant,
            "recipe": group.first.recipe,
            "settings": describe(group.differences),
        }
        for group in groups
    ]
    shown = ["method"]
    for name in ("model", "variant", "recipe", "settings"):
        texts = Counter(tuple(part[key] for key in shown) for part in parts)
        if any(count > 1 for count in texts.values()) and len({part[name] for part in parts}) > 1:
            shown.append(name)
    return [" · ".join(dict.fromkeys(part[key] for key in shown if part[key])) for part in parts]


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
    if any(group.differences for group in groups):
        columns["Settings"] = [describe(group.differences) for group in groups]
    return columns
