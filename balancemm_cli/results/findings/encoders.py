"""Finding 6: whether the suppressed modality's encoder learns more under modulation, or the other's less.

Measured is a linear probe of each encoder (`bmm eval --probe linear`), beside that of the encoder trained alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from balancemm_cli.results.findings.finding import Finding, Measure, Of, Place, share
from balancemm_cli.results.findings.trajectories import probes
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.run import Run


def by_part(place: Place) -> dict[str, str]:
    """The suppressed modality and the best of the others, where these are known."""
    weak = place.suppressed
    other = next((name for name in place.order if name != weak), None)
    return {part: name for part, name in (("Suppressed", weak), ("Other", other)) if name}


def _last(run: Run, modality: str) -> float | None:
    found = probes(run)
    return found[max(found)][modality] if found else None


def _probe(modality: str) -> Of:
    return lambda run, _, __: _last(run, modality)


def _less_than_alone(modality: str) -> Of:
    """The probe less the mean of the probes of that modality trained alone."""

    def of(run: Run, _: Group, place: Place) -> float | None:
        mine = _last(run, modality)
        alone = [_last(one, modality) for one in place.alone[modality].runs]
        known = [value for value in alone if value is not None]
        return None if mine is None or not known else mine - float(np.mean(known))

    return of


@dataclass(frozen=True)
class Encoders(Finding):
    """Each method is held against joint training."""

    TITLE: ClassVar[str] = "What the encoders learn"

    def measures(self, place: Place) -> Sequence[Measure]:
        """The probe of the suppressed modality and those of the others, and what they lack to those trained alone."""
        found = []
        for head, name in by_part(place).items():
            found.append(share(f"{head}: probe", _probe(name)))
            found.append(share(f"{head}: beyond alone", _less_than_alone(name), compared=False))
        return found

    def notes(self, place: Place) -> list[str]:
        """Which modality is which."""
        names = by_part(place)
        return [
            f"Suppressed: {names.get('Suppressed')}, whose own accuracy in joint training lies furthest below that of "
            f"its network alone; other: {names.get('Other', '—')}. Probe: test accuracy in % of a linear classifier on "
            "the frozen encoder of the last epoch. Beyond alone: less the mean of the same trained alone, in points."
        ]
