"""The paper's tables with our numbers in them: `bmm report --table 12`.

Each printed number is a cell, with the runs that its suite (benchmarks/suites/table-<N>.toml) plans for it. Only runs
of exactly these settings count; a cell without them is "not run".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from balancemm_cli.engine.suites import Suite, load_suite
from balancemm_cli.errors import unknown
from balancemm_cli.resources import suites
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import Group, Selection
from balancemm_cli.results.published import Published, fills, rows
from balancemm_cli.results.statistics import Summary, format_summary, summarize
from balancemm_cli.results.tables import SELECTION_NOTES, made_with, samples_note

NOT_RUN = "not run"
PREFIX = "table-"
METRICS = {"accuracy": "accuracy", "map": "mAP", "f1": "F1", "training_time_ratio": "training time"}
_OURS = {"f1": "macro_f1"}  # of two classes; the paper's F1 (Eq. 20)


@dataclass(frozen=True)
class Cell:
    """One printed number and our runs of it: fractions in 0–1, or a ratio of times."""

    published: Published
    model: str  # our name of it
    group: Group | None
    ours: Summary | None

    @property
    def delta(self) -> float | None:
        """Ours − published; None where it was not run."""
        return None if self.ours is None else self.ours.mean - self.published.fraction

    @property
    def text(self) -> str:
        """Ours, published, difference: percent and points, or times and their difference."""
        scale, decimals = (100, 1) if self.published.unit == "%" else (1, 2)
        printed = f"{self.published.value:.{decimals}f}"
        if self.delta is None:
            return f"{NOT_RUN} / {printed}"
        return (
            f"{format_summary(self.ours, scale, decimals)} / {printed} / {self.delta * scale:+.{decimals}f}"
        )


def table_numbers() -> list[str]:
    """The tables of the paper that have a suite, as --table takes them."""
    return [name.removeprefix(PREFIX) for name in suites() if name.startswith(PREFIX)]


def cells(table: str, groups: Sequence[Group], selection: Selection) -> list[Cell]:
    """Every number of the paper's table, in its order. UsageError for a table that has no suite."""
    if table not in table_numbers():
        raise unknown("table", table, table_numbers())
    _, suite = load_suite(PREFIX + table)
    found = []
    for number in (number for number in rows() if number.table == table):
        model, group = _runs_of(number, suite, groups)
        found.append(Cell(number, model, group, group and _ours(number.metric, group, groups, selection)))
    return found


def _runs_of(number: Published, suite: Suite, groups: Sequence[Group]) -> tuple[str, Group | None]:
    """Our name of the number's model, and the runs that have exactly the settings of its suite."""
    for planned in suite.runs:
        for model, method in product(planned.models, planned.methods):
            if number.dataset in planned.datasets and fills(
                number, number.dataset, model, method, planned.note
            ):
                one = planned.model_copy(
                    update={"models": (model,), "methods": (method,), "datasets": (number.dataset,)}
                )
                config = next(one.configs())
                same = (group for group in groups if group.names[:3] == (number.dataset, model, method))
                for group in same:
                    started = config.starting_from(str(group.runs[0].settings.get("weights")))
                    if started.hash(group.first.hashes.data, with_seed=False) == group.first.hashes.protocol:
                        return model, group
                return model, None
    return number.model, None


def _ours(metric: str, group: Group, groups: Sequence[Group], selection: Selection) -> Summary | None:
    if metric == "training_time_ratio":
        return _time_ratio(group, groups)
    return summarize(
        [getattr(run.result.selections[selection], _OURS.get(metric, metric)) for run in group.runs]
    )


def _time_ratio(group: Group, groups: Sequence[Group]) -> Summary | None:
    """Training time of each seed in units of the same seed's baseline, where both ran on one kind of device."""
    baselines = [
        run
        for other in groups
        if other.names[:2] == group.names[:2] and other.first.method == "baseline"
        for run in other.runs
    ]
    pairs = [(run, base) for run in group.runs for base in baselines if run.result.seed == base.result.seed]
    ratios = [
        (run.result.time.get("seconds") or 0) / seconds
        for run, base in pairs
        if (seconds := base.result.time.get("seconds"))
        and run.environment.get("device") == base.environment.get("device")
    ]
    return summarize(ratios)


def layout(table: str, found: Sequence[Cell], selection: Selection) -> Table:
    """The cells as the paper lays them out: a row a model, method and setting, a column a data set and metric."""
    columns = list(dict.fromkeys((cell.published.dataset, cell.published.metric) for cell in found))
    several = len({_row(cell, True) for cell in found}) > len({_row(cell, False) for cell in found})
    lines = list(dict.fromkeys(_row(cell, several) for cell in found))
    texts = {(_row(cell, several), (cell.published.dataset, cell.published.metric)): cell for cell in found}
    best = {
        column: max(
            (cell.ours.mean for (_, at), cell in texts.items() if at == column and cell.ours), default=None
        )
        for column in columns
    }

    def show(line: tuple[str, ...], column: tuple[str, str]) -> str:
        cell = texts.get((line, column))
        if cell is None:
            return ""
        bold = cell.ours is not None and cell.ours.mean == best[column] and cell.published.unit == "%"
        return f"**{cell.text}**" if bold else cell.text

    _, suite = load_suite(PREFIX + table)
    header = ["Model", "Method", *(["Setting"] if several else [])]
    header += [f"{dataset} {METRICS[metric]}" for dataset, metric in columns]
    return Table(
        suite.title,
        header,
        [[*line, *(show(line, column) for column in columns)] for line in lines],
        _notes(table, found, selection),
    )


def _row(cell: Cell, with_note: bool) -> tuple[str, ...]:
    names = (cell.model, cell.published.method)
    return (*names, cell.published.note) if with_note else names


def _notes(table: str, found: Sequence[Cell], selection: Selection) -> list[str]:
    used = [cell for cell in found if cell.group]
    groups = {id(cell.group): cell.group for cell in used if cell.group}.values()
    notes = [
        f"Cells: ours, mean ± sample standard deviation (number of seeds) / published / difference, in %; bold: our "
        f"best of a column. {NOT_RUN}: no finished run with exactly the settings of suite {PREFIX}{table}.",
        f"Epoch of ours: {SELECTION_NOTES[selection]}. The paper does not say which epoch it takes.",
    ]
    if any(cell.published.metric == "training_time_ratio" for cell in found):
        notes.append("Training time: of each seed, in units of the baseline's on the same kind of device.")
    notes += dict.fromkeys(f"{group.first.dataset}. {samples_note(group.first)}" for group in groups)
    notes.append(
        f"{len(used)} of {len(found)} numbers were run: bmm train --suite {PREFIX}{table} trains the others."
    )
    if used:
        notes.append(made_with(run for group in groups for run in group.runs))
    return notes


def records(found: Sequence[Cell], selection: Selection) -> list[dict[str, object]]:
    """A plain record a number, fractions in 0–1; None where it was not run."""
    return [
        {
            "table": cell.published.table,
            "dataset": cell.published.dataset,
            "model": cell.model,
            "method": cell.published.method,
            "metric": cell.published.metric,
            "note": cell.published.note,
            "published": cell.published.fraction,
            "selection": selection,
            "mean": cell.ours and cell.ours.mean,
            "std": cell.ours and cell.ours.std,
            "n": cell.ours.n if cell.ours else 0,
            "interval": cell.ours and cell.ours.interval,
            "delta": cell.delta,
            "runs": [str(run.folder) for run in cell.group.runs] if cell.group else [],
        }
        for cell in found
    ]
