"""Figures of a report, PNG and SVG: one set for each data set and joint model.

Runs of one modality alone appear in them as references. One kind of figure, one file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from balancemm_cli.errors import InputError, first_of, unknown
from balancemm_cli.results.figures.accuracy import draw_accuracy
from balancemm_cli.results.figures.drawing import STYLE, save
from balancemm_cli.results.figures.epochs import draw_epochs
from balancemm_cli.results.figures.features import draw_features
from balancemm_cli.results.figures.literature import draw_literature
from balancemm_cli.results.figures.missing import draw_missing
from balancemm_cli.results.figures.modulation import draw_modulation
from balancemm_cli.results.figures.panels import Panel, panels
from balancemm_cli.results.figures.probes import draw_probes
from balancemm_cli.results.groups import Group, Selection

Draw = Callable[[Panel], Figure]

FIGURES: dict[str, Draw] = {"1": draw_probes, "6": draw_missing, "features": draw_features}
"""What `bmm report --figure` draws: the paper's figures by their number."""


def draw_all(groups: list[Group], selection: Selection, folder: Path) -> tuple[list[Path], list[str]]:
    """Write each figure that the runs allow into `folder`, as NAME.png and NAME.svg.

    Returns the PNG files in the order of a report, and a line for each figure left out, with its reason.
    """
    kinds: dict[str, Draw] = {
        "accuracy": lambda panel: draw_accuracy(panel, selection),
        "modulation": draw_modulation,
        "epochs": draw_epochs,
    }
    return _draw(kinds, groups, folder)


def draw_figure(name: str, groups: list[Group], folder: Path) -> tuple[list[Path], list[str]]:
    """Write one of FIGURES, as draw_all does. UsageError for another name, InputError where none can be drawn."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    return _draw_one(f"figure-{name}", FIGURES[name], groups, folder)


def draw_spread(groups: list[Group], selection: Selection, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the runs among what papers printed, as draw_figure does."""
    return _draw_one("literature", lambda panel: draw_literature(panel, selection), groups, folder)


def _draw_one(kind: str, draw: Draw, groups: list[Group], folder: Path) -> tuple[list[Path], list[str]]:
    written, left_out = _draw({kind: draw}, groups, folder)
    if not (written or left_out):
        raise InputError("These are runs of one modality each; a figure compares joint ones.")
    if not written:
        raise InputError(first_of(left_out))
    return written, left_out


def _draw(kinds: Mapping[str, Draw], groups: list[Group], folder: Path) -> tuple[list[Path], list[str]]:
    written, left_out = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for panel in panels(groups):
        for kind, draw in kinds.items():
            name = f"{panel.name}-{kind}"
            try:
                with matplotlib.rc_context(STYLE):
                    written.append(save(draw(panel), folder / name))
            except (InputError, OSError, ValueError, KeyError) as error:
                left_out.append(f"Figure {name} was not drawn: {error}")
    return written, left_out
