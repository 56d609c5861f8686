"""What a figure shows of runs that `bmm eval` has looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from balancemm_cli.results.figures.drawing import Array
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, labels
from balancemm_cli.runs.evaluation import RunEvaluation, of_run


@dataclass(frozen=True)
class Evaluated:
    """The runs of a panel that have a part of evaluation.json, and their evaluations."""

    panel: Panel
    names: list[str]  # of the panel's groups
    lacking: list[str]  # names of the groups that have no such run
    evaluations: Mapping[Path, RunEvaluation]  # by run folder

    def title(self, what: str) -> str:
        """The figure's title: the panel's, `what` it shows, and of which methods that is not known."""
        known = f"{self.panel.title}: {what}"
        return f"{known}\nnot evaluated: {', '.join(self.lacking)}" if self.lacking else known

    def curves(
        self, group: Group, curve: Callable[[RunEvaluation], Mapping[float, float]]
    ) -> tuple[Array, Array]:
        """The places that the `curve` of every run of a group has [X], and the fractions there in % [runs, X]."""
        found = [curve(self.evaluations[run.folder]) for run in group.runs]
        places = sorted(set.intersection(*(set(one) for one in found)))
        values = [[100 * one[place] for place in places] for one in found]
        return np.array(places, dtype=np.float64), np.array(values, dtype=np.float64)


def evaluated(panel: Panel, parts: tuple[str, ...], advice: str) -> Evaluated:
    """What was evaluated of a panel, by the names of the parts of which any will do.

    ValueError with the advice on how to evaluate where nothing was, InputError where an evaluation.json is damaged.
    """
    runs = [run for group in (*panel.groups, *panel.alone.values()) for run in group.runs]
    evaluations = {
        run.folder: found
        for run in runs
        if (found := of_run(run)) and any(getattr(found, part) for part in parts)
    }

    def known(group: Group) -> Group:
        return Group([run for run in group.runs if run.folder in evaluations], group.differences)

    names = labels(panel.groups)
    found = {name: known(group) for name, group in zip(names, panel.groups, strict=True)}
    shown = {name: group for name, group in found.items() if group.runs}
    if not shown:
        raise ValueError(f"no run was evaluated for it since it was trained. {advice}")
    alone = {name: known(group) for name, group in panel.alone.items()}
    alone = {name: group for name, group in alone.items() if group.runs}
    lacking = [name for name in names if name not in shown]
    part = replace(panel, groups=list(shown.values()), alone=alone)
    return Evaluated(part, list(shown), lacking, evaluations)
