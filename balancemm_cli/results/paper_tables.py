"""Tables of the paper, and of later ones, with our numbers in them: `bmm report --table 12`.

Each printed number is a cell, with the runs that its suite (table-<N>, or the table's own name) plans for it. Only runs
of exactly these settings count; a cell without them is "not run". A second table says
more of the numbers that were run.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from balancemm_cli.errors import unknown
from balancemm_cli.results import literature
from balancemm_cli.results.comparison import Comparison
from balancemm_cli.results.formats import Table
from balancemm_cli.results.gains import BASELINE, gains, pairs
from balancemm_cli.results.groups import Group
from balancemm_cli.results.published import (
    PAPER,
    TIMES,
    Published,
    lookup,
    other_data,
    published_model,
    rows,
    source_of,
)
from balancemm_cli.results.settings import origin_notes
from balancemm_cli.results.statistics import GAP, Summary, format_summary, summarize
from balancemm_cli.results.tables import (
    SELECTION_NOTES,
    claim,
    gain_notes,
    gain_text,
    made_with,
    points,
    reasons_note,
    samples_note,
    whose_notes,
)
from balancemm_cli.results.verdicts import (
    AUTHORS_RULE,
    MARKS,
    follows,
    planned,
    reached,
    suite_name,
    suite_of,
    table_numbers,
)
from balancemm_cli.runs.schema import Selection

NOT_RUN = "not run"
METRICS = {"accuracy": "accuracy", "map": "mAP", "f1": "F1", "macro_f1": "macro-F1", TIMES: "training time"}
_MARKS_NOTE = "✓ reproduced, ↑ better, ↓ worse, ? undecided, ≠ not comparable"


@dataclass(frozen=True, kw_only=True)
class Cell(Comparison):
    """A number that is printed, and our runs of it, held against that number or against another source's."""

    number: Published
    model: str  # our name of it
    claimed: bool = False  # whether no predictions bear ours out

    @property
    def name(self) -> str:
        """The names of the number: data set, model, method, metric, setting."""
        one = self.number
        return " ".join(filter(None, (one.dataset, self.model, one.method, one.metric, one.note)))

    @property
    def metric(self) -> str:
        """That of the number."""
        return self.number.metric

    @property
    def text(self) -> str:
        """Ours, published, difference and verdict: percent and points, or times and their difference."""
        scale, decimals = self.scale
        printed = GAP if self.printed is None else f"{self.printed.value:.{decimals}f}"
        if self.ours is None:
            return f"{NOT_RUN} / {printed}"
        ours = format_summary(self.ours, scale, decimals) + claim(self.claimed)
        if self.printed is None:
            return f"{ours} / {printed}"
        difference = GAP if self.delta is None else f"{self.delta * scale:+.{decimals}f}"
        return f"{ours} / {printed} / {difference} {MARKS[self.judge().word]}"

    @property
    def scale(self) -> tuple[int, int]:
        """The factor to the unit that is shown, % or times, and its decimals."""
        return (100, 1) if self.number.unit == "%" else (1, 2)


def cells(table: str, groups: Sequence[Group], selection: Selection, against: str = PAPER) -> list[Cell]:
    """Every number of a table, in its order, held against those of a source: its own, unless another one is named.

    UsageError for a table that has no suite.
    """
    if table not in table_numbers():
        raise unknown("table", table, table_numbers())
    found = []
    own = source_of(table)
    numbers = [number for number in rows(own) if number.table == table]
    times_printed = Counter(_names(number) for number in numbers)
    for number in numbers:
        model, candidates = _runs_of(number, groups)
        group = next(iter(candidates), None)
        printed = number
        if against not in (PAPER, own):
            # where the paper's table prints several settings under these names, another source has none of them
            names = (number.dataset, model, number.method, number.metric)
            printed = lookup(*names, against) if times_printed[_names(number)] == 1 else None
        ours = group and _ours(number.metric, group, groups, selection)
        found.append(
            Cell(
                group=group,
                ours=ours,
                printed=printed,
                rivals=candidates[1:],
                number=number,
                model=model,
                claimed=group is not None and group.claimed(selection),
            )
        )
    return _with_gains(found, selection)


