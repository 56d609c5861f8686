"""Figures of a report, PNG and SVG: one set for each data set and joint model.

Runs of one modality alone appear in them as references. One kind of figure, one file.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from balancemm_cli.results.figures.accuracy import draw_accuracy
from balancemm_cli.results.figures.drawing import STYLE, save
from balancemm_cli.results.figures.epochs import draw_epochs
from balancemm_cli.results.figures.modulation import draw_modulation
from balancemm_cli.results.figures.panels import Panel, panels
from balancemm_cli.results.groups import Group, Selection


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
