"""Columns of what `bmm eval` found with a modality missing or noisy, for those who ask for them by --columns."""

from collections.abc import Sequence

from balancemm_cli.results.groups import Group
from balancemm_cli.results.statistics import format_summary, summarize
from balancemm_cli.runs.evaluation import of_run

KINDS = ("missing", "noise")
NOTE = (
    "Missing, noise: the accuracy in % where that modality of a test sample is missing with so high a probability, or "
    "has Gaussian noise of so many standard deviations; of the runs that `bmm eval` has evaluated so."
)


def asked(columns: Sequence[str]) -> bool:
    """Whether one of these column ids is of this kind."""
    return any(name.startswith(KINDS) for name in columns)


def corrupted(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The columns by head, as "Missing audio 0.5": one text per group.

    InputError where an evaluation.json is damaged.
    """
    found: dict[tuple[str, str, float], dict[int, list[float]]] = {}
    for row, group in enumerate(groups):
        for evaluation in filter(None, map(of_run, group.runs)):
            for kind in KINDS:
                for modality, points in getattr(evaluation, kind).items():
                    for point in points:
                        of_head = found.setdefault((kind, modality, point.amount), {})
                        of_head.setdefault(row, []).append(point.accuracy)
    return {
        f"{kind.capitalize()} {modality} {amount:g}": [
            format_summary(summarize(of_head.get(row, [])), 100, 1) for row in range(len(groups))
        ]
        for (kind, modality, amount), of_head in sorted(found.items())
    }
