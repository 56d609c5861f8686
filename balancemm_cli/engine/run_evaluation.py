"""What `bmm eval` asks of a trained run, and the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from balancemm_cli.engine.analysis import contribution, encode, linear_probe, missing_curve
from balancemm_cli.engine.evaluator import Corruption, Evaluation, evaluate
from balancemm_cli.engine.restore import Restored, restore
from balancemm_cli.errors import InputError, UsageError, unknown
from balancemm_cli.extensions import failures_explained
from balancemm_cli.metrics.calibration import calibration
from balancemm_cli.metrics.classification import by_class
from balancemm_cli.runs.evaluation import RunEvaluation

DRAWS = 5
"""Of the samples that lack a modality, for each amount of a curve; always the same ones. Of noise, which every
sample gets, one draw is enough."""

Curves = Mapping[str, Sequence[float]]
UNCORRUPTED = Corruption({}, {})


@dataclass(frozen=True)
class Wanted:
    """What to evaluate besides the test metrics."""

    corruption: Corruption = UNCORRUPTED  # the test metrics under it, too
    missing: Curves = field(
        default_factory=dict
    )  # amounts by modality, each with the others undisturbed (Fig. 6)
    noise: Curves = field(default_factory=dict)
    probe: bool = False
    kept_epochs: bool = False  # with probe: of the kept epochs as well (Fig. 1)
    full: bool = False  # per class, calibration, contribution
    features: bool = False

    def check(self, run: Restored) -> None:
        """UsageError for a modality that the run lacks, and for noise on text."""
        noisy = [*self.corruption.noise, *self.noise]
        for name in [*self.corruption.missing, *self.missing, *noisy]:
            if name not in run.network.modalities:
                raise unknown("modality", name, run.network.modalities)
            kind = run.inputs.kinds[name]
            if name in noisy and not kind.takes_noise:
                raise UsageError(
                    f"Modality '{name}' is {kind.describe()}, to which no noise can be added. Use --missing."
                )


@failures_explained("evaluation")
def evaluate_run(
    folder: Path, data: Path, device: torch.device, wanted: Wanted | None = None
) -> tuple[RunEvaluation, pa.Table | None]:
    """The evaluation of a run folder's last checkpoint on the test split, and its features where they are wanted.

    InputError where the run can't be restored, see restore, its scores are not finite, or code of another package
    fails; UsageError for a modality that it lacks.
    """
    wanted = wanted or Wanted()
    run = restore(folder, data, device)
    wanted.check(run)
    try:
        found = _evaluate(run, wanted)
    except FloatingPointError:
        raise InputError(f"The scores of {folder} are not finite. Try less noise, or another run.") from None
    features = encode(run.network, run.test, run.inputs, run.device) if wanted.features else {}
    if features:
        found["features"] = {name: values.shape[1] for name, values in features.items()}
    if wanted.probe:
        found["probe"] = _probe(run, wanted.kept_epochs)  # the last, for it leaves other weights
    evaluation = RunEvaluation(checkpoint=run.checkpoint, epochs=run.epochs, status=run.status, **found)
    return evaluation, _table(run, features) if features else None


def _evaluate(run: Restored, wanted: Wanted) -> dict[str, Any]:
    def disturbed(corruption: Corruption | None) -> Evaluation:
        return evaluate(run.network, run.test, run.inputs, run.device, run.task, corruption)

    whole = disturbed(None)
    found: dict[str, Any] = {"test": whole.metrics}
    if wanted.corruption != UNCORRUPTED:
        found["disturbed"] = {str(wanted.corruption): disturbed(wanted.corruption).metrics}
    for name, amounts in wanted.missing.items():
        several = missing_curve(run.network, run.test, run.inputs, run.device, whole, name, amounts, DRAWS)
        found.setdefault("missing", {})[name] = _points(amounts, several)
    for name, amounts in wanted.noise.items():
        single = [[disturbed(Corruption({}, {name: amount}))] for amount in amounts]
        found.setdefault("noise", {})[name] = _points(amounts, single)
    if wanted.full:
        found |= _full(run, whole)
    return found


def _points(amounts: Sequence[float], evaluations: Sequence[Sequence[Evaluation]]) -> list[dict[str, Any]]:
    """For each amount the mean of each metric over those of its draws that have it, None where none does."""
    return [
        {"amount": amount, "draws": len(draws), **_mean([one.metrics for one in draws])}
        for amount, draws in zip(amounts, evaluations, strict=True)
    ]


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401 - numbers, or mappings of such
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    if len(set(values)) == 1:
        return values[0]
    return float(np.mean([value for value in values if value is not None]))


def _full(run: Restored, whole: Evaluation) -> dict[str, Any]:
    values, accuracies = contribution(run.network, run.test, run.inputs, run.device, run.task)
    subsets = [
        {"present": [name for name in run.network.modalities if name in present], "accuracy": accuracy}
        for present, accuracy in accuracies.items()
    ]
    scores, labels = whole.answers
    names = run.task.classes(run.prepared.classes)
    found = {
        "classes": by_class(scores.argmax(1), whole.alone, labels, names),
        "contribution": {"shapley": values, "subsets": subsets},
    }
    return {**found, "calibration": calibration(scores, labels)} if run.task.probabilities else found


def _probe(run: Restored, kept_epochs: bool) -> dict[int, dict[str, float]]:
    """Test accuracy of each modality's probe by epochs trained."""

    def probe() -> dict[str, float]:
        return linear_probe(run.network, run.train, run.test, run.inputs, run.device, run.task)

    found = {run.epochs: probe()}
    for epochs in run.snapshots() if kept_epochs else ():
        found[epochs] = probe()
    return dict(sorted(found.items()))


def _table(run: Restored, features: Mapping[str, np.ndarray]) -> pa.Table:
    """A row a test sample: id, label (a class's number and name), and each modality's feature."""
    classes = run.prepared.split("test").labels.astype(np.int32)
    labels = pa.DictionaryArray.from_arrays(classes, run.prepared.classes)
    columns = {name: pa.array(list(values), pa.list_(pa.float32())) for name, values in features.items()}
    return pa.table({"id": run.test.ids, "label": labels, **columns})
