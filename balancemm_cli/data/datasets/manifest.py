"""The user's own data, out of a CSV.

Columns: `id`, `label`, optionally `split` (train, val or test), `group`, and `start` and `end` in seconds; every other
column is of a modality. Columns `name[0]`, `name[1]`, … or `name.speed`, `name.age`, … are the numbers of one. Else a
cell is the path of a file, relative to the CSV, or of some kinds the value itself. A modality's kind (data/kinds) is
that of its header (`speech:audio`, `front:visual`), else known by its name, else by the extensions of its files.
Further modalities come from tables beside the CSV, joined by id.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists, number_in, read_rows
from balancemm_cli.data.datasets.own_labels import Labels, labels_from
from balancemm_cli.data.datasets.own_tables import read_table
from balancemm_cli.data.datasets.plan import SPLITS, Cell, Clip, Plan, Sample, Spec, features, held
from balancemm_cli.data.folds import fold_name, is_fold
from balancemm_cli.data.kinds import KINDS, Kind, kind_of
from balancemm_cli.data.kinds.base import CellError, Own, Storing
from balancemm_cli.data.splitting import in_two_parts, split_by_rule
from balancemm_cli.errors import InputError, UsageError

REQUIRED = ("id", "label")
SPLIT, GROUP = "split", "group"
TIMES = ("start", "end")
RESERVED = (*REQUIRED, SPLIT, GROUP, "labels", "regression")
NAME = re.compile(r"[^\W_][\w-]{0,99}")
OF_A_GROUP = re.compile(r"([^:.\[\]]+)(?:\[\d+\]|\.[^:]+)")  # speed[0], person.age
MOST_FOLDS = 20
FITS = ("keep", "crop", "pad", "stretch")
# What ModuleDict and ParameterDict, which hold one entry per modality, have themselves; a test holds it fresh.
OF_TORCH = tuple(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile copy cpu cuda double
    dump_patches eval extra_repr float forward fromkeys get get_buffer get_extra_state get_parameter get_submodule half
    ipu items keys load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters
    pop popitem register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule setdefault share_memory state_dict to
    to_empty train training type update values xpu zero_grad
    """.split()  # noqa: SIM905 - a list would be 65 lines
)

HOW_TO_GET = (
    "Write a CSV with the columns id, label, split (train, val or test; or pass --split 0.7,0.1,0.2) and for each "
    "modality one with the path of a file, relative to the CSV, a text or numbers; then name it: `bmm prepare manifest "
    "--source my.csv`."
)

Row = tuple[int, dict[str, str]]  # line number, and the cells by header


@dataclass(frozen=True)
class Modality:
    """What is stored of a modality, the clip of each row, and what a user should know of it."""

    spec: Spec
    clips: list[Clip]
    notes: list[str]


