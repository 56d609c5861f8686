"""Notes under a table: in what its runs differ from the recipe that they name, from what a suite plans, and from
their authors' code."""

from collections.abc import Sequence
from functools import cache

from balancemm_cli.config.recipe import WITHOUT_EFFECT, describe, is_key
from balancemm_cli.config.run import not_installed, resolve, revisions
from balancemm_cli.config.suites import Suite
from balancemm_cli.errors import BmmError
from balancemm_cli.origin import not_held
from balancemm_cli.results.groups import Group
from balancemm_cli.results.verdicts import follows

SHOWN = 20  # groups that a note names


def beyond_recipe(group: Group) -> dict[str, object]:
    """The settings of a group that its recipe does not give, by their --set key; see `Group.settings`.

    UsageError where the recipe, a file of the user's own, is not known here.
    """
    given = _of_recipe(group.names)
    return {key: value for key, value in group.settings.items() if given.get(key) != value and is_key(key)}


@cache
def _of_recipe(names: tuple[str, str, str, str, str]) -> dict[str, object]:
    return resolve(*names).by_key


def recipe_notes(groups: Sequence[Group]) -> list[str]:
    """A line on each group whose settings are not its recipe's, or can't be told: its recipe, method or model is not
    known here."""
    found = []
    for group in groups:
        try:
            settings = {
                key: value for key, value in beyond_recipe(group).items() if key not in WITHOUT_EFFECT
            }
        except BmmError:
            lacking = not_installed(*group.names[1:3]) or [f"recipe {group.first.recipe}"]
            found.append(f"{_name(group)} ({', '.join(lacking)} not known here)")
        else:
            found += [f"{_name(group)} ({describe(settings)})"] if settings else []
    return _named("Settings other than the recipe's", found)


def revision_notes(groups: Sequence[Group]) -> list[str]:
    """A line on the groups whose method or model computes something else now, under the same name."""
    known = [group for group in groups if group.runs[0].config]
    return _named(
        "Of a former revision, when a method or model of this name computed something else (CHANGELOG)",
        [_name(group) for group in known if _is_former(group)],
    )


def _is_former(group: Group) -> bool:
    config = group.runs[0].config
    assert config is not None
    return config.revisions != revisions(config.model, config.methods)


def origin_notes(groups: Sequence[Group]) -> list[str]:
    """A line on the methods and models of these groups that were never held against their authors' code."""
    names = not_held((group.first.model, group.first.method) for group in groups)
    return [f"Not held against its authors' code: {', '.join(names)}."] if names else []


def suite_notes(groups: Sequence[Group], name: str, suite: Suite) -> list[str]:
    """A line on the groups that a suite does not plan as they are, nor with what a search chose in place of that."""
    planned = suite.configs()
    names = [
        _name(group)
        for group in groups
        if not any(
            (config.dataset, config.model, config.method) == group.names[:3] and follows(group, config)
            for config in planned
        )
        and not _chosen(group, suite)
    ]
    return _named(f"Settings that are not (or no longer) those of suite {name}", names)


def _chosen(group: Group, suite: Suite) -> bool:
    keys = {key for record in group.searches for key in record.best.settings}
    return bool(keys) and all(run.config and suite.plans(run.config, keys) for run in group.runs)


def _name(group: Group) -> str:
    return " ".join((*group.names[1:3], *filter(None, [group.described])))


def _named(heading: str, found: Sequence[str]) -> list[str]:
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [f"{heading}: {'; '.join([*found[:SHOWN], *more])}."] if found else []
