"""Figures of a report, PNG and SVG: accuracy by method; ρ, q and k over the steps; accuracy over the epochs.

One set of figures for each data set and joint model; runs of one modality alone appear in them as references.
The colours are those of Okabe and Ito (told apart by colour-blind readers), with another marker or line style
each for print in grey. The same runs give the same SVG, byte by byte.
"""

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from balancemm_cli.data.store import atomic_file
from balancemm_cli.results.groups import Group, Run, Selection, labels
from balancemm_cli.results.statistics import Summary, summarize

COLOURS = (
    "#000000",
    "#E69F00",
    "#0072B2",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)  # Okabe, Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))

WINDOWS = 150
"""Steps are averaged in at most so many windows: more points than that cannot be seen on paper."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "bmm",
    "figure.constrained_layout.use": True,
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """The groups of one data set and joint model, and the runs of one modality alone beside them."""

    name: str
    title: str
    groups: list[Group]
    alone: dict[str, Group]

    @property
    def modalities(self) -> list[str]:
        """The modalities that any run of the panel reports."""
        runs = [run.result for group in self.groups for run in group.runs]
        return list(
            dict.fromkeys(name for run in runs for one in run.selections.values() for name in one.unimodal)
        )


def draw_all(groups: list[Group], selection: Selection, folder: Path) -> tuple[list[Path], list[str]]:
    """Write each figure that the runs allow into `folder`, as NAME.png and NAME.svg.

    Returns the PNG files in the order of a report, and a line for each figure left out, with its reason.
    """
    figures: dict[str, Callable[[Panel], Figure]] = {
        "accuracy": lambda panel: draw_accuracy(panel, selection),
        "modulation": draw_modulation,
        "epochs": draw_epochs,
    }
    written, left_out = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for panel in panels(groups):
        for kind, draw in figures.items():
            name = f"{panel.name}-{kind}"
            try:
                with matplotlib.rc_context(STYLE):
                    written.append(save(draw(panel), folder / name))
            except (OSError, ValueError, KeyError) as error:
                left_out.append(f"Figure {name} was not drawn: {error}")
    return written, left_out


def panels(groups: list[Group]) -> list[Panel]:
    """A Panel for each pair of data set and joint model, in the order of `groups`."""
    joint = [group for group in groups if not group.first.model.startswith("unimodal-")]
    pairs = dict.fromkeys((group.first.dataset, group.first.model) for group in joint)
    found = []
    for dataset, model in pairs:
        members = [group for group in joint if (group.first.dataset, group.first.model) == (dataset, model)]
        found.append(Panel(f"{dataset}-{model}", f"{dataset}, {model}", members, _alone(groups, members)))
    return found


def _alone(groups: list[Group], joint: list[Group]) -> dict[str, Group]:
    """By modality, the group trained on it alone with the data and recipe of all `joint` groups.

    A modality is left out where there is no such group, or more than one.
    """
    terms = {(group.first.hashes.data, group.first.recipe) for group in joint}
    found: dict[str, list[Group]] = {}
    for group in groups:
        same = terms == {(group.first.hashes.data, group.first.recipe)}
        if same and group.first.model.startswith("unimodal-"):
            found.setdefault(group.first.model.removeprefix("unimodal-"), []).append(group)
    return {modality: several[0] for modality, several in found.items() if len(several) == 1}


def draw_accuracy(panel: Panel, selection: Selection) -> Figure:
    """Test accuracy by method: fused and of each modality, with error bars (sample standard deviation)."""
    names = labels(panel.groups)
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
    axes.set_title(f"{panel.title}: {_over_seeds(panel.groups, 'mean ± std')}, epoch: {selection}")
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
        color=_colour(index),
        markersize=6,
        capsize=3,
        label=name,
    )


def _reference(axes: Axes, summary: Summary | None, index: int, label: str) -> Line2D:
    assert summary is not None  # a fused accuracy, which every run has
    colour, style = _colour(index), LINES[index % len(LINES)]
    if summary.std:
        low, high = summary.mean - summary.std, summary.mean + summary.std
        axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
    return axes.axhline(summary.mean, color=colour, linestyle=style, linewidth=1.2, label=label)


def draw_modulation(panel: Panel) -> Figure:
    """ρ, q and k over the training steps, a row each; a column a method, a line a modality (mean, range)."""
    steps = [[_read_steps(run) for run in group.runs] for group in panel.groups]
    quantities = {"rho": "ratio ρ", "q": "drop probability q", "k": "gradient factor k"}
    shown = [one for one in quantities if any(_columns(runs, one) for runs in steps)]
    if not shown:
        raise ValueError("no run recorded ρ, q or k.")
    names = labels(panel.groups)
    figure = Figure(figsize=(1.3 + 2.1 * len(names), 0.9 + 1.6 * len(shown)))
    grid = figure.subplots(len(shown), len(names), sharex="col", sharey="row", squeeze=False)
    for line, quantity in enumerate(shown):
        for column, runs in enumerate(steps):
            _draw_steps(grid[line, column], runs, quantity, panel.modalities)
        grid[line, 0].set_ylabel(quantities[quantity])
    for column, name in enumerate(names):
        grid[0, column].set_title(name)
        grid[-1, column].set_xlabel("training step")
    _legend(figure, grid.flat, ncols=len(panel.modalities) + 1)
    figure.suptitle(f"{panel.title}: {_over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def _read_steps(run: Run) -> dict[str, Array]:
    """The columns of steps.arrow, in the order of the steps."""
    path = run.folder / "steps.arrow"
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from None
    return {name: np.asarray(table[name], dtype=np.float64) for name in table.column_names}


def _columns(runs: list[dict[str, Array]], quantity: str) -> list[str]:
    return [name for name in runs[0] if name.startswith(f"{quantity}_")]


def _draw_steps(axes: Axes, runs: list[dict[str, Array]], quantity: str, modalities: list[str]) -> None:
    if quantity == "rho":
        axes.axhline(1, color="#888888", linewidth=0.8, linestyle=":", label="balanced (ρ = 1)")
    columns = _columns(runs, quantity)
    if not columns:
        axes.text(0.5, 0.5, "not used", color="#777777", ha="center", va="center", transform=axes.transAxes)
    for name in columns:
        modality = name.removeprefix(f"{quantity}_")
        index = 1 + modalities.index(modality) if modality in modalities else 0
        values = _windows([run[name] for run in runs if name in run])
        _band(axes, *values, index, modality)


def _windows(columns: list[Array]) -> tuple[Array, Array]:
    """Step of the middle of each window [W], and the windows' means of each run [runs, W]."""
    length = min(len(column) for column in columns)
    size = max(1, math.ceil(length / WINDOWS))
    starts = np.arange(0, length, size)
    sizes = np.diff(np.append(starts, length))
    means = np.stack([np.add.reduceat(column[:length], starts) / sizes for column in columns])
    return starts + (sizes - 1) / 2, means


