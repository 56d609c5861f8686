"""`bmm report`: every run's numbers in one table, beside the published ones."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancemm_cli.cli.progress import say
from balancemm_cli.errors import InputError, unknown

if TYPE_CHECKING:
    from balancemm_cli.results.groups import Group, Selection

FORMATS = ("rich", "markdown", "csv", "json")
RUNS = Path("runs")


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders with runs, at any depth; 'runs' if none is named.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Only the runs of this suite, under runs/SUITE.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="rich (the default in a terminal), markdown (the default elsewhere), csv or json."),
    ] = None,
    selection: Annotated[
        str, typer.Option(help="The epoch that counts: last, best-test (as the authors do) or best-val.")
    ] = "last",
    out: Annotated[
        Path | None, typer.Option(help="Also write report.md and figures/*.png, *.svg into this folder.")
    ] = None,
) -> None:
    """Put runs beside the published numbers, as mean ± standard deviation over their seeds.

    Runs are averaged only where they differ in nothing but their seed. What is left out is named on stderr.

    Example: `bmm report --suite demo --out runs/demo`
    """
    chosen = format or ("rich" if sys.stdout.isatty() else "markdown")
    if chosen not in FORMATS:
        raise unknown("format", chosen, FORMATS)
    folders = [*(runs or []), *([_suite_folder(suite)] if suite else [])] or [RUNS]

    from balancemm_cli.results.groups import collect, selection_named

    which = selection_named(selection)
    collection = collect(folders, which)
    for line in collection.left_out:
        say(f"Left out: {line}")
    if out:
        from balancemm_cli.results.report import write_report

        for line in write_report(collection, which, out):
            say(line)
        say(f"Wrote {out / 'report.md'} and {out / 'figures'}.")
    _show(collection.groups, which, chosen)


def _suite_folder(suite: str) -> Path:
    folder = RUNS / suite
    if not folder.is_dir():
        from balancemm_cli.engine.suites import load_suite  # imports torch

        load_suite(suite)
        raise InputError(f"There are no runs in {folder}. Run 'bmm train --suite {suite}' first.")
    return folder


def _show(groups: "list[Group]", selection: "Selection", chosen: str) -> None:
    from balancemm_cli.results import tables

    match chosen:
        case "csv":
            print(tables.to_csv(groups, selection), end="")
        case "json":
            print(tables.to_json(groups, selection), end="")
        case "markdown":
            print("\n".join(tables.to_markdown(table) for table in tables.tables(groups, selection)), end="")
        case _:
            from rich.console import Console

            for table in tables.tables(groups, selection):
                Console().print(tables.to_rich(table))
