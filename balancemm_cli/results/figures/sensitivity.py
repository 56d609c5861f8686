"""Fig. 9: accuracy over λ, q_base and α, beside the points of the paper's plot."""

import csv
import json
from collections import defaultdict
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results.figures.curves import beside, range_curve
from balancemm_cli.results.figures.drawing import Array, legend, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import Group, labels

KEYS = {"opm.lam": "OPM lambda", "opm.q_base": "OPM q_base", "ogm.alpha": "OGM alpha"}
"""The settings, and what the file of published points calls them."""

AXES = {"opm.lam": "λ of OPM", "opm.q_base": "q_base of OPM", "ogm.alpha": "α of OGM"}

READ_OFF = 0.3
"""Points of accuracy by which a number that was read off the plot by eye may be wrong."""

Sweep = dict[float, Group]


def draw_sensitivity(panel: Panel) -> Figure:
    """Test accuracy over each setting of which the runs have several values (mean, range), all else being equal.

    The published points are those of the paper's one method each, for its model (concat). ValueError where no runs
    differ in nothing but one of the settings.
    """
    found = {key: sweeps for key in KEYS if (sweeps := _sweeps(panel.groups, key))}
    if not found:
        raise ValueError(
            f"no runs differ in nothing but {', '.join(KEYS)}. Train several values of one: "
            "--set opm.lam=0.2, then 0.3 and so on."
        )
    figure = Figure(figsize=(1.4 + 2.6 * len(found), 3.3))
    grid = figure.subplots(1, len(found), sharey=True, squeeze=False)
    named = {key: _names(sweeps, key) for key, sweeps in found.items()}
    numbers = {name: index for index, name in enumerate(dict.fromkeys(chain(*named.values())), start=1)}
    for axes, (key, sweeps) in zip(grid.flat, found.items(), strict=True):
        for position, (name, sweep) in enumerate(zip(named[key], sweeps, strict=True)):
            places, columns = np.array(list(sweep)), [_accuracies(group, panel) for group in sweep.values()]
            range_curve(axes, places, columns, numbers[name], name, beside(position, len(sweeps)))
        _draw_published(axes, *_published(panel.groups[0], key), KEYS[key].split()[0])
        axes.set_xlabel(AXES[key])
    grid[0, 0].set_ylabel("test accuracy (%)")
    legend(figure, grid.flat, ncols=2)
    shown = [group for sweeps in found.values() for sweep in sweeps for group in sweep.values()]
    title = f"{panel.title}: {over_seeds(shown, 'mean and range')}, epoch: {panel.selection}"
    figure.suptitle(title, fontsize=9)
    return figure


def _sweeps(groups: list[Group], key: str) -> list[Sweep]:
    """The groups that differ in nothing but `key`, by its value; a mapping for each way in which they are alike."""
    alike: dict[str, Sweep] = defaultdict(dict)
    for group in groups:
        rest: dict[str, Any] = dict(group.common)
        value = rest.pop(key, None)
        if value is not None:
            alike[json.dumps([group.owner, group.names, rest], sort_keys=True, default=str)][value] = group
    return [dict(sorted(sweep.items())) for sweep in alike.values() if len(sweep) > 1]


def _names(sweeps: list[Sweep], key: str) -> list[str]:
    """What tells the sweeps over one setting apart."""
    firsts = [next(iter(sweep.values())) for sweep in sweeps]
    others = [{name: value for name, value in group.differences.items() if name != key} for group in firsts]
    return labels([replace(group, differences=rest) for group, rest in zip(firsts, others, strict=True)])


def _accuracies(group: Group, panel: Panel) -> Array:
    return np.array([100 * run.result.selections[panel.selection].accuracy for run in group.runs])


def _draw_published(axes: Axes, places: Array, values: Array, label: str) -> None:
    if places.size:
        axes.errorbar(
            places,
            values,
            yerr=READ_OFF,
            fmt="o",
            color="#777777",
            markerfacecolor="white",
            markersize=4,
            elinewidth=0.9,
            label=f"{label} as published, read off the plot by eye (±{READ_OFF})",
        )


def _published(group: Group, key: str) -> tuple[Array, Array]:
    """Places and accuracies in % of the paper's plot; empty where it has none for the data set and model."""
    if group.first.model != "concat":
        return np.array([]), np.array([])
    path = benchmarks_folder() / "published" / "tpami2024_figure9.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == group.first.dataset]
    points = [
        (float(row["method"].partition("=")[2]), float(row["accuracy"]))
        for row in rows
        if row["method"].partition("=")[0] == KEYS[key]
    ]
    return np.array([place for place, _ in points]), np.array([value for _, value in points])
