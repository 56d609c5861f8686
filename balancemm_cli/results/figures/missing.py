"""Fig. 6: what is left of the accuracy where a modality is missing; the same for noise."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.evaluation import Point
from balancemm_cli.results.figures.drawing import Array, legend, marked_band, over_seeds
from balancemm_cli.results.figures.evaluated import evaluated, evaluation
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group

AMOUNTS = {"missing": "test samples without {} (%)", "noise": "noise on {} (standard deviations)"}
ADVICE = "Run `bmm eval` with --missing MODALITY=0:1:0.2 for each modality."


def draw_missing(panel: Panel) -> Figure:
    """Test accuracy over the missing rate and over noise, a column a modality; a line a method (mean, range).

    ValueError where no run has been evaluated with several amounts.
    """
    shown = evaluated(panel, tuple(AMOUNTS), ADVICE)
    modalities = panel.modalities
    curves = {
        (kind, modality): [_curves(group, kind, modality) for group in shown.panel.groups]
        for kind in AMOUNTS
        for modality in modalities
    }
    kinds = [kind for kind in AMOUNTS if any(any(curves[kind, modality]) for modality in modalities)]
    figure = Figure(figsize=(1.6 + 2.8 * len(modalities), 1.0 + 2.2 * len(kinds)))
    grid = figure.subplots(len(kinds), len(modalities), sharey=True, squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        for axes, modality in zip(line, modalities, strict=True):
            _draw(axes, curves[kind, modality], shown.names)
            axes.set_xlabel(AMOUNTS[kind].format(modality))
        line[0].set_ylabel("test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(shown.names), 5))
    figure.suptitle(shown.title(over_seeds(shown.panel.groups, "mean and range")), fontsize=9)
    return figure


def _draw(axes: Axes, curves: list[tuple[Array, Array] | None], names: list[str]) -> None:
    for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
        if curve:
            marked_band(axes, *curve, index, name)
    if not any(curves):
        axes.text(
            0.5, 0.5, "not evaluated", color="#777777", ha="center", va="center", transform=axes.transAxes
        )


def _curves(group: Group, kind: str, modality: str) -> tuple[Array, Array] | None:
    """The amounts that all runs of a group were evaluated with [X], and the accuracies in % [runs, X]."""
    points: list[dict[float, Point]] = [
        {point.amount: point for point in getattr(evaluation(run), kind).get(modality, [])}
        for run in group.runs
    ]
    amounts = sorted(set.intersection(*(set(one) for one in points)))
    if not amounts:
        return None
    places = np.array(amounts, dtype=np.float64) * (100 if kind == "missing" else 1)
    return places, np.array([[100 * one[amount].accuracy for amount in amounts] for one in points])
