"""What one figure compares: the groups of one data set and joint model."""

from dataclasses import dataclass

from balancemm_cli.results.groups import UNIMODAL, Group
from balancemm_cli.runs.schema import Selection


@dataclass(frozen=True)
class Panel:
    """The groups of one data set and joint model, and the runs of one modality alone beside them."""

    name: str
    title: str
    groups: list[Group]
    alone: dict[str, Group]
    selection: Selection = "last"  # the epoch that counts, of figures that show one

    @property
    def modalities(self) -> list[str]:
        """The modalities that any run of the panel reports."""
        runs = [run.result for group in self.groups for run in group.runs]
        return list(
            dict.fromkeys(name for run in runs for one in run.selections.values() for name in one.unimodal)
        )


def panels(groups: list[Group], selection: Selection = "last") -> list[Panel]:
    """A Panel for each pair of data set and joint model, in the order of `groups`."""
    joint = [group for group in groups if not group.first.model.startswith(UNIMODAL)]
    pairs = dict.fromkeys((group.first.dataset, group.first.model) for group in joint)
    found = []
    for dataset, model in pairs:
        members = [group for group in joint if (group.first.dataset, group.first.model) == (dataset, model)]
        alone = _alone(groups, members)
        found.append(Panel(f"{dataset}-{model}", f"{dataset}, {model}", members, alone, selection))
    return found


def _alone(groups: list[Group], joint: list[Group]) -> dict[str, Group]:
    """By modality, the group trained on it alone with the data and recipe of all `joint` groups.

    A modality is left out where there is no such group, or more than one.
    """
    terms = {(group.owner, group.first.hashes.data, group.first.recipe) for group in joint}
    found: dict[str, list[Group]] = {}
    for group in groups:
        same = terms == {(group.owner, group.first.hashes.data, group.first.recipe)}
        if same and group.first.model.startswith(UNIMODAL):
            found.setdefault(group.first.model.removeprefix(UNIMODAL), []).append(group)
    return {modality: several[0] for modality, several in found.items() if len(several) == 1}
