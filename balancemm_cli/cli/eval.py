"""`bmm eval`: trained runs on the test split: each modality alone, missing or noisy modalities, linear probes."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from balancemm_cli.errors import UsageError


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    missing: Annotated[
        list[str] | None,
        typer.Option(help="audio=0.2: each test sample lacks it with that probability. Repeatable."),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(help="audio=0.5: add Gaussian noise of so many deviations. Repeatable."),
    ] = None,
    probe: Annotated[
        Literal["linear"] | None, typer.Option(help="Train a linear classifier on each frozen encoder.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Where prepared data sets are.")] = Path("data/prepared"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="One line, or one object, a run.")
    ] = "text",
) -> None:
    """Evaluate the last checkpoint of runs on the test split.

    Example: `bmm eval runs/demo/concat/* --missing audio=0.5`
    """
    from balancemm_cli.engine.evaluator import Disturbance
    from balancemm_cli.engine.launch import choose_device
    from balancemm_cli.engine.restore import evaluate_run

    disturbance = Disturbance(parse_amounts("--missing", missing, 1), parse_amounts("--noise", noise, None))
    for run in runs:
        metrics = evaluate_run(run, data, choose_device(device), disturbance, probe is not None)
        print(json.dumps({"run": str(run), **metrics}) if format_ == "json" else f"{run}: {as_text(metrics)}")


def parse_amounts(option: str, texts: list[str] | None, most: float | None) -> dict[str, float]:
    """`modality=number` texts to a mapping; UsageError for anything else or a number out of range."""
    amounts = {}
    for text in texts or []:
        name, _, number = text.partition("=")
        try:
            amounts[name] = float(number)
        except ValueError:
            raise UsageError(f"{option} takes modality=number, as in audio=0.2, not '{text}'.") from None
        if not 0 <= amounts[name] <= (most or float("inf")):
            raise UsageError(f"{option} {text}: the number must be between 0 and {most or 'infinity'}.")
    return amounts


def as_text(metrics: dict[str, Any], prefix: str = "") -> str:
    """Metrics on one line, three decimals."""
    parts = [
        as_text(value, f"{name} ") if isinstance(value, dict) else f"{prefix}{name} {value:.3f}"
        for name, value in metrics.items()
    ]
    return ", ".join(parts)