def _band(axes: Axes, places: Array, values: Array, index: int, label: str, line: int | None = None) -> None:
    """A line of the mean over runs [runs, X], with a band from the lowest to the highest."""
    mean = values.mean(axis=0)
    style = LINES[(index if line is None else line) % len(LINES)]
    axes.plot(places, mean, color=_colour(index), linestyle=style, linewidth=1.3, label=label)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(places, low, high, color=_colour(index), alpha=0.2, linewidth=0)


def draw_epochs(panel: Panel) -> Figure:
    """Test accuracy over the epochs: fused, and of each modality; a line a method (mean, range)."""
    names = labels(panel.groups)
    histories = [[_read_history(run) for run in group.runs] for group in panel.groups]
    alone = {name: [_read_history(run) for run in group.runs] for name, group in panel.alone.items()}
    parts = ["fused", *panel.modalities]
    figure = Figure(figsize=(1.6 + 2.5 * len(parts), 3.1))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)
    for axes, part in zip(grid.flat, parts, strict=True):
        for index, (name, runs) in enumerate(zip(names, histories, strict=True)):
            values = _curves(runs, part)
            if values.size:
                _band(axes, np.arange(1, values.shape[1] + 1), values, index, name)
        if part in alone:
            values = _curves(alone[part], "fused")
            _band(axes, np.arange(1, values.shape[1] + 1), values, 5, "this modality, trained alone", line=5)
        axes.set_title(part)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylabel("test accuracy (%)")
    _legend(figure, grid.flat, ncols=min(len(names) + 1, 5))
    figure.suptitle(f"{panel.title}: {_over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def _read_history(run: Run) -> list[dict[str, float]]:
    """For each epoch of history.jsonl the test accuracy in %: "fused", and by modality where recorded."""
    path = run.folder / "history.jsonl"
    try:
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        accuracies = [
            {"fused": epoch["accuracy"]["test"], **epoch.get("unimodal", {}).get("test", {})}
            for epoch in epochs
        ]
        return [{part: 100 * value for part, value in epoch.items()} for epoch in accuracies]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}).") from None


def _curves(runs: list[list[dict[str, float]]], part: str) -> Array:
    """The accuracy of "fused" or of a modality [runs, epochs], as far as all runs that have it go."""
    curves = [[epoch[part] for epoch in run if part in epoch] for run in runs]
    curves = [curve for curve in curves if curve]
    length = min(map(len, curves), default=0)
    return np.array([curve[:length] for curve in curves], dtype=np.float64)


def _legend(figure: Figure, axes: Iterator[Axes], ncols: int) -> None:
    """One legend below the panels, each name once."""
    handles = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols)


def _over_seeds(groups: list[Group], what: str) -> str:
    counts = sorted({len(group.runs) for group in groups})
    if counts == [1]:
        return "1 seed"
    return f"{what} over {' or '.join(str(count) for count in counts)} seeds"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def save(figure: Figure, stem: Path) -> Path:
    """Write `stem`.svg and `stem`.png, each whole or not at all; returns the PNG's path."""
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=200, metadata=metadata)
        with atomic_file(stem.with_name(f"{stem.name}.{kind}")) as file:
            file.write(content.getvalue())
    return stem.with_name(f"{stem.name}.png")
