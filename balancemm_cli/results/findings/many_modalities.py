"""Finding 2: whether OPM's gain holds with more than three modalities, what samples lose, and what a step costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from balancemm_cli.data.made.synthetic_modalities import ceiling, design
from balancemm_cli.results.figures.modulation import read_steps
from balancemm_cli.results.findings.finding import ACCURACY, Finding, Measure, Place, share
from balancemm_cli.results.findings.trajectories import accuracies, names_strongest
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.run import Run

MEGA = 1e6
MADE = "synthetic-modalities"


def _lost_all(run: Run, _: Group, __: Place) -> float | None:
    """The share of the samples of all steps that lost every modality; None where a run did not record it."""
    steps, epochs = read_steps(run), run.result.epochs or 1
    if "kept" not in steps:
        return None
    return 1 - float(steps["kept"].sum()) / (epochs * run.result.samples["train"][0])


def _own(run: Run, _: Group, place: Place) -> float:
    """The mean of the modalities' own accuracies."""
    return float(np.mean([accuracies(run, name)[-1] for name in place.alone]))


def _multiply_adds(run: Run, _: Group, __: Place) -> float | None:
    found = run.result.cost.multiply_adds
    return None if found is None else found / MEGA


@dataclass(frozen=True)
class ManyModalities(Finding):
    """OPM is held against joint training, for each number of modalities."""

    TITLE: ClassVar[str] = "More than three modalities"
    MEASURES: ClassVar[tuple[Measure, ...]] = (
        ACCURACY,
        share("Modalities' own", _own),
        share("Lost all", _lost_all, compared=False),
        share("ρ right", names_strongest(), margin=0.05),
        Measure("Multiply-adds (10⁶)", _multiply_adds, decimals=1, compared=False),
    )

    @cached_property
    def places(self) -> list[Place]:
        """The data sets, from the one of fewest modalities to the one of most."""
        return sorted(super().places, key=lambda place: len(place.alone))

    def measures(self, place: Place) -> Sequence[Measure]:
        """All; those of single modalities where these were trained alone."""
        return self.MEASURES if place.alone else (ACCURACY, self.MEASURES[2], self.MEASURES[4])

    def notes(self, place: Place) -> list[str]:
        """How many modalities there are, and what the columns are."""
        best = f", {place.order[0]} the best alone" if place.alone else ""
        made = place.dataset.startswith(MADE) and place.alone
        most = f" Attainable: {100 * ceiling(design(str(len(place.alone)))):.1f} %." if made else ""
        return [
            f"{len(place.alone)} modalities{best}.{most} Modalities' own: the mean of the accuracies of each one's own "
            "logits. Lost all: the share of training samples that lost every modality. ρ right: the share of epochs in "
            "which ρ is highest for the modality that is best alone. Multiply-adds: of a training step."
        ]
