"""Finding 8: whether OPM gains by adapting its rates, or by dropping features at all."""

from dataclasses import dataclass
from typing import ClassVar

from balancemm_cli.results.findings.finding import Finding, Place, is_plain
from balancemm_cli.results.groups import Group


@dataclass(frozen=True)
class Dropping(Finding):
    """Each row is held against OPM as it is."""

    TITLE: ClassVar[str] = "Adapting or dropping"

    def reference(self, group: Group, place: Place) -> Group | None:
        """OPM with its own settings."""
        plain = next((one for one in place.groups if is_plain(one, "opm")), None)
        return None if group is plain else plain
