"""The encoders' features as a plane shows them: t-SNE (van der Maaten, Hinton, JMLR 2008) by scikit-learn."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from balancemm_cli.results.figures.drawing import COLOURS, MARKERS, Array, colour, legend, named
from balancemm_cli.results.figures.evaluated import evaluated
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.runs.evaluation import FEATURES
from balancemm_cli.runs.reading import read_table

SAMPLES = 600
"""At most so many test samples: more can't be told apart on paper, and cost minutes."""


def draw_features(panel: Panel) -> Figure:
    """t-SNE of the test features of each group's first seed: one row per modality, one column per method.

    Of many classes those with the most test samples are shown. ValueError where no features were stored,
    InputError where they can't be read.
    """
    found = evaluated(panel, ("features",), "Run `bmm eval` with --features.")
    runs, names = [group.runs[0] for group in found.panel.groups], found.names
    tables = [read_table(run.folder / FEATURES).to_pandas() for run in runs]
    classes = tables[0].label.value_counts()
    shown = sorted(classes.index[: len(COLOURS)].astype(str))
    figure = Figure(figsize=(0.9 + 2.1 * len(names), 1.0 + 2.0 * len(panel.modalities)))
    grid = figure.subplots(len(panel.modalities), len(names), squeeze=False)
    for column, (name, table) in enumerate(zip(names, tables, strict=True)):
        some = table[table.label.isin(shown)]
        some = some.iloc[np.linspace(0, len(some) - 1, min(SAMPLES, len(some))).round().astype(int)]
        for line, modality in enumerate(panel.modalities):
            places = _plane(np.stack(some[modality].to_numpy()))
            _scatter(grid[line, column], places, some.label.astype(str).to_numpy(), shown)
            grid[line, 0].set_ylabel(modality)
        grid[0, column].set_title(name)
    legend(figure, grid.flat, ncols=min(len(shown), 6))
    of_all = (
        f"{len(shown)} of {len(classes)} classes" if len(shown) < len(classes) else f"{len(shown)} classes"
    )
    seeds = {run.result.seed for run in runs}
    seed = f"seed {seeds.pop()}" if len(seeds) == 1 else "the first seed of each"
    figure.suptitle(found.title(f"t-SNE of test features, {of_all}, {seed}"), fontsize=9)
    return figure


def _plane(features: Array) -> Array:
    """Features [N, D] to places [N, 2]; the same features, the same places."""
    if len(features) < 4 or not features.std():
        raise ValueError("t-SNE needs a few samples whose features differ.")
    return TSNE(perplexity=min(30, (len(features) - 1) / 3), random_state=0).fit_transform(features)


def _scatter(axes: Axes, places: Array, classes: np.ndarray, shown: Sequence[str]) -> None:
    for index, name in enumerate(shown):
        x, y = places[classes == name].T
        marker = MARKERS[index % len(MARKERS)]
        axes.scatter(x, y, s=7, color=colour(index), marker=marker, linewidths=0, label=named(name))
    axes.set_xticks([])
    axes.set_yticks([])
