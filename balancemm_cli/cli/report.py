"""`bmm report`: every run's numbers in one table, beside the published ones."""

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from balancemm_cli.cli.progress import say
from balancemm_cli.cli.without_torch import leave_out_torch
from balancemm_cli.errors import CheckError, UsageError, first_of, unknown

if TYPE_CHECKING:
    from balancemm_cli.config.suites import Suite
    from balancemm_cli.results.collection import Collection
    from balancemm_cli.results.contents import Contents
    from balancemm_cli.results.groups import Group
    from balancemm_cli.runs.schema import Selection

FORMATS = ("rich", "markdown", "latex", "html", "csv", "json")
RUNS = Path("runs")


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUNS",
            help="Folders with runs, at any depth, or bundles of runs; 'runs' if none is named.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Only the runs of this suite, also with what `bmm tune` chose, wherever under RUNS they lie.",
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A table of the paper, 12, or of a later one, arl-2025, with these runs in it; of its suite alone.",
        ),
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
        typer.Option(
            metavar="NAME", help="rich (in a terminal), markdown (elsewhere), latex, html, csv or json."
        ),
    ] = None,
    selection: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The epoch that counts: last, best-test (as the authors do) or best-val; all: side by side.",
        ),
    ] = "last",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write report.md and figures/*.png, *.svg, *.pdf into this folder."
        ),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Draw a figure of the paper (1, 4 to 9), or features; into figures/ of --out or of the runs."
            " With --format html: into the page.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Whose numbers stand beside ours: tpami2024, cvpr2022, balancebenchmark2025, independent, a later"
            " paper's table, as arl-2025, or a CSV.",
            show_default="those of the suite's table, else tpami2024",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,…", help="Only rows of these names or settings: method=opm,ogm."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Only these columns: accuracy,interval,gain,verdict.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Pack these runs without weights into one file, for others to report on."
        ),
    ] = None,
    owner: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose the runs are that bear no name: those of folders and of bundles without one.",
        ),
    ] = "",
    title: Annotated[
        bool,
        typer.Option(
            "--title/--no-title", help="Whether figures bear a title; in a paper the caption says it."
        ),
    ] = True,
    leaderboard: Annotated[
        bool,
        typer.Option(
            "--leaderboard",
            help="Methods by data sets, and over data sets: ranks, win rates and tests, with intervals, beside"
            " the cost.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit 4 if a row does not keep all rules of a comparison, as for CI; which, the table says.",
        ),
    ] = False,
    literature: Annotated[
        bool,
        typer.Option(
            "--literature", help="Draw where these runs lie among what papers printed; into figures/."
        ),
    ] = False,
) -> None:
    """Put runs beside the published numbers, as mean ± standard deviation over their seeds.

    Runs are averaged only where they differ in nothing but their seed. What is left out is named on stderr.

    Example: `bmm report --suite demo --out runs/demo`
    """
    chosen = format or ("rich" if sys.stdout.isatty() else "markdown")
    if chosen not in FORMATS:
        raise unknown("format", chosen, FORMATS)
    alone = figure if chosen != "html" else None  # on the page of html it joins the tables
    kinds = {
        "--check": check,
        "--bundle": bundle,
        "--table": table,
        "--figure": alone,
        "--literature": literature,
        "--leaderboard": leaderboard,
    }
    beside = selection == "all"
    named_kinds = [name for name, given in kinds.items() if given]
    _refuse_contradictions(named_kinds, suite, where, columns, beside)
    if strict and (named_kinds or beside):
        raise UsageError(
            "--strict is of the rows of the table of runs. Give it without --selection all and "
            "without a report of another kind."
        )
    places = list(runs or [RUNS])
    leave_out_torch()

    from balancemm_cli.config.suites import load_suite
    from balancemm_cli.results.bundle import unpack_all
    from balancemm_cli.results.collection import collect
    from balancemm_cli.results.contents import Contents
    from balancemm_cli.results.groups import choose
    from balancemm_cli.results.leaderboard import Leaderboard
    from balancemm_cli.results.published import named, source_of
    from balancemm_cli.results.references import with_references
    from balancemm_cli.runs.schema import selection_named

    which = selection_named("last" if beside else selection)
    name, planned = load_suite(suite) if suite else ("", None)
    source = named(against or source_of((planned and planned.table) or table or ""))
    place = RUNS / name if name else places[-1]
    home = out or (place.parent if place.is_file() else place)  # of what is written
    of_suite = (name, planned) if planned else None
    kind: type[Contents] = Leaderboard if leaderboard else Contents
    if name.startswith("finding-") and not (leaderboard or table or beside or columns):
        from balancemm_cli.results.findings import FINDINGS  # which draw, and load what that takes

        kind = FINDINGS.get(name, Contents)
    of_itself = not (named_kinds or figure or kind.NEEDS_RUNS)  # it shows what is there without runs
    if of_itself and not (runs or RUNS.exists()):
        places = []
    own = _owner(owner)
    with TemporaryDirectory(prefix="bmm-") as temporary:
        bundles = unpack_all([one for one in places if one.is_file()], Path(temporary), own)
        collection = collect(
            [one for one in places if not one.is_file()],
            which,
            may_be_empty=check or of_itself,
            suite=of_suite,
            bundles=bundles,
            owner=own,
        )
        for line in collection.remarks:
            say(f"Note: {line}")
        if check:
            assert planned is not None
            _check(name, planned, collection, which, home, chosen)
            return
        left_out = [*collection.left_out, *collection.twins]
        if planned and planned.optional_data:
            left_out += _without_runs(planned, collection.groups)
        every = collection.groups
        if not (kinds["--table"] or bundle or literature or alone):
            every, lacking = with_references(every)
            left_out += lacking
        for line in left_out:
            say(f"Left out: {line}")
        groups = choose(every, where or [])
        if bundle:
            _pack(groups, bundle, {"": own, **{one.owner: one.named or own for one in bundles}})
        elif literature:
            _print_places(groups, which)
            _draw("literature", groups, home / "figures", which, title)
        elif alone:
            _draw(alone, groups, home / "figures", which, title)
        else:
            wanted = columns.split(",") if columns else []
            contents = kind(groups, which, source, collection.groups, wanted, table, beside, suite)
            if out:
                _write(contents, left_out, out, title)
            _print(contents, chosen, figure)
            if strict and isinstance(contents, Contents) and (broken := contents.broken_rules):
                raise CheckError(f"Not every row keeps every rule. {first_of(broken, 3)}")


def _without_runs(suite: "Suite", groups: "list[Group]") -> list[str]:
    """A sentence on the data sets of a suite of which there are no runs."""
    there = {group.first.dataset for group in groups}
    names = dict.fromkeys(name for part in suite.runs for name in part.datasets if name not in there)
    return [f"no runs of {', '.join(names)}, which the suite has too."] if names else []


def _refuse_contradictions(
    kinds: list[str], suite: str | None, where: list[str] | None, columns: str | None, beside: bool
) -> None:
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(kinds)} each make a report of their own. Give one of them.")
    if "--check" in kinds and suite is None:
        raise UsageError("--check holds runs against a suite's numbers. Name it with --suite.")
    if (where or columns) and kinds in (["--table"], ["--check"]):
        raise UsageError(
            f"--where and --columns choose from the table of runs; {kinds[0]} has rows of its own."
        )
    if "--leaderboard" in kinds and (columns or beside):
        raise UsageError(
            "--leaderboard has columns of its own, at one epoch rule. Leave --columns and all out."
        )
    if columns and beside:
        raise UsageError("--columns chooses from the table of runs; --selection all has its own columns.")


def _check(
    name: str, suite: "Suite", collection: "Collection", selection: "Selection", out: Path, chosen: str
) -> None:
    """Print one verdict per line, write check.xml and check.json into `out`. CheckError where one does not pass."""
    from balancemm_cli.data.store import atomic_file
    from balancemm_cli.results import checks, formats

    verdicts = checks.check(suite, collection, selection)
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
    if expected := checks.expectation(verdicts):
        say(expected)
    say(
        f"{len(verdicts) - failed} of {len(verdicts)} numbers reproduced. Wrote {out / 'check.xml'} and check.json."
    )
    if failed:
        raise CheckError(
            f"{failed} of {len(verdicts)} numbers of suite {name} were not reproduced; the reasons stand above."
        )


def _owner(text: str) -> str:
    from balancemm_cli.results.bundle import owner_named

    try:
        return owner_named(text)
    except ValueError as error:
        raise UsageError(f"--owner: {error}.") from None


def _pack(groups: "list[Group]", bundle: Path, named: "Mapping[str, str]") -> None:
    """Write a bundle of the groups of one owner; `named` is the name in the bundle by that which their runs go by."""
    from balancemm_cli.results.bundle import write_bundle

    owners = sorted({group.owner for group in groups})
    if len(owners) > 1:
        raise UsageError(
            f"These runs are of {len(owners)} owners, and a bundle is of one. Name the folders or the bundle of one."
        )
    name = named.get(owners[0], owners[0])
    of = f" of {name}" if name else ""
    say(f"Packed {write_bundle(groups, bundle, name)} runs{of} without their weights.")
    print(bundle)


def _draw(figure: str, groups: "list[Group]", folder: Path, selection: "Selection", titled: bool) -> None:
    from balancemm_cli.results.figures import draw_figure

    written, left_out = draw_figure(figure, groups, folder, selection, titled)
    for line in left_out:
        say(line)
    print("\n".join(map(str, written)))


def _print_places(groups: "list[Group]", selection: "Selection") -> None:
    from balancemm_cli.results import literature
    from balancemm_cli.results.groups import columns_apart
    from balancemm_cli.results.rows import row
    from balancemm_cli.results.tables import claim

    say(literature.note())
    names = columns_apart(groups).values()
    for group, *texts in zip(groups, *names, strict=True):
        ours = row(group, selection)
        if ours.place:
            name = ", ".join(filter(None, (group.first.dataset, *texts)))
            print(
                f"{name}: {100 * ours.accuracy.mean:.1f} %{claim(ours.claimed)}, {ours.place} printed values"
            )


def _write(contents: "Contents", left_out: list[str], out: Path, titled: bool) -> None:
    from balancemm_cli.results.report import write_report

    for line in write_report(contents, left_out, out, titled):
        say(line)
    say(f"Wrote {out / 'report.md'} and {out / 'figures'}.")


def _print(contents: "Contents", chosen: str, figure: str | None) -> None:
    from balancemm_cli.results import formats

    match chosen:
        case "csv":
            print(formats.to_csv(contents.records), end="")
        case "json":
            print(formats.to_json(contents.records), end="")
        case "latex":
            print(formats.to_latex(contents.tables), end="")
        case "html":
            _print_page(contents, figure)
        case "markdown":
            print("\n".join(formats.to_markdown(table) for table in contents.tables), end="")
        case _:
            from rich.console import Console

            console = Console()
            for table in contents.tables:
                console.print(formats.to_rich(table, console.width))


def _print_page(contents: "Contents", figure: str | None) -> None:
    """The page with its figures, which are drawn for it alone: the one that is named, or those of a report."""
    from balancemm_cli.results.figures import draw_figure
    from balancemm_cli.results.formats import to_html

    with TemporaryDirectory() as folder:
        if figure:
            figures, left_out = draw_figure(figure, contents.shown, Path(folder), contents.selection)
        else:
            figures, left_out = contents.draw(Path(folder))
        print(to_html(contents.tables, figures), end="")
    for line in left_out:
        say(line)
