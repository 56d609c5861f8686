"""The terms under which runs were made: what rows share that may be held against each other, or put together.

These are owner, data and settings, without those in which such rows differ by their nature. Of settings that a search
chose, what was found plays no part: in its place stand how it was found, its kind, budget, seed and space.
"""

from collections.abc import Iterable

from balancemm_cli.results.groups import Group
from balancemm_cli.runs.search import SearchRecord


def terms(group: Group, own: Iterable[str], search: SearchRecord | None = None) -> tuple:
    """The terms of a group without the settings that are its `own`, by key or by the first part of one; with those of
    a search that chose its settings."""
    mine = tuple(own)

    def is_own(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in mine)

    space = {key: text for key, text in search.space.items() if not is_own(key)} if search else {}
    settings = {key: value for key, value in group.common.items() if key not in space and not is_own(key)}
    found: tuple = ()
    if search:  # in a budget of seconds a slow method has fewer trials
        trials = len(search.trials) if search.budget.get("trainings") else None
        found = (search.search, search.budget, trials, search.seed, sorted(space.items()))
    return group.owner, group.first.hashes.data, str(sorted(settings.items())), str(found)


def searched(group: Group, own: Iterable[str]) -> dict[tuple, SearchRecord]:
    """The searches that chose the settings of a group, by its terms with each."""
    mine = tuple(own)
    return {terms(group, mine, search): search for search in group.searches}


def on_the_same(group: Group, other: Group, own: Iterable[str]) -> bool:
    """Whether two groups share their terms, or those of a search each."""
    mine = tuple(own)
    return not {terms(group, mine), *searched(group, mine)}.isdisjoint(
        {terms(other, mine), *searched(other, mine)}
    )
