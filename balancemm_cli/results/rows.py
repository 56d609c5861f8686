"""The numbers of a report: a row is a group of runs that differ in their seed alone, held against a source."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from balancemm_cli.config.recipe import describe
from balancemm_cli.results.comparison import Comparison
from balancemm_cli.results.gains import Gain, gains
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import PAPER, lookup
from balancemm_cli.results.rules import checked
from balancemm_cli.results.statistics import Summary, summarize, wilson, within_bounds
from balancemm_cli.runs.schema import FUSED, Environment, Selection

REGRESSION = ("mae", "correlation", "accuracy_7")


@dataclass(frozen=True, kw_only=True)
class Row(Comparison):
    """One group's numbers for one selection; what is compared is the accuracy.

    Accuracies, mAP and macro-F1 are fractions, ρ is a ratio.
    """

    group: Group
    ours: Summary
    selection: Selection
    map: Summary
    macro_f1: Summary
    unimodal: dict[str, Summary]
    rho: dict[str, Summary]
    regression: dict[str, Summary]  # mae, correlation, accuracy_7; empty for runs of another task
    map_classes_left_out: int
    rules: Mapping[str, str | None] = field(default_factory=dict)  # see rules.checked

    @property
    def accuracy(self) -> Summary:
        """The accuracy of the fused model."""
        return self.ours

    @property
    def claimed(self) -> bool:
        """Whether its numbers are those of a run without the predictions that would bear them out."""
        return self.group.claimed(self.selection)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy: over the seeds, of a single one Wilson's over the test samples."""
        test = self.samples.get("test")
        if self.accuracy.n == 1 and test and test[0]:
            return wilson(round(self.accuracy.mean * test[0]), test[0])
        return within_bounds(self.accuracy.interval)

    @property
    def samples(self) -> dict[str, tuple[int, int]]:
        """(used, expected) samples of each split."""
        return self.group.first.samples


def rows(
    groups: Sequence[Group], selection: Selection, against: str = PAPER, among: Sequence[Group] = ()
) -> list[Row]:
    """The numbers of the groups beside those of a source, with what each gains over its baseline and the rules that it
    keeps.

    Baselines are looked for in `groups` and `among`.
    """
    found = gains(groups, selection, against, among)
    rules = checked(groups, selection, among)
    return [
        replace(row(group, selection, found.get(group.key), against), rules=rules[group.key])
        for group in groups
    ]


def row(group: Group, selection: Selection, gain: Gain | None = None, against: str = PAPER) -> Row:
    """The numbers of a group, each of whose runs must have the selection."""
    selected = [run.result.selections[selection] for run in group.runs]
    accuracy, precision, f1 = (summarize([getattr(one, name) for one in selected]) for name in FUSED)
    assert accuracy and precision and f1  # a group has at least one run
    return Row(
        group=group,
        ours=accuracy,
        printed=lookup(group.first.dataset, group.first.model, group.first.method, "accuracy", against),
        gain=gain,
        selection=selection,
        map=precision,
        macro_f1=f1,
        unimodal=_by_name([one.unimodal for one in selected]),
        rho=_by_name([run.result.rho for run in group.runs]),
        regression=_by_name([{name: getattr(one, name) for name in REGRESSION} for one in selected]),
        map_classes_left_out=max(one.map_classes_left_out for one in selected),
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
        "owner": one.group.owner_name,
        "selection": one.selection,
        "claimed": one.claimed,
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
            "accuracy": published and published.fraction,
            **{key: getattr(published, key, None) for key in ("source", "table", "note")},
        },
        **one.facts,
        "rules": dict(one.rules),
        "split": first.split,
        "samples": {split: {"used": n, "expected": m} for split, (n, m) in one.samples.items()},
        "hashes": one.group.hashes,
        "version": _distinct(environments, "version"),
        "git": _distinct(environments, "git"),
        "torch": _distinct(environments, "torch"),
        "device": _distinct(environments, "device"),
        "runs": [str(run.place) for run in one.group.runs if one.group.trained],
        "computed_from": [str(member.place) for run in one.group.runs for member in run.members],
    }


def _plain(summary: Summary) -> dict[str, object]:
    plain = asdict(summary)
    del plain["n"]  # the row's own n
    return plain


def _distinct(environments: list[Environment], key: str) -> list[str]:
    return sorted({str(value) for one in environments if (value := getattr(one, key)) is not None})
