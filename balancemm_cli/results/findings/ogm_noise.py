"""Finding 5: how much of OGM's effect is its noise, and whether its strength, distribution or target matters."""

from dataclasses import dataclass
from typing import ClassVar

from balancemm_cli.results.findings.finding import Finding, Place, is_plain, other_row
from balancemm_cli.results.groups import Group


@dataclass(frozen=True)
class OGMNoise(Finding):
    """Each row is held against OGM as it is: Gaussian noise of the gradients' deviation, on all modalities."""

    TITLE: ClassVar[str] = "The noise in OGM"

    def reference(self, group: Group, place: Place) -> Group | None:
        """OGM with its own settings."""
        return other_row(group, place, lambda one: is_plain(one, "ogm"))
