"""The table of runs beside the published numbers; formats.py writes it.

A row is a group of runs that differ in their seed alone; a cell is mean ± sample standard deviation (n).
Tables for people show percentages with one decimal and leave out what is the same in each row; CSV and JSON
hold everything, in full precision, accuracies as fractions in 0–1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from balancemm_cli.errors import unknown
from balancemm_cli.origin import misread
from balancemm_cli.results import literature, rules
from balancemm_cli.results.corrupted import NOTE, asked, corrupted
from balancemm_cli.results.formats import Table
from balancemm_cli.results.gains import Gain, apart
from balancemm_cli.results.groups import Group, columns_apart, labels, seeds_text
from balancemm_cli.results.published import BEST_ON_TEST, PAPER, covers
from balancemm_cli.results.question_types import by_type
from balancemm_cli.results.references import ENSEMBLE, MAJORITY
from balancemm_cli.results.rows import Row, rows
from balancemm_cli.results.sentences import sentences
from balancemm_cli.results.sharing import OWN
from balancemm_cli.results.statistics import GAP, LEVEL, MIN_SEEDS, POWER, TOST_LEVEL, Summary, format_summary
from balancemm_cli.results.verdicts import AUTHORS_RULE, Verdict, band_of
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Result, Selection

NAMES = {"model", "method", "variant", "recipe", "settings", "owner"}  # columns that tell rows apart
CLAIMED = "claimed"
CLAIMED_NOTE = (
    f"{CLAIMED}: no predictions are there to compute the number from again; it is what result.json says."
)
WHOSE = (
    f"Owner: whose runs these are, by the name in their bundle, which nothing proves; {OWN} are those of the folders. "
    "Each row is held against its owner's own baseline."
)
ON_DEMAND = {"interval", "gain-new-samples"}  # of --columns
COMPARED = {"published", "delta", "verdict", "printed-gain"}  # columns of what was printed

SENTIMENT = (
    "Sentiment from −3 to 3: MAE and correlation of the scores, accuracy-7 of the rounded ones, the rest of their "
    "sign."
)
OWN_NUMBERS = (
    "Numbers: MAE in standard deviations of the training labels (manifest.json says their mean and deviation), "
    "correlation of the estimates; the others say whether an estimate is on the right side of the mean."
)

REFERENCE_NOTES = {
    ENSEMBLE: (
        "ensemble: no run, but the mean of what the runs of one modality each predict, seed by seed, each at its own "
        "epoch; its gain is over joint training by concat."
    ),
    MAJORITY: (
        "majority: no run, but the answer that is most frequent in the test part, given to each sample; no constant "
        "answer is better, and seeds make no difference to it."
    ),
}

SELECTION_NOTES: dict[Selection, str] = {
    "last": "the last epoch of each run",
    "best-test": "the epoch with the best test accuracy (as the authors do; optimistic: the test set chose)",
    "best-val": "the epoch with the best validation accuracy",
}


def tables(
    groups: Sequence[Group],
    selection: Selection,
    against: str = PAPER,
    among: Sequence[Group] = (),
    columns: Sequence[str] = (),
) -> list[Table]:
    """One Table a data set, rows in the order of `groups`; a further one by type where its samples are questions.

    `among` holds further baselines, `columns` the ids (see `column_id`) of the columns to show, all where it is empty.
    UsageError for an id that no table has.
    """
    found: list[Table] = []
    known: set[str] = set()
    without_gain = apart(groups, among)
    published = not columns or not COMPARED.isdisjoint(columns)
    for dataset, some in groupby(
        rows(groups, selection, against, among), key=lambda one: one.group.first.dataset
    ):
        of_dataset = list(some)
        texts = _columns(of_dataset)
        if asked(columns):
            texts |= corrupted([one.group for one in of_dataset])
        known |= {column_id(name) for name in texts} - NAMES
        table = _table(dataset, of_dataset, _chosen(texts, columns), against, published)
        says = [] if columns else sentences(of_dataset)
        found.append(replace(table, says=says, notes=[*table.notes, *_apart_notes(dataset, without_gain)]))
        questions = by_type(dataset, [one.group for one in of_dataset], selection)
        found += [questions] if questions and not columns else []
    for name in columns:
        if name not in known:
            raise unknown("column", name, known)
    return found


def column_id(head: str) -> str:
    """A column's name as --columns takes it: "Macro-F1" → "macro-f1", "ρ audio" → "rho-audio", "Δ" → "delta"."""
    return head.lower().replace(" ", "-").replace("ρ", "rho").replace("δ", "delta")


