"""What a finding shows of its suite's runs: measures of each, and how these differ from a reference, seed by seed.

A difference is *equal* where its 90 % interval lies within the measure's margin (two one-sided tests, each at 5 %), or
where it is 0 with each of three seeds or more, *higher* or *lower* where its p-value, of the paired t-test, adjusted by
Holm over all differences of the finding, is below 0.05, or where it is the same with each of three seeds or more; and
else *open*: the runs do not decide.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from balancemm_cli.config.recipe import WITHOUT_EFFECT, describe
from balancemm_cli.errors import InputError, first_of
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.evidence import faults_of_files
from balancemm_cli.results.findings.trajectories import accuracies
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import UNIMODAL, Group, seeds_text
from balancemm_cli.results.settings import beyond_recipe, revision_notes
from balancemm_cli.results.statistics import (
    GAP,
    LEVEL,
    MIN_SEEDS,
    TOST_LEVEL,
    Comparison,
    compare,
    format_summary,
    holm,
    summarize,
)
from balancemm_cli.results.tables import SELECTION_NOTES, made_with
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Selection

WORDS = ("higher", "lower", "equal", "open")


@dataclass(frozen=True)
class Place:
    """The runs of one owner on one data set, all untuned or all tuned alike: those that are compared, and those of one
    modality alone, by its name. `label` tells it from other places."""

    label: str
    groups: list[Group]
    alone: dict[str, Group]
    selection: Selection
    tuned: str = ""  # how, as Group.tuned says

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.groups[0].first.dataset

    @cached_property
    def names(self) -> list[str]:
        """A short name for each of the groups: its method, and what else tells it from the others."""
        beyond = [
            beyond_recipe(group) if group.trained and not group.searches else {} for group in self.groups
        ]
        keys = dict.fromkeys(key for one in beyond for key in one if key not in WITHOUT_EFFECT)
        apart = [key for key in keys if any(one.get(key) != beyond[0].get(key) for one in beyond)]
        models = {group.first.model for group in self.groups if group.trained}
        methods = {group.first.method for group in self.groups if group.trained}
        found = [
            ", ".join(
                [
                    *([group.first.model] if len(models) > 1 or not group.trained else []),
                    *([group.first.method] if group.trained and len(methods) > 1 else []),
                    *(self.setting(group, key, one[key]) for key in apart if key in one),
                ]
            )
            or group.first.method
            for group, one in zip(self.groups, beyond, strict=True)
        ]
        return [
            f"{name} ({_chosen(group)})" if found.count(name) > 1 else name
            for name, group in zip(found, self.groups, strict=True)
        ]

    def setting(self, group: Group, key: str, value: object) -> str:
        """A setting of a group in its name."""
        return f"{key.rpartition('.')[2]}={value}"

    @cached_property
    def order(self) -> list[str]:
        """The modalities trained alone, from the one with the best mean accuracy to the one with the worst."""

        def mean(name: str) -> float:
            found = [self.accuracy(run) for run in self.alone[name].runs]
            return sum(found) / len(found)

        return sorted(self.alone, key=mean, reverse=True)

    @cached_property
    def suppressed(self) -> str | None:
        """The modality whose own accuracy in joint training lies furthest below what it reaches alone; None where no
        such runs are."""
        joint = next((group for group in self.groups if group.first.method == "baseline"), None)
        if joint is None or not self.alone:
            return None

        def lost(name: str) -> float:
            alone = [self.accuracy(run) for run in self.alone[name].runs]
            own = [float(accuracies(run, name)[-1]) for run in joint.runs]
            return sum(alone) / len(alone) - sum(own) / len(own)

        return max(self.alone, key=lost)

    def accuracy(self, run: Run) -> float:
        """The accuracy of a run on the test part, a fraction."""
        return run.result.selections[self.selection].accuracy


Of = Callable[[Run, Group, Place], float | None]
"""A number of a run, of a group at a place; None where it has none."""


@dataclass(frozen=True)
class Measure:
    """What `of` gives, under a head.

    `margin`, in the unit of the number, is within what two means count as equal; None: nothing does. Shown are
    `scale` times the number, with so many decimals. One that is not `compared` is shown alone: its differences are
    those of another.
    """

    head: str
    of: Of
    margin: float | None = None
    scale: float = 1.0
    decimals: int = 2
    compared: bool = True

    def by_seed(self, group: Group, place: Place) -> dict[int, float]:
        """The numbers of a group's runs by their seed."""
        found = {run.result.seed: self.of(run, group, place) for run in group.runs}
        return {seed: value for seed, value in found.items() if value is not None}


