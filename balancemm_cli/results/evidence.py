"""Whether what a run says of itself agrees with the files beside it, before it may count as a reproduction."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from balancemm_cli.errors import InputError
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Selection


def faults_of_files(runs: Sequence[Run]) -> list[str]:
    """Why the runs of a group can't be trusted: a run that lacks its test predictions or whose accuracies are not those
    of its predictions, and runs of different seeds with the same predictions, of which one is a copy."""
    found = [fault for run in runs for fault in _faults(run)]
    copies: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        path = run.folder / "predictions.arrow"
        if path.is_file():
            copies[_digest(path, path.stat().st_mtime_ns)].append(run.result.seed)
    return found + [
        f"The runs of seeds {', '.join(map(str, seeds))} have the same predictions: one run was copied."
        for seeds in copies.values()
        if len(seeds) > 1
    ]


def _faults(run: Run) -> Iterator[str]:
    for selection, selected in run.result.selections.items():
        try:
            right = correct(run, selection)
        except InputError as error:
            yield f"An accuracy can't be checked: {error}"
            return
        if not abs(right.mean() - selected.accuracy) <= 0.5 / len(right):  # nan of no samples, too
            yield (
                f"{run.folder}: result.json says {100 * selected.accuracy:.2f} % at the epoch '{selection}', and its "
                f"predictions are right in {100 * right.mean():.2f} %."
            )
            return


def correct(run: Run, selection: Selection) -> NDArray[np.floating]:
    """The share of each test sample's answers that a run predicts right [N], in the order of the split.

    A sample has several answers, one after another, in a task that asks for each of its segments; they are counted
    together. InputError without predictions.
    """
    try:
        chosen = run.predictions(selection)
        scores = chosen["scores"].combine_chunks().flatten().to_numpy().reshape(len(chosen), -1)
        right = scores.argmax(1) == chosen["label"].to_numpy()
        samples = pc.count_distinct(chosen["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        return right.reshape(samples, -1).mean(1)
    except (ValueError, KeyError, pa.ArrowException) as error:
        path = run.folder / "predictions.arrow"
        raise InputError(f"{path} can't be read ({error}). Train this run again.") from None


@cache
def _digest(path: Path, _written: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