def _chosen(texts: dict[str, list[str]], columns: Sequence[str]) -> dict[str, list[str]]:
    """The columns that tell rows apart, and of the others the chosen ones, or all but those of ON_DEMAND."""
    by_id = {column_id(head): head for head in texts}
    names = [head for name, head in by_id.items() if name in NAMES]
    filled = [name for name, head in by_id.items() if set(texts[head]) != {GAP}]
    chosen = columns or [name for name in filled if name not in NAMES | ON_DEMAND]
    return {head: texts[head] for head in [*names, *(by_id[name] for name in chosen if name in by_id)]}


def _columns(rows: list[Row]) -> dict[str, list[str]]:
    """Every column that the rows allow, by its head, what decides first: one text per row."""
    joint_first = sorted(rows, key=lambda one: -len(one.unimodal))  # they know the modalities' order
    modalities = list(dict.fromkeys(name for one in joint_first for name in (*one.unimodal, *one.rho)))
    columns = columns_apart([one.group for one in rows])
    columns["Accuracy"] = [_percent(one.accuracy) + claim(one.claimed) for one in rows]
    columns["Interval"] = [_interval(one.interval) for one in rows]
    if any(one.gain for one in rows):
        columns["Gain"] = [gain_text(one.gain) for one in rows]
        columns["Gain new samples"] = [_points_between(one.gain and one.gain.new_samples) for one in rows]
    columns["Published"] = [f"{one.published.value:.1f}" if one.published else GAP for one in rows]
    columns["Δ"] = [points(one.delta) for one in rows]
    if any(one.verdict for one in rows):
        columns["Verdict"] = [one.verdict.text if one.verdict else GAP for one in rows]
    columns |= {name.capitalize(): [_percent(one.unimodal.get(name)) for one in rows] for name in modalities}
    if any(one.gain and one.gain.published for one in rows):
        columns["Printed gain"] = [points(one.gain.published if one.gain else None) for one in rows]
    columns["mAP"] = [_percent(one.map) for one in rows]
    columns["Macro-F1"] = [_percent(one.macro_f1) for one in rows]
    if any(one.regression for one in rows):
        columns["MAE"] = [format_summary(one.regression.get("mae"), 1, 3) for one in rows]
        columns["Correlation"] = [format_summary(one.regression.get("correlation"), 1, 3) for one in rows]
        if not own_data(rows):
            columns["Accuracy-7"] = [_percent(one.regression.get("accuracy_7")) for one in rows]
    with_rho = [name for name in modalities if any(name in one.rho for one in rows)]
    columns |= {f"ρ {name}": [format_summary(one.rho.get(name), 1, 2) for one in rows] for name in with_rho}
    if any(one.place for one in rows):
        columns["Literature"] = [str(one.place or GAP) for one in rows]
    columns["Rules"] = [rules.marks(one.rules) for one in rows]
    return columns


def _table(
    dataset: str, rows: list[Row], columns: dict[str, list[str]], against: str, published: bool
) -> Table:
    first = rows[0].group.first
    same = [
        f"{name.lower()} {getattr(first, name.lower())}"
        for name in ("Variant", "Recipe")
        if name not in columns
    ]
    title = f"{dataset} ({', '.join(same)})" if same else dataset
    cells = [list(texts) for texts in zip(*columns.values(), strict=True)]
    return Table(title, list(columns), cells, _notes(dataset, rows, columns, against, published), dataset)


def _percent(summary: Summary | None) -> str:
    return format_summary(summary, 100, 1)


def claim(is_claimed: bool) -> str:
    """What stands behind a number that no predictions bear out."""
    return f" {CLAIMED}" if is_claimed else ""


def whose_notes(groups: Iterable[Group], is_claimed: bool) -> list[str]:
    """Whose the rows of several owners are, and what of them can't be computed again."""
    several = len({group.whose for group in groups if group.trained}) > 1
    return [WHOSE] * several + [CLAIMED_NOTE] * is_claimed


def points(value: float | None) -> str:
    """A fraction in percentage points, with its sign; a gap for None."""
    return GAP if value is None else f"{100 * value:+.1f}"


def _interval(found: tuple[float, float] | None) -> str:
    return GAP if found is None else f"{100 * found[0]:.1f}–{100 * found[1]:.1f}"


def _points_between(interval: tuple[float, float] | None) -> str:
    return GAP if interval is None else f"[{points(interval[0])}, {points(interval[1])}]"


def gain_text(gain: Gain | None) -> str:
    """A gain with its interval over seeds, or of a single seed that over test samples; † where p < 0.05."""
    if gain is None:
        return GAP
    difference = gain.comparison.difference
    interval = gain.new_samples if difference.n == 1 else difference.interval
    text = points(difference.mean)
    if interval:
        text += f" {_points_between(interval)}"
    text += f" ({difference.n})"
    return text + " †" * (gain.p is not None and gain.p < 1 - LEVEL) + claim(gain.claimed)


