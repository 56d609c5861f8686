"""Figures of a report, PNG, SVG and PDF: one set for each data set and joint model.

Runs of one modality alone appear in them as references. One kind of figure, one file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from balancemm_cli.errors import InputError, first_of, unknown
from balancemm_cli.results.figures.accuracy import draw_accuracy
from balancemm_cli.results.figures.classes import draw_classes
from balancemm_cli.results.figures.discrepancy import draw_discrepancy
from balancemm_cli.results.figures.drawing import STYLE, save
from balancemm_cli.results.figures.drops import draw_drops
from balancemm_cli.results.figures.epochs import draw_epochs
from balancemm_cli.results.figures.features import draw_features
from balancemm_cli.results.figures.literature import draw_literature
from balancemm_cli.results.figures.loss import draw_loss
from balancemm_cli.results.figures.missing import draw_missing
from balancemm_cli.results.figures.modulation import draw_modulation
from balancemm_cli.results.figures.panels import Panel, panels
from balancemm_cli.results.figures.probes import draw_probes
from balancemm_cli.results.figures.sensitivity import draw_sensitivity
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.schema import Selection

Draw = Callable[[Panel], Figure]

FIGURES: dict[str, Draw] = {
    "1": draw_probes,
    "4": draw_loss,
    "5": draw_discrepancy,
    "6": draw_missing,
    "7": draw_drops,
    "8": draw_classes,
    "9": draw_sensitivity,
    "features": draw_features,
    "literature": draw_literature,
}
"""What `bmm report --figure` draws: the paper's figures by their number."""

MOST = 40
"""So many rows of a table have room in one figure."""


def draw_all(
    groups: list[Group], selection: Selection, folder: Path, titled: bool = True
) -> tuple[list[Path], list[str]]:
    """Write each figure that the runs allow into `folder`, as NAME.png, NAME.svg and NAME.pdf, `titled` or not.

    Returns the PNG files in the order of a report, and a line for each figure left out, with its reason.
    """
    kinds = {"accuracy": draw_accuracy, "modulation": draw_modulation, "epochs": draw_epochs}
    return _draw(kinds, groups, folder, selection, titled)


def draw_figure(
    name: str, groups: list[Group], folder: Path, selection: Selection = "last", titled: bool = True
) -> tuple[list[Path], list[str]]:
    """Write one of FIGURES, as draw_all does. UsageError for another name, InputError where none can be drawn."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    written, left_out = _draw({f"figure-{name}": FIGURES[name]}, groups, folder, selection, titled)
    if not (written or left_out):
        raise InputError("These are runs of one modality each; a figure compares joint ones.")
    if not written:
        raise InputError(first_of(left_out))
    return written, left_out


def _draw(
    kinds: Mapping[str, Draw], groups: list[Group], folder: Path, selection: Selection, titled: bool
) -> tuple[list[Path], list[str]]:
    written, left_out = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for panel in panels(groups, selection):
        for kind, draw in kinds.items():
            name = f"{panel.name}-{kind}"
            try:
                if len(panel.groups) > MOST:
                    raise ValueError(
                        f"{len(panel.groups):,} rows have no room in it, {MOST} have. Choose some with --where."
                    )
                with matplotlib.rc_context(STYLE):
                    written.append(save(draw(panel), folder / name, titled))
            except (InputError, OSError, ValueError, KeyError) as error:
                left_out.append(f"Figure {name} was not drawn: {error}")
    return written, left_out
