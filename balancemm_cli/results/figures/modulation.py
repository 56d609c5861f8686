"""ρ, and what methods record beside it, over the training steps."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import aligned, band, mark_balance
from balancemm_cli.results.figures.drawing import Array, legend, note, over_seeds, windows
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels
from balancemm_cli.runs.reading import read_table
from balancemm_cli.runs.run import Run

NAMES = {"rho": "discrepancy ρ", "q": "drop probability q", "k": "gradient factor k"}


def draw_modulation(panel: Panel) -> Figure:
    """Each metric that the runs record of a modality over the training steps, a row each, ρ first; one column per
    method, one line per modality (mean, range). ValueError where they record none."""
    steps = [[read_steps(run) for run in group.runs] for group in panel.groups]
    shown = list(dict.fromkeys(name for runs in steps for name in _quantities(runs[0], panel.modalities)))
    if not shown:
        raise ValueError("no run recorded ρ or what its methods do.")
    names = labels(panel.groups)
    figure = Figure(figsize=(1.3 + 2.1 * len(names), 0.9 + 1.6 * len(shown)))
    grid = figure.subplots(len(shown), len(names), sharex="col", sharey="row", squeeze=False)
    for line, quantity in enumerate(shown):
        for column, runs in enumerate(steps):
            if quantity == "rho":
                mark_balance(grid[line, column], panel.groups[column : column + 1])
            _draw_steps(grid[line, column], runs, quantity, panel.modalities)
        grid[line, 0].set_ylabel(NAMES.get(quantity, quantity))
    for column, name in enumerate(names):
        grid[0, column].set_title(name)
        grid[-1, column].set_xlabel("training step")
    legend(figure, grid.flat, ncols=len(panel.modalities) + 1)
    figure.suptitle(f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}", fontsize=9)
    return figure


def read_steps(run: Run) -> dict[str, Array]:
    """The columns of steps.arrow, in the order of the steps. InputError where it can't be read."""
    table = read_table(run.folder / "steps.arrow")
    return {name: np.asarray(table[name], dtype=np.float64) for name in table.column_names}


def over_epochs(runs: list[Run], column: str) -> Array:
    """The means of a column of steps.arrow over the steps of each epoch [runs, epochs], of the runs that have it.

    InputError where a file can't be read.
    """
    return aligned(epoch_means(steps, column) for steps in map(read_steps, runs) if column in steps)


def epoch_means(steps: dict[str, Array], column: str) -> Array:
    """The means of a column of `read_steps` over the steps of each epoch [epochs]."""
    epochs = steps["epoch"].astype(np.int64)
    return np.bincount(epochs, steps[column]) / np.bincount(epochs)


def _quantities(columns: Iterable[str], modalities: list[str]) -> list[str]:
    """What the columns of steps.arrow hold of each modality: "rho" for rho_audio."""
    longest = sorted(modalities, key=len, reverse=True)  # the name of one may end as another's
    ends = {name: next((f"_{of}" for of in longest if name.endswith(f"_{of}")), "") for name in columns}
    return [name.removesuffix(end) for name, end in ends.items() if end]


def _draw_steps(axes: Axes, runs: list[dict[str, Array]], quantity: str, modalities: list[str]) -> None:
    found = {of: [run[name] for run in runs if (name := f"{quantity}_{of}") in run] for of in modalities}
    for index, (modality, recorded) in enumerate(found.items(), 1):
        if recorded:
            band(axes, *windows(recorded), index, modality)
    if not any(found.values()):
        note(axes, "not used")
