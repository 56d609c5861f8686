"""Test accuracy over the epochs."""

import numpy as np
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import aligned, band
from balancemm_cli.results.figures.drawing import Array, epoch_axis, legend, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels
from balancemm_cli.runs.reading import read_history
from balancemm_cli.runs.run import Run


def draw_epochs(panel: Panel) -> Figure:
    """Test accuracy over the epochs: fused, and of each modality; one line per method (mean, range)."""
    names = labels(panel.groups)
    histories = [[_read_history(run) for run in group.runs] for group in panel.groups]
    alone = {name: [_read_history(run) for run in group.runs] for name, group in panel.alone.items()}
    parts = ["fused", *panel.modalities]
    figure = Figure(figsize=(1.6 + 2.5 * len(parts), 3.1))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)
    for axes, part in zip(grid.flat, parts, strict=True):
        for index, (name, runs) in enumerate(zip(names, histories, strict=True)):
            values = curves(runs, part)
            if values.size:
                band(axes, np.arange(1, values.shape[1] + 1), values, index, name)
        if part in alone:
            values = curves(alone[part], "fused")
            if values.size:
                band(
                    axes, np.arange(1, values.shape[1] + 1), values, 5, "this modality, trained alone", line=5
                )
        axes.set_title(part)
        epoch_axis(axes)
    grid[0, 0].set_ylabel("test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(names) + 1, 5))
    figure.suptitle(f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def _read_history(run: Run) -> list[dict[str, float]]:
    """Of each epoch the test accuracies in %: "fused", and by modality where recorded."""
    return [
        {
            part: 100 * value
            for part, value in {"fused": epoch.accuracy["test"], **epoch.unimodal.get("test", {})}.items()
        }
        for epoch in read_history(run.folder)
    ]


def curves(runs: list[list[dict[str, float]]], part: str) -> Array:
    """One part of each epoch's values [runs, epochs], as far as all runs that have it go."""
    return aligned([epoch[part] for epoch in run if part in epoch] for run in runs)
