"""bmm prepare: from media files to a prepared data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancemm_cli.cli.progress import progress_bars, say

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
    typer.echo(run_prepare(dataset, source, splits, out, workers, allow_missing, options).folder)


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

    with progress_bars() as bars:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, unit="clips", note="", completed=done)
            bars.update(tasks[stage], completed=done)

        prepared = prepare_dataset(dataset, source, splits, out, workers, allow_missing, options, show, say)
    summarise(prepared)
    return prepared


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
