"""Fig. 5: the discrepancy ratio over the epochs."""

import numpy as np
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import band, mark_balance
from balancemm_cli.results.figures.drawing import epoch_axis, legend, over_seeds
from balancemm_cli.results.figures.modulation import over_epochs
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels


def draw_discrepancy(panel: Panel) -> Figure:
    """ρ of the dominant modality over the epochs, one line per method (of an epoch's mean: mean, range of runs).

    Dominant is, for all methods alike, whose ρ is the highest on average in the first of them: the baseline, where
    there is one. ValueError where no run recorded ρ, and where some measured it as a ratio, some as a difference.
    """
    leading = _dominant(panel)
    figure = Figure(figsize=(6.3, 3.4))
    axes = figure.subplots()
    mark_balance(axes, panel.groups)
    names = labels(panel.groups)
    for index, (name, group) in enumerate(zip(names, panel.groups, strict=True)):
        values = over_epochs(group.runs, f"rho_{leading}")
        if values.size:
            band(axes, np.arange(1, values.shape[1] + 1), values, index, name)
    epoch_axis(axes)
    axes.set_ylabel(f"discrepancy ρ of {leading}")
    figure.suptitle(f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    legend(figure, [axes], ncols=min(len(names) + 1, 5))
    return figure


def _dominant(panel: Panel) -> str:
    means = {
        modality: values.mean()
        for modality in panel.modalities
        if (values := over_epochs(panel.groups[0].runs, f"rho_{modality}")).size
    }
    if not means:
        raise ValueError("no run recorded ρ.")
    return max(means, key=lambda modality: means[modality])
