"""The verdict on a number of ours beside a printed one: was it reproduced?

A printed number comes without a spread. Whether ours is the same is decided by two one-sided tests over the seeds, at
5 % each: it is where the 90 % interval of the mean lies within a band about the number (the suite's `band`, and the
rounding of what is printed), better or worse where that interval lies beyond the band; else the runs do not decide. A
single run never decides, nor do seeds that all give the same. A number of other data, of another split or of other
settings is not compared at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Literal

from balancemm_cli.config.recipe import WITHOUT_EFFECT
from balancemm_cli.config.run import RunConfig, resolve
from balancemm_cli.config.suites import BAND, Suite, load_suite
from balancemm_cli.errors import BmmError
from balancemm_cli.resources import LATER_TABLES, suites
from balancemm_cli.results.evidence import faults_of_files
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import BEST_ON_TEST, TIMES, Published, fills, other_data, source_of
from balancemm_cli.results.statistics import (
    POWER,
    TOST_LEVEL,
    Summary,
    chance_of_equivalence,
    seeds_for_equivalence,
    summarize,
)
from balancemm_cli.runs.schema import Result, Selection

Word = Literal["reproduced", "better", "worse", "outside", "undecided", "not comparable", "not run"]
PASSING: tuple[Word, ...] = ("reproduced", "better")
MARKS: dict[Word, str] = {
    "reproduced": "✓",
    "better": "↑",
    "worse": "↓",
    "undecided": "?",
    "not comparable": "≠",
}
PREFIX = "table-"  # of the suite that fills a table of the paper
SHOWN = 3  # settings that a reason names
BESIDE: tuple[Selection, ...] = ("last", "best-test")  # the epochs that stand beside each verdict
METRIC_KEYS = {"f1": "macro_f1"}  # of two classes; the paper's F1 (Eq. 20)
EDGE = 1e-9  # an interval's end that is beyond a band's by less lies on it
AUTHORS_RULE = (
    "The authors' code keeps the epoch that is best on the test set; which epoch is printed is not said."
)


@dataclass(frozen=True)
class AtEpoch:
    """The mean of ours at an epoch rule, a fraction, and the word on it."""

    mean: float
    word: Word


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one number, and why.

    `chance` is the probability that so many seeds of such a spread had of showing equality, were there no difference;
    None where there is no interval. `epochs` has what is to be said at the last epoch and at the best on the test set.
    """

    name: str
    word: Word
    reason: str
    chance: float | None = None
    epochs: Mapping[Selection, AtEpoch] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether the check holds for this number."""
        return self.word in PASSING

    @property
    def text(self) -> str:
        """The word with ours, in %, at both epoch rules, and with their words where they are others."""
        if self.word == "not comparable" or not self.epochs:
            return self.word
        parts = (
            f"{rule} {100 * one.mean:.1f}" + (f": {one.word}" if one.word != self.word else "")
            for rule, one in self.epochs.items()
        )
        return f"{self.word} ({', '.join(parts)})"


def table_numbers() -> list[str]:
    """The tables of the paper, and of later ones, that have a suite, as --table takes them."""
    of_the_paper = [name.removeprefix(PREFIX) for name in suites() if name.startswith(PREFIX)]
    return [*of_the_paper, *LATER_TABLES]


def suite_name(table: str) -> str:
    """The name of the suite that fills a table."""
    return table if table in LATER_TABLES else PREFIX + table


@cache
def suite_of(table: str) -> Suite:
    """The suite that fills a table."""
    return load_suite(suite_name(table))[1]


def band_of(number: Published) -> float:
    """How far ours may be from a printed number: as its suite says, else BAND."""
    return suite_of(number.table).band if planned(number) else BAND


@cache
def planned(number: Published) -> RunConfig | None:
    """The settings of the run, with our name of the model, that the suite of a number's table plans for it.

    None where no suite does, as for the numbers of other sources, whose settings are not known here.
    """
    if number.table not in table_numbers() or number.source != source_of(number.table):
        return None
    for group in suite_of(number.table).runs:
        for model, method in product(group.models, group.methods):
            names = (number.dataset, group.printed_as or model, method)
            if number.dataset in group.datasets and fills(number, *names, group.note):
                names = {"models": (model,), "methods": (method,), "datasets": (number.dataset,)}
                return next(group.model_copy(update=names).configs())
    return None


@cache
def _planned_settings(number: Published) -> dict[str, object]:
    """The settings of `planned` by the keys that --set takes; empty without a plan."""
    config = planned(number)
    return config.by_key if config else {}


def follows(group: Group, config: RunConfig) -> bool:
    """Whether all runs of a group have exactly these settings, but for the seed."""
    started = config.starting_from(str(group.runs[0].settings.get("weights")))
    expected = started.hash(group.first.hashes.data, with_seed=False)
    return all(run.result.hashes.settings == expected for run in group.runs)


def reached(group: Group, metric: str, selection: Selection) -> Summary | None:
    """What a group reached in a metric of result.json, or of `published`; None where a run lacks that epoch."""
    if not all(selection in run.result.selections for run in group.runs):
        return None
    key = METRIC_KEYS.get(metric, metric)
    return summarize([getattr(run.result.selections[selection], key) for run in group.runs])


def judge(
    name: str, group: Group | None, ours: Summary | None, printed: Published, band: float | None = None
) -> Verdict:
    """The verdict on `ours`, in the unit of `printed.fraction`; `band` is a fraction, or for times a ratio."""
    if group is None or ours is None:
        return Verdict(name, "not run", "No finished run has exactly the settings of the suite.")
    if obstacles := _obstacles(group, printed):
        return Verdict(name, "not comparable", " ".join(obstacles))
    band = band_of(printed) if band is None else band
    allowed = band + printed.rounding
    low, high = printed.fraction - allowed, printed.fraction + allowed
    if printed.unit == "%":
        low, high = opened(low, high)
    epochs: dict[Selection, AtEpoch] = {
        rule: AtEpoch(one.mean, decide(one, low, high))
        for rule in BESIDE
        if printed.metric != TIMES and (one := reached(group, printed.metric, rule))
    }
    scale, unit = (100, " points") if printed.unit == "%" else (1, "")
    word = decide(ours, low, high)
    if word in PASSING and (faults := faults_of_files(group.runs, True)):
        return Verdict(name, "not comparable", " ".join(faults))
    reason = " ".join(
        [
            _found(ours, printed, scale, unit),
            f"The band is ±{band * scale:g}, and {printed.rounding * scale:g} for the rounding of what is printed.",
            *strength(ours, allowed),
            *_at_epochs(epochs, printed),
        ]
    )
    return Verdict(name, word, reason, chance(ours, allowed), epochs)


def decide(ours: Summary, low: float, high: float) -> Word:
    """What two one-sided tests over the seeds say of a mean between `low` and `high`."""
    interval = ours.interval_at(TOST_LEVEL)
    if interval is None:
        return "undecided"
    if low - EDGE <= interval[0] and interval[1] <= high + EDGE:
        return "reproduced"
    if interval[0] > high + EDGE:
        return "better"
    return "worse" if interval[1] < low - EDGE else "undecided"


def opened(low: float, high: float) -> tuple[float, float]:
    """A range of fractions, without an end at 0 or 1: beyond lies no accuracy, only the end of an interval."""
    return (low if low > 0 else -float("inf")), (high if high < 1 else float("inf"))


def chance(ours: Summary, band: float) -> float | None:
    """The `chance_of_equivalence` of so many seeds of such a spread; None without any."""
    return None if ours.spread is None else chance_of_equivalence(ours.spread, ours.n, band)


def strength(ours: Summary, band: float, same: str = "Were there no difference") -> list[str]:
    """Sentences on what so many seeds could show, and how many more would do."""
    had = chance(ours, band)
    if had is None or ours.spread is None:
        return []
    sentence = f"{same}, {ours.n} seeds of this spread would show it in {100 * had:.0f} % of cases"
    if had >= POWER:
        return [f"{sentence}."]
    needed = seeds_for_equivalence(ours.spread, band)
    more = "no number of seeds that one can train" if needed is None else f"{needed - ours.n} more"
    return [f"{sentence}, with {more} in {100 * POWER:.0f} %."]


def without_interval(ours: Summary) -> str:
    """Why so few or such equal seeds have no interval."""
    if ours.n == 1:
        return "A single run says nothing of what another seed would give, so it decides nothing."
    return f"All {ours.n} seeds gave the same, so their spread is not known."


def _found(ours: Summary, printed: Published, scale: int, unit: str) -> str:
    interval = ours.interval_at(TOST_LEVEL)
    if interval is None:
        difference = f"{(ours.mean - printed.fraction) * scale:+.1f}{unit}"
        return f"Ours less the printed number is {difference}. {without_interval(ours)}"
    low, high = ((limit - printed.fraction) * scale for limit in interval)
    percent = f"{100 * TOST_LEVEL:.0f} %"
    return f"The {percent} interval of ours less the printed number is {low:+.1f} to {high:+.1f}{unit}."


def _at_epochs(epochs: Mapping[Selection, AtEpoch], printed: Published) -> list[str]:
    if not epochs:
        return []
    texts = ", ".join(f"{rule} {100 * one.mean:.1f} ({one.word})" for rule, one in epochs.items())
    return [f"By the epoch that counts: {texts}."] + [AUTHORS_RULE] * (printed.source in BEST_ON_TEST)


def missing_samples(result: Result) -> list[str]:
    """A sentence for each part of a data set that lacks samples."""
    if not result.samples:
        return ["How many samples were used was not recorded."]
    return [
        f"The {split} part has {used:,} of {expected:,} samples."
        for split, (used, expected) in result.samples.items()
        if used < expected
    ]


def _obstacles(group: Group, printed: Published) -> list[str]:
    """Why the numbers of a group can't be held against a printed one."""
    found = faults_of_data(group, lambda result: other_data(result, printed))
    config = planned(printed)
    if config is None:
        return [*found, *_off_recipe(group)]
    if not follows(group, config):
        found.append(
            f"The settings are not those of suite {suite_name(printed.table)}{_differing(group, printed)}."
        )
    elif config.settings.pretrained and not all(
        run.config and run.config.starts_from_imagenet for run in group.runs
    ):
        weights = str(group.runs[0].settings.get("weights"))[:8]
        found.append(f"The encoders start from another file than torchvision's ImageNet weights ({weights}).")
    return found


