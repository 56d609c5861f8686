"""Suites: a list of runs as data, benchmarks/suites/<name>.toml."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from balancemm_cli.config.recipe import read_toml, validate
from balancemm_cli.config.run import RunConfig, refuse_unused, resolve
from balancemm_cli.errors import UsageError, unknown
from balancemm_cli.methods import method_names
from balancemm_cli.models import UNIMODAL
from balancemm_cli.resources import LATER_TABLES, suites, suites_of_the_paper
from balancemm_cli.settings import Section

MINI = "-mini"  # `table-2-mini`: the rows of `table-2` on built-in synthetic data
EMBEDDED, EMBEDDED_MODALITIES = "synthetic", ("audio", "visual")
MINI_EPOCHS = 1  # a smoke test
BAND = 0.02  # two points
GAIN = "gain"
# What takes the place of data whose tasks the built-in synthetic ones have not: a label for each second, a question, a
# third modality.
MADE = {name: f"{EMBEDDED}-{name}" for name in ("ave", "music-avqa", "cmu-mosi", "ucf-101-three")}


class RunGroup(Section):
    """Every model with every method and every seed, on each data set under one recipe."""

    datasets: tuple[str, ...] = Field(min_length=1)
    recipe: str | None = None
    models: tuple[str, ...] = ("concat",)
    methods: tuple[str, ...] = ("baseline",)
    variant: str = "paper"
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)  # dotted keys, as with --set
    note: str | None = None  # of the published numbers, where the table prints several under one name
    printed_as: str | None = (
        None  # the model under which the table prints their numbers, where it is another one
    )

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice")
        return seeds

    def configs(self, overrides: Sequence[str] = ()) -> Iterator[RunConfig]:
        """The runs of this group, data set by data set and seed by seed; `overrides` as with --set."""
        settings = [*self.settings.items(), *overrides]
        for dataset in self.datasets:
            for seed in self.seeds:
                for model in self.models:
                    for method in self.methods:
                        yield resolve(dataset, model, method, self.variant, self.recipe, seed, settings)

    def mini(self) -> "RunGroup":
        """The rows of this group on built-in synthetic data: a smoke test of one seed and one epoch, without modalities
        that the data lack. On those of MADE all seeds and epochs."""
        if set(self.datasets) <= MADE.keys():
            made = tuple(MADE[name] for name in self.datasets)
            return self.model_copy(update={"datasets": made, "recipe": "default"})
        here = [UNIMODAL + name for name in EMBEDDED_MODALITIES]
        models = tuple(name for name in self.models if not name.startswith(UNIMODAL) or name in here)
        changes = {"datasets": (EMBEDDED,), "recipe": "default", "models": models, "seeds": (0,)}
        return self.model_copy(update={**changes, "settings": {"epochs": MINI_EPOCHS, **self.settings}})


class Expected(Section):
    """A range in which the mean over the seeds of a metric must lie: a fraction in 0–1, never percent.

    "gain" is the accuracy less that of the baseline, from −1 to 1.
    """

    dataset: str
    model: str = "concat"
    method: str = "baseline"
    metric: Literal["accuracy", "map", "macro_f1", "gain"] = "accuracy"
    low: float = Field(ge=-1, le=1)
    high: float = Field(ge=-1, le=1)

    @field_validator("method")
    @classmethod
    def _in_our_order(cls, method: str) -> str:
        return "+".join(method_names(method))

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        lowest = -1 if self.metric == GAIN else 0
        if self.low < lowest:
            raise ValueError("low must not be below 0")
        if (self.low, self.high) == (lowest, 1):
            raise ValueError(f"a range from {self.low:g} to {self.high:g} holds every number")
        return self


class Suite(Section):
    """A suite file: a title, groups of runs, and what they are held against by `bmm report --check`.

    That is the table (or figure) of the paper, or the table of a later paper, that they fill, where each printed number
    must be met within `band` (a fraction), and the ranges under `expected`. With `optional_data`, data sets that are
    not prepared are left out.
    """

    title: str
    table: str | None = None
    band: float = Field(default=BAND, gt=0, lt=1)
    optional_data: bool = False
    runs: tuple[RunGroup, ...] = Field(min_length=1)
    expected: tuple[Expected, ...] = ()

    @field_validator("table")
    @classmethod
    def _known_table(cls, table: str | None) -> str | None:
        of_the_paper = [name.removeprefix("table-").replace("-", " ") for name in suites_of_the_paper()]
        known = [*of_the_paper, *LATER_TABLES]
        if table is not None and table not in known:
            raise unknown("table", table, known)
        return table

    def configs(self, overrides: Sequence[str] = ()) -> list[RunConfig]:
        """All runs of the suite, each once; `overrides` as with --set."""
        return [config for config, _ in (self._planned(overrides) if overrides else self._own)]

    @cached_property
    def _own(self) -> list[tuple[RunConfig, RunGroup]]:
        """The runs as the suite gives them, resolved once."""
        return list(self._planned(()))

    def listing(self, overrides: Sequence[str] = ()) -> list[str]:
        """One line per run: its names, and the settings in which its group differs from the recipe."""
        return [
            ", ".join([config.title, *(f"{key}={value}" for key, value in group.settings.items())])
            for config, group in self._planned(overrides)
        ]

    def _planned(self, overrides: Sequence[str]) -> Iterable[tuple[RunConfig, RunGroup]]:
        """The runs, each once: two groups may come to the same one, as where a sweep passes the default."""
        found: dict[tuple[str, str], tuple[RunConfig, RunGroup]] = {}
        for group in self.runs:
            for config in group.configs(overrides):
                found.setdefault((config.dataset, config.hash("")), (config, group))
        refuse_unused((config for config, _ in found.values()), overrides, "--set")
        return found.values()

    def plans(self, config: RunConfig, chosen: Collection[str] = ()) -> bool:
        """Whether a run of these settings and seed is one of the suite's, whatever its weights start from.

        `chosen` are keys, as --set takes them, of settings that a search chose: these may differ, but for those that
        the suite itself gives."""

        def by_key(one: RunConfig, given: Collection[str]) -> object:
            free = set(chosen).difference(given)
            return {key: value for key, value in one.by_key.items() if key not in free}

        for one, group in self._by_names.get(_names(config), []):
            planned = one.starting_from(str(config.weights))
            if planned.hash("") == config.hash(""):
                return True
            if chosen and by_key(planned, group.settings) == by_key(config, group.settings):
                return True
        return False

    def names(self, config: RunConfig) -> bool:
        """Whether the suite has a run of this data set, model, method and seed, under whatever settings."""
        return _names(config) in self._by_names

    @cached_property
    def _by_names(self) -> dict[tuple, list[tuple[RunConfig, RunGroup]]]:
        found: dict[tuple, list[tuple[RunConfig, RunGroup]]] = defaultdict(list)
        for config, group in self._own:
            found[_names(config)].append((config, group))
        return found

    def mini(self) -> "Suite":
        """Every row of the suite on built-in synthetic data, see RunGroup.mini."""
        groups = tuple(group for group in (group.mini() for group in self.runs) if group.models)
        return Suite(title=f"{self.title} (built-in synthetic data)", runs=groups)


def _names(config: RunConfig) -> tuple:
    return config.dataset, config.model, config.method, config.seed


def load_suite(suite: str) -> tuple[str, Suite]:
    """A suite and its name, by name or by the path of a TOML file; the name of a table's suite with "-mini".

    UsageError for an unknown name or key, InputError for a file that can't be read.
    """
    known = suites()
    if suite.endswith(MINI) and suite not in known and suite.removesuffix(MINI) in suites_of_the_paper():
        return suite, load_suite(suite.removesuffix(MINI))[1].mini()
    path = known.get(suite) or (Path(suite) if suite.endswith(".toml") else None)
    if path is None:
        raise unknown("suite", suite, suites())
    if path.stem.startswith(".") or (path.stem in known and path.resolve() != known[path.stem].resolve()):
        raise UsageError(
            f"{path}: '{path.stem}' can't be the name of a suite of your own. Give the file another name."
        )
    return path.stem, validate(
        Suite, read_toml(path), str(path), tables={"runs": RunGroup, "expected": Expected}
    )
