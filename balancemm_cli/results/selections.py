"""What the choice of the epoch does: each selection side by side, and the optimism of the best on the test set."""

from collections.abc import Sequence
from itertools import groupby

from balancemm_cli.config.recipe import describe
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import NAMES, Group, columns_apart
from balancemm_cli.results.statistics import Summary, format_summary, summarize
from balancemm_cli.results.tables import (
    SELECTION_NOTES,
    claim,
    made_with,
    reference_notes,
    samples_note,
    whose_notes,
)
from balancemm_cli.runs.schema import SELECTIONS, Selection

BEST: Selection = "best-test"


def side_by_side(groups: Sequence[Group]) -> list[Table]:
    """One Table a data set: accuracy of each selection, and best-test less each other one, over the same runs."""
    by_dataset = groupby(groups, key=lambda one: one.first.dataset)
    return [_table(dataset, list(some)) for dataset, some in by_dataset]


def _table(dataset: str, groups: list[Group]) -> Table:
    shown: list[Selection] = [one for one in SELECTIONS if any(_has(group, one) for group in groups)]
    others: list[Selection] = [one for one in shown if one != BEST]
    names = columns_apart(groups)
    header = [*names, *shown, *(f"{BEST} − {one}" for one in others)]
    lines = [
        [
            *texts,
            *(format_summary(accuracy(group, one), 100, 1) + claim(group.claimed(one)) for one in shown),
            *(format_summary(optimism(group, one), 100, 1) for one in others),
        ]
        for group, *texts in zip(groups, *names.values(), strict=True)
    ]
    notes = [
        "Cells: accuracy in %, mean ± sample standard deviation (number of seeds); differences in points, run by run.",
        *(f"{one}: {SELECTION_NOTES[one]}." for one in shown),
        *reference_notes(groups),
        *whose_notes(groups, any(group.claimed(one) for group in groups for one in shown)),
        *dict.fromkeys(samples_note(group.first) for group in groups),
        made_with(run for group in groups for run in group.runs),
    ]
    return Table(f"{dataset}: the epoch that counts", header, lines, notes)


def _has(group: Group, selection: Selection) -> bool:
    return all(selection in run.result.selections for run in group.runs)


def accuracy(group: Group, selection: Selection) -> Summary | None:
    """A group's accuracy at a selection, a fraction; None where not every run of it has that epoch."""
    if not _has(group, selection):
        return None
    return summarize([run.result.selections[selection].accuracy for run in group.runs])


def optimism(group: Group, other: Selection) -> Summary | None:
    """How much better the epoch that the test set chose looks than the other one, run by run; a fraction."""
    if not (_has(group, BEST) and _has(group, other)):
        return None
    chosen = [run.result.selections for run in group.runs]
    return summarize([one[BEST].accuracy - one[other].accuracy for one in chosen])


def records(groups: Sequence[Group]) -> list[dict[str, object]]:
    """A plain record a group, fractions in 0–1; None where it lacks a selection."""
    return [_record(group) for group in groups]


def _record(group: Group) -> dict[str, object]:
    def plain(summary: Summary | None) -> dict[str, object]:
        return {name: getattr(summary, name, None) for name in ("mean", "std")}

    return {
        **dict(zip(NAMES, group.names, strict=True)),
        "settings": describe(group.differences),
        "owner": group.owner_name,
        "claimed": [one for one in SELECTIONS if group.claimed(one)],
        "seeds": group.seeds,
        **{one: plain(accuracy(group, one)) for one in SELECTIONS},
        "optimism": {one: plain(optimism(group, one)) for one in SELECTIONS if one != BEST},
        "hashes": group.hashes,
        "runs": [str(run.place) for run in group.runs],
    }
