"""Finding 4: how often ρ names the modality that is stronger in truth, by fusion and estimate, over training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from balancemm_cli.results.findings.finding import ACCURACY, Finding, Measure, Place, other_row, share
from balancemm_cli.results.findings.trajectories import ahead, names_strongest, probes
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.run import Run

EARLY = 0.25  # of the epochs


def _as_probed(run: Run, _: Group, place: Place) -> float | None:
    """The share of the probed epochs in which ρ of that epoch is highest for the modality whose probe is the best."""
    found, by_epoch = ahead(run, place.order), probes(run)
    if found is None or not by_epoch:
        return None
    return float(
        np.mean([found[epoch - 1] == max(of, key=lambda name: of[name]) for epoch, of in by_epoch.items()])
    )


@dataclass(frozen=True)
class Estimate(Finding):
    """Each fusion and estimate is held against concat, whose split is exact."""

    TITLE: ClassVar[str] = "Whom ρ names"
    MEASURES: ClassVar[tuple[Measure, ...]] = (
        share("Right", names_strongest(), margin=0.05),
        share("Right early", names_strongest(0, EARLY), margin=0.05),
        share("Right later", names_strongest(EARLY, 1), margin=0.05),
        share("As probed", _as_probed, margin=0.05),
        ACCURACY,
    )

    def reference(self, group: Group, place: Place) -> Group | None:
        """The network that concatenates."""
        return other_row(group, place, lambda one: one.first.model == "concat")

    def notes(self, place: Place) -> list[str]:
        """What the columns are."""
        return [
            f"Right: the share in % of the epochs in which ρ is highest for the modality that is best alone "
            f"({place.order[0] if place.alone else 'not known'}), of all, of the first quarter and of the rest. As "
            "probed: of the probed epochs, for the modality whose encoder has the best linear probe at that epoch."
        ]
