"""Finding 1: whether OPM and OGM change how fast and how steadily a network learns, and whether ρ still says who is
ahead under them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from balancemm_cli.results.findings.finding import ACCURACY, Finding, Measure, Place, share
from balancemm_cli.results.findings.trajectories import (
    accuracies,
    epochs_to_final,
    names_strongest,
)
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.run import Run


def _fused(run: Run, _: Group, __: Place) -> float | None:
    return epochs_to_final(accuracies(run))


def _of_suppressed(run: Run, _: Group, place: Place) -> float | None:
    name = place.suppressed
    return None if name is None else epochs_to_final(accuracies(run, name))


def _own(run: Run, _: Group, place: Place) -> float | None:
    name = place.suppressed
    return None if name is None else float(accuracies(run, name)[-1])


def _deviation(run: Run, group: Group, place: Place) -> float:
    """How far the accuracy lies from the median of the group's: Brown and Forsythe's measure of spread."""
    return abs(place.accuracy(run) - float(np.median([place.accuracy(one) for one in group.runs])))


@dataclass(frozen=True)
class Convergence(Finding):
    """Each method is held against joint training."""

    TITLE: ClassVar[str] = "Speed and stability"
    MEASURES: ClassVar[tuple[Measure, ...]] = (
        ACCURACY,
        Measure("Epochs to 95 %", _fused, margin=None),
        share("Suppressed: accuracy", _own),
        Measure("Suppressed: epochs to 95 %", _of_suppressed, margin=None),
        share("Deviation", _deviation, margin=None),
        share("ρ right", names_strongest(), margin=0.05),
    )

    def measures(self, place: Place) -> Sequence[Measure]:
        """All; those of the suppressed modality where it is known which one that is."""
        return self.MEASURES if place.suppressed else self.MEASURES[:2]

    def notes(self, place: Place) -> list[str]:
        """Which modality is suppressed, and what the columns are."""
        return [
            f"Suppressed: {place.suppressed}, whose own accuracy in joint training lies furthest below that of its "
            f"network alone; best alone: {place.order[0] if place.alone else 'not known'}. Epochs to 95 %: of a run's "
            "own last accuracy, interpolated within an epoch. Deviation: of a run's accuracy from the median of its "
            "row's, in points. ρ right: the share of epochs in which ρ is highest for the modality that is best alone."
        ]
