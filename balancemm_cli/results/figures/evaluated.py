"""What a figure shows of runs that `bmm eval` has looked at."""

from dataclasses import dataclass, replace

from balancemm_cli.results.evaluation import RunEvaluation, of_run
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, Run, labels


@dataclass(frozen=True)
class Evaluated:
    """The runs of a panel that have a part of evaluation.json, and that part's evaluations."""

    panel: Panel
    names: list[str]  # of the panel's groups
    lacking: list[str]  # names of the groups that have no such run

    def title(self, what: str) -> str:
        """The figure's title: the panel's, `what` it shows, and of which methods that is not known."""
        known = f"{self.panel.title}: {what}"
        return f"{known}\nnot evaluated: {', '.join(self.lacking)}" if self.lacking else known


def evaluated(panel: Panel, parts: tuple[str, ...], advice: str) -> Evaluated:
    """What was evaluated of a panel, by the names of the parts of which any will do.

    ValueError with the advice on how to evaluate where nothing was, and where an evaluation.json is damaged.
    """
    names = labels(panel.groups)
    found = {name: _with(group, parts) for name, group in zip(names, panel.groups, strict=True)}
    shown = {name: group for name, group in found.items() if group.runs}
    if not shown:
        raise ValueError(f"no run was evaluated for it since it was trained. {advice}")
    alone = {name: _with(group, parts) for name, group in panel.alone.items()}
    alone = {name: group for name, group in alone.items() if group.runs}
    lacking = [name for name in names if name not in shown]
    return Evaluated(replace(panel, groups=list(shown.values()), alone=alone), list(shown), lacking)


def evaluation(run: Run) -> RunEvaluation:
    """The evaluation of a run that has one."""
    found = of_run(run)
    assert found is not None
    return found


def _with(group: Group, parts: tuple[str, ...]) -> Group:
    runs = [
        run for run in group.runs if (found := of_run(run)) and any(getattr(found, part) for part in parts)
    ]
    return Group(runs, group.settings)
