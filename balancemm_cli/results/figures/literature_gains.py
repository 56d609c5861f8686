"""What papers gain over their own baselines: a line a paper, a dot a method's gain; below, their means."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.drawing import MARKERS, STYLE, colour, legend, save
from balancemm_cli.results.findings.literature_gains import LiteratureGains, Ours
from balancemm_cli.results.printed_gains import ALL, METHODS, OTHERS, RERUNS, Paper, Spread

INDICES = {"ogm": 1, "opm": 2, "opm+ogm": 3}  # of colours and markers
LINE = 0.22  # inches
WHOSE = {ALL: "papers", RERUNS: "re-runs", OTHERS: "of other groups"}
"""Whose means there are, where they have an interval."""
OFFSETS = {"ogm": -0.18, "opm": 0.0, "opm+ogm": 0.18}  # of a method's dots, in lines


def draw_gains(finding: LiteratureGains, folder: Path, titled: bool = True) -> list[Path]:
    """Write `DATASET-gains` for each data set into `folder`, as PNG, SVG and PDF; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        return [
            save(_figure(finding, dataset), folder / f"{dataset}-gains", titled) for dataset in finding.papers
        ]


def _figure(finding: LiteratureGains, dataset: str) -> Figure:
    some = [one for one in finding.papers[dataset] if one.gains]
    means = [one for one in finding.spreads[dataset] if one.papers in WHOSE and one.measure in METHODS]
    means = [one for one in means if one.interval]
    ours, _ = finding.ours(dataset)
    names = [f"{one.name}, {100 * one.baseline:.1f} %" for one in some]
    names += ["these runs"] * (ours is not None)
    split = len(names)
    names += [f"mean {METHODS[one.measure]}, {one.summary.n} {WHOSE[one.papers]}" for one in means]
    figure = Figure(figsize=(6.4, 1.1 + LINE * len(names)))
    axes = figure.subplots()
    for line, paper in enumerate(some):
        _draw_paper(axes, line, paper)
    if ours:
        _draw_ours(axes, len(some), ours)
    for line, spread in enumerate(means, start=split):
        _draw_mean(axes, line, spread)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.axhline(split - 0.5, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("gain (points)")
    figure.suptitle(
        f"{dataset}: gains that papers print, over their baselines (%);\n"
        "means with their 95 % intervals (thick) and that of one more paper (thin)",
        fontsize=9,
    )
    _explain(figure, axes)
    return figure


def _draw_paper(axes: Axes, line: int, paper: Paper) -> None:
    """Hollow where it is of the paper's own group; one dot alone lies on the line."""
    apart = len(paper.gains) > 1
    for method, gain in paper.gains.items():
        shade, own = colour(INDICES[method]), paper.of_the_authors
        axes.scatter(
            [100 * gain],
            [line + apart * OFFSETS[method]],
            s=24,
            marker=MARKERS[INDICES[method]],
            facecolors="white" if own else shade,
            edgecolors=shade,
            zorder=3,
        )


def _draw_ours(axes: Axes, line: int, ours: Ours) -> None:
    for method, compared in ours.gains.items():
        if compared is not None and method in METHODS:
            mean, at = 100 * compared.difference.mean, line + OFFSETS[method]
            low, high = (100 * end for end in compared.difference.interval or (compared.difference.mean,) * 2)
            shade = colour(INDICES[method])
            axes.plot([low, high], [at, at], color=shade)
            axes.plot([mean], [at], MARKERS[INDICES[method]], color=shade, markersize=5)


def _draw_mean(axes: Axes, line: int, spread: Spread) -> None:
    shade = colour(INDICES[spread.measure])
    for interval, width in ((spread.prediction, 1.0), (spread.interval, 3.0)):
        if interval:
            axes.plot([100 * end for end in interval], [line, line], color=shade, linewidth=width)
    axes.plot(
        [100 * spread.summary.mean], [line], MARKERS[INDICES[spread.measure]], color=shade, markersize=6
    )


def _explain(figure: Figure, axes: Axes) -> None:
    for method, name in METHODS.items():
        axes.plot([], [], MARKERS[INDICES[method]], color=colour(INDICES[method]), markersize=5, label=name)
    axes.plot(
        [], [], "o", color="#888888", fillstyle="none", markersize=5, label="hollow: the paper's own group"
    )
    legend(figure, [axes], ncols=4)
