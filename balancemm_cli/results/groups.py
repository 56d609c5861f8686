"""Puts together the runs that differ in nothing but their seed.

Nothing found is dropped in silence: whatever
does not enter a group is named, with its reason, in `Collection.left_out`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from balancemm_cli.config.recipe import WITHOUT_EFFECT, describe
from balancemm_cli.config.run import read_config
from balancemm_cli.config.suites import Suite
from balancemm_cli.errors import BmmError, InputError, UsageError, first_of, plain, unknown
from balancemm_cli.results.evidence import without_predictions
from balancemm_cli.results.sharing import NOBODY, OWN, Bundle, borne_out, doubted, each_once
from balancemm_cli.runs.places import ADVICE
from balancemm_cli.runs.run import Run, read_all, state_of
from balancemm_cli.runs.schema import Hashes, Result, Selection
from balancemm_cli.runs.search import SearchRecord, read_searches

UNIMODAL = (
    "unimodal-"  # begins the name of a model of one modality, as models say, which nothing here imports
)
NAMES = ("dataset", "model", "method", "variant", "recipe")
METHOD_ORDER = ("baseline", "opm", "ogm", "opm+ogm")  # as the paper's tables list them

Key = tuple[str, Hashes]


@dataclass(frozen=True)
class Group:
    """Finished runs of one protocol, one a seed; `differences` set it apart from groups of the same names.

    `searches` are the records of those that chose its settings, `whose` is its owner where there are several.
    """

    runs: list[Run]
    differences: dict[str, object] = field(default_factory=dict)
    searches: tuple[SearchRecord, ...] = ()
    whose: str = ""

    @property
    def first(self) -> Result:
        """The result of the first run: what it says of names, data and hashes holds for all."""
        return self.runs[0].result

    @property
    def owner(self) -> str:
        """Whose its runs are; empty for those of folders without a name."""
        return self.runs[0].owner

    @property
    def owner_name(self) -> str | None:
        """The name of its owner, None where it has none."""
        return None if self.owner in ("", NOBODY) else self.owner

    @property
    def key(self) -> Key:
        """What no other group has: its owner, and the hashes of settings and data."""
        return self.owner, self.first.hashes

    @property
    def described(self) -> str:
        """In what it differs from groups of the same names: settings, and whose it is."""
        return " · ".join(filter(None, [describe(self.differences), self.whose]))

    def claimed(self, selection: Selection) -> bool:
        """Whether any of its runs has no predictions that bear out its numbers at a selection."""
        return any(selection in run.claimed for run in self.runs)

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

    `twins` are runs that were counted already, as those of a bundle beside their folders; `remarks` say what runs of
    one owner say against those of another, which are in groups.
    """

    groups: list[Group]
    left_out: list[str]
    twins: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def collect(
    folders: Sequence[Path],
    selection: Selection,
    *,
    may_be_empty: bool = False,
    suite: tuple[str, Suite] | None = None,
    bundles: Sequence[Bundle] = (),
    owner: str = "",
) -> Collection:
    """Read every run under `folders`, which are the `owner`'s, and of `bundles`, and group the finished ones that have
    this selection; with a name and a `suite` those alone that belong to it.

    InputError where a folder does not exist, or, unless it `may_be_empty`, where not one run can be shown (the
    message names why).
    """
    runs, left_out = _read(folders, suite)
    usable = [
        replace(run, owner=owner, claimed=without_predictions(run))
        for run in _usable(runs, selection, left_out)
    ]
    searches = {owner: _searches(folders, left_out)}
    for bundle in bundles:
        others, lines = _read([bundle.folder], suite)
        others, faults = borne_out(_usable(others, selection, lines), bundle)
        searches[bundle.owner] = _searches([bundle.folder], lines) if others else {}
        usable += others
        left_out += [*map(bundle.in_words, lines), *faults]
    if not usable and not left_out and not may_be_empty:
        places = ", ".join(map(str, [*folders, *(bundle.path for bundle in bundles)]))
        raise InputError(f"There are no runs under {places}. {ADVICE}")
    usable, copies = each_once(usable)
    usable, remarks = doubted(usable)
    groups, twins = _group(usable)
    groups = [_with_searches(one, searches[one.owner], left_out) for one in groups]
    if not groups and not may_be_empty:
        raise InputError(f"No finished run to report. {first_of(left_out)}")
    return Collection(groups, left_out, copies + twins, remarks)


