"""Finding 7: when balancing pays, and which property of the data foretells it.

Gains over joint training, all rows tuned alike, beside the ensemble and the best modality alone; and of each data set
what the modalities alone get right of its test samples.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from balancemm_cli.config.recipe import describe
from balancemm_cli.results.evidence import correct, without_predictions
from balancemm_cli.results.findings.finding import ACCURACY, Finding, Place, other_row, shown
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import UNIMODAL, Group, way
from balancemm_cli.results.references import ENSEMBLE
from balancemm_cli.results.statistics import GAP, Summary, compare, holm, rank_correlation
from balancemm_cli.results.tables import points

PROPERTIES = {
    "best": "Best alone",
    "others": "Others alone right",
    "shared": "All alone right",
    "none": "None alone right",
}
"""Shares of the test samples: right by the best modality alone; wrong by it and right by another one; right by all;
wrong by all."""


BEST_ALONE = "best alone"
MIN_PLACES = 4  # data sets over which a property is held against gains


@dataclass(frozen=True)
class WithBestAlone(Place):
    """A data set with the best modality alone among its rows."""

    @cached_property
    def names(self) -> list[str]:
        """Those of the joint networks as at any place; the best modality's is the same at all of them."""
        joint = [group for group in self.groups if not _is_alone(group)]
        names = iter(Place(self.label, joint, {}, self.selection).names)
        return [BEST_ALONE if _is_alone(group) else next(names) for group in self.groups]


def _is_alone(group: Group) -> bool:
    return group.first.model.startswith(UNIMODAL)


@dataclass(frozen=True)
class WhenItPays(Finding):
    """Each row is held against joint training of concat; beside it stand the ensemble and the best modality alone."""

    TITLE: ClassVar[str] = "When balancing pays"
    PLACE: ClassVar[type[Place]] = WithBestAlone

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

    def further_columns(self, place: Place) -> dict[str, list[str]]:
        """The differences from the ensemble and from the best modality alone."""
        others = {"Over the ensemble": lambda one: not one.trained, "Over the best alone": _is_alone}
        found = {
            head: [
                self._over(place, group, next(filter(is_other, place.groups), None)) for group in place.groups
            ]
            for head, is_other in others.items()
        }
        return {head: texts for head, texts in found.items() if {*texts} != {GAP}}

    def _over(self, place: Place, group: Group, other: Group | None) -> str:
        if other is None or group is other:
            return GAP
        compared = compare(self.values(place, group, ACCURACY), self.values(place, other, ACCURACY))
        return shown(compared, ACCURACY) if compared else GAP

    def notes(self, place: Place) -> list[str]:
        """Which modality is the best alone, and what the searches chose."""
        found = []
        if place.alone:
            found = [
                f"Best alone: {place.order[0]}, by its mean on test.",
                "Over the ensemble, over the best alone: in points, seed by seed, with the 95 % interval, not tested.",
            ]
        if not place.tuned:
            return [*found, "No search chose these settings."]
        chosen = [
            f"{name}: {describe(search.best.settings) or 'as in the recipe'}"
            for name, group in zip(place.names, place.groups, strict=True)
            for search in group.searches
            if group.trained and way(search) == place.tuned
        ]
        return [*found, f"{place.tuned.capitalize()}, and chosen: {'; '.join(chosen)}."]

    @cached_property
    def properties(self) -> dict[str, dict[str, float]]:
        """By place the shares of PROPERTIES, means over the seeds that all modalities have; ordered by the share that
        others alone get right. Without predictions of each modality there are none."""
        several = [place for place in self.places if len(place.alone) > 1]
        found = {place.label: shares for place in several if (shares := self._of(place))}
        return dict(sorted(found.items(), key=lambda item: item[1]["others"]))

    def _of(self, place: Place) -> dict[str, float]:
        runs = [{run.result.seed: run for run in place.alone[name].runs} for name in place.order]
        seeds = sorted(set.intersection(*map(set, runs)))
        if not seeds or any(self.selection in without_predictions(of[seed]) for of in runs for seed in seeds):
            return {}
        found = []
        for seed in seeds:
            right = np.stack([correct(of[seed], self.selection) for of in runs]) > 0
            best, others = right[0], right[1:].any(0)
            shares = (best, ~best & others, right.all(0), ~right.any(0))
            found.append([float(share.mean()) for share in shares])
        return dict(zip(PROPERTIES, np.mean(found, 0), strict=True))

    @cached_property
    def gains(self) -> dict[str, dict[str, Summary]]:
        """The gains over joint training, fractions, by method and data set."""
        found: dict[str, dict[str, Summary]] = {}
        for one in self.differences:
            if one.group.first.model == "concat":
                of_method = found.setdefault(one.group.first.method, {})
                of_method[one.place.label] = one.comparison.difference
        return found

    @cached_property
    def tables(self) -> list[Table]:
        """Those of a finding, and the properties beside the gains."""
        plain = super().tables
        more = [self._table_of_properties()] if self.properties else []
        if len(self.properties) >= MIN_PLACES and self.gains and self.each_once:
            more.append(self._table_of_correlations())
        return [*plain[:1], *more, *plain[1:]]

    def _table_of_properties(self) -> Table:
        header = ["Dataset", *PROPERTIES.values(), *(f"Gain of {method}" for method in self.gains)]
        cells = [
            [
                name,
                *(f"{100 * shares[key]:.1f}" for key in PROPERTIES),
                *(points(of[name].mean if name in of else None) for of in self.gains.values()),
            ]
            for name, shares in self.properties.items()
        ]
        notes = [
            "Shares of the test samples in %: right by the best modality alone; wrong by it and right by another; "
            "right by all alone; wrong by all alone; means over seeds. Gains over joint training, in points."
        ]
        return Table(f"{self.TITLE}: properties of the data", header, cells, notes)

    def _table_of_correlations(self) -> Table:
        """Of each property with each method's gain over the data sets that have it."""
        pairs = [(key, method) for key in PROPERTIES for method in self.gains]
        found = [self._correlation(key, self.gains[method]) for key, method in pairs]
        adjusted = holm([one and one[1] for one in found])
        texts = [f"{one[0]:+.2f} (p {p:.2f})" if one else GAP for one, p in zip(found, adjusted, strict=True)]
        of_pairs = dict(zip(pairs, texts, strict=True))
        cells = [
            [head, *(of_pairs[key, method] for method in self.gains)] for key, head in PROPERTIES.items()
        ]
        notes = [
            f"Spearman's correlation of a property with a method's gain over {len(self.properties)} data sets, p "
            f"adjusted by Holm over {len(pairs)}."
        ]
        return Table(
            f"{self.TITLE}: which property goes with the gain", ["Property", *self.gains], cells, notes
        )

    def _correlation(self, key: str, gains: dict[str, Summary]) -> tuple[float, float] | None:
        names = [name for name in self.properties if name in gains]
        both = [self.properties[name][key] for name in names], [gains[name].mean for name in names]
        enough = len(names) >= MIN_PLACES and all(len({*values}) > 1 for values in both)
        return rank_correlation(*both) if enough else None

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """The differences, and the gains over the share of samples that only others get right."""
        from balancemm_cli.results.figures.differences import draw_gains

        written, left_out = super().draw(folder, titled)
        return [*written, *draw_gains(self, folder, titled)], left_out
