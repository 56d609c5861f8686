"""Suites: a list of runs as data, benchmarks/suites/<name>.toml."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from balancemm_cli.engine.config import RunConfig, Section, read_toml, resolve, validate
from balancemm_cli.errors import unknown
from balancemm_cli.resources import suites


class RunGroup(Section):
    """Every model with every method and every seed, on one data set under one recipe."""

    dataset: str
    recipe: str | None = None
    models: tuple[str, ...] = ("concat",)
    methods: tuple[str, ...] = ("baseline",)
    variant: str = "paper"
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)  # dotted keys, as with --set

    def configs(self, overrides: Sequence[str] = ()) -> list[RunConfig]:
        """The runs of this group, seed by seed; `overrides` as with --set."""
        return [
            resolve(
                self.dataset,
                model,
                method,
                self.variant,
                self.recipe,
                seed,
                [*self.settings.items(), *overrides],
            )
            for seed in self.seeds
            for model in self.models
            for method in self.methods
        ]


class Suite(Section):
    """A suite file: a title, and groups of runs."""

    title: str
    runs: tuple[RunGroup, ...] = Field(min_length=1)

    def configs(self, overrides: Sequence[str] = ()) -> list[RunConfig]:
        """All runs of the suite; `overrides` as with --set."""
        return [config for group in self.runs for config in group.configs(overrides)]


def load_suite(suite: str) -> tuple[str, Suite]:
    """A suite and its name, by name or by the path of a TOML file.

    UsageError for an unknown name or key, InputError for a file that can't be read.
    """
    path = suites().get(suite) or (Path(suite) if suite.endswith(".toml") else None)
    if path is None:
        raise unknown("suite", suite, suites())
    return path.stem, validate(Suite, read_toml(path), str(path))
