"""`bmm list`: what there is, one line each, with where to read more."""

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from balancemm_cli import resources
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import UsageError, unknown


class Entry(NamedTuple):
    """One line: a name to type, what it is, and what says more (a path in the repository, or a package)."""

    name: str
    what: str
    where: str


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="datasets, methods, models, recipes, suites or tables; all if none is named."
        ),
    ] = None,
    prepared: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With datasets: the prepared sets in this folder, with counts, balance and hashes.",
        ),
    ] = None,
) -> None:
    """List data sets, methods, models, recipes, suites and published tables, one line each.

    Example: `bmm list methods`
    """
    leave_out_torch()
    if prepared is not None:
        if kind != "datasets":
            raise UsageError("--prepared goes with `bmm list datasets`.")
        _print_prepared(prepared)
    elif kind is None:
        for name in KINDS:
            print(f"{name}:")
            _print(KINDS[name](), indent="  ")
    elif kind in KINDS:
        _print(KINDS[kind]())
    else:
        raise unknown("list of", kind, KINDS)


def _print(entries: list[Entry], indent: str = "") -> None:
    """One line per entry; in a terminal broken between words, beside the column of the names."""
    names = max((len(entry.name) for entry in entries), default=0)
    width = shutil.get_terminal_size().columns
    for entry in entries:
        line = f"{indent}{entry.name:<{names}}  {entry.what}  [{entry.where}]"
        if sys.stdout.isatty() and len(line) > width:
            beside = " " * min(len(indent) + names + 2, width // 2)
            line = textwrap.fill(
                line, width, subsequent_indent=beside, break_long_words=False, break_on_hyphens=False
            )
        print(line)


def _print_prepared(folder: Path) -> None:
    from balancemm_cli.data.preparing import overview

    found = list(overview.find(folder))
    for one in found:
        print("\n".join([f"{one.folder}: {one.summary}", *one.facts]))
    if not found:
        print(f"Nothing is prepared in {folder}. Prepare a data set with `bmm prepare`.")


def datasets() -> list[Entry]:
    """The data sets that `bmm prepare` and `--dataset` take."""
    from balancemm_cli.data.datasets import DATASETS

    return _classes("bmm.datasets", DATASETS, "docs/datasets")


def methods() -> list[Entry]:
    """The methods that `--method` takes; several are joined by "+"."""
    from balancemm_cli.methods import METHODS

    return _classes("bmm.methods", METHODS, "docs/methods")


def models() -> list[Entry]:
    """The models that `--model` takes, with the pattern for one modality alone."""
    from balancemm_cli.models import MODELS, UNIMODAL

    what = f"One modality and a linear head, trained alone (as in {UNIMODAL}visual)."
    alone = Entry(f"{UNIMODAL}MODALITY", what, "docs/models/unimodal.md")
    return [*_classes("bmm.models", MODELS, "docs/models"), alone]


def recipes() -> list[Entry]:
    """The recipes that `--recipe` takes, as DATASET/RECIPE; a file says what it is in its first comment."""
    return [
        Entry(f"{path.parent.name}/{path.stem}", _first_comment(path), _in_repository(path))
        for path in sorted((resources.benchmarks_folder() / "recipes").glob("*/*.toml"))
    ]


def suites() -> list[Entry]:
    """The suites that `--suite` takes."""
    from balancemm_cli.config.recipe import read_toml

    return [
        Entry(name, str(read_toml(path).get("title", "")), _in_repository(path))
        for name, path in resources.suites().items()
    ]


def tables() -> list[Entry]:
    """The tables of papers whose numbers the report can show, as SOURCE/TABLE."""
    from balancemm_cli.results import published

    return [
        Entry(f"{source}/{table}", ", ".join(names), f"benchmarks/published/{published.file_of(source)}")
        for source, table, names in published.tables()
    ]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "datasets": datasets,
    "methods": methods,
    "models": models,
    "recipes": recipes,
    "suites": suites,
    "tables": tables,
}


def _classes(group: str, registry: Mapping[str, object], pages: str) -> list[Entry]:
    """What a registry holds: ours with their page, those of other packages with their package."""
    from balancemm_cli.extensions import FAULTY, LOADED

    found = []
    for name, kind in registry.items():
        extension = LOADED.get((group, name))
        where = f"{extension.package} {extension.version}" if extension else f"{pages}/{name}.md"
        origin = vars(kind).get("origin")
        mark = f" {origin.mark}" if origin and origin.mark else ""
        found.append(Entry(name, summary(kind) + mark, where))
    faulty = [one for one in FAULTY if one.group == group]
    return found + [
        Entry(one.name, f"(of no use: {one.fault})", f"{one.package} {one.version}") for one in faulty
    ]


def summary(documented: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def _first_comment(path: Path) -> str:
    """The first sentence of the comment at a file's head."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[^.]{3}\.) (?=[A-Z])", comment, maxsplit=1)[0]


def _in_repository(path: Path) -> str:
    return f"benchmarks/{path.relative_to(resources.benchmarks_folder()).as_posix()}"
