"""Reads the runs that a report is of, and puts together those that differ in nothing but their seed.

Nothing found is dropped in silence: whatever does not enter a group is named, with its reason, in
`Collection.left_out`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from balancemm_cli.config.recipe import describe
from balancemm_cli.config.run import read_config
from balancemm_cli.config.suites import Suite
from balancemm_cli.errors import BmmError, InputError, first_of, plain
from balancemm_cli.results.evidence import without_predictions
from balancemm_cli.results.groups import Group, Key, arranged
from balancemm_cli.results.sharing import Bundle, borne_out, doubted, each_once
from balancemm_cli.results.terms import joined
from balancemm_cli.runs.places import ADVICE
from balancemm_cli.runs.run import Run, read_all, state_of
from balancemm_cli.runs.schema import Selection
from balancemm_cli.runs.search import SearchRecord, read_searches

NAMED = 10  # rows that a line names
Searches = Mapping[str, Sequence[SearchRecord]]
"""Records by the settings hash of the runs with what they chose."""


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
    found, damaged = read_searches(folders)
    runs, left_out = _read(folders, suite, found)
    left_out += damaged
    usable = [
        replace(run, owner=owner, claimed=without_predictions(run))
        for run in _usable(runs, selection, left_out)
    ]
    searches = {owner: found}
    for bundle in bundles:
        found, damaged = read_searches([bundle.folder])
        others, lines = _read([bundle.folder], suite, found)
        others, faults = borne_out(_usable(others, selection, lines), bundle)
        searches[bundle.owner] = found
        lines += damaged if others else []
        usable += others
        left_out += [*map(bundle.in_words, lines), *faults]
    if not usable and not left_out and not may_be_empty:
        places = ", ".join(map(str, [*folders, *(bundle.path for bundle in bundles)]))
        raise InputError(f"There are no runs under {places}. {ADVICE}")
    usable, copies = each_once(usable)
    usable, remarks = doubted(usable)
    groups, twins = _group(usable)
    groups = arranged(joined([_with_searches(one, searches[one.owner], left_out) for one in groups]))
    if not groups and not may_be_empty:
        raise InputError(f"No finished run to report: {first_of(left_out)}")
    return Collection(groups, left_out, copies + twins, remarks)


def _read(
    folders: Sequence[Path], suite: tuple[str, Suite] | None, searches: Searches
) -> tuple[list[Run], list[str]]:
    """The runs under folders, of a suite those alone that belong to it, and a line for each that can't be read."""
    if suite is None:
        return read_all(folders)
    name, planned = suite

    def is_of_another(folder: Path) -> bool:
        try:
            config = read_config(folder / "config.toml")
            return not _in_folder_of(name, folder, config.dataset) and not planned.names(config)
        except BmmError:
            return False

    runs, left_out = read_all(folders, is_of_another)
    mine = [run for run in runs if _belongs(run, name, planned, searches)]
    return mine, [*left_out, *_of_other_settings(*suite, runs, mine)]


def _of_other_settings(name: str, suite: Suite, runs: Sequence[Run], mine: Sequence[Run]) -> list[str]:
    """A line on the runs with the names and seeds of a suite's that are none of it."""
    there = {run.folder for run in mine}
    others = [run for run in runs if run.folder not in there and run.result.tested_on == "test"]
    counts = Counter(
        f"{run.result.dataset} {run.result.model} {run.result.method}"
        for run in others
        if run.config and suite.names(run.config)
    )
    each = [f"{names} ({count})" for names, count in counts.items()]
    more = f" and {len(each) - NAMED} other rows" if len(each) > NAMED else ""
    return [
        f"runs whose settings are not those of suite {name}, nor by a search.json here what a search chose for it: "
        f"{', '.join(each[:NAMED])}{more}."
    ] * bool(each)


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


def _with_searches(group: Group, searches: Searches, left_out: list[str]) -> Group:
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
            twins.append(f"{run.place}: the same settings and seed as {twin.place}, counted once.")
    return [Group([seeds[seed] for seed in sorted(seeds)]) for seeds in by_hashes.values()], twins


def _belongs(run: Run, name: str, suite: Suite, searches: Searches) -> bool:
    """Whether a run belongs to a suite: it is one that the suite plans, with its own settings or with those that a
    search chose in their place, or was trained for it as it was then, which its folder tells."""
    if run.suite == name or _in_folder_of(name, run.folder, run.result.dataset):
        return True
    if run.config is None:
        return False
    chosen = searches.get(run.config.hash(run.result.hashes.data, with_seed=False), ())
    return suite.plans(run.config) or any(suite.plans(run.config, record.best.settings) for record in chosen)


def _in_folder_of(name: str, folder: Path, dataset: str) -> bool:
    """Whether a run lies in a suite's folder, where former versions had the data set's."""
    return name in folder.parts[-3:-2] and name != dataset
