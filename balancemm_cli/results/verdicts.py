"""The verdict on a number of ours beside a printed one: was it reproduced?

A printed number comes without a spread. Ours counts as the same where the whole 95 % interval of ours lies within a
band about it (the suite's `band`), as better or worse where the whole interval lies beyond the band; else the runs do
not decide. A number of other data, of another split or of other settings is not compared at all.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from balancemm_cli.config.run import WITHOUT_EFFECT, RunConfig, settings_by_key
from balancemm_cli.config.suites import BAND, Suite, load_suite
from balancemm_cli.data.datasets.lists import OTHER_LISTS
from balancemm_cli.resources import suites
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import PAPER, Published, fills
from balancemm_cli.results.statistics import Summary, wilson

Word = Literal["reproduced", "better", "worse", "undecided", "not comparable", "not run"]
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


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one number, and why."""

    name: str
    word: Word
    reason: str

    @property
    def passes(self) -> bool:
        """Whether the check holds for this number."""
        return self.word in PASSING


def table_numbers() -> list[str]:
    """The tables of the paper that have a suite, as --table takes them."""
    return [name.removeprefix(PREFIX) for name in suites() if name.startswith(PREFIX)]


@cache
def suite_of(table: str) -> Suite:
    """The suite that fills a table of the paper."""
    return load_suite(PREFIX + table)[1]


def band_of(number: Published) -> float:
    """How far ours may be from a printed number: as its suite says, else BAND."""
    return suite_of(number.table).band if planned(number) else BAND


@cache
def planned(number: Published) -> RunConfig | None:
    """The settings of the run, with our name of the model, that the suite of a number's table plans for it.

    None where no suite does, as for the numbers of other sources, whose settings are not known here.
    """
    if number.source != PAPER or number.table not in table_numbers():
        return None
    for group in suite_of(number.table).runs:
        for model, method in product(group.models, group.methods):
            if number.dataset in group.datasets and fills(number, number.dataset, model, method, group.note):
                names = {"models": (model,), "methods": (method,), "datasets": (number.dataset,)}
                return next(group.model_copy(update=names).configs())
    return None


@cache
def _planned_settings(number: Published) -> dict[str, object]:
    """The settings of `planned` by the keys that --set takes; empty without a plan."""
    config = planned(number)
    return settings_by_key(config.to_toml()) if config else {}


def follows(group: Group, config: RunConfig) -> bool:
    """Whether a group has exactly these settings, but for the seed."""
    started = config.starting_from(str(group.runs[0].settings.get("weights")))
    return started.hash(group.first.hashes.data, with_seed=False) == group.first.hashes.settings


def judge(
    name: str, group: Group | None, ours: Summary | None, printed: Published, band: float | None = None
) -> Verdict:
    """The verdict on `ours`, in the unit of `printed.fraction`; `band` is a fraction, or for times a ratio."""
    if group is None or ours is None:
        return Verdict(name, "not run", "No finished run has exactly the settings of the suite.")
    if obstacles := _obstacles(group, printed):
        return Verdict(name, "not comparable", " ".join(obstacles))
    scale, unit = (100, " points") if printed.unit == "%" else (1, "")
    interval = interval_of(ours, group, printed.metric)
    if interval is None:
        difference = f"{(ours.mean - printed.fraction) * scale:+.1f}{unit}"
        return Verdict(
            name, "undecided", f"A single run, {difference} from the printed number, has no interval."
        )
    band = band_of(printed) if band is None else band
    low, high = (limit - printed.fraction for limit in interval)
    reason = (
        f"The 95 % interval of ours less the printed number is {low * scale:+.1f} to {high * scale:+.1f}{unit}, "
        f"the band ±{band * scale:g}."
    )
    if -band <= low and high <= band:
        return Verdict(name, "reproduced", reason)
    if low > band:
        return Verdict(name, "better", reason)
    if high < -band:
        return Verdict(name, "worse", reason)
    return Verdict(name, "undecided", f"{reason} More seeds narrow it.")


def interval_of(ours: Summary, group: Group, metric: str) -> tuple[float, float] | None:
    """Of several seeds Student's t, of one run's accuracy Wilson's over the test samples."""
    if ours.interval is not None:
        return ours.interval
    if metric != "accuracy" or "test" not in group.first.samples:
        return None
    count = group.first.samples["test"][0]
    return wilson(round(ours.mean * count), count)


def _obstacles(group: Group, printed: Published) -> list[str]:
    """Why the numbers of a group can't be held against a printed one."""
    found = [
        f"The {split} part has {used:,} of {expected:,} samples."
        for split, (used, expected) in group.first.samples.items()
        if used < expected
    ]
    if group.first.split == OTHER_LISTS:
        found.append("The lists are not the official ones.")
    config = planned(printed)
    if config and not follows(group, config):
        found.append(
            f"The settings are not those of suite {PREFIX}{printed.table}{_differing(group, printed)}."
        )
    return found


def _differing(group: Group, printed: Published) -> str:
    """The settings of a group that are not the planned ones, as far as its config.toml tells."""
    ours, theirs = group.runs[0].settings, _planned_settings(printed)
    keys = [
        key for key in ours if key != "seed" and key not in WITHOUT_EFFECT and ours[key] != theirs.get(key)
    ]
    named = [f"{key}={ours[key]} for {theirs.get(key, 'none')}" for key in keys[:SHOWN]]
    more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
    return ": " + ", ".join(named + more) if named else ""
