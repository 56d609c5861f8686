"""bmm prepare: from media files to a prepared data set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from balancemm_cli.cli.progress import progress_bars, say
from balancemm_cli.errors import UsageError

if TYPE_CHECKING:
    from balancemm_cli.data.store import PreparedSet


def prepare(
    dataset: Annotated[str, typer.Argument(help="A name of `bmm list datasets`.")],
    source: Annotated[
        Path | None, typer.Option(help="The folder (or file) with the media. Default: data/raw/DATASET.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="The folder with the split lists, where a data set needs them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write. Default: data/prepared/DATASET.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode. Default: one a core.")] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Go on without missing files, and with other split lists."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="First compare the files with what their source published.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be prepared, what is missing, how large and how long; no more.",
        ),
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="Prepare one part of the set only, as in 3/16, beside --out.")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Put the parts beside --out together; needs no media.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write a picture a class, into a folder beside --out.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Which split, where a data set has several.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="kinetics-sounds: evaluate on test or val.")] = None,
    labels: Annotated[str | None, typer.Option(help="cmu-mosi: which classes.")] = None,
    flow: Annotated[str | None, typer.Option(help="ucf-101: how flow is computed, tv-l1 or dis.")] = None,
) -> None:
    """Check and decode the media of a data set, and write a prepared data set.

    A killed or interrupted call goes on where it was. Prints the folder.

    Example: `bmm prepare manifest --source my.csv`
    """
    given = {"split": split, "eval_split": eval_split, "labels": labels, "flow": flow}
    options = {option: value for option, value in given.items() if value is not None}
    modes = [flag for flag, on in (("--dry-run", dry_run), ("--part", part), ("--join", join)) if on]
    modes += ["--preview"] if preview and modes and not join else []
    if len(modes) > 1:
        raise UsageError(f"{modes[0]} and {modes[1]} do not go together. Leave one away.")
    if verify:
        if join:
            raise UsageError(
                "--verify and --join do not go together: joining needs no media. Leave one away."
            )
        run_verify(dataset, source, splits, workers, allow_missing, options)
    if dry_run:
        from balancemm_cli.data.estimate import dry_run as lines_of

        typer.echo("\n".join(lines_of(dataset, source, splits, out, workers, allow_missing, options)))
        return
    if part:
        typer.echo(run_part(part, dataset, source, splits, out, workers, allow_missing, options))
        return
    prepared = _as_it_is(dataset, source, out, options) if preview and not join else None
    if join:
        prepared = run_join(dataset, out, options)
    elif prepared is None:
        prepared = run_prepare(dataset, source, splits, out, workers, allow_missing, options)
    if preview:
        run_preview(prepared)
    typer.echo(prepared.folder)


def run_prepare(
    dataset: str,
    source: Path | None = None,
    splits: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    options: dict[str, str] | None = None,
) -> "PreparedSet":
    """Prepare a data set with progress and a summary on stderr."""
    from balancemm_cli.data.prepare import prepare_dataset

    with _progress() as show:
        prepared = prepare_dataset(dataset, source, splits, out, workers, allow_missing, options, show, say)
    summarise(prepared)
    return prepared


def run_verify(
    dataset: str,
    source: Path | None,
    splits: Path | None,
    workers: int | None,
    allow_missing: bool,
    options: dict[str, str],
) -> None:
    """Compare the files of a data set with what their source published, with progress on stderr."""
    from balancemm_cli.data.prepare import default_source, plan_dataset
    from balancemm_cli.data.verify import need_official_source, verify
    from balancemm_cli.data.workers import cores

    need_official_source(dataset)
    plan, _ = plan_dataset(dataset, source, splits, None, allow_missing, options)
    with _progress("files") as show:
        said = verify(dataset, default_source(dataset, source), plan, cores(workers), show)
    say(said)


def run_part(
    part: str,
    dataset: str,
    source: Path | None,
    splits: Path | None,
    out: Path | None,
    workers: int | None,
    allow_missing: bool,
    options: dict[str, str],
) -> Path:
    """Prepare a part of a data set with progress on stderr."""
    from balancemm_cli.data.parts import parse_part
    from balancemm_cli.data.prepare import make_media, plan_dataset, prepare_plan

    wanted = parse_part(part)
    with _progress() as show:
        make_media(dataset, source, workers, options, show)
        plan, whole = plan_dataset(dataset, source, splits, out, allow_missing, options)
        folder = prepare_plan(plan, whole, wanted, workers, allow_missing, show, say)
    if folder != whole:
        say(f"This is {wanted}. With all parts beside each other, --join puts them together.")
    return folder


def run_join(dataset: str, out: Path | None, options: dict[str, str]) -> "PreparedSet":
    """Join the parts of a data set with progress and a summary on stderr."""
    from balancemm_cli.data.parts import join_parts
    from balancemm_cli.data.prepare import default_out

    with _progress("shards") as show:
        prepared = join_parts(out or default_out(dataset, dataset, options), show, say)
    summarise(prepared)
    return prepared


def run_preview(prepared: "PreparedSet") -> None:
    """Write the pictures of a prepared set, with progress on stderr."""
    from balancemm_cli.data.preview import write_preview

    with _progress("classes") as show:
        folder = write_preview(prepared, show)
    say(f"A picture of each class is in {folder}.")


def _as_it_is(
    dataset: str, source: Path | None, out: Path | None, options: dict[str, str]
) -> "PreparedSet | None":
    """The prepared set of which the media are not here any more; None where there are media to compare it with."""
    from balancemm_cli.data.prepare import default_out, default_source
    from balancemm_cli.data.store import MANIFEST, open_set

    folder, media = out or default_out(dataset, dataset, options), default_source(dataset, source)
    if media.exists() or not (folder / MANIFEST).exists():
        return None
    say(f"There are no media in {media}: the pictures are of {folder} as it is.")
    return open_set(folder)


@contextmanager
def _progress(unit: str = "clips") -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows how far each stage is."""
    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, unit=unit, note="", completed=done)
            bars.update(tasks[stage], completed=done)

        yield show


def summarise(prepared: "PreparedSet") -> None:
    """Print what was prepared, rejected and kept in spite of a known defect."""
    for split, count in prepared.counts.items():
        rejected = prepared.manifest["splits"][split]["rejected"]
        reasons = ", ".join(f"{number:,} {kind}" for kind, number in rejected.items())
        lost = f", {prepared.expected[split] - count:,} rejected ({reasons})" if rejected else ""
        say(f"{split}: {count:,} of {prepared.expected[split]:,} samples prepared{lost}.")
    if prepared.manifest["rejected"]:
        say(f"The reasons are in {prepared.folder / 'rejected.csv'}.")
    for sample, defect in prepared.manifest["defects_kept"].items():
        say(f"Kept with a known defect: {sample} ({defect}).")
