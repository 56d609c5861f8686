"""What a report shows of its runs: one table per data set, a table of the paper, or the epoch rules side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from balancemm_cli.config.suites import Suite, load_suite
from balancemm_cli.results import paper_tables, rows, rules, selections, tables
from balancemm_cli.results.formats import Table
from balancemm_cli.results.groups import Group, labels
from balancemm_cli.results.paper_tables import Cell
from balancemm_cli.results.published import PAPER
from balancemm_cli.results.settings import origin_notes, recipe_notes, revision_notes, suite_notes
from balancemm_cli.runs.schema import Selection


@dataclass(frozen=True)
class Contents:
    """The groups of a report and what of them it shows.

    With `table`, the cells of that table of the paper; with `side_by_side`, every selection, which over a `table` comes
    after its own. `among` holds further baselines, `columns` ids of columns as `tables.tables` takes them.
    """

    NEEDS_RUNS: ClassVar[bool] = True
    """Whether there is nothing to show without a finished run."""

    groups: list[Group]
    selection: Selection
    against: str = PAPER
    among: Sequence[Group] = ()
    columns: Sequence[str] = ()
    table: str | None = None
    side_by_side: bool = False
    suite: str | None = None  # by name or file: what these runs are to be those of

    @cached_property
    def _cells(self) -> list[Cell]:
        assert self.table is not None
        return paper_tables.cells(self.table, self.groups, self.selection, self.against)

    @cached_property
    def shown(self) -> list[Group]:
        """The groups of runs that are in the tables."""
        trained = [group for group in self.groups if group.trained]
        return paper_tables.groups_of(self._cells) if self.table else trained

    @property
    def _groups_shown(self) -> list[Group]:
        return self.shown if self.table else self.groups

    @cached_property
    def tables(self) -> list[Table]:
        """The tables, for people, with notes on settings. UsageError for a table or a column that there is none of."""
        return [replace(table, notes=[*table.notes, *self._notes_of(table)]) for table in self._plain_tables]

    def _notes_of(self, table: Table) -> list[str]:
        """What differs from the recipe and the suite, of the rows of a table of runs."""
        groups = [group for group in self.groups if group.trained and group.first.dataset == table.dataset]
        notes = [*origin_notes(groups), *revision_notes(groups), *recipe_notes(groups)]
        return [*notes, *self._notes_on_the_suite(groups)]

    def _notes_on_the_suite(self, groups: Sequence[Group]) -> list[str]:
        """What of the groups the suite does not plan; nothing where no suite was named."""
        return suite_notes(groups, *self._suite) if self._suite and groups else []

    @cached_property
    def _suite(self) -> tuple[str, Suite] | None:
        return load_suite(self.suite) if self.suite else None

    @property
    def _plain_tables(self) -> list[Table]:
        beside = selections.side_by_side(self._groups_shown) if self.side_by_side else []
        if self.table:
            layout = paper_tables.layout(self.table, self._cells, self.selection)
            return [layout, *filter(None, [paper_tables.details(self._cells)]), *beside]
        return beside or tables.tables(self.groups, self.selection, self.against, self.among, self.columns)

    def draw(self, folder: Path, titled: bool = True) -> tuple[list[Path], list[str]]:
        """Write the figures of the report into `folder`; returns the PNG files, and a line for each figure left out."""
        from balancemm_cli.results.figures import draw_all

        return draw_all(self.shown, self.selection, folder, titled)

    @cached_property
    def records(self) -> list[dict[str, object]]:
        """The numbers as plain records, for programs. UsageError for a table that there is none of."""
        if self.side_by_side:
            return selections.records(self._groups_shown)
        if self.table:
            return paper_tables.records(self._cells, self.selection)
        return [rows.record(row) for row in rows.rows(self.groups, self.selection, self.against, self.among)]

    @property
    def broken_rules(self) -> list[str]:
        """A line for each rule and reason why rows of the tables of runs do not keep it, by data set."""
        found = rules.checked(self.groups, self.selection, self.among)
        lines = []
        for dataset, some in groupby(self.groups, key=lambda group: group.first.dataset):
            groups = list(some)
            missing = rules.missing(labels(groups), [found[group.key] for group in groups])
            lines += [f"{dataset}, {line}" for line in missing]
        return lines
