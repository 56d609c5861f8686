"""`bmm eval`: trained runs on the test split: what each modality is worth, and what is left of it when disturbed."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from balancemm_cli.cli.progress import say
from balancemm_cli.errors import UsageError

if TYPE_CHECKING:
    from balancemm_cli.engine.run_evaluation import Wanted
    from balancemm_cli.runs.evaluation import RunEvaluation
    from balancemm_cli.runs.schema import Metrics

MOST_AMOUNTS = 100


def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUNS", help="Run folders, or folders with runs at any depth.")
    ],
    missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=P",
            help="audio=0.2: each test sample lacks it with that probability. A curve over several, of this modality "
            "alone: audio=0,0.5,1 or audio=0:1:0.2. Repeatable.",
        ),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=S",
            help="audio=0.5: add Gaussian noise of so many standard deviations. Several as with --missing. Repeatable.",
        ),
    ] = None,
    probe: Annotated[
        Literal["linear"] | None, typer.Option(help="Train a linear classifier on each frozen encoder.")
    ] = None,
    epochs: Annotated[
        Literal["last", "all"],
        typer.Option(help="With --probe: all = also the epochs that --set snapshots=N kept in training."),
    ] = "last",
    full: Annotated[
        bool,
        typer.Option("--full", help="Also each class, calibration, and the contribution of each modality."),
    ] = False,
    features: Annotated[
        bool, typer.Option("--features", help="Also store each test sample's features, as features.arrow.")
    ] = False,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where prepared data sets are.")] = Path(
        "data/prepared"
    ),
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1.")] = "auto",
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="Text, or one object per run.")
    ] = "text",
) -> None:
    """Evaluate the last checkpoint of runs on the test split; kept in their folders as evaluation.json.

    Example: `bmm eval runs/synthetic/concat/* --missing audio=0:1:0.2`
    """
    from balancemm_cli.engine.checkpoint import checkpoints
    from balancemm_cli.engine.launch import choose_device
    from balancemm_cli.engine.run_evaluation import evaluate_run
    from balancemm_cli.runs.evaluation import evaluated, keep, read_evaluation
    from balancemm_cli.runs.places import run_folders

    if epochs == "all" and probe is None:
        raise UsageError("--epochs says which epochs are probed; it needs --probe linear.")
    wanted = _wanted(missing, noise, probe is not None, epochs == "all", full, features)
    found = run_folders(runs) or runs
    trained = [run for run in found if checkpoints(run / "checkpoints")]
    for run in [run for run in found if run not in trained] if trained else []:
        say(f"Left out: {run}: it has no checkpoint yet.")
    for run in trained or found:
        read_evaluation(run)  # refuses a damaged one before the work
        evaluation, table = evaluate_run(run, data, choose_device(device), wanted)
        if evaluation.status != "finished":
            say(
                f"{run} is not finished ({evaluation.status}): this is its state after {evaluation.epochs} epochs."
            )
        if format_ == "json":
            print(json.dumps({"run": str(run), **evaluated(evaluation)}))
        else:
            print("\n  ".join([f"{run}: {_figures(evaluation.test)}", *_lines(evaluation)]))
        keep(run, evaluation, table)


def _wanted(
    missing: list[str] | None, noise: list[str] | None, probe: bool, kept: bool, full: bool, features: bool
) -> "Wanted":
    from balancemm_cli.engine.evaluator import Corruption
    from balancemm_cli.engine.run_evaluation import Wanted

    given = (parse_amounts("--missing", missing, 1), parse_amounts("--noise", noise, math.inf))
    single = [{name: found[0] for name, found in amounts.items() if len(found) == 1} for amounts in given]
    curves = [{name: found for name, found in amounts.items() if len(found) > 1} for amounts in given]
    if any(single) and any(curves):
        raise UsageError(
            "A curve is of one modality with the others undisturbed: give single amounts of --missing and --noise "
            "in a command of their own."
        )
    return Wanted(Corruption(*single), curves[0], curves[1], probe, kept, full, features)


def parse_amounts(option: str, texts: list[str] | None, most: float) -> dict[str, list[float]]:
    """`modality=amounts` texts to a mapping; amounts are 0.2, or 0,0.5,1, or first:last:step with both ends.

    UsageError for anything else, for an amount out of range, and for a modality that is there twice.
    """
    found: dict[str, list[float]] = {}
    for text in texts or []:
        name, _, numbers = text.partition("=")
        try:
            amounts = _range(numbers) if ":" in numbers else [float(number) for number in numbers.split(",")]
        except ValueError:
            raise UsageError(
                f"{option} takes modality=amounts, as in audio=0.2, audio=0,0.5,1 or audio=0:1:0.2, not '{text}'."
            ) from None
        if not all(0 <= amount <= most and math.isfinite(amount) for amount in amounts):
            raise UsageError(f"{option} {text}: amounts must be between 0 and {most:g}.")
        if name in found:
            raise UsageError(
                f"{option} names '{name}' twice. Give its amounts at once, as in {name}=0,0.5,1."
            )
        found[name] = sorted(set(amounts))
    return found


def _range(text: str) -> list[float]:
    first, last, step = map(float, text.split(":"))
    steps = math.floor((last - first) / step + 1e-9) if step > 0 else -1
    if not 0 <= steps < MOST_AMOUNTS:
        raise ValueError
    amounts = [round(first + index * step, 9) for index in range(steps + 1)]
    return amounts if last - amounts[-1] < 1e-9 else [*amounts, last]


def _lines(evaluation: "RunEvaluation") -> Iterator[str]:
    """Everything beside the test metrics, a line each."""
    for amounts, metrics in evaluation.disturbed.items():
        yield f"{amounts}: {_figures(metrics)}"
    for kind, curves in (("missing", evaluation.missing), ("noise", evaluation.noise)):
        for name, points in curves.items():
            yield f"{kind} {name}: " + _numbers([(f"{one.amount:g}", one.accuracy) for one in points])
    for epochs, accuracies in evaluation.probe.items():
        yield f"probe after epoch {epochs}: {_numbers(list(accuracies.items()))}"
    for name, one in evaluation.classes.items():
        shown = [("accuracy", one.accuracy), *one.unimodal.items()]
        yield f"class {name} ({one.support}): {_numbers(shown)}"
    if evaluation.calibration:
        yield f"calibration: ECE {evaluation.calibration.ece:.3f} ({len(evaluation.calibration.bins)} bins)"
    if evaluation.contribution:
        yield f"contribution: {_numbers(list(evaluation.contribution.shapley.items()))}"
    if evaluation.features:
        yield "features: " + ", ".join(f"{name} {width}" for name, width in evaluation.features.items())


def _figures(metrics: "Metrics") -> str:
    from balancemm_cli.runs.schema import FUSED

    fused = [(name, getattr(metrics, name)) for name in FUSED]
    return _numbers([*fused, *((f"unimodal {name}", value) for name, value in metrics.unimodal.items())])


def _numbers(named: Sequence[tuple[str, float | None]]) -> str:
    return ", ".join(f"{name} {'—' if value is None else f'{value:.3f}'}" for name, value in named)
