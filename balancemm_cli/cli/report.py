"""`bmm report`: every run's numbers in one table, beside the published ones."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from balancemm_cli.cli.progress import say
from balancemm_cli.errors import CheckError, InputError, UsageError, unknown

if TYPE_CHECKING:
    from balancemm_cli.results.formats import Table
    from balancemm_cli.results.groups import Collection, Group, Selection

FORMATS = ("rich", "markdown", "latex", "html", "csv", "json")
RUNS = Path("runs")


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders with runs, at any depth; 'runs' if none is named.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Only the runs of this suite, under runs/SUITE.")] = None,
    table: Annotated[
        str | None,
        typer.Option(help="A table of the paper with these runs in it: 12. Only runs of its suite count."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="With --suite: say of each number whether it was reproduced; exit 4 if one was not.",
        ),
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(help="rich (in a terminal), markdown (elsewhere), latex, html, csv or json."),
    ] = None,
    selection: Annotated[
        str, typer.Option(help="The epoch that counts: last, best-test (as the authors do) or best-val.")
    ] = "last",
    out: Annotated[
        Path | None, typer.Option(help="Also write report.md and figures/*.png, *.svg into this folder.")
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Draw a figure of the paper (1, 4 to 9), or features; into figures/ of --out or of the runs."
            " With --format html: into the page.",
        ),
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
    if check:
        if suite is None:
            raise UsageError("--check holds runs against a suite's numbers. Name it with --suite.")
        _check(suite, collect(folders, which, may_be_empty=True), which, out or folders[-1], chosen)
        return
    collection = collect(folders, which)
    for line in collection.left_out:
        say(f"Left out: {line}")
    if figure and chosen != "html":
        _draw(figure, collection.groups, (out or folders[-1]) / "figures", which)
        return
    if out:
        from balancemm_cli.results.report import write_report

        for line in write_report(collection, which, out):
            say(line)
        say(f"Wrote {out / 'report.md'} and {out / 'figures'}.")
    from balancemm_cli.results import paper_tables, tables

    if table:
        cells = paper_tables.cells(table, collection.groups, which)
        shown = [paper_tables.layout(table, cells, which)]
        if chosen == "html":
            used = {id(cell.group): cell.group for cell in cells if cell.group}
            _print_page(shown, list(used.values()), which, figure)
        else:
            _show(shown, paper_tables.records(cells, which), chosen)
    elif chosen == "html":
        _print_page(tables.tables(collection.groups, which), collection.groups, which, figure)
    elif chosen in ("csv", "json"):
        _show([], [tables.record(row) for row in tables.rows(collection.groups, which)], chosen)
    else:
        _show(tables.tables(collection.groups, which), [], chosen)


def _check(suite: str, collection: "Collection", selection: "Selection", out: Path, chosen: str) -> None:
    """Print a verdict a line, write check.xml and check.json into `out`. CheckError where one does not pass."""
    from balancemm_cli.data.store import atomic_file
    from balancemm_cli.engine.suites import load_suite
    from balancemm_cli.results import checks, formats

    name, loaded = load_suite(suite)
    verdicts = checks.check(loaded, collection, selection)
    if not verdicts:
        raise UsageError(f"Suite '{name}' names neither a table nor expected numbers to hold runs against.")
    records = formats.to_json(checks.to_records(verdicts))
    out.mkdir(parents=True, exist_ok=True)
    for file_name, text in (("check.xml", checks.to_junit(name, verdicts)), ("check.json", records)):
        with atomic_file(out / file_name) as file:
            file.write(text.encode())
    print(
        records
        if chosen == "json"
        else "\n".join(f"{one.word:14} {one.name}: {one.reason}" for one in verdicts)
    )
    failed = sum(not one.passes for one in verdicts)
    say(
        f"{len(verdicts) - failed} of {len(verdicts)} numbers reproduced. Wrote {out / 'check.xml'} and check.json."
    )
    if failed:
        raise CheckError(
            f"{failed} of {len(verdicts)} numbers of suite {name} were not reproduced; the reasons stand above."
        )


def _draw(figure: str, groups: "list[Group]", folder: Path, selection: "Selection") -> None:
    from balancemm_cli.results.figures import draw_figure

    written, left_out = draw_figure(figure, groups, folder, selection)
    for line in left_out:
        say(line)
    print("\n".join(map(str, written)))


def _suite_folder(suite: str) -> Path:
    folder = RUNS / Path(suite).stem if suite.endswith(".toml") else RUNS / suite
    if not folder.is_dir():
        from balancemm_cli.engine.suites import load_suite  # imports torch

        load_suite(suite)
        raise InputError(f"There are no runs in {folder}. Run 'bmm train --suite {suite}' first.")
    return folder


def _show(shown: "list[Table]", records: list[dict[str, object]], chosen: str) -> None:
    from balancemm_cli.results import formats

    match chosen:
        case "csv":
            print(formats.to_csv(records), end="")
        case "json":
            print(formats.to_json(records), end="")
        case "latex":
            print(formats.to_latex(shown), end="")
        case "html":
            print(formats.to_html(shown), end="")
        case "markdown":
            print("\n".join(formats.to_markdown(table) for table in shown), end="")
        case _:
            from rich.console import Console

            for table in shown:
                Console().print(formats.to_rich(table))


def _print_page(
    shown: "list[Table]", groups: "list[Group]", selection: "Selection", figure: str | None
) -> None:
    """The page with its figures, which are drawn for it alone: the one that is named, or those of a report."""
    from balancemm_cli.results.figures import draw_all, draw_figure
    from balancemm_cli.results.formats import to_html

    with TemporaryDirectory() as folder:
        if figure:
            figures, left_out = draw_figure(figure, groups, Path(folder), selection)
        else:
            figures, left_out = draw_all(groups, selection, Path(folder))
        print(to_html(shown, figures), end="")
    for line in left_out:
        say(line)