def _read(folders: Sequence[Path], suite: tuple[str, Suite] | None) -> tuple[list[Run], list[str]]:
    if suite is None:
        return read_all(folders)
    runs, left_out = read_all(folders, lambda folder: _of_another(folder, *suite))
    return [run for run in runs if _belongs(run, *suite)], left_out


def _usable(runs: Sequence[Run], selection: Selection, left_out: list[str]) -> list[Run]:
    """The finished runs that were tested and have a selection; `left_out` gets a line for others."""
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
    return usable


def _searches(folders: Sequence[Path], left_out: list[str]) -> dict[str, list[SearchRecord]]:
    found, damaged = read_searches(folders)
    left_out += damaged
    return found


def _with_searches(
    group: Group, searches: Mapping[str, Sequence[SearchRecord]], left_out: list[str]
) -> Group:
    """The group with the records of the searches that chose its settings, whose choice these are."""
    found = []
    for record in searches.get(group.first.hashes.settings, ()):
        if all(group.common.get(key) == value for key, value in record.best.settings.items()):
            found.append(record)
        else:
            left_out.append(
                f"a search of {record.model} {record.method}: it chose {plain(describe(record.best.settings))}, which "
                "the runs that it names do not have."
            )
    return replace(group, searches=tuple(found))


def _group(runs: list[Run]) -> tuple[list[Group], list[str]]:
    """Group by the hashes; and a line for each seed that a group has already."""
    twins: list[str] = []
    by_hashes: dict[Key, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        seeds = by_hashes[run.owner, run.result.hashes]
        twin = seeds.setdefault(run.result.seed, run)
        if twin is not run:
            twins.append(f"{run.folder}: the same settings and seed as {twin.folder}, counted once.")
    groups = [Group([seeds[seed] for seed in sorted(seeds)]) for seeds in by_hashes.values()]
    return arranged(groups), twins


def arranged(groups: list[Group]) -> list[Group]:
    """Groups in the order of a table, those of the same names with the settings in which they differ, and of several
    owners each with its own."""
    owners = {group.owner for group in groups if group.trained}
    several = len(owners) > 1
    named = [replace(group, whose=_whose(group) if several else "") for group in groups]
    return sorted(_tell_apart(named), key=_order)


def _whose(group: Group) -> str:
    return "" if group.owner == NOBODY else group.owner or OWN


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
    apart = len({group.owner for group in family}) == len(family)
    rest = (lambda _: {}) if apart else (lambda group: {"settings hash": group.first.hashes.settings[:8]})
    return [
        replace(group, differences={key: group.common.get(key, missing) for key in differing} or rest(group))
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
        group.owner,
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

    A key is one of NAMES, `owner`, or a setting as --set takes it. UsageError for a malformed condition, for a key that
    no group has, and where no group is left.
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
        allowed = [values.lower(), *values.lower().split(",")]  # an owner's name may have a comma
        found = [group for group in found if str(_facts(group).get(key)).lower() in allowed]
    if not found:
        raise UsageError(f"No group of runs has {' and '.join(where)}.")
    return found


def _facts(group: Group) -> dict[str, object]:
    return {**group.common, **dict(zip(NAMES, group.names, strict=True)), "owner": group.owner_name or OWN}


def labels(groups: list[Group]) -> list[str]:
    """A short name for each group: its method, and of model, variant, recipe and settings what is needed."""
    parts = [
        {
            "method": group.first.method if group.trained else group.first.model,
            "model": group.first.model,
            "variant": group.first.variant,
            "recipe": group.first.recipe,
            "settings": describe(group.differences),
            "owner": group.whose,
        }
        for group in groups
    ]
    shown = ["method"]
    for name in ("owner", "model", "variant", "recipe", "settings"):
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
    if len({group.whose for group in groups if group.trained}) > 1:
        columns["Owner"] = [group.whose for group in groups]
    if any(group.differences for group in groups):
        columns["Settings"] = [describe(group.differences) for group in groups]
    return columns
