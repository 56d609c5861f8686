"""Fig. 4: the loss over the epochs."""

import numpy as np
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import band
from balancemm_cli.results.figures.drawing import epoch_axis, legend, note, over_seeds
from balancemm_cli.results.figures.epochs import curves
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels
from balancemm_cli.runs.reading import read_history
from balancemm_cli.runs.run import Run

PARTS = {"train": "training, as modulated", "test": "test"}


def draw_loss(panel: Panel) -> Figure:
    """Mean loss of a sample over the epochs, in training and on the test split; one line per method (mean, range).

    The training loss is what the method trains on: with OPM that of features some of which are dropped. InputError
    where a history.jsonl can't be read.
    """
    names = labels(panel.groups)
    histories = [[_losses(run) for run in group.runs] for group in panel.groups]
    figure = Figure(figsize=(7.2, 3.3))
    grid = figure.subplots(1, len(PARTS), sharex=True, sharey=True)
    for axes, (part, title) in zip(grid, PARTS.items(), strict=True):
        for index, (name, runs) in enumerate(zip(names, histories, strict=True)):
            values = curves(runs, part)
            if values.size:
                band(axes, np.arange(1, values.shape[1] + 1), values, index, name)
        if not axes.lines:
            note(axes, "not recorded by the version\nthat trained these runs")
        axes.set_title(title)
        epoch_axis(axes)
    grid[0].set_ylabel("mean loss of a sample")
    legend(figure, grid, ncols=min(len(names), 5))
    figure.suptitle(f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def _losses(run: Run) -> list[dict[str, float]]:
    return [{"train": epoch.loss, **epoch.losses} for epoch in read_history(run.folder)]