def _names(number: Published) -> tuple[str, ...]:
    return number.dataset, number.model, number.method, number.metric


def _runs_of(number: Published, groups: Sequence[Group]) -> tuple[str, list[Group]]:
    """Our name of the number's model, and the groups that have exactly the settings of its suite, the largest first."""
    config = planned(number)
    if config is None:
        return number.model, []
    names = (number.dataset, config.model, number.method)
    same = [group for group in groups if group.names[:3] == names and follows(group, config)]
    of_its_data = [group for group in same if not other_data(group.first, number)]
    return config.model, sorted(of_its_data or same, key=lambda group: -len(group.runs))


def _ours(metric: str, group: Group, groups: Sequence[Group], selection: Selection) -> Summary | None:
    if metric == TIMES:
        return _time_ratio(group, groups)
    return reached(group, metric, selection)


def _time_ratio(group: Group, groups: Sequence[Group]) -> Summary | None:
    """Training time of each seed in units of the same seed's baseline, where both ran on one kind of device."""
    baseline = group if group.first.method == BASELINE else next((b for _, b in pairs([group], groups)), None)
    others = {run.result.seed: run for run in baseline.runs} if baseline else {}
    ratios = [
        seconds / unit
        for run in group.runs
        if (base := others.get(run.result.seed))
        and (seconds := run.result.time.get("seconds"))
        and (unit := base.result.time.get("seconds"))
        and run.device == base.device
    ]
    return summarize(ratios)


def _with_gains(found: list[Cell], selection: Selection) -> list[Cell]:
    """The cells of accuracy with what ours gain over the baseline, beside what this table prints for it."""
    gained = gains(groups_of(found), selection)

    def with_gain(cell: Cell) -> Cell:
        gain = gained.get(cell.group.key) if cell.group else None
        if gain is None or cell.number.metric != "accuracy":
            return cell
        return replace(cell, gain=replace(gain, published=_printed_gain(cell, found)))

    return [with_gain(cell) for cell in found]


def _printed_gain(cell: Cell, found: Sequence[Cell]) -> float | None:
    """A number less the baseline's of the same table; None where it prints none, or several."""
    names = (cell.number.dataset, cell.number.model, BASELINE, cell.number.metric)
    baselines = [one.printed for one in found if _names(one.number) == names]
    if cell.delta is None or cell.printed is None or len(baselines) != 1 or baselines[0] is None:
        return None
    return cell.printed.fraction - baselines[0].fraction


def layout(table: str, found: Sequence[Cell], selection: Selection) -> Table:
    """The cells as the paper lays them out: one row per model, method, setting, one column per data set and metric."""
    columns = list(dict.fromkeys((cell.number.dataset, cell.number.metric) for cell in found))
    several = len({_row(cell, True) for cell in found}) > len({_row(cell, False) for cell in found})
    lines = list(dict.fromkeys(_row(cell, several) for cell in found))
    texts = {(_row(cell, several), (cell.number.dataset, cell.number.metric)): cell for cell in found}
    best = {
        column: max(
            (
                cell.ours.mean
                for (_, at), cell in texts.items()
                if at == column and cell.ours and cell.published
            ),
            default=None,
        )
        for column in columns
    }

    def show(line: tuple[str, ...], column: tuple[str, str]) -> str:
        cell = texts.get((line, column))
        if cell is None:
            return ""
        bold = cell.ours is not None and cell.ours.mean == best[column] and cell.number.unit == "%"
        return f"**{cell.text}**" if bold else cell.text

    header = ["Model", "Method", *(["Setting"] if several else [])]
    header += [f"{dataset} {METRICS[metric]}" for dataset, metric in columns]
    return Table(
        suite_of(table).title,
        header,
        [[*line, *(show(line, column) for column in columns)] for line in lines],
        _notes(table, found, selection),
    )


def _row(cell: Cell, with_note: bool) -> tuple[str, ...]:
    names = (cell.model, cell.number.method)
    return (*names, cell.number.note) if with_note else names


def groups_of(found: Sequence[Cell]) -> list[Group]:
    """The groups of runs in a table, each once."""
    return list({id(cell.group): cell.group for cell in found if cell.group}.values())


