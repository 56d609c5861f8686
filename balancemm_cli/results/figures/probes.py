"""Fig. 1: what a linear probe reads out of each encoder, over the epochs."""

import numpy as np
from matplotlib.figure import Figure

from balancemm_cli.results.figures.drawing import Array, legend, marked_band, over_seeds
from balancemm_cli.results.figures.evaluated import evaluated, evaluation
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group

ADVICE = (
    "Train with --set snapshots=N to keep each N-th epoch, then `bmm eval` with --probe linear --epochs all."
)


def draw_probes(panel: Panel) -> Figure:
    """Test accuracy of a linear probe over the epochs, a panel a modality; a line a method (mean, range).

    A run without kept epochs has a single point. ValueError where no run has been probed.
    """
    shown = evaluated(panel, ("probe",), ADVICE)
    modalities = panel.modalities
    figure = Figure(figsize=(1.6 + 2.8 * len(modalities), 3.2))
    grid = figure.subplots(1, len(modalities), sharey=True, squeeze=False)
    for axes, modality in zip(grid.flat, modalities, strict=True):
        for index, (name, group) in enumerate(zip(shown.names, shown.panel.groups, strict=True)):
            marked_band(axes, *_curves(group, modality), index, name)
        if modality in shown.panel.alone:
            places, values = _curves(shown.panel.alone[modality], modality)
            marked_band(axes, places, values, 5, "this modality, trained alone", line=5)
        axes.set_title(f"{modality} encoder")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylabel("linear probe, test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(shown.names) + 1, 5))
    figure.suptitle(shown.title(over_seeds(shown.panel.groups, "mean and range")), fontsize=9)
    return figure


def _curves(group: Group, modality: str) -> tuple[Array, Array]:
    """The epochs that were probed in all runs of a group [X], and the accuracies in % [runs, X]."""
    probes = [evaluation(run).probe for run in group.runs]
    epochs = sorted(set.intersection(*(set(probe) for probe in probes)))
    values = [[100 * probe[epoch][modality] for epoch in epochs] for probe in probes]
    return np.array(epochs, dtype=np.float64), np.array(values, dtype=np.float64)
