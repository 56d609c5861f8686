"""How every figure looks: colours, lines, legends, and how it is written.

The colours are those of Okabe and Ito (told apart by colour-blind readers), with another marker or line style
each for print in grey. The same runs give the same SVG, byte by byte.
"""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from balancemm_cli.data.store import atomic_file
from balancemm_cli.results.groups import Group

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

DPI = 200

WINDOWS = 150
"""Steps are averaged in at most so many windows: more points than that cannot be seen on paper."""

HANDLE, CHARACTER = 0.65, 0.075
"""Inches of a legend's line sample with the space around it, and of a character of its text."""

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
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
    "figure.constrained_layout.use": True,
}

FORMATS: dict[str, tuple[type[FigureCanvasBase], dict[str, None]]] = {
    "svg": (FigureCanvasSVG, {"Date": None}),
    "pdf": (FigureCanvasPdf, {"CreationDate": None}),
    "png": (FigureCanvasAgg, {"Software": None}),
}
"""In which a figure is written, each by what draws it and without what changes from one drawing to the next."""

Array = NDArray[np.float64]


def windows(columns: list[Array]) -> tuple[Array, Array]:
    """Step of the middle of each window [W], and the windows' means of each run [runs, W]."""
    length = min(len(column) for column in columns)
    size = max(1, math.ceil(length / WINDOWS))
    starts = np.arange(0, length, size)
    sizes = np.diff(np.append(starts, length))
    means = np.stack([np.add.reduceat(column[:length], starts) / sizes for column in columns])
    return starts + (sizes - 1) / 2, means


def epoch_axis(axes: Axes) -> None:
    """Label the abscissa for epochs, which are whole numbers."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def legend(figure: Figure, axes: Iterable[Axes], ncols: int) -> None:
    """One legend below the panels, each name once; in fewer columns where so many are wider than the figure."""
    handles = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    widest = HANDLE + CHARACTER * max(map(len, handles), default=0)
    fitting = max(1, int(figure.get_figwidth() / widest))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(ncols, fitting))


def named(label: str) -> str:
    """A name for a legend, which would leave out one with a leading underscore."""
    return f"\u200b{label}" if label.startswith("_") else label


def note(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, color="#777777", ha="center", va="center", transform=axes.transAxes)


def over_seeds(groups: list[Group], what: str) -> str:
    """`what` with the number of seeds behind it, as in "mean ± std over 3 seeds"."""
    counts = sorted({len(group.runs) for group in groups})
    if counts == [1]:
        return "1 seed"
    return f"{what} over {' or '.join(str(count) for count in counts)} seeds"


def colour(index: int) -> str:
    """The colour of the series of that number."""
    return COLOURS[index % len(COLOURS)]


def save(figure: Figure, stem: Path, titled: bool = True) -> Path:
    """Write `stem`.svg, `stem`.pdf and `stem`.png, each whole or not at all; returns the PNG's path.

    A paper has captions in place of titles: where not `titled`, the title over the panels is left out.
    """
    if not titled:
        figure.suptitle("")
    # Laid out once, for all formats: savefig lays out and draws twice for each.
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for kind, (canvas, metadata) in FORMATS.items():
        content = io.BytesIO()
        figure.set_dpi(DPI)  # a canvas of vectors leaves its own
        getattr(canvas(figure), f"print_{kind}")(content, metadata=metadata)
        with atomic_file(stem.with_name(f"{stem.name}.{kind}")) as file:
            file.write(content.getvalue())
    return stem.with_name(f"{stem.name}.png")