class Manifest(Dataset):
    """Your own data: a CSV with one row per sample: files, texts, features and numbers, of any mix of modalities."""

    name = "manifest"
    HOW_TO_GET = HOW_TO_GET
    SETTINGS: ClassVar[frozenset[str]] = frozenset(
        {"split", "val", "folds", "labels", "table", "rate", "fps", "size", "fit", "seconds"}
    )
    SPLIT_NAMES = ("own",)
    PUBLISHED = False

    def plan(
        self,
        source: Path,
        splits: Path | None,
        allow_missing: bool,
        split: str | None = None,
        val: str | None = None,
        folds: str | None = None,
        labels: str | None = None,
        table: Sequence[str] = (),
        **storing: str,
    ) -> Plan:
        """The samples of the CSV, with the modalities of the tables (`name=file`), the media stored as `storing` says.

        `split` are the shares of train, val and test of a CSV that does not say them, `folds` into how many equal
        parts it is cut instead; `val` is the share of train that becomes val. InputError, with the line, for a CSV that
        is not as described above, UsageError for options that are none.
        """
        no_lists("manifest", splits)
        stored = _storing(storing)
        path = _find(source)
        if not path.name.isprintable() or path.stem.startswith("."):
            raise InputError(
                f"{str(path)!a}: the name of this file is no plain text, or begins with a dot, and it names the data "
                "set. Rename it."
            )
        header, rows = read_rows(path, REQUIRED)
        _check_ids(path, rows)
        found = labels_from(path, [(number, row["label"]) for number, row in rows], labels)
        groups = {row["id"]: row[GROUP] for _, row in rows} if GROUP in header else None
        asked = {"split": split, "val": val, "folds": folds}
        parts, whose = _parts(path, header, rows, found, groups, asked)
        training = [parts[row["id"]] == "train" or is_fold(parts[row["id"]]) for _, row in rows]
        found = found.measured(training)
        modalities = _modalities(path, header, rows, training, stored)
        for name, modality in _tables(path, table, rows).items():
            _check_name(path, name)
            if name.casefold() in map(str.casefold, modalities):
                raise InputError(f"{path} and --table have two modalities '{name}'. Rename one.")
            modalities[name] = modality
        _check_used(path, storing, modalities)
        if not modalities:
            raise InputError(f"{path} has no column of a modality beside {', '.join(header)}. {HOW_TO_GET}")
        samples = list(_samples(rows, parts, found, groups, modalities))
        if SPLIT not in header:  # train before val and test, and the folds by their numbers
            order = [*SPLITS, *map(fold_name, range(1, MOST_FOLDS + 1))]
            samples.sort(key=lambda sample: order.index(sample.split))
        return Plan(
            path.stem,
            samples,
            found.classes,
            {name: modality.spec for name, modality in modalities.items()},
            whose,
            notes=[
                *(f"{name}: {note}" for name, modality in modalities.items() for note in modality.notes),
                *found.notes,
                *_label_notes(found.classes),
                *_split_notes(samples, groups),
            ],
            remedy=f"Correct the paths in {path}; they are relative to its folder, {path.parent.resolve()}.",
            extras=found.extras | ({GROUP: "text"} if groups else {}),
            about_classes=found.about,
            split_name="own",
        )


def _find(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"There is no file or folder {source}. {HOW_TO_GET}")
    if (source / "manifest.csv").is_file():
        return source / "manifest.csv"
    found = sorted(source.glob("*.csv"))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} CSV files, none of them manifest.csv" if found else "no CSV file"
    raise InputError(f"The folder {source} holds {what}. {HOW_TO_GET}")


def _storing(given: Mapping[str, str]) -> Storing:
    """How media are stored, by the options given. UsageError for values that are none."""
    values: dict[str, float | str] = {}
    whole = {"rate": (100, 1_000_000), "size": (1, 4096)}
    for key, text in given.items():
        if key == "fit":
            if text not in FITS:
                raise UsageError(f"--fit is one of {', '.join(FITS)}, not '{text}'.")
            values[key] = text
            continue
        low, high = whole.get(key, (0.001, 1_000_000))
        number = number_in(text)
        if not low <= number <= high or (key in whole and number != int(number)):
            kind = "a whole number" if key in whole else "a number"
            raise UsageError(f"--{key} is {kind} from {low} to {high:,}, not '{text}'.")
        values[key] = int(number) if key in whole else number
    return Storing(**values)  # pyright: ignore[reportArgumentType]


def _check_used(path: Path, given: Iterable[str], modalities: Mapping[str, Modality]) -> None:
    """UsageError for an option that would change how none of the modalities is stored."""
    used = frozenset().union(*(kind_of(modality.spec).storing for modality in modalities.values()))
    if unused := sorted({*given} - used):
        raise UsageError(
            f"--{unused[0]} would change nothing: no column of {path} holds media that it is for. Leave it away."
        )


# ---- reading the CSV --------------------------------------------------------------------------------------------


