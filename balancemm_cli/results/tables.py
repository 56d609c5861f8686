"""The table of runs beside the published numbers, and its formats: rich, Markdown, CSV and JSON.

A row is a group of runs that differ in their seed alone; a cell is mean ± sample standard deviation (n).
Tables for people show percentages with one decimal and leave out what is the same in each row; CSV and JSON
hold everything, in full precision, accuracies as fractions in 0–1.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from balancemm_cli.results.groups import Group, Selection, describe, flatten
from balancemm_cli.results.published import Published, covers, lookup
from balancemm_cli.results.statistics import GAP, Summary, format_summary, summarize

SELECTION_NOTES: dict[Selection, str] = {
    "last": "the last epoch of each run",
    "best-test": "the epoch with the best test accuracy (as the authors do; optimistic: the test set chose)",
    "best-val": "the epoch with the best validation accuracy",
}


@dataclass(frozen=True)
class Row:
    """One group's numbers for one selection. Accuracies, mAP and macro-F1 are fractions, ρ is a ratio."""

    group: Group
    selection: Selection
    accuracy: Summary
    map: Summary
    macro_f1: Summary
    unimodal: dict[str, Summary]
    rho: dict[str, Summary]
    published: Published | None
    map_classes_left_out: int

    @property
    def delta(self) -> float | None:
        """Accuracy, ours − published, as a fraction; None beside a gap."""
        return None if self.published is None else self.accuracy.mean - self.published.fraction

    @property
    def samples(self) -> dict[str, tuple[int, int]]:
        """(used, expected) samples of each split."""
        return self.group.first.samples


@dataclass(frozen=True)
class Table:
    """A table for people: texts only. One data set each."""

    title: str
    header: list[str]
    cells: list[list[str]]
    notes: list[str] = field(default_factory=list)


def row(group: Group, selection: Selection) -> Row:
    """The numbers of a group, each of whose runs must have the selection."""
    selected = [run.result.selections[selection] for run in group.runs]
    published = lookup(group.first.dataset, group.first.model, group.first.method, "accuracy")
    accuracy, precision, f1 = (
        summarize([getattr(one, name) for one in selected]) for name in ("accuracy", "map", "macro_f1")
    )
    assert accuracy and precision and f1  # a group has at least one run
    return Row(
        group,
        selection,
        accuracy,
        precision,
        f1,
        _by_modality([one.unimodal for one in selected]),
        _by_modality([run.result.rho for run in group.runs]),
        published,
        max(one.map_classes_left_out for one in selected),
    )


def _by_modality(values: list[dict[str, float]] | list[dict[str, float | None]]) -> dict[str, Summary]:
    names = dict.fromkeys(name for one in values for name in one)
    summaries = {
        name: summarize([value for one in values if (value := one.get(name)) is not None]) for name in names
    }
    return {name: summary for name, summary in summaries.items() if summary}


def tables(groups: list[Group], selection: Selection) -> list[Table]:
    """One Table a data set, rows in the order of `groups`."""
    by_dataset = groupby(groups, key=lambda group: group.first.dataset)
    return [_table(dataset, [row(group, selection) for group in some]) for dataset, some in by_dataset]


def _table(dataset: str, rows: list[Row]) -> Table:
    joint_first = sorted(rows, key=lambda one: -len(one.unimodal))  # they know the modalities' order
    modalities = list(dict.fromkeys(name for one in joint_first for name in (*one.unimodal, *one.rho)))
    columns: dict[str, list[str]] = {
        "Model": [one.group.first.model for one in rows],
        "Method": [one.group.first.method for one in rows],
    }
    names = {
        "Variant": [one.group.first.variant for one in rows],
        "Recipe": [one.group.first.recipe for one in rows],
    }
    columns |= {name: texts for name, texts in names.items() if len(set(texts)) > 1}
    if any(one.group.settings for one in rows):
        columns["Settings"] = [describe(one.group.settings) for one in rows]
    columns["Accuracy"] = [_percent(one.accuracy) for one in rows]
    columns |= {name.capitalize(): [_percent(one.unimodal.get(name)) for one in rows] for name in modalities}
    columns["mAP"] = [_percent(one.map) for one in rows]
    columns["Macro-F1"] = [_percent(one.macro_f1) for one in rows]
    with_rho = [name for name in modalities if any(name in one.rho for one in rows)]
    columns |= {f"ρ {name}": [format_summary(one.rho.get(name), 1, 2) for one in rows] for name in with_rho}
    columns["Published"] = [f"{one.published.value:.1f}" if one.published else GAP for one in rows]
    columns["Δ"] = [GAP if one.delta is None else f"{100 * one.delta:+.1f}" for one in rows]
    same = [f"{name.lower()} {texts[0]}" for name, texts in names.items() if name not in columns]
    title = f"{dataset} ({', '.join(same)})" if same else dataset
    cells = [list(texts) for texts in zip(*columns.values(), strict=True)]
    return Table(title, list(columns), cells, _notes(dataset, rows))


def _percent(summary: Summary | None) -> str:
    return format_summary(summary, 100, 1)


