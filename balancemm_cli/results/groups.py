"""Runs that differ in nothing but their seed, and what tells groups of them apart."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from balancemm_cli.config.recipe import WITHOUT_EFFECT, describe
from balancemm_cli.errors import UsageError, unknown
from balancemm_cli.results.sharing import NOBODY, OWN
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Hashes, Result, Selection
from balancemm_cli.runs.search import SearchRecord

UNIMODAL = (
    "unimodal-"  # begins the name of a model of one modality, as models say, which nothing here imports
)
NAMES = ("dataset", "model", "method", "variant", "recipe")
PER_SEED = "per seed"  # what is said of a setting that a search of its own chose for each run
METHOD_ORDER = ("baseline", "opm", "ogm", "opm+ogm")  # as the paper's tables list them

Key = tuple[str, Hashes]


def way(search: SearchRecord) -> str:
    """How a search sought settings: its kind and its budget."""
    return f"tuned ({search.search}, {search.allowed})"


@dataclass(frozen=True)
class Group:
    """Finished runs of one protocol, one a seed; `differences` set it apart from groups of the same names.

    `searches` are the records of those that chose its settings, for all runs or, of a set cut into folds, for each run
    its own; `whose` is its owner where there are several.
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
    def hashes(self) -> dict[str, str | None]:
        """The hashes by their names, of which PER_SEED stands for that of settings which the runs do not share."""
        return self.first.hashes.model_dump() | ({"settings": PER_SEED} if len(self.by_settings) > 1 else {})

    @property
    def described(self) -> str:
        """In what it differs from groups of the same names: settings, and whose it is."""
        return " · ".join(filter(None, [describe(self.differences), self.whose]))

    def claimed(self, selection: Selection) -> bool:
        """Whether any of its runs has no predictions that bear out its numbers at a selection."""
        return any(selection in run.claimed for run in self.runs)

    @property
    def tuned(self) -> list[str]:
        """How its settings were sought, the kind and the budget of each search; empty where no search chose them."""
        return sorted({way(search) for search in self.searches})

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
    def by_settings(self) -> "list[Group]":
        """Its runs in groups of the same settings: itself, unless each run has those of a search of its own."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            found[run.result.hashes.settings].append(run)
        return [self] if len(found) == 1 else [replace(self, runs=runs) for runs in found.values()]

    @cached_property
    def settings(self) -> dict[str, object]:
        """The settings by their --set key, of which PER_SEED stands for one that the runs do not share."""
        several = [next((run.settings for run in one.runs if run.settings), {}) for one in self.by_settings]
        keys = dict.fromkeys(key for one in several for key in one)
        return {
            key: several[0].get(key)
            if all(one.get(key) == several[0].get(key) for one in several)
            else PER_SEED
            for key in keys
        }

    @cached_property
    def common(self) -> dict[str, object]:
        """The settings that can matter, but for the seed, with the hashes of data and splits."""
        hashes = {"data hash": self.first.hashes.data[:8]}
        if self.first.hashes.splits:
            hashes["splits hash"] = self.first.hashes.splits[:8]
        return {
            key: value for key, value in self.settings.items() if key not in {"seed", *WITHOUT_EFFECT}
        } | hashes

    def joined(self, other: "Group") -> "Group":
        """This group with the runs of another one whose seeds it has not, and the searches of both."""
        runs = {run.result.seed: run for run in (*other.runs, *self.runs)}
        searches = (*self.searches, *other.searches)
        return replace(self, runs=[runs[seed] for seed in sorted(runs)], searches=searches)


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
    if where and not found:
        raise UsageError(f"No group of runs has {' and '.join(where)}.")
    return found


def _facts(group: Group) -> dict[str, object]:
    return {**group.common, **dict(zip(NAMES, group.names, strict=True)), "owner": group.owner_name or OWN}


def seeds_text(seeds: list[int]) -> str:
    """Seeds as --seeds takes them: "0-4" for a range, else "0,2,5"."""
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(str(seed) for seed in seeds)


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
