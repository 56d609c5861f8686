"""Search spaces: what `bmm tune` may set, and within which bounds, as data: benchmarks/spaces/<name>.toml."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, model_validator

from balancemm_cli.config.recipe import all_keys, describe, is_key, read_toml, validate
from balancemm_cli.config.run import RunConfig
from balancemm_cli.errors import UsageError, unknown
from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.resources import benchmarks_folder

SHARED = "shared"  # the space of what all methods have
NOT_SEARCHED = ("tested_on", "snapshots")
DIGITS = 3  # of a number that is drawn: a setting that people can read and write

Number = int | float
Space = dict[str, "Dimension"]


class Dimension(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """What one setting may be: within a range, within a range of multiples of the recipe's value, or one of several.

    It is a whole number where the recipe's value is one; of a setting without a value, between whole ends.
    """

    range: tuple[Number, Number] | None = None
    factor: tuple[Number, Number] | None = None
    values: tuple[Any, ...] | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _of_one_sort(self) -> Self:
        if sum(given is not None for given in (self.range, self.factor, self.values)) != 1:
            raise ValueError("it takes one of range, factor and values")
        if self.values is not None and not 1 < len({*map(repr, self.values)}) == len(self.values):
            raise ValueError("values must be two or more, each once")
        low, high = self.range or self.factor or (1, 2)
        if low >= high:
            raise ValueError("the first number must be below the second")
        if low <= 0 and (self.factor or self.scale == "log"):
            raise ValueError("the numbers of a factor, and of scale log, must be above 0")
        return self

    def at(self, share: float, of_recipe: object) -> Any:  # noqa: ANN401 - any TOML value
        """The value at a share in [0, 1) of the way through; `of_recipe` is the recipe's."""
        if self.values is not None:
            return self.values[int(share * len(self.values))]
        low, high = self.bounds(of_recipe)
        if self.scale == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        known = [of_recipe] if isinstance(of_recipe, Number) else [low, high]
        whole = all(isinstance(one, int) for one in known)
        return round(value) if whole else float(f"{value:.{DIGITS}g}")

    def bounds(self, of_recipe: object) -> tuple[Number, Number]:
        """The lowest and the highest number."""
        if self.range is not None:
            return self.range
        assert self.factor is not None
        if not isinstance(of_recipe, Number) or of_recipe <= 0:
            raise UsageError(
                f"a factor needs a number of the recipe above 0, which has {of_recipe}. Give a range."
            )
        low, high = (factor * of_recipe for factor in self.factor)
        return (max(1, low), max(1, high)) if isinstance(of_recipe, int) else (low, high)

    def highest(self, of_recipe: object) -> Any:  # noqa: ANN401 - any TOML value
        """The highest value of those that can be ordered."""
        return self.at(math.nextafter(1, 0), of_recipe) if self.values is None else max(self.values)

    def in_words(self, of_recipe: object) -> str:
        """The bounds or the values, as a person reads them."""
        if self.values is not None:
            return " or ".join(map(str, self.values))
        low, high = self.bounds(of_recipe)
        return f"{low:g}–{high:g}" + (" (log)" if self.scale == "log" else "")


def spaces() -> dict[str, Path]:
    """The spaces that come with the program: SHARED, and by name those of models and methods."""
    return {path.stem: path for path in sorted((benchmarks_folder() / "spaces").glob("*.toml"))}


def space_of(config: RunConfig, file: Path | None = None, fixed: Mapping[str, object] | None = None) -> Space:
    """What is searched for a run: what all methods share, then what is its model's and its methods' own, or what
    `file` says; without the `fixed` settings, and without those of a method that change nothing, as where its variant
    leaves out what they are of.

    Of a file the settings of methods and models that the run has not are left out, so that one serves several runs.
    UsageError for a key that is none, for bounds that no run takes, and where nothing is left to search.
    """
    found: Space = {}
    for source, contents in [(str(file), read_toml(file))] if file else _spaces_of(config):
        for key, content in contents.items():
            if not is_key(key) or key in NOT_SEARCHED:
                raise unknown("key to search", key, {*all_keys()} - {*NOT_SEARCHED}, f" (in {source})")
            if not isinstance(content, dict):
                raise UsageError(
                    f"Key '{key}' of {source} takes a table, as {{ range = [0.2, 0.6] }}. Mend it."
                )
            dimension = validate(Dimension, content, source, prefix=f"{key}.", tables={})
            owner = key.partition(".")[0]
            of_others = (owner in METHODS and owner not in config.methods) or (
                owner in MODELS and owner != config.model
            )
            if not of_others and key not in (fixed or {}):
                found[key] = dimension
    found = {key: one for key, one in found.items() if not _is_idle(key, found, config)}
    if not found:
        raise UsageError(
            f"Nothing is left to search for {config.name}: its space has no setting of it that is not given and "
            "changes something."
        )
    return found


def _spaces_of(config: RunConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where what is searched for a run stands, and by key what: in files of the program, or in a method's class."""
    known = spaces()
    for name in (SHARED, config.model, *config.methods):
        if name in known:
            yield str(known[name]), read_toml(known[name])
        elif name in config.methods:
            own = METHODS[name].SPACE
            yield f"SPACE of method {name}", {f"{name}.{key}": content for key, content in own.items()}


def _is_idle(key: str, space: Space, config: RunConfig) -> bool:
    """Whether a method's setting changes nothing of any run in the space."""
    name, _, setting = key.partition(".")
    if name not in config.methods:
        return False
    searched = [other.partition(".")[2] for other in space if other.startswith(f"{name}.")]
    epochs = space["epochs"].highest(config.settings.epochs) if "epochs" in space else config.settings.epochs
    return METHODS[name].Settings.model_validate(config.methods[name]).is_idle(setting, searched, epochs)


def describe_space(space: Space, config: RunConfig) -> str:
    """A space in words, for a run with the recipe's own settings."""
    return describe({key: one.in_words(config.by_key.get(key)) for key, one in space.items()})


def without_space(config: RunConfig) -> list[str]:
    """Those methods of a run that have settings and no space, as one of another package may."""
    known = spaces()
    return [
        name
        for name in config.methods
        if config.methods[name] and not METHODS[name].SPACE and name not in known
    ]


def draws(space: Space, config: RunConfig, seed: int) -> Iterator[dict[str, Any]]:
    """The settings of trial after trial: of the first those of the recipe, then points of a scrambled Halton sequence.

    They depend on the seed, the number and the space alone, and those of keys that stand first in two spaces agree, so
    that methods are tried with the same learning rates.
    """
    of_recipe = config.by_key
    yield {}
    from scipy.stats.qmc import Halton

    # SciPy from 1.15 on calls it rng, and takes both
    sequence = Halton(len(space), scramble=True, seed=seed)  # pyright: ignore[reportCallIssue]
    while True:
        (point,) = sequence.random(1)
        yield {
            key: one.at(float(share), of_recipe.get(key))
            for (key, one), share in zip(space.items(), point, strict=True)
        }
