"""The numbers of a report: a row is a group of runs that differ in their seed alone, held against a source."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from balancemm_cli.results import literature
from balancemm_cli.results.gains import Gain, gains
from balancemm_cli.results.groups import Group, describe
from balancemm_cli.results.literature import Place
from balancemm_cli.results.published import PAPER, Published, lookup, other_data
from balancemm_cli.results.statistics import Summary, summarize, wilson, within_bounds
from balancemm_cli.results.verdicts import Verdict, judge
from balancemm_cli.runs.schema import Environment, Selection

REGRESSION = ("mae", "correlation", "accuracy_7")


@dataclass(frozen=True)
class Row:
    """One group's numbers for one selection. Accuracies, mAP and macro-F1 are fractions, ρ is a ratio."""

    group: Group
    selection: Selection
    accuracy: Summary
    map: Summary
    macro_f1: Summary
    unimodal: dict[str, Summary]
    rho: dict[str, Summary]
    regression: dict[str, Summary]  # mae, correlation, accuracy_7; empty for runs of another task
    printed: Published | None  # the number of these names
    map_classes_left_out: int
    gain: Gain | None = None

    @cached_property
    def published(self) -> Published | None:
        """The number to stand beside ours: a gap where our data are not those that it was got on."""
        return None if self.printed is None or other_data(self.group.first, self.printed) else self.printed

    @property
    def delta(self) -> float | None:
        """Accuracy, ours − published, as a fraction; None beside a gap."""
        return None if self.published is None else self.accuracy.mean - self.published.fraction

    @cached_property
    def verdict(self) -> Verdict | None:
        """Whether the printed accuracy was reproduced; None where nobody printed one."""
        if self.printed is None:
            return None
        name = " ".join((*self.group.names[:3], *filter(None, [describe(self.group.differences)])))
        return judge(name, self.group, self.accuracy, self.printed)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy: over the seeds, of a single one Wilson's over the test samples."""
        test = self.samples.get("test")
        if self.accuracy.n == 1 and test:
            return wilson(round(self.accuracy.mean * test[0]), test[0])
        return within_bounds(self.accuracy.interval)

    @property
    def place(self) -> Place | None:
        """Where the accuracy lies in the spread of the literature."""
        return literature.place(self.group, "accuracy", self.accuracy)

    @property
    def samples(self) -> dict[str, tuple[int, int]]:
        """(used, expected) samples of each split."""
        return self.group.first.samples


def rows(
    groups: Sequence[Group], selection: Selection, against: str = PAPER, among: Sequence[Group] = ()
) -> list[Row]:
    """The numbers of the groups beside those of a source, with what each gains over its baseline.

    Baselines are looked for in `groups` and `among`.
    """
    found = gains(groups, selection, against, among)
    return [row(group, selection, found.get(group.first.hashes), against) for group in groups]


def row(group: Group, selection: Selection, gain: Gain | None = None, against: str = PAPER) -> Row:
    """The numbers of a group, each of whose runs must have the selection."""
    selected = [run.result.selections[selection] for run in group.runs]
    accuracy, precision, f1 = (
        summarize([getattr(one, name) for one in selected]) for name in ("accuracy", "map", "macro_f1")
    )
    assert accuracy and precision and f1  # a group has at least one run
    return Row(
        group,
        selection,
        accuracy,
        precision,
        f1,
        _by_name([one.unimodal for one in selected]),
        _by_name([run.result.rho for run in group.runs]),
        _by_name([{name: getattr(one, name) for name in REGRESSION} for one in selected]),
        lookup(group.first.dataset, group.first.model, group.first.method, "accuracy", against),
        max(one.map_classes_left_out for one in selected),
        gain,
    )


def _by_name(values: list[dict[str, float]] | list[dict[str, float | None]]) -> dict[str, Summary]:
    names = dict.fromkeys(name for one in values for name in one)
    summaries = {
        name: summarize([value for one in values if (value := one.get(name)) is not None]) for name in names
    }
    return {name: summary for name, summary in summaries.items() if summary}


def record(one: Row) -> dict[str, object]:
    """A row as plain values in full precision: fractions in 0–1, None for a gap."""
    first, published = one.group.first, one.published
    environments = [found for run in one.group.runs for found in run.environments]
    return {
        "dataset": first.dataset,
        "model": first.model,
        "method": first.method,
        "variant": first.variant,
        "recipe": first.recipe,
        "settings": describe(one.group.differences),
        "selection": one.selection,
        "n": len(one.group.runs),
        "seeds": one.group.seeds,
        "accuracy": {**_plain(one.accuracy), "interval": one.interval},
        "map": _plain(one.map),
        "macro_f1": _plain(one.macro_f1),
        "unimodal": {name: _plain(summary) for name, summary in one.unimodal.items()},
        "rho": {name: _plain(summary) for name, summary in one.rho.items()},
        "map_classes_left_out": one.map_classes_left_out,
        "regression": {name: _plain(summary) for name, summary in one.regression.items()},
        "published": {
            "accuracy": published.fraction if published else None,
            "source": published.source if published else None,
            "table": published.table if published else None,
            "note": published.note if published else None,
        },
        "delta": one.delta,
        "verdict": {
            "word": one.verdict.word if one.verdict else None,
            "reason": one.verdict.reason if one.verdict else None,
            "chance": one.verdict.chance if one.verdict else None,
        },
        "literature": literature.plain(one.place),
        "gain": plain_gain(one.gain),
        "split": first.split,
        "samples": {split: {"used": n, "expected": m} for split, (n, m) in one.samples.items()},
        "hashes": first.hashes.model_dump(),
        "version": _distinct(environments, "version"),
        "git": _distinct(environments, "git"),
        "torch": _distinct(environments, "torch"),
        "device": _distinct(environments, "device"),
        "runs": [str(run.folder) for run in one.group.runs],
    }


def _plain(summary: Summary) -> dict[str, object]:
    plain = asdict(summary)
    del plain["n"]  # the row's own n
    return plain


def plain_gain(gain: Gain | None) -> dict[str, object]:
    """A Gain as plain values; None for what there is not."""
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
        "published": gain and gain.published,
    }


def _distinct(environments: list[Environment], key: str) -> list[str]:
    return sorted({str(value) for one in environments if (value := getattr(one, key)) is not None})