def _check_ids(path: Path, rows: list[Row]) -> None:
    lines: dict[str, int] = {}
    for number, row in rows:
        for column in (name for name in (*REQUIRED, GROUP) if not row.get(name, "-")):
            raise InputError(
                f"{path}, line {number}: the cell of '{column}' is empty. Fill it or delete the line."
            )
        if row["id"] in lines:
            raise InputError(
                f"{path}, line {number}: the id '{row['id']}' is that of line {lines[row['id']]} too. Rename one."
            )
        lines[row["id"]] = number


# ---- the split --------------------------------------------------------------------------------------------------


def _parts(
    path: Path,
    header: list[str],
    rows: list[Row],
    labels: Labels,
    groups: Mapping[str, str] | None,
    asked: Mapping[str, str | None],
) -> tuple[dict[str, str], str]:
    """The part of each sample by id, and in a few words whose split that is. `asked` are --split, --val and --folds."""
    none = ["no label"]  # which are shared out like a class
    classes = {row["id"]: names or none for (_, row), names in zip(rows, labels.of_rows, strict=True)}
    given = {option: text for option, text in asked.items() if text is not None}
    if "folds" in given and len(given) > 1:
        raise UsageError("--folds goes with neither --split nor --val. Leave one away.")
    made = given.keys() & {"split", "folds"}
    if SPLIT in header and made:
        raise UsageError(
            f"{path} has a column '{SPLIT}', and --{min(made)} asks for another. Leave one away."
        )
    if SPLIT in header:
        parts, whose = {row["id"]: _part(path, number, row[SPLIT]) for number, row in rows}, ""
    elif not made:
        raise InputError(
            f"{path} has no column '{SPLIT}' (train, val or test a row). Add it, or have the samples shared out by a "
            "fixed rule on their ids: --split 0.7,0.1,0.2, or of small sets --folds 5."
        )
    else:
        shares = _folds(given["folds"]) if "folds" in given else _shares(given["split"])
        parts = split_by_rule(classes, shares, groups)
        _check_parts(f"--{min(made)} {given[min(made)]}", parts, shares)
        how = (
            f"{len(shares)} folds, seed s tested on fold 1 + s mod {len(shares)}" if "folds" in given else ""
        )
        whose = f"by our rule on ids, {how or given['split']}{', groups together' if groups else ''}"
    if "val" not in given:
        return parts, whose
    parts |= _val(given["val"], classes, parts, groups)
    said = f"val by our rule on ids, {given['val']} of train"
    return parts, f"{whose}; {said}" if whose else said


def _val(
    text: str, classes: Mapping[str, list[str]], parts: Mapping[str, str], groups: Mapping[str, str] | None
) -> dict[str, str]:
    """The new parts of the samples of train, of which a share becomes val."""
    if "val" in parts.values():
        raise UsageError(f"There is a part 'val' already; leave --val {text} away.")
    share = number_in(text)
    if not 0 < share < 1:
        raise UsageError(f"--val is a share of the training part between 0 and 1, as 0.1, not '{text}'.")
    trained = {sample: names for sample, names in classes.items() if parts[sample] == "train"}
    parts = split_by_rule(trained, {"train": 1 - share, "val": share}, groups)
    _check_parts(f"--val {text}", parts, ("train", "val"))
    return parts


def _check_parts(option: str, parts: Mapping[str, str], names: Iterable[str]) -> None:
    """UsageError where a part has no sample."""
    if empty := [name for name in names if name not in parts.values()]:
        raise UsageError(
            f"{option}: there are too few samples or groups for the part '{empty[0]}'. Take larger shares or fewer "
            "parts."
        )


def _folds(text: str) -> dict[str, float]:
    """Equal shares of so many folds, by name."""
    count = number_in(text)
    if not (2 <= count <= MOST_FOLDS and count == int(count)):
        raise UsageError(f"--folds is a whole number from 2 to {MOST_FOLDS}, not '{text}'.")
    return {fold_name(number): 1 / count for number in range(1, int(count) + 1)}


