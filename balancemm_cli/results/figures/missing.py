"""Fig. 6: what is left of the accuracy where a modality is missing; the same for noise."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.evaluation import Point, RunEvaluation, of_run
from balancemm_cli.results.figures.drawing import Array, legend, marked_band, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels

AMOUNTS = {"missing": "test samples without {} (%)", "noise": "noise on {} (standard deviations)"}


def draw_missing(panel: Panel) -> Figure:
    """Test accuracy over the missing rate and over noise, a column a modality; a line a method (mean, range).

    ValueError where a run has not been evaluated, or none with several amounts.
    """
    evaluations = [[of_run(run) for run in group.runs] for group in panel.groups]
    curves = {
        (kind, modality): [_curves(runs, kind, modality) for runs in evaluations]
        for kind in AMOUNTS
        for modality in panel.modalities
    }
    shown = [kind for kind in AMOUNTS if any(any(curves[kind, modality]) for modality in panel.modalities)]
    if not shown:
        raise ValueError(
            "no curves over missing or noisy modalities: run `bmm eval` with --missing NAME=0:1:0.2."
        )
    names = labels(panel.groups)
    figure = Figure(figsize=(1.6 + 2.8 * len(panel.modalities), 0.9 + 2.2 * len(shown)))
    grid = figure.subplots(len(shown), len(panel.modalities), sharey=True, squeeze=False)
    for line, kind in zip(grid, shown, strict=True):
        for axes, modality in zip(line, panel.modalities, strict=True):
            _draw(axes, curves[kind, modality], names)
            axes.set_xlabel(AMOUNTS[kind].format(modality))
        line[0].set_ylabel("test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(names), 5))
    figure.suptitle(f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def _draw(axes: Axes, curves: list[tuple[Array, Array] | None], names: list[str]) -> None:
    for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
        if curve:
            marked_band(axes, *curve, index, name)
    if not any(curves):
        axes.text(
            0.5, 0.5, "not evaluated", color="#777777", ha="center", va="center", transform=axes.transAxes
        )


def _curves(runs: list[RunEvaluation], kind: str, modality: str) -> tuple[Array, Array] | None:
    """The amounts that all runs of a group were evaluated with [X], and the accuracies in % [runs, X]."""
    points: list[dict[float, Point]] = [
        {point.amount: point for point in getattr(run, kind).get(modality, [])} for run in runs
    ]
    amounts = sorted(set.intersection(*(set(one) for one in points)))
    if not amounts:
        return None
    places = np.array(amounts, dtype=np.float64) * (100 if kind == "missing" else 1)
    return places, np.array([[100 * one[amount].accuracy for amount in amounts] for one in points])