def _notes(table: str, found: Sequence[Cell], selection: Selection) -> list[str]:
    groups = groups_of(found)
    other = {cell.printed.source for cell in found if cell.printed} - {source_of(table)}
    source = f" by {' and '.join(sorted(other))}" if other else ""
    notes = [
        f"Cells: ours, mean ± sample standard deviation (number of seeds) / published{source} / difference, in %, and "
        f"the verdict: {_MARKS_NOTE}; bold: our best of a column. {NOT_RUN}: no finished run with exactly the settings "
        f"of suite {suite_name(table)}.",
        f"Epoch of ours: {SELECTION_NOTES[selection]}. {AUTHORS_RULE}",
    ]
    if any(cell.number.metric == TIMES for cell in found):
        notes.append("Training time: of each seed, in units of the baseline's on the same kind of device.")
    notes += dict.fromkeys(
        f"{cell.model} {cell.number.method} stands beside the number that is printed under {cell.number.model}: that "
        "is the network of the method's authors."
        for cell in found
        if published_model(cell.model) != cell.number.model
    )
    notes += dict.fromkeys(f"{group.first.dataset}. {samples_note(group.first)}" for group in groups)
    notes.append(
        f"{sum(cell.group is not None for cell in found)} of {len(found)} numbers were run: bmm train --suite "
        f"{suite_name(table)} trains the others."
    )
    notes += origin_notes(groups)
    notes += whose_notes(groups, any(cell.claimed for cell in found))
    if groups:
        notes.append(made_with(run for group in groups for run in group.runs))
    return notes


def details(found: Sequence[Cell]) -> Table | None:
    """One row per number that was run: verdict, gain, printed gain, place in the literature; None without any."""
    run = [cell for cell in found if cell.ours]
    if not run:
        return None
    with_setting = any(cell.number.note for cell in run)
    header = ["Data set", "Model", "Method", *(["Setting"] if with_setting else []), "Metric", "Ours"]
    header += ["Published", "Δ", "Verdict", "Gain", "Printed gain", "Literature"]
    lines = [[*_row_names(cell, with_setting), *_detail(cell)] for cell in run]
    notes = gain_notes([cell.gain for cell in run if cell.gain])
    notes += reasons_note([cell.judge() for cell in run])
    if any(cell.place for cell in run):
        notes.append(literature.note())
    return Table("The numbers that were run", header, lines, notes)


def _row_names(cell: Cell, with_setting: bool) -> list[str]:
    one = cell.number
    return [one.dataset, cell.model, one.method, *([one.note] if with_setting else []), METRICS[one.metric]]


def _detail(cell: Cell) -> list[str]:
    scale, decimals = cell.scale
    return [
        format_summary(cell.ours, scale, decimals) + claim(cell.claimed),
        GAP if cell.printed is None else f"{cell.printed.value:.{decimals}f}",
        GAP if cell.delta is None else f"{cell.delta * scale:+.{decimals}f}",
        cell.judge().text,
        gain_text(cell.gain),
        points(cell.gain.published if cell.gain else None),
        str(cell.place or GAP),
    ]


def records(found: Sequence[Cell], selection: Selection) -> list[dict[str, object]]:
    """A plain record a number, fractions in 0–1; None where it was not run."""
    return [_record(cell, selection) for cell in found]


def _record(cell: Cell, selection: Selection) -> dict[str, object]:
    return {
        "table": cell.number.table,
        "dataset": cell.number.dataset,
        "model": cell.model,
        "method": cell.number.method,
        "metric": cell.number.metric,
        "note": cell.number.note,
        "published": cell.printed and cell.printed.fraction,
        "source": cell.printed and cell.printed.source,
        "selection": selection,
        "mean": cell.ours and cell.ours.mean,
        "std": cell.ours and cell.ours.std,
        "n": cell.ours.n if cell.ours else 0,
        "owner": cell.group and cell.group.owner_name,
        "claimed": cell.claimed,
        "interval": cell.ours and cell.ours.interval,
        **cell.facts,
        "runs": [str(run.place) for run in cell.group.runs] if cell.group else [],
    }