def _part(path: Path, number: int, part: str) -> str:
    if not part:
        raise InputError(
            f"{path}, line {number}: the cell of '{SPLIT}' is empty. Fill it or delete the line."
        )
    if part not in SPLITS:
        raise InputError(f"{path}, line {number}: the split '{part}' is none of {', '.join(SPLITS)}.")
    return part


def _shares(text: str) -> dict[str, float]:
    """The shares of train, val and test out of "0.7,0.1,0.2"; of train and test out of two numbers."""
    numbers = [number_in(part) for part in text.split(",")]
    names = SPLITS if len(numbers) == 3 else ("train", "test")
    if len(numbers) != len(names) or not all(number >= 0 for number in numbers):
        raise UsageError(
            f"--split takes the shares of train, val and test, as 0.7,0.1,0.2, or of train and test, not '{text}'."
        )
    shares = dict(zip(names, numbers, strict=True))
    if abs(sum(numbers) - 1) > 1e-6 or not (shares["train"] and shares["test"]):
        raise UsageError(f"--split {text}: the shares must add up to 1, and train and test need some.")
    return {name: share for name, share in shares.items() if share}


# ---- modalities -------------------------------------------------------------------------------------------------


def _modalities(
    path: Path, header: list[str], rows: list[Row], training: list[bool], storing: Storing
) -> dict[str, Modality]:
    """Those of the CSV, in the order of its columns."""
    found: dict[str, Modality] = {}
    groups: dict[str, list[str]] = defaultdict(list)
    for column in header:
        if (match := OF_A_GROUP.fullmatch(column)) and column not in (*RESERVED, *TIMES):
            groups[match[1].strip()].append(column)
    for column in header:
        if column in (*REQUIRED, SPLIT, GROUP, *TIMES):
            continue
        match = OF_A_GROUP.fullmatch(column)
        name = match[1].strip() if match else column.partition(":")[0].strip()
        if match and name in found and column != groups[name][0]:
            continue  # taken with the first of its group
        _check_name(path, name)
        if alike := [one for one in found if one.casefold() == name.casefold()]:
            raise InputError(f"{path} has two columns for one modality ({alike[0]}, {name}). Rename one.")
        found[name] = (
            _numbers(path, rows, groups[name])
            if match
            else _of_kind(path, column, rows, training, storing, _kind(path, column, rows))
        )
    return found


def _numbers(path: Path, rows: list[Row], columns: list[str]) -> Modality:
    """A modality of the numbers in a group of columns. InputError for one with gaps, or of both forms."""
    numbered = [int(match[1]) for column in columns if (match := re.search(r"\[(\d+)\]$", column))]
    if numbered and (len(numbered) < len(columns) or sorted(numbered) != list(range(len(columns)))):
        raise InputError(
            f"{path}: the columns {', '.join(columns)} are of one modality; it needs each number from 0 once, and no "
            "other columns. Rename them."
        )
    clips = []
    for number, row in rows:
        values = [number_in(row[column]) for column in columns]
        for column, value in zip(columns, values, strict=True):
            if not math.isfinite(value):
                said = f"holds '{row[column]}', no finite number" if row[column] else "is empty"
                raise InputError(
                    f"{path}, line {number}: the cell of '{column}' {said}. Fill it, or delete the line; a header with "
                    "a dot or brackets is one of numbers, so rename the column if it holds something else."
                )
        clips.append(_held(path, f"{path.name}, line {number}", values))
    return Modality(features(1, len(columns)), clips, [])


def _held(path: Path, where: str, values: object) -> Clip:
    import numpy as np

    try:
        return held(path.parent, where, np.asarray(values, np.float64))
    except ValueError as error:
        raise InputError(f"{error} Correct it.") from None


