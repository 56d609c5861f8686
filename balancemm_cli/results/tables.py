"""The table of runs beside the published numbers; formats.py writes it.

A row is a group of runs that differ in their seed alone; a cell is mean ± sample standard deviation (n).
Tables for people show percentages with one decimal and leave out what is the same in each row; CSV and JSON
hold everything, in full precision, accuracies as fractions in 0–1.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby

from balancemm_cli.results.formats import Table
from balancemm_cli.results.gains import Gain, gains
from balancemm_cli.results.groups import Group, Result, Run, Selection, describe
from balancemm_cli.results.published import Published, covers, lookup
from balancemm_cli.results.question_types import by_type
from balancemm_cli.results.statistics import GAP, LEVEL, MIN_SEEDS, Summary, format_summary, summarize

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
    gain: Gain | None = None

    @property
    def delta(self) -> float | None:
        """Accuracy, ours − published, as a fraction; None beside a gap."""
        return None if self.published is None else self.accuracy.mean - self.published.fraction

    @property
    def samples(self) -> dict[str, tuple[int, int]]:
        """(used, expected) samples of each split."""
        return self.group.first.samples


def rows(groups: list[Group], selection: Selection) -> list[Row]:
    """The numbers of the groups, with what each gains over the baseline among them."""
    found = gains(groups, selection)
    return [row(group, selection, found.get(group.first.hashes.protocol)) for group in groups]


def row(group: Group, selection: Selection, gain: Gain | None = None) -> Row:
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
        gain,
    )


def _by_modality(values: list[dict[str, float]] | list[dict[str, float | None]]) -> dict[str, Summary]:
    names = dict.fromkeys(name for one in values for name in one)
    summaries = {
        name: summarize([value for one in values if (value := one.get(name)) is not None]) for name in names
    }
    return {name: summary for name, summary in summaries.items() if summary}


def tables(groups: list[Group], selection: Selection) -> list[Table]:
    """One Table a data set, rows in the order of `groups`; a further one by type where its samples are questions."""
    found: list[Table] = []
    for dataset, some in groupby(rows(groups, selection), key=lambda one: one.group.first.dataset):
        of_dataset = list(some)
        found.append(_table(dataset, of_dataset))
        questions = by_type(dataset, [one.group for one in of_dataset], selection)
        found += [questions] if questions else []
    return found


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
    if any(one.gain for one in rows):
        columns["Gain"] = [_gain(one.gain) for one in rows]
    if any(one.gain and one.gain.published for one in rows):
        columns["Printed gain"] = [_points(one.gain.published if one.gain else None) for one in rows]
    columns["Published"] = [f"{one.published.value:.1f}" if one.published else GAP for one in rows]
    columns["Δ"] = [_points(one.delta) for one in rows]
    same = [f"{name.lower()} {texts[0]}" for name, texts in names.items() if name not in columns]
    title = f"{dataset} ({', '.join(same)})" if same else dataset
    cells = [list(texts) for texts in zip(*columns.values(), strict=True)]
    return Table(title, list(columns), cells, _notes(dataset, rows))


def _percent(summary: Summary | None) -> str:
    return format_summary(summary, 100, 1)


def _points(value: float | None) -> str:
    return GAP if value is None else f"{100 * value:+.1f}"


def _gain(gain: Gain | None) -> str:
    """A gain with its interval over seeds, or of a single seed that over test samples; † where p < 0.05."""
    if gain is None:
        return GAP
    interval = gain.comparison.difference.interval or gain.samples
    text = _points(gain.comparison.difference.mean)
    if interval:
        text += f" [{_points(interval[0])}, {_points(interval[1])}]"
    return text + " †" * (gain.p is not None and gain.p < 1 - LEVEL)


def _gain_notes(rows: list[Row]) -> list[str]:
    found = [one.gain for one in rows if one.gain]
    if not found:
        return []
    seeds = sorted({gain.comparison.difference.n for gain in found})
    counts = " or ".join(str(count) for count in seeds)
    notes = [
        f"Gain: accuracy over the baseline of the same settings, in points, with its {100 * LEVEL:.0f} % interval "
        f"over the shared seeds ({counts}), of a single one over the test samples"
        + (
            "; printed gain: the same difference in the source."
            if any(gain.published for gain in found)
            else "."
        )
    ]
    if seeds[0] < MIN_SEEDS:
        notes.append(f"No test of a gain with fewer than {MIN_SEEDS} shared seeds.")
    if any(gain.p is not None for gain in found):
        least = min(gain.comparison.detectable for gain in found if gain.comparison.detectable)
        notes.append(
            "†: p < 0.05, paired t-test over the seeds, adjusted by Holm over all gains here. A true difference under "
            f"{100 * least:.1f} points would be missed by any of them in one case of five or more."
        )
    return notes


def _notes(dataset: str, rows: list[Row]) -> list[str]:
    notes = [
        "Cells: mean ± sample standard deviation (number of seeds); accuracy of the fused model and of each "
        "modality, mAP and macro-F1 in %; ρ: mean over all training steps.",
        f"Epoch: {SELECTION_NOTES[rows[0].selection]}.",
    ]
    notes += dict.fromkeys(samples_note(one.group.first) for one in rows if one.samples)
    notes += _gain_notes(rows)
    left_out = {one.map_classes_left_out for one in rows if one.map_classes_left_out}
    if left_out:
        counts = " or ".join(str(count) for count in sorted(left_out))
        notes.append(f"mAP leaves out {counts} class(es) that have no test sample.")
    notes.append(_published_note(dataset, rows))
    notes.append(made_with(run for one in rows for run in one.group.runs))
    return notes


def samples_note(one: Result) -> str:
    """How many of the expected samples a run was trained and evaluated on, and whose split it is."""
    counts = ", ".join(
        f"{split} on {used:,} of {expected:,} samples (incomplete)"
        if used < expected
        else f"{split} {used:,} samples"
        for split, (used, expected) in one.samples.items()
    )
    hashes = one.hashes
    splits = f", splits {hashes.splits[:8]}" if hashes.splits else ""
    split = f" Split: {one.split}." if one.split else ""
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


def made_with(runs: Iterable[Run]) -> str:
    """Which versions, commits and devices the runs had."""
    environments = [run.environment for run in runs]
    parts = []
    for key, name in (("version", "bmm"), ("git", "commit"), ("torch", "torch"), ("device", "device")):
        found = sorted({str(one.get(key) or "unknown") for one in environments})
        parts.append(f"{name} {' and '.join(found)}")
    return f"Made with {', '.join(parts)}."


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
        "gain": _plain_gain(one.gain),
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


def _plain_gain(gain: Gain | None) -> dict[str, object]:
    comparison = gain.comparison if gain else None
    difference = comparison.difference if comparison else None
    return {
        "mean": difference and difference.mean,
        "std": difference and difference.std,
        "n": difference.n if difference else 0,
        "interval": difference and difference.interval,
        "samples_interval": gain and gain.samples,
        "p": gain and gain.p,
        "effect": comparison and comparison.effect,
        "detectable": comparison and comparison.detectable,
        "published": gain and gain.published,
    }


def _distinct(environments: list[dict[str, object]], key: str) -> list[str]:
    return sorted({str(one[key]) for one in environments if one.get(key) is not None})