def faults_of_data(group: Group, fault: Callable[[Result], str]) -> list[str]:
    """What is wrong with the data of a group, by `fault` of each run, and which samples a run lacks; each once."""
    of_runs = [[fault(run.result), *missing_samples(run.result)] for run in group.runs]
    return list(dict.fromkeys(sentence for found in of_runs for sentence in found if sentence))


def _off_recipe(group: Group) -> list[str]:
    """That a group has not the settings of the recipe that it names; of a source without a plan nothing more can be
    asked."""
    dataset, model, method, variant, recipe = group.names
    try:
        if follows(group, resolve(dataset, model, method, variant, recipe)):
            return []
    except BmmError:
        return [f"The recipe '{recipe}' is not known here."]
    return [f"The settings are not those of the recipe '{recipe}'."]


def _differing(group: Group, printed: Published) -> str:
    """The settings of a group that are not the planned ones, as far as its config.toml tells."""
    ours, theirs = group.runs[0].settings, _planned_settings(printed)
    keys = [
        key
        for key in (dict.fromkeys([*ours, *theirs]) if ours else ())
        if key != "seed" and key not in WITHOUT_EFFECT and ours.get(key) != theirs.get(key)
    ]
    named = [f"{key}={ours.get(key, 'none')} for {theirs.get(key, 'none')}" for key in keys[:SHOWN]]
    more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
    return ": " + ", ".join(named + more) if named else ""
