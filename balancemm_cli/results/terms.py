"""The terms under which runs were made: what rows share that may be held against each other, or put together.

These are owner, data and settings, without those in which such rows differ by their nature. Of settings that a search
chose, what was found plays no part: in its place stand how it was found, its kind, budget, seed and space. Of a set cut
into folds each run has a search of its own seed, and all of them are one tuning.
"""

from collections.abc import Iterable, Sequence

from balancemm_cli.results.groups import PER_SEED, Group
from balancemm_cli.runs.search import SearchRecord


def terms(
    group: Group, own: Iterable[str], search: SearchRecord | None = None, seed: int | str | None = None
) -> tuple:
    """The terms of a group without the settings that are its `own`, by key or by the first part of one; with those of
    a search that chose its settings, and its `seed`."""
    mine = tuple(own)

    def is_own(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in mine)

    space = {key: text for key, text in search.space.items() if not is_own(key)} if search else {}
    settings = {key: value for key, value in group.common.items() if key not in space and not is_own(key)}
    found: tuple = ()
    if search:  # in a budget of seconds a slow method has fewer trials
        trials = len(search.trials) if search.budget.get("trainings") else None
        found = (search.search, search.budget, trials, seed, sorted(space.items()))
    return group.owner, group.first.hashes.data, str(sorted(settings.items())), str(found)


def searched(group: Group, own: Iterable[str]) -> dict[tuple, tuple[SearchRecord, ...]]:
    """The searches that chose the settings of a group, by its terms with them: first all, where each run has one of its
    own, then each one."""
    mine = tuple(own)
    found = {}
    if _each_of_its_own(group):
        found[terms(group, mine, group.searches[0], PER_SEED)] = group.searches
    return found | {terms(group, mine, search, search.seed): (search,) for search in group.searches}


def joined(groups: Sequence[Group]) -> list[Group]:
    """The groups, of which those are one whose runs have searches of their own seeds, alike in all but what these
    found."""
    found: dict[object, Group] = {}
    for group in groups:
        key = _as_one(group) or id(group)
        found[key] = found[key].joined(group) if key in found else group
    return list(found.values())


def _as_one(group: Group) -> tuple:
    """What groups share that are one tuning; empty for a group whose runs have no searches of their own seeds."""
    alike = {terms(group, (), search, PER_SEED) for search in group.searches}
    return (group.names, *alike) if len(alike) == 1 and _each_of_its_own(group) else ()


def _each_of_its_own(group: Group) -> bool:
    """Whether each run has a search of its own seed, as of folds."""
    return bool(group.searches) and {*group.seeds} <= {search.seed for search in group.searches}


def tunings(group: Group) -> int:
    """How many times the settings of a group were sought; searches for a seed each are one time."""
    if _each_of_its_own(group):
        return len(group.tuned)
    return len(group.searches)


def on_the_same(group: Group, other: Group, own: Iterable[str]) -> bool:
    """Whether two groups share their terms, or those of a search each."""
    mine = tuple(own)
    return not {terms(group, mine), *searched(group, mine)}.isdisjoint(
        {terms(other, mine), *searched(other, mine)}
    )
