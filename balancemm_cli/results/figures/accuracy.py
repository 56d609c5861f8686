"""Test accuracy by method."""

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancemm_cli.results.figures.drawing import LINES, MARKERS, colour, named, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, labels
from balancemm_cli.results.statistics import Summary, summarize
from balancemm_cli.runs.schema import Selection


def draw_accuracy(panel: Panel) -> Figure:
    """Test accuracy by method: fused and of each modality, with error bars (sample standard deviation)."""
    names, selection = labels(panel.groups), panel.selection
    series = {"fused": [_accuracy(group, selection, None) for group in panel.groups]}
    for modality in panel.modalities:
        series[modality] = [_accuracy(group, selection, modality) for group in panel.groups]
    figure = Figure(figsize=(max(4.5, 1.1 * len(names) + 2.6), 3.4))
    axes = figure.subplots()
    shift = 0.7 / len(series)
    handles = []
    for index, (name, summaries) in enumerate(series.items()):
        offset = (index - (len(series) - 1) / 2) * shift
        handles.append(_errorbars(axes, offset, summaries, index, name))
    for index, name in enumerate(series):
        if name in panel.alone:
            reference = _accuracy(panel.alone[name], selection, None)
            handles.append(_reference(axes, reference, index, f"{name}, trained alone"))
    axes.set_xticks(range(len(names)), names)
    if max(map(len, names)) > 12:
        axes.tick_params(axis="x", rotation=20)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("test accuracy (%)")
    title = f"{panel.title}: {over_seeds(panel.groups, 'mean ± std')}, epoch: {selection}"
    figure.suptitle(title, fontsize=9)
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def _accuracy(group: Group, selection: Selection, modality: str | None) -> Summary | None:
    selected = [run.result.selections[selection] for run in group.runs]
    if modality is None:
        return summarize([100 * one.accuracy for one in selected])
    return summarize([100 * one.unimodal[modality] for one in selected if modality in one.unimodal])


def _errorbars(
    axes: Axes, offset: float, summaries: list[Summary | None], index: int, name: str
) -> ErrorbarContainer:
    points = [(place + offset, one) for place, one in enumerate(summaries) if one]
    return axes.errorbar(
        [place for place, _ in points],
        [one.mean for _, one in points],
        yerr=[one.std or 0 for _, one in points],
        fmt=MARKERS[index % len(MARKERS)],
        color=colour(index),
        markersize=6,
        capsize=3,
        label=named(name),
    )


def _reference(axes: Axes, summary: Summary | None, index: int, label: str) -> Line2D:
    assert summary is not None  # a fused accuracy, which every run has
    shade, style = colour(index), LINES[index % len(LINES)]
    if summary.std:
        low, high = summary.mean - summary.std, summary.mean + summary.std
        axes.axhspan(low, high, color=shade, alpha=0.15, linewidth=0)
    return axes.axhline(summary.mean, color=shade, linestyle=style, linewidth=1.2, label=named(label))
