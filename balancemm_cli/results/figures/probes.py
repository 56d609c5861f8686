"""Fig. 1: what a linear probe reads out of each encoder, over the epochs."""

from collections.abc import Callable

from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import marked_band
from balancemm_cli.results.figures.drawing import epoch_axis, legend, over_seeds
from balancemm_cli.results.figures.evaluated import evaluated
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.runs.evaluation import RunEvaluation

ADVICE = (
    "Train with --set snapshots=N to keep each N-th epoch, then `bmm eval` with --probe linear --epochs all."
)


def draw_probes(panel: Panel) -> Figure:
    """Test accuracy of a linear probe over the epochs, one panel per modality; one line per method (mean, range).

    A run without kept epochs has a single point. ValueError where no run has been probed.
    """
    shown = evaluated(panel, ("probe",), ADVICE)
    modalities = panel.modalities
    figure = Figure(figsize=(1.6 + 2.8 * len(modalities), 3.2))
    grid = figure.subplots(1, len(modalities), sharey=True, squeeze=False)
    for axes, modality in zip(grid.flat, modalities, strict=True):
        for index, (name, group) in enumerate(zip(shown.names, shown.panel.groups, strict=True)):
            marked_band(axes, *shown.curves(group, _curve(modality)), index, name)
        if modality in shown.panel.alone:
            places, values = shown.curves(shown.panel.alone[modality], _curve(modality))
            marked_band(axes, places, values, 5, "this modality, trained alone", line=5)
        axes.set_title(f"{modality} encoder")
        epoch_axis(axes)
    grid[0, 0].set_ylabel("linear probe, test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(shown.names) + 1, 5))
    figure.suptitle(shown.title(over_seeds(shown.panel.groups, "mean and range")), fontsize=9)
    return figure


def _curve(modality: str) -> Callable[[RunEvaluation], dict[float, float]]:
    return lambda one: {epoch: accuracies[modality] for epoch, accuracies in one.probe.items()}