def gain_notes(found: Sequence[Gain]) -> list[str]:
    """What the gains of a table are, over how many seeds, and what could be told."""
    if not found:
        return []
    fewest = min(gain.comparison.difference.n for gain in found)
    notes = [
        f"Gain: the accuracy less that of the baseline with the same settings, in percentage points, its "
        f"{100 * LEVEL:.0f} % interval, and the number of seeds that both have. The interval is over seeds, on this "
        "test set; where there is one seed, over test samples. An interval over other test samples as well: --columns "
        "gain-new-samples."
    ]
    if any(gain.published for gain in found):
        notes.append("Printed gain: the same difference in the source.")
    if fewest < MIN_SEEDS:
        notes.append(f"No test of a gain with fewer than {MIN_SEEDS} shared seeds.")
    return notes + _dagger_note([gain for gain in found if gain.detectable is not None])


def tuned_note(rows: Sequence[Row]) -> list[str]:
    """Which gains are over a baseline that was tuned as the method was, and so has settings of its own."""
    of_rows = [(one, name) for one, name in zip(rows, labels([one.group for one in rows]), strict=True)]
    names = [name for one, name in of_rows if one.gain and one.gain.tuned]
    if not names:
        return []
    return [
        f"Gain of {', '.join(names)}: over the tuned baseline, whose settings a search of the same kind, budget, seed "
        "and space of what both have chose; they need not be the same."
    ]


def _dagger_note(tested: Sequence[Gain]) -> list[str]:
    """What the test that † uses can find: of the steadiest differences and of the least steady ones."""
    detectable = sorted({f"{100 * (gain.detectable or 0):.1f}" for gain in tested}, key=float)
    if not detectable:
        return []
    size = f"{detectable[0]} points"
    if len(detectable) > 1:
        size = f"between {detectable[0]} and {detectable[-1]} points (depending on the row)"
    count = tested[0].tests
    return [
        f"†: p < {1 - LEVEL:.2g} in a paired t-test over the seeds"
        + (f", with Holm's correction for the {count} gains of this report" if count > 1 else "")
        + f". With so many seeds this test detects a true difference of {size} in {100 * POWER:.0f} % of cases, and "
        "smaller differences less often."
    ]


def reasons_note(verdicts: Iterable[Verdict]) -> list[str]:
    """Why numbers are not comparable, each reason with the names that it holds for."""
    names: dict[str, list[str]] = {}
    for one in verdicts:
        if one.word == "not comparable":
            names.setdefault(one.reason, []).append(one.name)
    return [f"Not comparable: {'; '.join(some)}. {reason}" for reason, some in names.items()]


def _apart_notes(dataset: str, groups: Sequence[Group]) -> list[str]:
    return [
        f"No gain of {' '.join(filter(None, (*one.names[1:3], one.described)))}: it shares no seed with "
        "its baseline."
        for one in groups
        if one.first.dataset == dataset
    ]


def _notes(
    dataset: str, rows: list[Row], columns: Mapping[str, object], against: str, published: bool
) -> list[str]:
    notes = [
        "Cells: mean ± sample standard deviation (number of seeds); accuracy of the fused model and of each "
        "modality, mAP and macro-F1 in %; ρ: mean over all training steps.",
        f"Epoch: {SELECTION_NOTES[rows[0].selection]}.",
    ]
    if "Interval" in columns:
        notes.append(
            f"Interval: {100 * LEVEL:.0f} %, over the seeds for this test set (Student's t, within 0 to 100 %); of one "
            "seed Wilson's over the test samples, which knows nothing of other seeds."
        )
    if any(head.startswith("ρ ") for head in columns):
        notes += misread(map(_use, rows))
    notes += reference_notes(one.group for one in rows)
    notes += whose_notes([one.group for one in rows], any(one.claimed for one in rows))
    notes += seeds_notes([one.group for one in rows])
    if "MAE" in columns:
        notes.append(OWN_NUMBERS if own_data(rows) else SENTIMENT)
    notes += dict.fromkeys(samples_note(one.group.first) for one in rows if one.samples)
    if "Gain" in columns:
        notes += gain_notes([one.gain for one in rows if one.gain])
        notes += tuned_note(rows)
    if "Gain new samples" in columns:
        notes.append(
            f"Gain new samples: the {100 * LEVEL:.0f} % interval of the gain over other seeds and other test samples "
            "alike."
        )
    left_out = {one.map_classes_left_out for one in rows if one.map_classes_left_out}
    if left_out and columns.keys() & {"mAP", "Macro-F1"}:
        counts = " or ".join(str(count) for count in sorted(left_out))
        notes.append(f"mAP and macro-F1 leave out {counts} class(es) that have no test sample.")
    if published:
        notes.append(_published_note(dataset, rows, against))
        notes += reasons_note(one.verdict for one in rows if one.verdict)
    if "Literature" in columns:
        notes.append(literature.note())
    if asked([head.lower() for head in columns]):
        notes.append(NOTE)
    if "Rules" in columns:
        names = labels([one.group for one in rows])
        notes += [rules.key(), *rules.missing(names, [one.rules for one in rows])]
    notes.append(made_with(run for one in rows for run in one.group.runs))
    return notes


