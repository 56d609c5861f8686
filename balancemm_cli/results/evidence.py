"""Whether what a run says of itself agrees with the files beside it: its numbers with its predictions and its epochs,
and those with what other runs predicted."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from balancemm_cli.errors import InputError
from balancemm_cli.metrics.classification import evaluate_scores
from balancemm_cli.runs.reading import read_history, read_predictions, read_table
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Epoch, Selection

SAME = 1e-6  # of two computations of one number, relative to it where it is above 1
CHOSEN_ON = {"best-test": "test", "best-val": "val"}  # the split on which a selection's epoch is the best


def faults_of_files(runs: Sequence[Run], every_number: bool = False) -> list[str]:
    """Why the runs of a group can't be trusted: a run that lacks its test predictions or whose accuracies are not those
    of its predictions and epochs, and runs of different seeds with the same predictions, of which one is a copy.

    With `every_number` the other numbers that can be computed again are, too, which takes several times as long.
    """
    found: list[str] = []
    for run in runs:
        try:
            faults = [*_faults(run), *_of_history(run), *run.doubts]
            if every_number and not faults:
                faults = disagreements(run)
        except InputError as error:
            faults = [str(error)]
        found += faults[:1]
        tested(run)  # while its file is decoded
    return found + copied_seeds(runs)


def copied_seeds(runs: Sequence[Run]) -> list[str]:
    """That runs of one group and of different seeds predict the same, which no two seeds do."""
    copies: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        if one := tested(run):
            copies[one.answers].append(run.result.seed)
    return [
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
                f"{run.place}: result.json says {100 * selected.accuracy:.2f} % at the epoch '{selection}', and its "
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
        right = _scores(chosen).argmax(1) == chosen["label"].to_numpy()
        samples = pc.count_distinct(chosen["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        return right.reshape(samples, -1).mean(1)
    except (ValueError, KeyError, pa.ArrowException) as error:
        path = run.place / "predictions.arrow"
        raise InputError(f"{path} can't be read ({error}). Train this run again.") from None


def _scores(table: pa.Table) -> NDArray[np.floating]:
    return table["scores"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def kept(run: Run, selection: Selection) -> tuple[NDArray[Any], NDArray[np.floating], NDArray[Any]]:
    """The ids [A] of the answers of a test, and its predictions and labels [N, …] as the task of the run, whose
    config.toml is known, keeps them. InputError where they can't be read."""
    assert run.config
    table = run.predictions(selection)
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "scores"}
    try:
        samples = len(np.unique(columns["id"]))
        predictions, truth = run.config.task.kept({**columns, "scores": _scores(table)}, samples)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run.place / 'predictions.arrow'} can't be read ({error}).") from None
    return columns["id"], predictions, truth


# ---- every number that can be computed again ----------------------------------------------------------------


def without_predictions(run: Run) -> frozenset[Selection]:
    """The selections of a run that has no predictions.arrow, all of them; the file is not read."""
    there = (run.folder / "predictions.arrow").is_file()
    return frozenset() if there else frozenset(run.result.selections)


def claimed(run: Run) -> frozenset[Selection]:
    """The selections whose predictions a run does not have: nothing bears their numbers out. InputError where they
    can't be read."""
    return without_predictions(run) or frozenset(
        one for one in run.result.selections if not len(run.predictions(one))
    )


def disagreements(run: Run) -> list[str]:
    """What result.json says that predictions.arrow, history.jsonl and steps.arrow do not, as far as these are there.

    InputError where one of them can't be read.
    """
    with np.errstate(all="ignore"):  # numbers that overflow are found to differ
        return [*_of_predictions(run), *_of_history(run), *_of_steps(run)]


def _of_predictions(run: Run) -> Iterator[str]:
    for selection in run.result.selections.keys() - claimed(run):
        ids = run.predictions(selection)["id"]
        samples = pc.count_distinct(ids).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        said, _ = run.result.samples.get("test", (samples, samples))
        if samples != said:
            yield f"{run.place}: result.json says {said:,} test samples, and there are predictions of {samples:,}."
            return
        selected = run.result.selections[selection]
        for name, value in _computed(run, selection).items():
            slack = 0.5 / len(ids) if name == "accuracy" else SAME
            if not _same(getattr(selected, name, None), value, slack):
                yield _says(run, selection, name, getattr(selected, name, None), value, "its predictions")
                return


def _computed(run: Run, selection: Selection) -> dict[str, Any]:
    """The metrics of a selection that its predictions give; of a run of an unknown method or version the accuracy."""
    if run.config is None:
        return {"accuracy": float(correct(run, selection).mean())}
    _, predictions, truth = kept(run, selection)
    try:
        scores = evaluate_scores(*run.config.task.answers(predictions, truth))
        return {**scores, **run.config.task.metrics(predictions, truth, None)}
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"{run.place / 'predictions.arrow'} can't be read ({error}).") from None


