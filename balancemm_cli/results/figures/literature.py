"""Ours among what papers printed: one strip per method, a dot a printed accuracy."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.drawing import MARKERS, colour, legend, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, labels
from balancemm_cli.results.literature import LATER, beside
from balancemm_cli.results.published import SOURCES
from balancemm_cli.results.rows import row
from balancemm_cli.runs.schema import Selection

KINDS = (*SOURCES, LATER)
OFFSET = 0.28  # of ours, below the strip of printed values


def draw_literature(panel: Panel) -> Figure:
    """Test accuracy: printed values as dots, by kind of source; ours as their mean with its 95 % interval.

    ValueError where no paper printed a value for any group of the panel.
    """
    names = labels(panel.groups)
    if not any(beside(group) for group in panel.groups):
        raise ValueError("no paper printed an accuracy for this data set, model and these methods.")
    figure = Figure(figsize=(6.2, 1.5 + 0.55 * len(names)))
    axes = figure.subplots()
    for line, group in enumerate(panel.groups):
        _draw_printed(axes, line, group)
        _draw_ours(axes, line, group, panel.selection)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test accuracy (%)")
    title = f"{panel.title}: ours {over_seeds(panel.groups, 'with 95 % interval')}, epoch: {panel.selection}"
    figure.suptitle(title, fontsize=9)
    legend(figure, [axes], ncols=3)
    return figure


def _draw_printed(axes: Axes, line: int, group: Group) -> None:
    for index, kind in enumerate(KINDS, start=1):
        found = [100 * one.accuracy for one in beside(group) if one.kind == kind]
        marker = MARKERS[index % len(MARKERS)]
        if found:
            axes.scatter(
                found,
                [line] * len(found),
                s=26,
                marker=marker,
                facecolors="none",
                edgecolors=colour(index),
                label=kind,
            )


def _draw_ours(axes: Axes, line: int, group: Group, selection: Selection) -> None:
    ours = row(group, selection)
    mean, interval = 100 * ours.accuracy.mean, ours.interval
    reach = [[mean - 100 * interval[0]], [100 * interval[1] - mean]] if interval else None
    place = line + OFFSET
    axes.errorbar(
        [mean], [place], xerr=reach, fmt="o", color=colour(0), markersize=5, capsize=3, label="ours"
    )