def _of_kind(
    path: Path, column: str, rows: list[Row], training: list[bool], storing: Storing, kind: type[Kind]
) -> Modality:
    """A modality of one column: paths of files, or values in the cells."""
    for number, row in rows:
        if not row[column]:
            raise InputError(
                f"{path}, line {number}: the cell of '{column}' is empty. Fill it or delete the line."
            )
    suffixes = [Path(row[column]).suffix.lower() for _, row in rows]
    like_files = sum(suffix in kind.extensions for suffix in suffixes)
    files = not kind.in_cells or like_files == len(rows)
    values = [
        Own(path.parent / row[column] if files else row[column], train)
        for (_, row), train in zip(rows, training, strict=True)
    ]
    try:
        spec, notes = kind.own(values, storing)
    except CellError as error:
        raise InputError(
            f"{path}, line {rows[error.row][0]}: the cell of '{column}' {error}. Correct it or delete the line."
        ) from None
    clips: list[Clip] = []
    for number, row in rows:
        start, end = _times(path, number, row)
        if files:
            clips.append(Clip(path.parent, row[column], start, end))
        else:
            clips.append(Cell(path.parent, f"{path.name}, line {number}", text=row[column]))
    if like_files and not files:
        notes = [*notes, f"{like_files:,} cell(s) look like the paths of files, and are taken as they are."]
    return Modality(spec, clips, notes)


def _suffixes(rows: list[Row], column: str) -> set[str]:
    return {Path(row[column]).suffix.lower() for _, row in rows}


def _kind(path: Path, column: str, rows: list[Row]) -> type[Kind]:
    """The kind of a modality: as its header says, else by its name, else by its files."""
    kinds = {kind.word: kind for kind in KINDS.values() if kind.word}
    name, colon, word = (part.strip() for part in column.partition(":"))
    if colon:
        if not name or word not in kinds:
            forms = ", ".join(f"name:{known}" for known in kinds)
            raise InputError(f"{path}: the header '{column}' is none of the forms {forms}.")
        return kinds[word]
    suffixes = _suffixes(rows, column)
    by_name = [kind for kind in kinds.values() if name.lower() in kind.column_names]
    by_files = [kind for kind in kinds.values() if suffixes <= kind.extensions]
    if found := by_name + by_files:
        return found[0]
    forms = ", ".join(f"'{column}:{known}'" for known in kinds)
    example = next((row[column] for _, row in rows if row[column]), "")
    raise InputError(
        f"{path}: it is not clear what column '{column}' holds (first: '{example[:40]}'). Write one of {forms} in the "
        "header, or leave the column out."
    )


def _tables(path: Path, tables: Sequence[str], rows: list[Row]) -> dict[str, Modality]:
    """The modalities of `name=file`, a row of the table for each of the CSV."""
    found: dict[str, Modality] = {}
    for text in tables:
        name, equals, file = text.partition("=")
        if not equals or not name or not file or name in found:
            raise UsageError(
                f"--table takes name=FILE, each name once, as --table sensors=sensors.csv, not '{text}'."
            )
        ids, values = read_table(Path(file))
        places = {sample: place for place, sample in enumerate(ids)}
        for number, row in rows:
            if row["id"] not in places:
                raise InputError(
                    f"{path}, line {number}: the id '{row['id']}' has no row in {file}, whose first id is "
                    f"'{ids[0]}'. Add it, or delete the line."
                )
        clips = [_held(path, f"{Path(file).name}, {row['id']}", values[places[row["id"]]]) for _, row in rows]
        shape = (1, values.shape[1]) if values.ndim == 2 else values.shape[1:]
        left = len(places.keys() - {row["id"] for _, row in rows})
        notes = [f"{left:,} row(s) of {file} have ids that {path} does not have, and are left out."] * bool(
            left
        )
        if shape[0] > 1 and (empty := int((~values.any(2)).sum())):
            notes.append(
                f"{empty:,} steps hold zeros alone, which the encoders take for the end of a series."
            )
        found[name] = Modality(features(*shape), clips, notes)
    return found