def _same(one: float | None, other: float | None, slack: float = SAME) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= slack * max(1.0, abs(other))


def _says(
    run: Run, selection: Selection, name: str, one: float | None, other: float | None, where: str
) -> str:
    def text(value: float | None) -> str:
        return "nothing" if value is None else f"{value:.6g}"

    return (
        f"{run.place}: result.json says {name.replace('_', ' ')} {text(one)} at the epoch '{selection}', and "
        f"{where} say {text(other)}."
    )


def _of_history(run: Run) -> Iterator[str]:
    """What of the accuracies, fused and of each modality, and of the choice of epochs its history does not say."""
    if not (run.folder / "history.jsonl").is_file():
        return
    history = read_history(run.folder)
    for selection, selected in run.result.selections.items():
        if selected.epoch >= len(history) or selected.epoch != _chosen(history, selection, selected.epoch):
            yield f"{run.place}: by its history, epoch {selected.epoch} is not '{selection}'."
            return
        then = history[selected.epoch]
        pairs: dict[str, tuple[float | None, float]] = {
            "accuracy": (selected.accuracy, then.accuracy.get("test", selected.accuracy))
        }
        for name, value in then.unimodal.get("test", {}).items():
            pairs[f"{name} accuracy"] = (selected.unimodal.get(name), value)
        for name, (said, value) in pairs.items():
            if not _same(said, value):
                yield _says(run, selection, name, said, value, "its epochs")
                return


def _chosen(history: Sequence[Epoch], selection: Selection, epoch: int) -> int:
    """The epoch that a selection is of: `epoch` itself where it is as good as any, or where that was not recorded."""
    split = CHOSEN_ON.get(selection)
    if split is None:
        return len(history) - 1
    reached = [one.accuracy.get(split, 0.0) for one in history]
    return epoch if reached[epoch] == max(reached) else reached.index(max(reached))


def _of_steps(run: Run) -> Iterator[str]:
    path = run.folder / "steps.arrow"
    if not run.result.rho or not path.is_file():
        return
    steps = read_table(path)
    if not len(steps):
        return
    for name, said in run.result.rho.items():
        if f"rho_{name}" in steps.column_names:
            mean = float(np.mean(steps[f"rho_{name}"].to_numpy()))
            if not _same(said, mean if np.isfinite(mean) else None):
                yield f"{run.place}: result.json says ρ {name} {said}, and the mean of its steps is {mean:.6g}."
                return


# ---- beside other runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """Hashes of what a run answered at its last epoch, and of what would have been right, whatever the order and the
    encoding of the rows."""

    answers: str
    truth: str


def tested(run: Run) -> Tested | None:
    """See Tested; None without predictions that can be read."""
    path = run.folder / "predictions.arrow"
    try:
        return _tested(run.folder, path.stat().st_mtime_ns)
    except (InputError, OSError):
        return None


@cache
def _tested(folder: Path, _written: int) -> Tested:
    table = read_predictions(folder, "last")
    order, truth = _by_id(table)
    scores = _scores(table).astype(np.float32)[order] if len(table) else np.zeros(0)
    ids = hashlib.sha256("\0".join(map(str, table["id"].to_numpy()[order])).encode()).digest()
    return Tested(*(hashlib.sha256(ids + values.tobytes()).hexdigest() for values in (scores, truth[order])))


def _by_id(table: pa.Table) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """The rows in the order of their ids, those of one sample as they stand; and the truth of each row, a number."""
    column = "truth" if "truth" in table.column_names else "label"
    order = np.argsort(table["id"].to_numpy(), kind="stable")
    try:
        return order, table[column].to_numpy().astype(np.float64)
    except ValueError:
        raise InputError(f"The column '{column}' of predictions.arrow has no numbers.") from None


def labels_that_differ(runs: Sequence[Run]) -> list[tuple[str, Run, Run]]:
    """The runs that give a test sample another label than a run before them, each with that sample's id and that run.
    InputError where predictions can't be read."""
    known: dict[str, tuple[Run, tuple[float, ...]]] = {}
    found = []
    for run in runs:
        table = run.predictions("last")
        order, truth = _by_id(table)
        own: dict[str, list[float]] = defaultdict(list)
        for name, value in zip(table["id"].to_numpy()[order], truth[order], strict=True):
            own[str(name)].append(float(value))
        labels = {name: tuple(values) for name, values in own.items()}
        differing = (
            name for name, label in labels.items() if known.setdefault(name, (run, label))[1] != label
        )
        if (first := next(differing, None)) is not None:
            found.append((first, known[first][0], run))
    return found