def share(
    head: str,
    of: Of,
    margin: float | None = 0.01,
    compared: bool = True,
) -> Measure:
    """A measure that is a fraction, shown in %; two are equal within a point."""
    return Measure(head, of, margin, 100.0, 1, compared)


ACCURACY = share("Accuracy", lambda run, group, place: place.accuracy(run))


@dataclass(frozen=True)
class Difference:
    """A measure of a group beside that of its reference."""

    place: Place
    group: Group
    name: str
    measure: Measure
    reference: str
    comparison: Comparison
    p: float | None = None  # adjusted

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the difference at LEVEL."""
        return self.comparison.difference.interval

    @property
    def word(self) -> str:
        """One of WORDS."""
        found, margin = self.comparison.difference, self.measure.margin
        alike = (found.mean, found.mean) if found.n >= MIN_SEEDS else None
        narrow = found.interval_at(TOST_LEVEL) or alike
        if margin is not None and narrow and -margin <= narrow[0] and narrow[1] <= margin:
            return "equal"
        without_spread = (
            found.n >= MIN_SEEDS and found.spread is None
        )  # each seed has the same, as 100 less 0 %
        if without_spread and found.mean == 0:
            return "equal"
        if without_spread or (self.p is not None and self.p < 1 - LEVEL):
            return "higher" if found.mean > 0 else "lower"
        return "open"


@dataclass(frozen=True)
class Finding(Contents):
    """The groups of a finding's suite. A subclass says what is measured, and what is held against what."""

    TITLE: ClassVar[str] = ""
    MEASURES: ClassVar[tuple[Measure, ...]] = (ACCURACY,)
    PLACE: ClassVar[type[Place]] = Place

    def reference(self, group: Group, place: Place) -> Group | None:
        """What a group is held against: joint training of the same model without a method, None for nothing."""
        if group.first.method == "baseline":
            return None
        joint = (group.first.model, "baseline")
        return other_row(group, place, lambda one: (one.first.model, one.first.method) == joint)

    def measures(self, place: Place) -> Sequence[Measure]:
        """What is measured at a place."""
        return self.MEASURES

    @cached_property
    def places(self) -> list[Place]:
        """The data sets, with the rows of each. Apart are other data under the same name, another owner's runs, and
        rows that were tuned in other ways or not at all; a row may be at several. InputError where there is no row."""
        together: dict[tuple[str, str, str], list[Group]] = defaultdict(list)
        for group in self.groups:
            if self.is_row(group) or group.first.model.startswith(UNIMODAL):
                together[group.first.dataset, group.owner, group.first.hashes.data].append(group)
        ways: dict[str, set[str]] = defaultdict(set)
        apart = [(key, *one) for key, groups in together.items() for one in _tuned_alike(groups).items()]
        for (dataset, _, _), tuned, _ in apart:
            ways[dataset].add(tuned)
        places = []
        for (dataset, _, data), tuned, groups in apart:
            alone = [group for group in groups if group.first.model.startswith(UNIMODAL)]
            rows = [group for group in groups if group not in alone]
            by_name = {group.first.model.removeprefix(UNIMODAL): group for group in alone}
            way = (tuned or "untuned") if len(ways[dataset]) > 1 else ""
            label = " · ".join(filter(None, [dataset, groups[0].whose, way]))
            if label in [place.label for place in places]:
                label += f" · data {data[:8]}"
            places.append(self.PLACE(label, rows, by_name, self.selection, tuned))
        if not any(place.groups for place in places):
            raise InputError(
                "These runs are of one modality each, and none is a row of the finding. Train the others."
            )
        return [place for place in places if place.groups]

    def is_row(self, group: Group) -> bool:
        """Whether a group of several modalities is shown."""
        return group.trained

    @cached_property
    def differences(self) -> list[Difference]:
        """All that the finding tests."""
        found = []
        for place in self.places:
            names = dict(zip(map(id, place.groups), place.names, strict=True))
            for measure in filter(lambda one: one.compared, self.measures(place)):
                for group in place.groups:
                    other = self.reference(group, place)
                    if other is None:
                        continue
                    compared = compare(self.values(place, group, measure), self.values(place, other, measure))
                    if compared is not None:
                        found.append(
                            Difference(place, group, names[id(group)], measure, names[id(other)], compared)
                        )
        adjusted = holm([one.comparison.p for one in found])
        return [
            Difference(one.place, one.group, one.name, one.measure, one.reference, one.comparison, p)
            for one, p in zip(found, adjusted, strict=True)
        ]

    @cached_property
    def _measured(self) -> dict[tuple[str, int, str], dict[int, float]]:
        """Each measure of each row of a place by seed, taken once: most of them read files of the runs."""
        return {
            (place.label, id(group), measure.head): measure.by_seed(group, place)
            for place in self.places
            for measure in self.measures(place)
            for group in place.groups
        }

    def values(self, place: Place, group: Group, measure: Measure) -> dict[int, float]:
        """A measure of a row of a place by seed."""
        return self._measured[place.label, id(group), measure.head]

    @cached_property
    def _by_row(self) -> dict[tuple[str, int, str], Difference]:
        return {(one.place.label, id(one.group), one.measure.head): one for one in self.differences}

    def _difference(self, place: Place, group: Group, measure: Measure) -> Difference | None:
        return self._by_row.get((place.label, id(group), measure.head))

    @cached_property
    def tables(self) -> list[Table]:
        """How often each row is higher, lower, equal or open over the data sets, and a table a data set."""
        over = [self._over_places()] if len(self.places) > 1 and self.differences else []
        return [*over, *map(self._table, self.places)]

    def _table(self, place: Place) -> Table:
        measures = self.measures(place)
        columns: dict[str, list[str]] = {"Row": place.names}
        for measure in measures:
            values = [summarize([*self.values(place, group, measure).values()]) for group in place.groups]
            texts = [format_summary(one, measure.scale, measure.decimals) for one in values]
            columns[measure.head] = texts
            found = [self._difference(place, group, measure) for group in place.groups]
            if any(found):
                columns[f"Δ {measure.head}"] = [
                    f"{shown(one.comparison, measure)} {one.word}" if one else GAP for one in found
                ]
        columns |= self.further_columns(place)
        counts = sorted({seeds_text(group.seeds) for group in place.groups})
        notes = [
            f"Seeds {'; '.join(counts)}. Cells: mean ± standard deviation (runs).{self._references(place)}",
            *([f"Epoch: {SELECTION_NOTES[self.selection]}."] if self.selection != "last" else []),
            *self.notes(place),
            *self._doubts(place),
            made_with(run for group in place.groups for run in group.runs),
        ]
        cells = [list(line) for line in zip(*columns.values(), strict=True)]
        return Table(place.label, list(columns), cells, notes, dataset=place.dataset)

    def further_columns(self, place: Place) -> dict[str, list[str]]:
        """What a place's table has beside the measures: by the head a text for each row."""
        return {}

    def _references(self, place: Place) -> str:
        """What differences at a place are from; empty where there are none."""
        found = [one for one in self.differences if one.place is place]
        if not found:
            return ""
        names = dict.fromkeys(one.reference for one in found)
        if len(names) == 1:
            return f" Δ: from {found[0].reference}, seed by seed, with its 95 % interval."
        pairs = dict.fromkeys(f"of {one.name} from {one.reference}" for one in found)
        return f" Δ, seed by seed, with its 95 % interval: {'; '.join(pairs)}."

    def notes(self, place: Place) -> list[str]:
        """What must be known to read a place's table."""
        return []

    def _doubts(self, place: Place) -> list[str]:
        """Which numbers the runs' files do not bear out, and what the suite does not plan."""
        trained = [group for group in place.groups if group.trained]
        trained += [group for group in place.alone.values() if group not in trained]
        faults = [fault for group in trained for fault in faults_of_files(group.runs)]
        found = [f"Not borne out by the runs' files: {first_of(faults, 3)}"] * bool(faults)
        return [*found, *revision_notes(trained), *self._notes_on_the_suite(trained)]

    def _over_places(self) -> Table:
        heads = list(dict.fromkeys(one.measure.head for one in self.differences))
        names = list(dict.fromkeys(one.name for one in self.differences))
        cells = [[name, *(self._counted(name, head) for head in heads)] for name in names]
        margins = ", ".join(
            f"{one.head} ±{one.scale * one.margin:g}"
            for one in {one.measure.head: one.measure for one in self.differences}.values()
            if one.margin is not None
        )
        tests = sum(one.p is not None for one in self.differences)
        notes = [
            f"In how many of {len(self.places)} {self._unit} it is higher, lower, equal or open, beside its reference.",
            f"Equal: the {100 * TOST_LEVEL:.0f} % interval of the difference, seed by seed, lies within "
            f"{margins or 'no margin'}. Higher, lower: p of the paired t-test, adjusted by Holm over {tests} "
            f"differences, is below {1 - LEVEL:.2f}. Open: neither.",
        ]
        return Table(f"{self.TITLE}: over {self._unit}", ["Row", *heads], cells, notes)

    @property
    def each_once(self) -> bool:
        """Whether no data set has several places."""
        return len({place.dataset for place in self.places}) == len(self.places)

    @property
    def _unit(self) -> str:
        """What the places are."""
        return "data sets" if self.each_once else "data sets, owners and tunings"

    def _counted(self, name: str, head: str) -> str:
        words = Counter(one.word for one in self.differences if (one.name, one.measure.head) == (name, head))
        return ", ".join(f"{words[word]} {word}" for word in WORDS if words[word]) or GAP

    @cached_property
    def records(self) -> list[dict[str, object]]:
        """A record a row and measure: `values` by seed, and the difference in the measure's unit."""
        found = []
        for place in self.places:
            for name, group in zip(place.names, place.groups, strict=True):
                for measure in self.measures(place):
                    one = self._difference(place, group, measure)
                    found.append(
                        {
                            "dataset": place.dataset,
                            "owner": group.owner_name,
                            "tuned": place.tuned or None,
                            "row": name,
                            "measure": measure.head,
                            "values": self.values(place, group, measure),
                            "reference": one and one.reference,
                            "difference": one and one.comparison.difference.mean,
                            "interval": one and one.interval,
                            "p_adjusted": one and one.p,
                            "word": one and one.word,
                        }
                    )
        return found

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """The differences with their intervals, see Contents."""
        from balancemm_cli.results.figures.differences import draw_differences

        return draw_differences(self, folder, titled)


