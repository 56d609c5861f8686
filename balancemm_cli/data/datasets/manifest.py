"""The user's own data, out of a CSV.

Columns: `id`, `label`, `split` (train, val or test), optionally `start` and `end` in seconds; every other
column is a modality. Paths are relative to the CSV. A modality's kind (data/kinds) is that of its header
(`speech:audio`, `front:visual`), else known by its name, else by the extensions of its files.
"""

import csv
import io
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists, read_text
from balancemm_cli.data.datasets.plan import SPLITS, Clip, Plan, Sample
from balancemm_cli.data.kinds import KINDS, Kind
from balancemm_cli.errors import InputError

REQUIRED = ("id", "label", "split")
NAME = re.compile(r"[^\W_][\w-]{0,99}")
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
TIMES = ("start", "end")

HOW_TO_GET = (
    "Write a CSV with the columns id, label, split (train, val or test) and one column per modality with the "
    "path of a file, relative to the CSV; then name it: `bmm prepare manifest --source my.csv`."
)

Row = tuple[int, dict[str, str]]  # line number, and the cells by header


class Manifest(Dataset):
    """Your own data: a CSV with one row per sample, and one column per modality with the path of a file."""

    name = "manifest"
    HOW_TO_GET = HOW_TO_GET
    SPLIT_NAMES = ("own",)
    PUBLISHED = False

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The samples of the CSV. InputError, with the line, for a CSV that is not as described above."""
        no_lists("manifest", splits)
        path = _find(source)
        if not path.name.isprintable():
            raise InputError(
                f"{str(path)!a}: the name of this file is no plain text, and it names the data set. Rename it."
            )
        header, rows = _read(path)
        kinds = {column: _kind(path, column, rows) for column in header if column not in REQUIRED + TIMES}
        if not kinds:
            raise InputError(f"{path} has no column of a modality beside {', '.join(header)}. {HOW_TO_GET}")
        names = [column.partition(":")[0].strip() for column in kinds]
        if len(set(names)) < len(names):
            raise InputError(f"{path} has two columns for one modality ({', '.join(names)}). Rename one.")
        for name in names:
            if name in REQUIRED + OF_TORCH or not NAME.fullmatch(name):
                raise InputError(
                    f"{path}: '{name}' can't be the name of a modality. Rename the column: at most 100 letters, "
                    f"digits, - and _, the first a letter or digit, none of {', '.join(REQUIRED)}, and no name that "
                    "torch's modules have themselves."
                )
        samples = list(_samples(path, rows, list(kinds)))
        classes = sorted({sample.label for sample in samples})
        modalities = {name: kind.usual for name, kind in zip(names, kinds.values(), strict=True)}
        remedy = f"Correct the paths in {path}; they are relative to its folder, {path.parent.resolve()}."
        notes = [*_label_notes(classes), *_split_notes(samples)]
        return Plan(path.stem, samples, classes, modalities, notes=notes, remedy=remedy, split_name="own")


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


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The header and the rows that are not blank, each with its line number."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: this is no CSV ({error}).") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise InputError(f"{path} is empty. {HOW_TO_GET}")
    header = lines[0][1]
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise InputError(
            f"{path} has no column '{missing[0]}'; its header is {', '.join(header)}. {HOW_TO_GET}"
        )
    for column in header:
        if not column or header.count(column) > 1:
            raise InputError(
                f"{path} has a column without a name or two of one name ('{column}'). Rename it."
            )
    if len(lines) == 1:
        raise InputError(f"{path} has a header, but no sample. {HOW_TO_GET}")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}. "
                "Put quotes around cells with commas."
            )
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def _kind(path: Path, column: str, rows: list[Row]) -> type[Kind]:
    """The kind of a modality: as its header says, else by its name, else by its files."""
    kinds = {kind.word: kind for kind in KINDS.values() if kind.word}
    name, colon, word = (part.strip() for part in column.partition(":"))
    if colon:
        if not name or word not in kinds:
            forms = " or ".join(f"name:{known}" for known in kinds)
            raise InputError(f"{path}: the header '{column}' is not of the form {forms}.")
        return kinds[word]
    suffixes = {Path(row[column]).suffix.lower() for _, row in rows}
    by_name = [kind for kind in kinds.values() if name.lower() in kind.column_names]
    by_files = [kind for kind in kinds.values() if suffixes <= kind.extensions]
    if found := by_name + by_files:
        return found[0]
    forms = " or ".join(f"'{column}:{known}'" for known in kinds)
    raise InputError(
        f"{path}: it is not clear what column '{column}' holds (files: {', '.join(sorted(suffixes))[:60]}). "
        f"Write {forms} in the header."
    )


def _samples(path: Path, rows: list[Row], columns: list[str]) -> Iterator[Sample]:
    lines: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        for column in (*REQUIRED, *columns):
            if not row[column]:
                raise InputError(f"{where}: the cell of '{column}' is empty. Fill it or delete the line.")
        if row["id"] in lines:
            raise InputError(
                f"{where}: the id '{row['id']}' is that of line {lines[row['id']]} too. Rename one."
            )
        lines[row["id"]] = number
        if row["split"] not in SPLITS:
            raise InputError(f"{where}: the split '{row['split']}' is none of {', '.join(SPLITS)}.")
        start, end = (_seconds(row.get(column, ""), column, where) for column in TIMES)
        if end is not None and end <= (start or 0.0):
            raise InputError(f"{where}: the end {end} s is not after the start {start or 0.0} s.")
        clips = {
            column.partition(":")[0].strip(): Clip(path.parent, row[column], start, end) for column in columns
        }
        yield Sample(row["id"], row["split"], row["label"], clips)


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


def _split_notes(samples: list[Sample]) -> Iterator[str]:
    """What stands in two splits, so that a test would ask for what was learnt."""
    by_file, by_group = defaultdict(set), defaultdict(set)
    sizes: Counter[str] = Counter()
    for sample in samples:
        for clip in sample.clips.values():
            by_file[clip.name].add(sample.split)
        group = re.sub(r"[._-]?\d+$", "", sample.id)
        by_group[group].add(sample.split)
        sizes[group] += 1
    yield from _shared("The file", by_file, "A test would ask for what was learnt.")
    several = {group: splits for group, splits in by_group.items() if group and sizes[group] > 1}
    if len(several) > 1 and len(by_group) <= len(samples) / 2:
        advice = "If ids that begin so are of one speaker or video, keep each in one split."
        yield from _shared("The group", several, advice)


def _shared(what: str, splits: Mapping[str, set[str]], advice: str) -> Iterator[str]:
    """A sentence on the first of what is in more than one split, and how many there are."""
    shared = [name for name, found in splits.items() if len(found) > 1]
    if shared:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        yield f"{what} '{shared[0]}'{more} is in {' and '.join(sorted(splits[shared[0]]))}. {advice}"


def _seconds(text: str, column: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where}: the {column} '{text}' is not a number of seconds.")
    return value
