"""The critical-difference diagram (Demšar 2006, Fig. 1), and accuracy over cost."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from balancemm_cli.results.figures.drawing import COLOURS, MARKERS, STYLE, colour, legend, named, save
from balancemm_cli.results.ranking import ranks

if TYPE_CHECKING:
    from balancemm_cli.results.board import Board

NARROW = 5.2
"""Inches: a figure of that width is legible on a phone."""


def draw_board(board: "Board", folder: Path, titled: bool) -> tuple[list[Path], list[str]]:
    """Write both figures into `folder`. Returns the PNG files, and a line for each one left out, with its reason."""
    kinds: dict[str, Callable[[Board], Figure]] = {"ranks": draw_ranks, "cost": draw_cost}
    folder.mkdir(parents=True, exist_ok=True)
    written, left_out = [], []
    for kind, draw in kinds.items():
        try:
            with matplotlib.rc_context(STYLE):
                written.append(save(draw(board), folder / f"leaderboard-{kind}", titled))
        except (OSError, ValueError) as error:
            left_out.append(f"Figure leaderboard-{kind} was not drawn: {error}")
    return written, left_out


def draw_ranks(board: "Board") -> Figure:
    """Each method at its mean rank, the best one on the left; bars join those that can't be told apart.

    ValueError where the tests may not be used.
    """
    tests = board.tests
    if tests.difference is None:
        raise ValueError(tests.why)
    mean = ranks(board.means).mean(0)
    order = sorted(range(len(mean)), key=lambda place: mean[place])
    half = math.ceil(len(order) / 2)
    bars = 0.22 * len(tests.cliques) + 0.35
    figure = Figure(figsize=(NARROW, 0.8 + bars * 0.9 + 0.24 * half))
    axes = figure.subplots()
    low, high = math.floor(mean.min()), math.ceil(mean.max())
    span = max(high - low, math.ceil(tests.difference))
    high = low + span
    axes.set_axis_off()
    axes.set_ylim(-(bars + 0.3 * half) - 0.1, 0.95)
    axes.set_xlim(low - 0.55 * span, high + 0.55 * span)
    axes.plot([low, high], [0, 0], color="black", linewidth=1)
    for tick in range(low, high + 1):
        axes.plot([tick, tick], [0, 0.1], color="black", linewidth=1)
        axes.text(tick, 0.16, str(tick), ha="center", va="bottom")
    axes.plot([low, low + tests.difference], [0.68, 0.68], color="black", linewidth=2)
    what = f"critical difference {tests.difference:.2f}"
    if len(tests.cliques) == 1 and len(tests.cliques[0]) == len(mean):
        what += "; no method differs"
    axes.text(low, 0.76, what, ha="left", va="bottom")
    for level, clique in enumerate(tests.cliques):
        ends = [min(mean[at] for at in clique) - 0.02 * span, max(mean[at] for at in clique) + 0.02 * span]
        axes.plot(ends, [-0.2 - 0.22 * level] * 2, color="black", linewidth=3.5, solid_capstyle="butt")
    for position, at in enumerate(order):
        left = position < half
        height = -(bars + 0.3 * (position if left else len(order) - 1 - position))
        end, where = (low - 0.04 * span, "right") if left else (high + 0.04 * span, "left")
        axes.plot([mean[at], mean[at], end], [0, height, height], color=colour(0), linewidth=0.8)
        text = f"{board.labels[board.compared[at].names]} ({mean[at]:.2f})"
        axes.text(end, height, text, ha=where, va="center", fontsize=8)
    figure.suptitle(f"Mean ranks over {len(board.datasets)} data sets, 1 is the best", fontsize=9)
    return figure


def draw_cost(board: "Board") -> Figure:
    """Test accuracy with its interval over the multiply-adds of a training step, or where a run has none, over the
    seconds of training; a panel a data set."""
    entries = [
        entry for entry in board.entries if any(entry.cost(name)["seconds"] for name in board.datasets)
    ]
    if not entries:
        raise ValueError("no run says how long it took.")
    counted = all(
        entry.cost(name)["multiply_adds"]
        for entry in entries
        for name in board.datasets
        if name in entry.rows
    )
    key, unit = ("multiply_adds", 1e9) if counted else ("seconds", 1.0)
    label = "multiply-adds of a step (10⁹)" if counted else "time of training (s)"
    across = min(2, len(board.datasets))
    down = math.ceil(len(board.datasets) / across)
    figure = Figure(figsize=(NARROW, 2.4 * down + 0.16 * len(entries) + 0.4))
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, dataset in zip(panels, board.datasets, strict=False):
        for index, entry in enumerate(entries):
            cost = entry.cost(dataset)[key]
            if cost is None:
                continue
            one = entry.rows[dataset]
            low, high = one.interval or (one.accuracy.mean, one.accuracy.mean)
            mean = one.accuracy.mean
            axes.errorbar(
                [cost.mean / unit],
                [100 * mean],
                yerr=[[max(0.0, 100 * (mean - low))], [max(0.0, 100 * (high - mean))]],
                fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
                color=colour(index),
                markersize=5,
                capsize=2,
                label=named(board.labels[entry.names]),
            )
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(dataset)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("test accuracy (%)", fontsize=8)
    for axes in panels[len(board.datasets) :]:
        axes.set_axis_off()
    legend(figure, panels, 3)
    figure.suptitle("Accuracy over cost, intervals over seeds", fontsize=9)
    return figure
