"""Finding 8: whether OPM gains by adapting its rates, or by dropping features at all."""

from dataclasses import dataclass
from typing import ClassVar

from balancemm_cli.results.findings.finding import Finding, Place, is_plain, other_row
from balancemm_cli.results.groups import Group

RATES = "moddrop.probability"


class DroppingPlace(Place):
    """Rows of one rate a modality are those of OPM's own mean rates, whatever these are on a data set."""

    def setting(self, group: Group, key: str, value: object) -> str:
        """As of every place, but for such rates."""
        several = key == RATES and isinstance(value, list | tuple)
        return "opm's mean rates" if several else super().setting(group, key, value)


@dataclass(frozen=True)
class Dropping(Finding):
    """Each row is held against OPM as it is."""

    TITLE: ClassVar[str] = "Adapting or dropping"
    PLACE: ClassVar[type[Place]] = DroppingPlace

    def reference(self, group: Group, place: Place) -> Group | None:
        """OPM with its own settings."""
        return other_row(group, place, lambda one: is_plain(one, "opm"))

    def notes(self, place: Place) -> list[str]:
        """What OPM's mean rates are here."""
        found = (group.settings.get(RATES) for group in place.groups if group.first.method == "moddrop")
        rates = next((value for value in found if isinstance(value, list | tuple)), None)
        if rates is None:
            return []
        names = place.groups[0].first.rho
        each = ", ".join(f"{name} {rate:g}" for name, rate in zip(names, rates, strict=True))
        return [f"opm's mean rates, over the steps of its own runs: {each}."]
