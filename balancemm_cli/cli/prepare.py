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
    from balancemm_cli.data.preparing.prepare import Request
    from balancemm_cli.data.store import PreparedSet


def prepare(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name of `bmm list datasets`.")],
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder with the media; of `manifest` also the CSV itself.",
            show_default="data/raw/DATASET",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder with the split lists, where a data set needs them."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write.", show_default="data/prepared/DATASET"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that decode; the result does not depend on it.",
            show_default="one a core",
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Go on without files that are missing, and with other split lists than the official ones.",
        ),
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
        str | None,
        typer.Option(metavar="K/N", help="Prepare one part of the set only, as 3/16, beside --out."),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Put the parts beside --out together; needs no media.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write one picture per class, into a folder beside --out.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="crema-d, ucf-101, ucf-101-three, music-avqa: which of their splits; manifest: the shares of train, "
            "val and test, as 0.7,0.1,0.2.",
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="manifest: which share of train becomes val, as 0.1."),
    ] = None,
    eval_split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="kinetics-sounds: evaluate on test or val.", show_default="test"),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="manifest: cut into folds; a run of seed s is tested on fold 1 + s mod K."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cmu-mosi: the classes: non-negative, positive, 3 or 7; manifest: what labels are: classes, numbers "
            "or sets (several a sample).",
            show_default="non-negative, or by the labels",
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="manifest: a modality out of a table (CSV, Parquet, .npy) with a row per id; may be repeated.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="HZ", help="manifest: the rate at which sound is stored.", show_default="16000"),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(metavar="N", help="manifest: how many frames a second are stored.", show_default="1"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="PIXELS", help="manifest: the size of stored pictures.", show_default="256"),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="manifest: how pictures are brought to that size: keep (their form, never larger), crop, pad or "
            "stretch.",
            show_default="keep",
        ),
    ] = None,
    seconds: Annotated[
        str | None,
        typer.Option(
            metavar="S", help="manifest: how much of each clip is stored, from its start.", show_default="all"
        ),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="ucf-101, ucf-101-three: compute flow by tv-l1 or dis.",
            show_default="stored flow, else tv-l1",
        ),
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(metavar="N", help="synthetic-modalities: how many, 2 to 8.", show_default="3"),
    ] = None,
    ease: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="synthetic-modalities: graded, equal or single (one is easy).",
            show_default="graded",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="synthetic-modalities: quiet, moderate or loud.", show_default="moderate"
        ),
    ] = None,
    redundancy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="synthetic-modalities: independent, mixed or shared.",
            show_default="mixed",
        ),
    ] = None,
) -> None:
    """Check and decode the media of a data set, and write a prepared data set.

    A killed or interrupted call goes on where it was. Prints the folder.

    Example: `bmm prepare manifest --source my.csv`
    """
    from balancemm_cli.data.preparing.prepare import Request

    given = {
        "split": split,
        "eval_split": eval_split,
        "labels": labels,
        "val": val,
        "folds": folds,
        "table": table or None,
        "rate": rate,
        "fps": fps,
        "size": size,
        "fit": fit,
        "seconds": seconds,
        "flow": flow,
        "modalities": modalities,
        "ease": ease,
        "noise": noise,
        "redundancy": redundancy,
    }
    options = {option: value for option, value in given.items() if value is not None}
    request = Request(dataset, source, splits, out, allow_missing, options)
    _refuse_together({"--dry-run": dry_run, "--part": part, "--join": join})
    _refuse_together({"--dry-run": dry_run, "--part": part, "--preview": preview})
    _refuse_together({"--join": join, "--verify": verify})
    if verify:
        run_verify(request, workers)
    if dry_run:
        from balancemm_cli.data.preparing.estimate import dry_run as lines_of

        typer.echo("\n".join(lines_of(request, workers)))
    elif part:
        typer.echo(run_part(request, part, workers))
    else:
        prepared = _without_media(request) if preview and not join else None
        prepared = prepared or (run_join(request) if join else run_prepare(request, workers))
        if preview:
            run_preview(prepared)
        typer.echo(prepared.folder)


def _refuse_together(flags: dict[str, object]) -> None:
    """UsageError where more than one of these flags is given."""
    given = [flag for flag, value in flags.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together. Leave one away.")


def run_prepare(request: "Request", workers: int | None = None) -> "PreparedSet":
    """Prepare a data set with progress and a summary on stderr."""
    from balancemm_cli.data.preparing.prepare import prepare_folder
    from balancemm_cli.data.store import open_set

    with _progress() as show:
        prepared = open_set(prepare_folder(request, None, workers, show, say))
    summarise(prepared)
    return prepared


def run_verify(request: "Request", workers: int | None) -> None:
    """Compare the files of a data set with what their source published, with progress on stderr."""
    from balancemm_cli.data.preparing.verify import need_official_source, verify
    from balancemm_cli.data.preparing.workers import cores

    need_official_source(request.dataset)
    plan = request.plan
    with _progress("files") as show:
        said = verify(request.dataset, request.media, plan, cores(workers), show)
    say(said)


def run_part(request: "Request", part: str, workers: int | None) -> Path:
    """Prepare a part of a data set with progress on stderr."""
    from balancemm_cli.data.preparing.parts import parse_part
    from balancemm_cli.data.preparing.prepare import prepare_folder

    wanted = parse_part(part)
    with _progress() as show:
        folder = prepare_folder(request, wanted, workers, show, say)
    say(f"This is {wanted}. With all parts beside each other, --join puts them together.")
    return folder


def run_join(request: "Request") -> "PreparedSet":
    """Join the parts of a data set with progress and a summary on stderr."""
    from balancemm_cli.data.preparing.parts import join_parts

    with _progress("shards") as show:
        prepared = join_parts(request.folder(request.name), show, say)
    summarise(prepared)
    return prepared


def run_preview(prepared: "PreparedSet") -> None:
    """Write the pictures of a prepared set, with progress on stderr."""
    from balancemm_cli.data.preparing.preview import write_preview

    with _progress("classes") as show:
        folder = write_preview(prepared, show)
    say(f"A picture of each class is in {folder}.")


def _without_media(request: "Request") -> "PreparedSet | None":
    """The prepared set of which the media are not here any more; None where there are media to compare it with."""
    from balancemm_cli.data.store import MANIFEST, open_set

    folder = request.folder(request.name)
    if request.media.exists() or not (folder / MANIFEST).exists():
        return None
    say(f"There are no media in {request.media}: the pictures are of {folder} as it is.")
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
