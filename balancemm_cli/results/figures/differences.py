"""The differences of a finding: a row a measure, a column a data set, a dot with its interval a row of the table."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancemm_cli.results.figures.drawing import CHARACTER, MARKERS, STYLE, colour, legend, note, save
from balancemm_cli.results.findings.finding import Difference, Finding

if TYPE_CHECKING:
    from balancemm_cli.results.findings.when_it_pays import WhenItPays

LOOKS = {  # of a word: colour and marker
    "higher": (colour(3), "^"),
    "lower": (colour(4), "v"),
    "equal": (colour(2), "s"),
    "open": ("#888888", "o"),
}
WIDTH, LINE = 2.3, 0.21  # inches of a panel, and of a row in it
BESIDE = 0.15  # of the room of a data set, between the gains of two methods


def draw_differences(finding: Finding, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
    """Write `differences` into `folder`, as PNG, SVG and PDF; where nothing is compared a line says so."""
    if not finding.differences:
        return [], ["Figure differences was not drawn: no two rows of these runs share a seed."]
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        return [save(_figure(finding), folder / "differences", titled)], []


def _figure(finding: Finding) -> Figure:
    heads = list(dict.fromkeys(one.measure.head for one in finding.differences))
    names = list(dict.fromkeys(one.name for one in finding.differences))
    places = [place.label for place in finding.places]
    size = (
        1 + CHARACTER * max(map(len, names)) + WIDTH * len(places),
        0.9 + len(heads) * (0.5 + LINE * len(names)),
    )
    figure = Figure(figsize=size)
    grid = figure.subplots(len(heads), len(places), squeeze=False, sharex="row", sharey=True)
    for line, head in zip(grid, heads, strict=True):
        for axes, dataset in zip(line, places, strict=True):
            here = [
                one for one in finding.differences if (one.measure.head, one.place.label) == (head, dataset)
            ]
            _panel(axes, here, names)
        line[0].set_ylabel(fill(head, 14))
    for axes, dataset in zip(grid[0], places, strict=True):
        axes.set_title(dataset)
    handles = [
        grid[0, 0].plot([], [], marker, color=shade, markersize=4, label=word)[0]
        for word, (shade, marker) in LOOKS.items()
    ]
    figure.legend(handles, LOOKS, loc="outside lower center", ncols=len(LOOKS))
    figure.suptitle(f"{finding.TITLE}: differences with their 95 % intervals", fontsize=9)
    return figure


def _panel(axes: Axes, differences: list[Difference], names: list[str]) -> None:
    if not differences:
        note(axes, "—")
    for one in differences:
        scale, at = one.measure.scale, names.index(one.name)
        shade, marker = LOOKS[one.word]
        mean = scale * one.comparison.difference.mean
        low, high = (scale * end for end in one.interval or (one.comparison.difference.mean,) * 2)
        axes.plot([low, high], [at, at], color=shade, linewidth=1.4)
        axes.plot([mean], [at], marker, color=shade, markersize=4)
        if margin := one.measure.margin:
            axes.axvspan(-scale * margin, scale * margin, color="#eeeeee", zorder=0)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_gains(finding: "WhenItPays", folder: Path, titled: bool = True) -> list[Path]:
    """Write `gains` into `folder`: each method's gain with its interval, data sets from the one with the least share of
    samples that only other modalities than the best one get right alone; nothing where none was trained alone."""
    names = list(finding.properties)
    if not names or not finding.gains:
        return []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.3, 3.6))
        axes = figure.subplots()
        for index, (method, gains) in enumerate(finding.gains.items()):
            shade, aside = colour(index + 1), BESIDE * (index - (len(finding.gains) - 1) / 2)
            there = [(names.index(name) + aside, gain) for name, gain in gains.items() if name in names]
            if not there:
                continue
            for x, gain in there:
                ends = [100 * end for end in gain.interval or (gain.mean, gain.mean)]
                axes.plot([x, x], ends, color=shade, linewidth=1)
            x, means = zip(*((x, 100 * gain.mean) for x, gain in there), strict=True)
            axes.plot(x, means, MARKERS[index % len(MARKERS)], color=shade, label=method, markersize=5)
        axes.axhline(0, color="#888888", linewidth=0.8)
        shares = [f"{100 * finding.properties[name]['others']:.1f} %" for name in names]
        labels = [
            f"{fill(name, 13, break_long_words=False)}\n{share}"
            for name, share in zip(names, shares, strict=True)
        ]
        axes.set_xticks(range(len(names)), labels, fontsize=6)
        axes.set_xlabel(
            "data sets, and test samples that only other modalities than the best get right alone"
        )
        axes.set_ylabel("gain over joint training (points)")
        legend(figure, [axes], ncols=4)
        figure.suptitle(f"{finding.TITLE}: gains with their 95 % intervals", fontsize=9)
        return [save(figure, folder / "gains", titled)]
