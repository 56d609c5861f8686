"""Finding 7: when balancing pays, and which property of the data foretells it.

Gains over joint training, all rows tuned alike, beside the ensemble and the best modality alone; and of each data set
what the modalities alone get right of its test samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from balancemm_cli.results.evidence import correct
from balancemm_cli.results.findings.finding import Finding, Place, other_row
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import Group
from balancemm_cli.results.references import ENSEMBLE
from balancemm_cli.results.statistics import GAP, rank_correlation

PROPERTIES = {
    "best": "Best alone",
    "others": "Others alone right",
    "shared": "All alone right",
    "none": "None alone right",
}
"""Shares of the test samples: right by the best modality alone; wrong by it and right by another one; right by all;
wrong by all."""


@dataclass(frozen=True)
class WhenItPays(Finding):
    """Each row is held against joint training of concat."""

    TITLE: ClassVar[str] = "When balancing pays"

    def is_row(self, group: Group) -> bool:
        """Networks of several modalities, and the ensemble."""
        return group.trained or group.first.model == ENSEMBLE

    @cached_property
    def places(self) -> list[Place]:
        """The data sets, with the best modality alone among the rows."""
        return [
            replace(place, groups=[*place.groups, place.alone[place.order[0]]]) if place.alone else place
            for place in super().places
        ]

    def reference(self, group: Group, place: Place) -> Group | None:
        """Joint training."""
        joint = ("concat", "baseline")
        return other_row(group, place, lambda one: (one.first.model, one.first.method) == joint)

    @cached_property
    def properties(self) -> dict[str, dict[str, float]]:
        """By data set the shares of PROPERTIES, means over the seeds that all modalities have."""
        return {place.dataset: self._of(place) for place in self.places if len(place.alone) > 1}

    def _of(self, place: Place) -> dict[str, float]:
        runs = [{run.result.seed: run for run in place.alone[name].runs} for name in place.order]
        found = []
        for seed in sorted(set.intersection(*map(set, runs))):
            right = np.stack([correct(of[seed], self.selection) for of in runs]) > 0
            best, others = right[0], right[1:].any(0)
            shares = (best, ~best & others, right.all(0), ~right.any(0))
            found.append([float(share.mean()) for share in shares])
        return dict(zip(PROPERTIES, np.mean(found, 0), strict=True))

    def gain(self, dataset: str, method: str) -> float | None:
        """The gain of a method on a data set, a fraction."""
        named = (
            one
            for one in self.differences
            if (one.place.dataset, one.group.first.method) == (dataset, method)
            and one.group.first.model == "concat"
        )
        found = next(named, None)
        return found and found.comparison.difference.mean

    @property
    def methods(self) -> list[str]:
        """The methods of which there are gains."""
        found = (one.group.first for one in self.differences if one.group.first.model == "concat")
        return list(dict.fromkeys(first.method for first in found))

    @cached_property
    def tables(self) -> list[Table]:
        """Those of a finding, and the properties beside the gains."""
        first, *rest = super().tables
        return [first, self._table_of_properties(), *rest] if self.properties else [first, *rest]

    def _table_of_properties(self) -> Table:
        gains = {
            name: {method: self.gain(name, method) for method in self.methods} for name in self.properties
        }
        header = ["Dataset", *PROPERTIES.values(), *(f"Gain of {method}" for method in self.methods)]
        cells = [
            [
                name,
                *(f"{100 * shares[key]:.1f}" for key in PROPERTIES),
                *(GAP if gain is None else f"{100 * gain:+.1f}" for gain in gains[name].values()),
            ]
            for name, shares in sorted(self.properties.items(), key=lambda item: item[1]["others"])
        ]
        notes = [
            "Shares of the test samples in %: right by the best modality alone; wrong by it and right by another; "
            "right by all alone; wrong by all alone; means over seeds. Gains over joint training, in points.",
            *self._correlations(),
        ]
        return Table(f"{self.TITLE}: properties of the data", header, cells, notes)

    def _correlations(self) -> Sequence[str]:
        """Spearman's rank correlation of each property with each method's gain over the data sets."""
        names = list(self.properties)
        if len(names) < 4:
            return []
        found = []
        for method in self.methods:
            gains = [self.gain(name, method) for name in names]
            texts = []
            for key, head in PROPERTIES.items():
                rho, p = rank_correlation([self.properties[name][key] for name in names], gains)
                texts.append(f"{head} {rho:+.2f} (p {p:.2f})")
            found.append(f"{method}: {', '.join(texts)}")
        return [
            f"Spearman's correlation with the gain over {len(names)} data sets, unadjusted: {'; '.join(found)}."
        ]

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """The differences, and the gains over the share of samples that only others get right."""
        from balancemm_cli.results.figures.differences import draw_gains

        written, left_out = super().draw(folder, titled)
        return [*written, *draw_gains(self, folder, titled)], left_out
