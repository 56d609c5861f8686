"""evaluation.json: what `bmm eval` found out about the last checkpoint of a run, beside its result.json.

Fractions are in 0–1. A part is there once it has been evaluated; evaluated again, its entries replace those of the
same name. What was said of another checkpoint is dropped.
"""

import fcntl
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from balancemm_cli.data.store import write_json
from balancemm_cli.errors import InputError
from balancemm_cli.runs.folder import write_table
from balancemm_cli.runs.reading import read_bytes
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Fraction, Metrics, first_fault

FILE, FEATURES, LOCK = "evaluation.json", "features.arrow", ".evaluation.lock"


class Point(Metrics):
    """One amount of a curve: the mean of each metric over the draws."""

    amount: float = Field(ge=0)
    draws: int


class OfClass(BaseModel):
    """One class: its test samples, and the share that is right; None without a sample."""

    support: int
    accuracy: Fraction | None
    unimodal: dict[str, Fraction | None]


class Bin(BaseModel):
    """Confidences in (low, high]: how many, their mean, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: Fraction | None
    accuracy: Fraction | None


class Calibration(BaseModel):
    """See metrics.calibration."""

    ece: Fraction
    bins: list[Bin]


class Subset(BaseModel):
    """The accuracy with the features of these modalities alone."""

    present: list[str]
    accuracy: Fraction


class Contribution(BaseModel):
    """See metrics.contribution; the values add up to the accuracy of all modalities less that of none."""

    shapley: dict[str, float]
    subsets: list[Subset]


class RunEvaluation(BaseModel):
    """The content of evaluation.json."""

    format: Literal[1] = 1
    checkpoint: str  # SHA-256 of the file
    epochs: int  # that it was trained for
    status: str = "finished"  # of the run at that time
    test: Metrics
    disturbed: dict[str, Metrics] = {}  # by the amounts in words
    missing: dict[str, list[Point]] = {}  # by modality
    noise: dict[str, list[Point]] = {}
    probe: dict[int, dict[str, Fraction]] = {}  # test accuracy of each modality's probe, by epochs trained
    classes: dict[str, OfClass] = {}
    calibration: Calibration | None = None
    contribution: Contribution | None = None
    features: dict[str, int] = {}  # widths of the columns of features.arrow


def read_evaluation(folder: Path) -> RunEvaluation | None:
    """The evaluation in a run folder, None where there is none. InputError where it is damaged."""
    path = folder / FILE
    try:
        return RunEvaluation.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged ({first_fault(error)}). Delete it, then evaluate the run again."
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error}). Delete it, then evaluate the run again."
        ) from None


def keep(folder: Path, evaluation: RunEvaluation, features: pa.Table | None = None) -> None:
    """Add the parts that `evaluation` has to the run folder's evaluation.json, and write features.arrow.

    Of two evaluations that end at once, one waits for the other, and nothing is lost. InputError where the one that is
    there is damaged: it is left as it is.
    """
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _merge(folder, evaluation, features)


def _merge(folder: Path, evaluation: RunEvaluation, features: pa.Table | None) -> None:
    before, found = read_evaluation(folder), evaluated(evaluation)
    if before is not None and before.checkpoint == evaluation.checkpoint:
        old = evaluated(before)
        merged = {
            key: {**old.get(key, {}), **value} for key, value in found.items() if isinstance(value, dict)
        }
        found = {**old, **found, **merged}
    if features is not None:
        write_table(folder / FEATURES, features)
    write_json(folder / FILE, found)


def evaluated(evaluation: RunEvaluation) -> dict[str, Any]:
    """The parts that were evaluated, as plain values for JSON."""
    return {"format": evaluation.format, **json.loads(evaluation.model_dump_json(exclude_unset=True))}


def of_run(run: Run) -> RunEvaluation | None:
    """The evaluation of a finished run; None where it has none, or one of an earlier checkpoint.

    InputError where it is damaged.
    """
    found = read_evaluation(run.folder)
    return found if found and found.epochs == run.result.epochs else None
