"""Fig. 7: the drop probability and the discrepancy ratio over the epochs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import band, mark_balance
from balancemm_cli.results.figures.drawing import epoch_axis, legend, note, over_seeds
from balancemm_cli.results.figures.modulation import over_epochs
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, labels


def draw_drops(panel: Panel) -> Figure:
    """q of OPM and ρ over the epochs, a row each, one column per modality; one line per method that drops by q.

    Means over an epoch's steps; mean and range of runs. ValueError where no run recorded a q above 0.
    """
    names = labels(panel.groups)
    dropping = [
        (index, names[index], group) for index, group in enumerate(panel.groups) if _drops(group, panel)
    ]
    if not dropping:
        raise ValueError(
            "no run drops features by OPM's q (it is absent, or 0 everywhere). Train with --method opm."
        )
    modalities = panel.modalities
    figure = Figure(figsize=(1.6 + 2.8 * len(modalities), 5.2))
    grid = figure.subplots(2, len(modalities), sharex=True, sharey="row", squeeze=False)
    for column, modality in enumerate(modalities):
        mark_balance(grid[1, column], panel.groups)
        for axes, quantity in zip(grid[:, column], ("q", "rho"), strict=True):
            _draw(axes, dropping, f"{quantity}_{modality}")
        grid[0, column].set_title(modality)
        epoch_axis(grid[1, column])
    grid[0, 0].set_ylabel("drop probability q")
    grid[1, 0].set_ylabel("discrepancy ρ")
    legend(figure, grid.flat, ncols=min(len(dropping) + 1, 5))
    shown = over_seeds([group for _, _, group in dropping], "mean and range")
    figure.suptitle(f"{panel.title}: {shown}", fontsize=9)
    return figure


def _drops(group: Group, panel: Panel) -> bool:
    return any(over_epochs(group.runs, f"q_{modality}").any() for modality in panel.modalities)


def _draw(axes: Axes, dropping: list[tuple[int, str, Group]], column: str) -> None:
    for index, name, group in dropping:
        values = over_epochs(group.runs, column)
        if values.size:
            band(axes, np.arange(1, values.shape[1] + 1), values, index, name)
    if not axes.collections and not axes.lines:
        note(axes, "not recorded")
