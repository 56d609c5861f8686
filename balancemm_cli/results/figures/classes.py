"""Fig. 8: accuracy of each class by method."""

from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from balancemm_cli.metrics.classification import by_class
from balancemm_cli.results.figures.drawing import MARKERS, colour, legend, named, over_seeds
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.results.groups import labels
from balancemm_cli.runs.reading import class_names
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Selection

SHOWN = 35
"""At most so many classes: more have no room on a page."""


def draw_classes(panel: Panel) -> Figure:
    """Accuracy of each class, one row per class, one marker per method (mean, range); behind its name its test answers.

    Classes without a test sample are left out. Of many, those are shown whose accuracies by method lie farthest
    apart. Older runs did not keep the names of their classes, which are numbered then. ValueError where the runs
    don't have the same classes, InputError where predictions can't be read.
    """
    names = labels(panel.groups)
    classes, counts, accuracies = _accuracies(panel)
    means = np.array([values.mean(axis=0) for values in accuracies])  # [methods, classes]
    tested = np.flatnonzero(counts)
    apart = means[:, tested].max(axis=0) - means[:, tested].min(axis=0)
    shown = np.sort(tested[np.argsort(-apart, kind="stable")[:SHOWN]])
    height = 0.05 * len(names) + 0.1
    figure = Figure(figsize=(5.2, 1.4 + height * len(shown)))
    axes = figure.subplots()
    rows = np.arange(len(shown))
    for index, (name, values) in enumerate(zip(names, accuracies, strict=True)):
        mean, some = means[index, shown], values[:, shown]
        axes.errorbar(
            mean,
            rows + (index - (len(names) - 1) / 2) * 0.7 / len(names),
            xerr=np.maximum([mean - some.min(axis=0), some.max(axis=0) - mean], 0) if len(some) > 1 else None,
            fmt=MARKERS[index % len(MARKERS)],
            color=colour(index),
            markersize=3.5,
            elinewidth=0.8,
            label=named(name),
        )
    axes.set_yticks(rows, [f"{classes[place]} ({counts[place]})" for place in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("test accuracy (%)")
    title = f"{panel.title}: {over_seeds(panel.groups, 'mean and range')}, epoch: {panel.selection}"
    some_only = f"\nthe {len(shown)} of {len(tested)} classes in which methods differ most"
    figure.suptitle(title + (some_only if len(shown) < len(tested) else ""), fontsize=9)
    legend(figure, [axes], ncols=min(len(names), 5))
    return figure


def _accuracies(panel: Panel) -> tuple[list[str], np.ndarray, list[np.ndarray]]:
    """The classes, their answers in the test, int64 [C], and of each group the accuracies in % [runs, C]."""
    found = [[_of_run(run, panel.selection) for run in group.runs] for group in panel.groups]
    counts = [np.array([one["support"] for one in run.values()]) for runs in found for run in runs]
    if any(not np.array_equal(counts[0], other) for other in counts):
        raise ValueError("the runs were not tested on the same number of samples of each class.")
    accuracies = [[[100 * (one["accuracy"] or 0) for one in run.values()] for run in runs] for runs in found]
    return list(found[0][0]), counts[0], [np.array(values) for values in accuracies]


def _of_run(run: Run, selection: Selection) -> dict[str, dict[str, Any]]:
    try:
        table = run.predictions(selection)
        rows = table.to_pandas()
        scores = np.stack(rows.scores)
        names = class_names(table) or [f"class {number}" for number in range(scores.shape[1])]
        return by_class(scores.argmax(axis=1), {}, rows.label.to_numpy(), names)
    except (AttributeError, ValueError, KeyError, pa.ArrowException) as error:
        path = run.place / "predictions.arrow"
        raise ValueError(f"{path} has no predictions of the '{selection}' epoch ({error}).") from None
