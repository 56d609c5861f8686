"""Options that several commands take, with one meaning and one text of help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DATA, RUNS = Path("data/prepared"), Path("runs")

Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="A prepared data set, a folder under --data; those that need no files are prepared if absent.",
    ),
]
Model = Annotated[str, typer.Option(metavar="NAME", help="A model of `bmm list models`.")]
Variant = Annotated[
    Literal["paper", "official"], typer.Option(help="As the paper says, or as the authors' code does.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="All settings of a data set under a name, see `bmm list recipes`; or a TOML file.",
        show_default="paper, else default",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, as optimizer.lr=0.01 or opm.q_base=0.4. Repeatable.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The weights that encoders start from; or their SHA-256, to go on without the file.",
    ),
]
Jobs = Annotated[int, typer.Option(metavar="N", min=1, help="Runs at a time, each in a process of its own.")]
Data = Annotated[Path, typer.Option(metavar="DIR", help="Where prepared data sets are.")]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:1. Auto takes a GPU where there is one.")
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="CPU threads per run.", show_default="all, shared by the runs"),
]
LoadingWay = Annotated[
    Literal["auto", "resident", "streaming"],
    typer.Option(help="Decode all samples once, or batch by batch. Auto decodes once where they fit."),
]
Launcher = Annotated[
    Literal["local", "slurm"], typer.Option(help="Train here, or queue a Slurm job for each run.")
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An option of sbatch, as partition=gpu. Repeatable."),
]
Log = Annotated[
    Literal["tensorboard"] | None,
    typer.Option(help="Also write each epoch as TensorBoard's event files, into tensorboard/ of the run."),
]
Status = Annotated[
    bool, typer.Option("--status", help="Print how far each run is, one line per run; train nothing.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs, one line per run; train nothing.")]
