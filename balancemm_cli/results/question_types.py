"""Accuracy by type of question, for runs of question answering: the nine types of MUSIC-AVQA and their three kinds."""

from collections.abc import Sequence

from balancemm_cli.data.datasets.music_avqa import TYPES
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import Group, columns_apart
from balancemm_cli.results.statistics import format_summary, summarize
from balancemm_cli.runs.schema import Selection

KINDS = ("Audio", "Visual", "Audio-Visual")


def by_type(dataset: str, groups: Sequence[Group], selection: Selection) -> Table | None:
    """One row per group: mean ± std (n) in % of each type, each kind, and all questions; None where no run has any.

    A kind's accuracy is over all its questions, not the mean of its types.
    """
    asked = [group for group in groups if group.runs[0].result.selections[selection].by_group]
    if not asked:
        return None
    apart, names = columns_apart(asked), [*TYPES, *KINDS]
    cells = [
        [*texts, *(_share(group, selection, name) for name in [*names, None])]
        for group, *texts in zip(asked, *apart.values(), strict=True)
    ]
    found = asked[0].runs[0].result.selections[selection].by_group
    counts = ", ".join(f"{name} {found[name].count:,}" for name in TYPES if name in found)
    notes = [
        f"Cells: accuracy in %, mean ± sample standard deviation (number of seeds). Questions: {counts}."
    ]
    if absent := [name for name in TYPES if name not in found]:
        notes.append(f"The test split has no question of type {', '.join(absent)}.")
    header = [*apart, *TYPES, *(f"{kind} (all)" for kind in KINDS), "All"]
    return Table(f"{dataset} by type of question", header, cells, notes)


def _share(group: Group, selection: Selection, name: str | None) -> str:
    """The accuracy of a type or kind, of all questions for None; a gap where no question is of it."""
    chosen = [run.result.selections[selection] for run in group.runs]
    if name is None:
        return format_summary(summarize([one.accuracy for one in chosen]), 100, 1)
    shares = [one.by_group[name].accuracy for one in chosen if name in one.by_group]
    return format_summary(summarize(shares) if shares else None, 100, 1)
