"""Fig. 6: what is left of the accuracy where a modality is missing; the same for noise."""

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.curves import beside, range_curve
from balancemm_cli.results.figures.drawing import Array, legend, note, over_seeds
from balancemm_cli.results.figures.evaluated import evaluated
from balancemm_cli.results.figures.panels import Panel
from balancemm_cli.runs.evaluation import RunEvaluation

AMOUNTS = {"missing": "test samples without {} (%)", "noise": "noise on {} (standard deviations)"}
ADVICE = "Run `bmm eval` with --missing MODALITY=0:1:0.2 for each modality."


def draw_missing(panel: Panel) -> Figure:
    """Test accuracy over the missing rate and over noise, one column per modality; one line per method (mean, range).

    ValueError where no run has been evaluated with several amounts.
    """
    shown = evaluated(panel, tuple(AMOUNTS), ADVICE)
    modalities = panel.modalities
    curves = {
        (kind, modality): [shown.curves(group, _curve(kind, modality)) for group in shown.panel.groups]
        for kind in AMOUNTS
        for modality in modalities
    }
    kinds = [kind for kind in AMOUNTS if any(_any(curves[kind, modality]) for modality in modalities)]
    figure = Figure(figsize=(1.6 + 2.8 * len(modalities), 1.0 + 2.2 * len(kinds)))
    grid = figure.subplots(len(kinds), len(modalities), sharey=True, squeeze=False)
    for line, kind in zip(grid, kinds, strict=True):
        for axes, modality in zip(line, modalities, strict=True):
            _draw(axes, curves[kind, modality], shown.names)
            axes.set_xlabel(AMOUNTS[kind].format(modality))
        line[0].set_ylabel("test accuracy (%)")
    legend(figure, grid.flat, ncols=min(len(shown.names), 5))
    figure.suptitle(shown.title(over_seeds(shown.panel.groups, "mean and range")), fontsize=9)
    return figure


def _draw(axes: Axes, curves: list[tuple[Array, Array]], names: list[str]) -> None:
    for index, (name, (amounts, values)) in enumerate(zip(names, curves, strict=True)):
        if amounts.size:
            range_curve(axes, amounts, values.T, index, name, beside(index, len(names)))
    if not _any(curves):
        note(axes, "not evaluated")


def _any(curves: list[tuple[Array, Array]]) -> bool:
    return any(amounts.size for amounts, _ in curves)


def _curve(kind: str, modality: str) -> Callable[[RunEvaluation], dict[float, float]]:
    scale = 100 if kind == "missing" else 1  # a rate in %, or deviations
    return lambda one: {
        scale * point.amount: point.accuracy for point in getattr(one, kind).get(modality, [])
    }