def shown(comparison: Comparison, measure: Measure) -> str:
    """A difference in a measure, with its interval."""
    scale, decimals, found = measure.scale, measure.decimals, comparison.difference
    ends = (
        ""
        if found.interval is None
        else " [{:+.{d}f}, {:+.{d}f}]".format(*(scale * end for end in found.interval), d=decimals)
    )
    return f"{scale * found.mean:+.{decimals}f}{ends}"


def _tuned_alike(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups by how they were tuned, "" for not at all; one of which a search chose what was there untuned is both,
    where there are others that were not tuned."""
    found: dict[str, list[Group]] = defaultdict(list)
    some_are_not = any(group.trained and not group.searches for group in groups)
    for group in groups:
        as_it_was = group.trained and any(not search.best.settings for search in group.searches)
        ways = [*group.tuned, *([""] if some_are_not and as_it_was else [])]
        for way in ways or [""]:
            found[way].append(group)
    return found


def _chosen(group: Group) -> str:
    """What tells a group from others of its names."""
    return "; ".join(describe(one.best.settings) for one in group.searches) or group.described


def other_row(group: Group, place: Place, wanted: Callable[[Group], bool]) -> Group | None:
    """The first row of a place that is `wanted`; None where there is none, and where it is this one."""
    found = next(filter(wanted, place.groups), None)
    return None if found is group else found


def is_plain(group: Group, method: str) -> bool:
    """Whether a group is of a method under its default settings."""
    return group.first.method == method and not any(
        key.startswith(f"{method}.") for key in beyond_recipe(group)
    )
