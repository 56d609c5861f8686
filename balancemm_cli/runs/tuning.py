"""What `bmm tune` plans: whose settings are sought, in which searches, and the runs that are tested with the choice."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from balancemm_cli.config.recipe import parse_override
from balancemm_cli.config.run import RunConfig, refuse_unused
from balancemm_cli.config.spaces import space_of
from balancemm_cli.config.suites import Suite
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.runs.places import Places
from balancemm_cli.runs.search import Budget, Kind, Question, Search


@dataclass(frozen=True)
class Asked:
    """Whose settings are sought, and the seeds for which the chosen ones are tested."""

    question: Question
    seeds: list[int]

    @property
    def base(self) -> RunConfig:
        """The run of the first seed with the recipe's own settings."""
        return self.question.config(self.seeds[0], {})

    def starting_from(self, weights: str) -> "Asked":
        """The same from weights of that SHA-256."""
        return replace(self, question=replace(self.question, weights=weights))


def questions(
    dataset: str,
    model: str,
    methods: Sequence[str],
    variant: str,
    recipe: str | None,
    seeds: list[int],
    changes: Sequence[str],
) -> list[Asked]:
    """One question a method. UsageError for names and settings that are none, and for a method named twice."""
    overrides = _parsed(changes)
    found = [Asked(Question(dataset, model, method, variant, recipe, overrides), seeds) for method in methods]
    if len({one.base.method for one in found}) < len(found):
        raise UsageError(f"--method {','.join(methods)} names a method twice.")
    refuse_unused([one.base for one in found], overrides, "--set")
    return found


def questions_of_suite(suite: Suite, changes: Sequence[str]) -> list[Asked]:
    """One question for each row of a suite, that is its runs without their seeds; `changes` as with --set."""
    overrides = _parsed(changes)
    found: dict[tuple[str, str], Asked] = {}
    for group in suite.runs:
        settings = (*group.settings.items(), *overrides)
        for dataset, model, method in product(group.datasets, group.models, group.methods):
            question = Question(dataset, model, method, group.variant, group.recipe, settings)
            asked = Asked(question, list(group.seeds))
            known = found.setdefault((dataset, asked.base.hash("", with_seed=False)), asked)
            known.seeds.extend(seed for seed in group.seeds if seed not in known.seeds)
    refuse_unused([one.base for one in found.values()], overrides, "--set")
    return list(found.values())


def _parsed(changes: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Settings as --set takes them, as keys and values."""
    found = tuple(map(parse_override, changes))
    if any(key == "tested_on" for key, _ in found):
        raise UsageError(
            "--set tested_on would change nothing: trials are tested on val, and the chosen settings on test."
        )
    return found


@dataclass(frozen=True)
class Tuning:
    """A question with its searches: one for all seeds, or of a set that is cut into folds one for each seed, which is
    tested on a fold of its own. `data` is None where the set is not prepared yet."""

    asked: Asked
    searches: list[Search]
    data: Path | None

    def finals(self) -> Iterator[tuple[RunConfig, Path]]:
        """The runs with the chosen settings and their folders, by seed. The searches are over."""
        for number, seed in enumerate(self.asked.seeds):
            search = self.searches[number % len(self.searches)]
            config = self.asked.question.config(seed, search.chosen.settings)
            yield config, search.places.of(config, search.data_hash)

    def write(self) -> str:
        """Write the records of its searches, which are over; or why nothing can be chosen, as each trial diverged."""
        try:
            for search in self.searches:
                search.write()
        except InputError as error:
            return str(error)
        return ""


def plan(
    asked: Asked, budget: Budget, kind: Kind, space: Path | None, places: Places, prepared: PreparedSet | None
) -> Tuning:
    """The searches for a question; `space` is a file of one's own. InputError for a set of which no samples can be
    held out."""
    base, seeds = asked.base, asked.seeds
    found = space_of(base, space, dict(asked.question.changes))
    if prepared:
        prepared.for_run(seeds[0], "val")
    of_searches = seeds if prepared and prepared.folds else seeds[:1]
    data_hash = prepared.content_hash if prepared else ""
    searches = [Search(asked.question, seed, found, budget, kind, places, data_hash) for seed in of_searches]
    return Tuning(asked, searches, prepared.folder if prepared else None)
