"""`bmm show`: all settings of a method, a model, a recipe or a run, and in what they differ from the defaults."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancemm_cli.cli.list import recipes, summary
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import InputError, unknown

if TYPE_CHECKING:
    from pydantic import BaseModel

    from balancemm_cli.runs.run import Run


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A method (opm), a model (film), a recipe (crema-d/paper), or the folder of a run.",
        ),
    ],
) -> None:
    """Show the settings of a method, a model, a recipe or a run, each with its default where it differs.

    Example: `bmm show opm`
    """
    leave_out_torch()
    from balancemm_cli.methods import METHODS
    from balancemm_cli.models import MODELS

    if name in METHODS:
        method = METHODS[name]
        lines = [summary(method)]
        for variant, changes in method.VARIANTS.items():
            lines += [f"{variant}:", *_settings(f"{name}.", method.Settings, changes)]
    elif name in MODELS:
        lines = [summary(MODELS[name]), *_settings(f"{name}.", MODELS[name].Settings, {})]
    elif (Path(name) / "result.json").is_file():
        from balancemm_cli.runs.run import read_run

        lines = _of_run(read_run(Path(name)))
    elif Path(name).is_dir():
        raise InputError(
            f"{name} is a folder without a result.json. Name the folder of one run, or a recipe."
        )
    elif "/" in name:
        lines = _of_recipe(*name.rsplit("/", 1))
    else:
        raise unknown("method, model, recipe or run folder", name, [*METHODS, *MODELS, *_recipes()])
    print("\n".join(lines))


def _settings(prefix: str, kind: "type[BaseModel]", changes: Mapping[str, object]) -> Iterator[str]:
    """A line for each setting: its key and value, and the default where the value is another."""
    from balancemm_cli.config.recipe import flatten

    defaults = flatten(kind().model_dump(mode="json"))
    given = flatten(kind.model_validate(changes).model_dump(mode="json"))
    if not given:
        yield "  (no settings)"
    for key, value in given.items():
        yield _line(f"{prefix}{key}", value, "default", defaults.get(key))


def _line(key: str, value: object, of: str, other: object) -> str:
    """A setting, and beside it the value of the default or the recipe where that is another."""
    return f"  {key} = {_text(value)}" + ("" if value == other else f"  ({of} {_text(other)})")


def _text(value: object) -> str:
    """As --set takes it."""
    import json

    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _recipes() -> list[str]:
    return [entry.name for entry in recipes()]


def _of_recipe(dataset: str, recipe: str) -> list[str]:
    from balancemm_cli.config.recipe import Recipe, load_recipe
    from balancemm_cli.config.run import resolve
    from balancemm_cli.methods import METHODS, VARIANTS

    if f"{dataset}/{recipe}" not in _recipes():
        raise unknown("recipe", f"{dataset}/{recipe}", _recipes())
    _, content, source = load_recipe(dataset, recipe)
    config = resolve(dataset, recipe=recipe)
    lines = [f"{dataset}/{recipe} ({source})", *_settings("", Recipe, config.settings.model_dump())]
    for name in METHODS:
        if name in content:
            for variant in VARIANTS:
                settings = resolve(dataset, method=name, variant=variant, recipe=recipe).methods[name]
                lines += [f"{name} ({variant}):", *_settings(f"{name}.", METHODS[name].Settings, settings)]
    return lines


def _of_run(run: "Run") -> list[str]:
    from balancemm_cli.config.run import resolve
    from balancemm_cli.errors import BmmError
    from balancemm_cli.runs.run import state_of

    result = run.result
    names = (result.dataset, result.model, result.method, result.variant, result.recipe)
    lines = [f"{' '.join(names)}, seed {result.seed}: {state_of(run)}"]
    lines += [
        f"  {selection}: accuracy {one.accuracy:.3f} (epoch {one.epoch + 1})"
        for selection, one in result.selections.items()
    ]
    data = result.data
    identity = f"reader {data.reader or 'unknown'}, split {data.split_name or 'none'}"
    lines.append(f"data: {identity}, content {result.hashes.data[:8]}")
    lines += [
        f"trained with: bmm {one.version}, commit {one.git}, torch {one.torch}, {one.device}"
        for one in run.environments
    ]
    try:
        given = resolve(*names).by_key
        lines.append(f"settings, beside those of recipe {result.recipe}:")
    except BmmError:
        given = run.settings
        lines.append(f"settings (recipe {result.recipe} is not known here):")
    hidden = {"seed", "dataset", "model", "method", "variant", "recipe"}
    return lines + [
        _line(key, value, "recipe", given.get(key))
        for key, value in run.settings.items()
        if key not in hidden
    ]