def _check_name(path: Path, name: str) -> None:
    if name in (*RESERVED, *TIMES, *OF_TORCH) or not NAME.fullmatch(name):
        raise InputError(
            f"{path}: '{name}' can't be the name of a modality. Rename the column: at most 100 letters, digits, - and "
            f"_, the first a letter or digit, none of {', '.join((*RESERVED, *TIMES))}, and no name that torch's "
            "modules have themselves."
        )


# ---- samples, and what is odd about them ------------------------------------------------------------------------


def _samples(
    rows: list[Row],
    parts: Mapping[str, str],
    labels: Labels,
    groups: Mapping[str, str] | None,
    modalities: Mapping[str, Modality],
) -> Iterator[Sample]:
    for place, (_, row) in enumerate(rows):
        clips = {name: modality.clips[place] for name, modality in modalities.items()}
        extras = labels.extras_of(place) | ({GROUP: groups[row["id"]]} if groups else {})
        yield Sample(row["id"], parts[row["id"]], labels.label_of(place), clips, extras=extras)


def _times(path: Path, number: int, row: Mapping[str, str]) -> tuple[float | None, float | None]:
    start, end = (_seconds(row.get(column, ""), column, f"{path}, line {number}") for column in TIMES)
    if end is not None and end <= (start or 0.0):
        raise InputError(f"{path}, line {number}: the end {end} s is not after the start {start or 0.0} s.")
    return start, end


def _seconds(text: str, column: str, where: str) -> float | None:
    if not text:
        return None
    value = number_in(text)
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where}: the {column} '{text}' is not a number of seconds.")
    return value


def _label_notes(classes: list[str]) -> Iterator[str]:
    """What is odd about the labels, though it may be meant."""
    if len(classes) == 1:
        yield f"All samples have the one label '{classes[0]}': there is nothing to tell apart."
    alike: dict[str, list[str]] = defaultdict(list)
    for label in classes:
        alike["".join(unicodedata.normalize("NFKC", label).casefold().split())].append(label)
    for labels in alike.values():
        if len(labels) > 1:
            names = " and ".join(repr(label) for label in labels)
            yield f"{names} are two classes that differ in capitals, blanks or Unicode form only."


def _split_notes(samples: list[Sample], groups: Mapping[str, str] | None) -> Iterator[str]:
    """What stands in two splits, so that a test would ask for what was learnt."""
    parts = {sample.id: sample.split for sample in samples}
    by_file, alike = defaultdict(set), defaultdict(set)
    for sample in samples:
        for clip in sample.clips.values():
            if clip.has_file:
                by_file[clip.name].add(sample.split)
        if not any(clip.has_file for clip in sample.clips.values()):
            alike[str([clip.describe() for clip in sample.clips.values()])].add(sample.split)
    yield from _shared("The file", by_file, "A test would ask for what was learnt.")
    if copies := sum(len(among) > 1 for among in alike.values()):
        yield (
            f"{copies:,} sample(s) have the same values in all modalities as one of another split: a test would ask "
            "for what was learnt."
        )
    if groups is not None:
        yield from _shared("The group", in_two_parts(groups, parts), "Keep each group in one split.")
        return
    guessed = {sample.id: re.sub(r"[._-]?\d+$", "", sample.id) for sample in samples}
    sizes = Counter(guessed.values())
    several = {name: among for name, among in in_two_parts(guessed, parts).items() if name}
    repeated = {name for name, count in sizes.items() if name and count > 1}
    if len(repeated) > 1 and len(sizes) <= len(samples) / 2:
        advice = "If ids that begin so are of one speaker or video, keep each in one split (a column `group` does)."
        yield from _shared("The group", several, advice)


def _shared(what: str, splits: Mapping[str, Iterable[str]], advice: str) -> Iterator[str]:
    """A sentence on the first of what is in more than one split, and how many there are."""
    shared = [name for name, found in splits.items() if len(set(found)) > 1]
    if shared:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        yield f"{what} '{shared[0]}'{more} is in {' and '.join(sorted(splits[shared[0]]))}. {advice}"
