"""What runs recorded on their way: accuracies by epoch, ρ by epoch, and whom ρ calls ahead."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from balancemm_cli.results.figures.drawing import Array
from balancemm_cli.results.figures.modulation import epoch_means, read_steps
from balancemm_cli.runs.evaluation import of_run
from balancemm_cli.runs.reading import read_history
from balancemm_cli.runs.run import Run

if TYPE_CHECKING:
    from balancemm_cli.results.findings.finding import Of, Place
    from balancemm_cli.results.groups import Group

FINAL = 0.95  # of a run's last accuracy: when it counts as reached


@lru_cache(maxsize=8192)
def _history(folder: Path) -> list[dict[str, float]]:
    return [{"": epoch.accuracy["test"], **epoch.unimodal.get("test", {})} for epoch in read_history(folder)]


def accuracies(run: Run, modality: str = "") -> Array:
    """Test accuracy after each epoch [E], fractions, of the fused prediction or of a modality's own logits."""
    return np.array([epoch[modality] for epoch in _history(run.folder)])


def epochs_to_final(curve: Array) -> float | None:
    """After how many epochs a curve [E] reaches FINAL of its last value for the first time, interpolated within the
    epoch; 1 where it does in the first, before which nothing was measured. None where the last value is 0."""
    goal = FINAL * curve[-1]
    if goal == 0:
        return None
    reached = int(np.argmax(curve >= goal))
    if reached == 0:
        return 1.0
    before = curve[reached - 1]
    return float(reached + (goal - before) / (curve[reached] - before))


def rho(run: Run, modalities: list[str]) -> Array | None:
    """ρ of each modality, its mean over the steps of each epoch [E, M]; None without any."""
    steps, columns = read_steps(run), [f"rho_{name}" for name in modalities]
    if not columns or any(column not in steps for column in columns):
        return None
    return np.stack([epoch_means(steps, column) for column in columns], 1)


def ahead(run: Run, modalities: list[str]) -> list[str] | None:
    """Of each epoch the modality with the highest ρ; None where the run recorded none."""
    found = rho(run, modalities)
    return None if found is None else [modalities[at] for at in found.argmax(1)]


def names_strongest(first: float = 0, last: float = 1) -> "Of":
    """The share of the epochs in which ρ is highest for the modality that is the best alone, of those between two
    shares of the training."""

    def of(run: Run, _: "Group", place: "Place") -> float | None:
        found = ahead(run, place.order)
        if found is None:
            return None
        part = found[round(first * len(found)) : max(round(last * len(found)), 1)]
        return float(np.mean([name == place.order[0] for name in part]))

    return of


def probes(run: Run) -> dict[int, dict[str, float]]:
    """The test accuracy of each encoder's linear probe, by the epochs trained; empty for runs without evaluation."""
    found = of_run(run)
    return found.probe if found else {}