def _use(one: Row) -> tuple[str, dict[str, object], int]:
    """The model of a row, its settings, and the number of modalities."""
    model = one.group.first.model
    own = {key.removeprefix(f"{model}."): value for key, value in one.group.settings.items()}
    return model, own, len(one.rho)


def reference_notes(groups: Iterable[Group]) -> list[str]:
    """What the rows are that no training made."""
    there = {group.first.model for group in groups if not group.trained}
    return [text for name, text in REFERENCE_NOTES.items() if name in there]


def seeds_notes(groups: Sequence[Group]) -> list[str]:
    """Which rows have which seeds, where these differ, and which lack the one that a search tests first: what was left
    out for its result can't be told otherwise."""
    of_seeds: dict[str, list[str]] = {}
    lacking: dict[int, list[str]] = {}
    for name, group in zip(labels(list(groups)), groups, strict=True):
        if group.first.model == MAJORITY:
            continue
        of_seeds.setdefault(seeds_text(group.seeds), []).append(name)
        for seed in {search.seed for search in group.searches if group.trained} - {*group.seeds}:
            lacking.setdefault(seed, []).append(name)
    notes = [
        f"No run of seed {seed}, which `bmm tune` tests first: {', '.join(names)}."
        for seed, names in sorted(lacking.items())
    ]
    if len(of_seeds) > 1:
        which = "; ".join(f"{seeds} of {', '.join(names)}" for seeds, names in of_seeds.items())
        notes.append(
            f"Seeds: {which}. Means over different seeds can't be compared, only gains, which are over the seeds that "
            "both have. No file says why a seed is missing: were some left out for their results, these are too good."
        )
    return notes


def own_data(rows: Sequence[Row]) -> bool:
    """Whether the numbers that were estimated are those of a user's own data."""
    return all(one.group.first.data.reader == "manifest" for one in rows)


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


def _published_note(dataset: str, rows: list[Row], against: str) -> str:
    source = "the paper" if against == PAPER else against
    if not covers(dataset, against):
        return f"Published: {source} has no number for {dataset}."
    found = [one.published for one in rows if one.published]
    if not found and any(one.printed for one in rows):
        return "Published: no printed number stands beside runs of other data than its own."
    if not found:
        return f"Published: {source} has no number for these rows."
    places = dict.fromkeys(
        f"{number.source} Table {number.table}" + (f" ({number.note})" if number.note else "")
        for number in found
    )
    bands = " or ".join(f"{100 * band:g}" for band in sorted({band_of(number) for number in found}))
    rule = f" {AUTHORS_RULE}" if against in BEST_ON_TEST else ""
    unknown_settings = (
        "" if against == PAPER else " Whether our settings are those of that source is not checked."
    )
    return (
        f"Published: accuracy in % as printed in {'; '.join(places)}. Δ: ours − published, in points. Verdict: on the "
        f"{100 * TOST_LEVEL:.0f} % interval of ours over the seeds, within {bands} points (two one-sided tests at "
        f"5 %), beside ours at the last epoch and at the best on the test set.{rule}{unknown_settings}"
    )


def made_with(runs: Iterable[Run]) -> str:
    """Which versions, commits and devices the runs had, and which of them were resumed under others."""
    runs = [one for run in runs for one in run.members or (run,)]
    environments = [one for run in runs for one in run.environments]
    parts = []
    for key, name in (("version", "bmm"), ("git", "commit"), ("torch", "torch"), ("device", "device")):
        found = sorted({str(getattr(one, key) or "unknown") for one in environments})
        parts.append(f"{name} {' and '.join(found)}")
    resumed = [str(run.place) for run in runs if len({*map(str, run.environments)}) > 1]
    note = f" Resumed under other versions or devices than begun: {', '.join(resumed)}." if resumed else ""
    return f"Made with {', '.join(parts)}.{note}"
