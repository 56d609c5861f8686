"""Curves over runs: the mean, and how far it reaches from the lowest run to the highest."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from balancemm_cli.results.figures.drawing import LINES, MARKERS, Array, colour, named
from balancemm_cli.results.groups import Group


def aligned(curves: Iterable[Sequence[float] | Array]) -> Array:
    """Curves of several runs as one array [runs, X], as far as all go; empty ones are left out."""
    found = [curve for curve in curves if len(curve)]
    length = min(map(len, found), default=0)
    return np.array([curve[:length] for curve in found], dtype=np.float64)


def band(axes: Axes, places: Array, values: Array, index: int, label: str, line: int | None = None) -> None:
    """A line of the mean over runs [runs, X], with a band from the lowest to the highest."""
    mean = values.mean(axis=0)
    style = LINES[(index if line is None else line) % len(LINES)]
    axes.plot(places, mean, color=colour(index), linestyle=style, linewidth=1.3, label=named(label))
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(places, low, high, color=colour(index), alpha=0.2, linewidth=0)


def marked_band(
    axes: Axes, places: Array, values: Array, index: int, label: str, line: int | None = None
) -> None:
    """A band with a marker at each place, for curves of few places; a single place shows, too."""
    band(axes, places, values, index, label, line)
    axes.lines[-1].set(marker=MARKERS[index % len(MARKERS)], markersize=3.5)


def range_curve(
    axes: Axes, places: Array, columns: Iterable[Array], index: int, label: str, shift: float = 0
) -> None:
    """A line of the means over runs, with bars from the lowest to the highest at each place; an array a place.

    For curves of few places that lie close together, whose bands could not be told apart. `shift` moves the whole
    curve aside by so many points of paper, so that bars don't cover each other.
    """
    columns = list(columns)
    means = np.array([values.mean() for values in columns])
    reach = np.array([[mean - v.min(), v.max() - mean] for mean, v in zip(means, columns, strict=True)]).T
    curve = axes.errorbar(
        places,
        means,
        yerr=reach if reach.any() else None,
        color=colour(index),
        linestyle=LINES[index % len(LINES)],
        linewidth=1.2,
        marker=MARKERS[index % len(MARKERS)],
        markersize=3.5,
        elinewidth=0.9,
        capsize=1.5,
        label=named(label),
    )
    aside = ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    for artist in curve.get_children():  # after they are drawn, for the axes to reach as far as their data
        artist.set_transform(axes.transData + aside)


def beside(index: int, count: int) -> float:
    """The shift, in points, of one of `count` curves that lie side by side."""
    return 3.5 * (index - (count - 1) / 2)


def mark_balance(axes: Axes, groups: Sequence[Group]) -> None:
    """A line where ρ says that modalities are in balance. ValueError where the groups don't agree on where that is."""
    forms = {group.runs[0].settings.get("discrepancy.form", "ratio") for group in groups}
    if len(forms) > 1:
        raise ValueError("some runs measured ρ as a ratio, others as a difference; report them apart.")
    place = 1 if forms == {"ratio"} else 0
    axes.axhline(place, color="#888888", linewidth=0.8, linestyle=":", label="balanced")