def _notes(dataset: str, rows: list[Row]) -> list[str]:
    notes = [
        "Cells: mean ± sample standard deviation (number of seeds); accuracy of the fused model and of each "
        "modality, mAP and macro-F1 in %; ρ: mean over all training steps.",
        f"Epoch: {SELECTION_NOTES[rows[0].selection]}.",
    ]
    notes += dict.fromkeys(_samples_note(one) for one in rows if one.samples)
    left_out = {one.map_classes_left_out for one in rows if one.map_classes_left_out}
    if left_out:
        counts = " or ".join(str(count) for count in sorted(left_out))
        notes.append(f"mAP leaves out {counts} class(es) that have no test sample.")
    notes.append(_published_note(dataset, rows))
    notes.append(_made_with(rows))
    return notes


def _samples_note(one: Row) -> str:
    counts = ", ".join(
        f"{split} on {used:,} of {expected:,} samples (incomplete)"
        if used < expected
        else f"{split} {used:,} samples"
        for split, (used, expected) in one.samples.items()
    )
    hashes = one.group.first.hashes
    splits = f", splits {hashes.splits[:8]}" if hashes.splits else ""
    split = f" Split: {one.group.first.split}." if one.group.first.split else ""
    return f"Data: {counts}; data hash {hashes.data[:8]}{splits}.{split}"


def _published_note(dataset: str, rows: list[Row]) -> str:
    if not covers(dataset):
        return f"Published, Δ: the paper has no number for {dataset}."
    found = [one.published for one in rows if one.published]
    if not found:
        return "Published, Δ: the paper has no number for these rows."
    places = dict.fromkeys(
        f"{number.source} Table {number.table}" + (f" ({number.note})" if number.note else "")
        for number in found
    )
    return f"Published: accuracy in % as printed in {'; '.join(places)}. Δ: ours − published, in points."


def _made_with(rows: list[Row]) -> str:
    """Which versions, commits and devices the runs had."""
    environments = [run.environment for one in rows for run in one.group.runs]
    parts = []
    for key, name in (("version", "bmm"), ("git", "commit"), ("torch", "torch"), ("device", "device")):
        found = sorted({str(one.get(key) or "unknown") for one in environments})
        parts.append(f"{name} {' and '.join(found)}")
    return f"Made with {', '.join(parts)}."


def to_markdown(table: Table) -> str:
    """The table as Markdown: heading, pipes padded so that the raw text reads as a table, notes as a list."""
    lines = [table.header, *table.cells]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*escaped, strict=True)]
    texts = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in escaped
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"## {table.title}\n\n" + "\n".join(texts) + f"\n\n{notes}\n"


def to_rich(table: Table) -> RichTable:
    """The table for a terminal, its notes as the caption."""
    rich = RichTable(
        title=Text(table.title),
        caption=Text("\n".join(table.notes)),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in table.header:
        rich.add_column(Text(name), no_wrap=name in ("Model", "Method"), overflow="fold")
    for cells in table.cells:
        rich.add_row(*(Text(cell) for cell in cells))
    return rich


def record(one: Row) -> dict[str, object]:
    """A row as plain values in full precision: fractions in 0–1, None for a gap."""
    first, published = one.group.first, one.published
    environments = [run.environment for run in one.group.runs]
    return {
        "dataset": first.dataset,
        "model": first.model,
        "method": first.method,
        "variant": first.variant,
        "recipe": first.recipe,
        "settings": describe(one.group.settings),
        "selection": one.selection,
        "n": len(one.group.runs),
        "seeds": one.group.seeds,
        "accuracy": _plain(one.accuracy),
        "map": _plain(one.map),
        "macro_f1": _plain(one.macro_f1),
        "unimodal": {name: _plain(summary) for name, summary in one.unimodal.items()},
        "rho": {name: _plain(summary) for name, summary in one.rho.items()},
        "map_classes_left_out": one.map_classes_left_out,
        "published": {
            "accuracy": published.fraction if published else None,
            "source": published.source if published else None,
            "table": published.table if published else None,
            "note": published.note if published else None,
        },
        "delta": one.delta,
        "split": first.split,
        "samples": {split: {"used": n, "expected": m} for split, (n, m) in one.samples.items()},
        "hashes": first.hashes.model_dump(),
        "version": _distinct(environments, "version"),
        "git": _distinct(environments, "git"),
        "torch": _distinct(environments, "torch"),
        "device": _distinct(environments, "device"),
        "runs": [str(run.folder) for run in one.group.runs],
    }


def _plain(summary: Summary) -> dict[str, object]:
    plain = asdict(summary)
    del plain["n"]  # the row's own n
    return plain


def _distinct(environments: list[dict[str, object]], key: str) -> list[str]:
    return sorted({str(one[key]) for one in environments if one.get(key) is not None})


def to_json(groups: list[Group], selection: Selection) -> str:
    """A JSON array, one object a row."""
    records = [record(row(group, selection)) for group in groups]
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(groups: list[Group], selection: Selection) -> str:
    """CSV, a line a row; nested keys joined by "_", lists by a space, a gap empty."""
    records = [record(row(group, selection)) for group in groups]
    flat = [flatten(one, "_") for one in records]
    # In the order of the record's own keys, also where the rows have other modalities.
    columns = list(
        dict.fromkeys(name for key in records[0] for one in records for name in flatten({key: one[key]}, "_"))
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_cell(value) for key, value in one.items()} for one in flat)
    return text.getvalue()


def _csv_cell(value: object) -> object:
    return " ".join(str(part) for part in value) if isinstance(value, list) else value
