"""A number of ours beside a printed one: their difference, the verdict, the gain over the baseline, the literature.

A row of the table of runs is one, of its accuracy (rows.py), and so is each cell of a table of the paper
(paper_tables.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from balancemm_cli.results import literature
from balancemm_cli.results.gains import Gain
from balancemm_cli.results.groups import Group
from balancemm_cli.results.literature import Place
from balancemm_cli.results.published import Published, other_data
from balancemm_cli.results.statistics import Summary
from balancemm_cli.results.verdicts import Verdict, judge


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The mean over the seeds of a group of runs, held against a printed number; a fraction, or a ratio of times."""

    group: Group | None
    ours: Summary | None
    printed: Published | None  # the number of these names; None where the source prints none
    gain: Gain | None = None
    rivals: Sequence[Group] = ()  # further runs of these settings, on other data or from other weights

    @property
    def name(self) -> str:
        """The names of the runs, and the settings that tell them apart from others of these names."""
        assert self.group is not None
        return " ".join((*self.group.names[:3], *filter(None, [self.group.described])))

    @property
    def metric(self) -> str:
        """What is compared, by the name that published numbers have for it."""
        return "accuracy"

    @cached_property
    def published(self) -> Published | None:
        """The number to stand beside ours: a gap where our data are not those that it was got on."""
        if self.printed is None or (self.group and other_data(self.group.first, self.printed)):
            return None
        return self.printed

    @property
    def delta(self) -> float | None:
        """Ours − published; None beside a gap."""
        return (
            None if self.ours is None or self.published is None else self.ours.mean - self.published.fraction
        )

    def judge(self, band: float | None = None) -> Verdict:
        """Whether the printed number was reproduced, within the `band` of its table's suite unless another is given."""
        if self.printed is None:
            return Verdict(self.name, "not comparable", "The source prints no such number.")
        if self.group and self.rivals:
            names = "; ".join(group.described for group in (self.group, *self.rivals))
            reason = f"Several groups of runs have these settings ({names}); name the folders of one of them."
            return Verdict(self.name, "not comparable", reason)
        return judge(self.name, self.group, self.ours, self.printed, band)

    @cached_property
    def verdict(self) -> Verdict | None:
        """The verdict by the suite's own band; None where nobody printed a number."""
        return None if self.printed is None else self.judge()

    @property
    def place(self) -> Place | None:
        """Where ours lies in the spread of the literature."""
        return literature.place(self.group, self.metric, self.ours)

    @property
    def facts(self) -> dict[str, object]:
        """What the comparison says, as plain values: fractions in 0–1, None for a gap."""
        return {
            "delta": self.delta,
            "verdict": {key: getattr(self.verdict, key, None) for key in ("word", "reason", "chance")},
            "literature": literature.plain(self.place),
            "gain": _plain_gain(self.gain),
        }


def _plain_gain(gain: Gain | None) -> dict[str, object]:
    comparison = gain.comparison if gain else None
    difference = comparison.difference if comparison else None
    return {
        "mean": difference and difference.mean,
        "std": difference and difference.std,
        "n": difference.n if difference else 0,
        "interval": difference and difference.interval,
        "new_samples_interval": gain and gain.new_samples,
        "p": gain and gain.p,
        "effect": comparison and comparison.effect,
        "detectable": gain and gain.detectable,
        "tuned": gain and gain.tuned,
        "claimed": gain and gain.claimed,
        "published": gain and gain.published,
    }
