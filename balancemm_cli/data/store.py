"""The prepared folder: Arrow shards read by memory map, with manifest.json and rejected.csv beside them.

A prepared folder holds

- `manifest.json`: format version, data set, classes, modalities, counts and shards of each split, hashes,
  decoding settings, defects that were kept, tool version. No time stamps and no machine paths, so that the
  same media give the same bytes everywhere.
- `<split>-00000.arrow` …: Arrow IPC files; a row is a sample: `id` (string), `label` (int32), a column a
  modality, and the data set's extras. A modality's column is a list, whose items its kind knows (data/kinds). A null
  stands for the value of the row above: several samples of one medium (questions on a video) store it once.
- `rejected.csv`: the samples that are in no shard (id, split, file, reason).
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancemm_cli.data.folds import fold_name, is_fold
from balancemm_cli.data.kinds import Kind, kind_of
from balancemm_cli.data.splitting import split_by_rule
from balancemm_cli.errors import InputError, UsageError

FORMAT = 1
MANIFEST = "manifest.json"
REJECTED = "rejected.csv"
EXTRAS = {
    "integers": pa.list_(pa.int32()),
    "number": pa.float64(),
    "text": pa.string(),
}
LOOKED_AT = 1000  # pictures
HELD_OUT = {
    "train": 0.8,
    "val": 0.2,
}  # of the training samples of a set without validation samples, in a search
BATCH_BYTES = 64 * 2**20  # a record batch is closed beyond this, which bounds a writer's memory

Row = dict[str, Any]


class PreparedSplit:
    """The samples of one split, in the order of the lists, memory-mapped. A modality's values are read by its kind.

    They are the rows of a table, or those that `rows` numbers.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        self._table = table
        self._rows = np.arange(table.num_rows) if rows is None else rows
        self.ids: list[str] = table["id"].take(pa.array(self._rows)).to_pylist()
        self.labels: np.ndarray = table["label"].to_numpy().astype(np.int64)[self._rows]

    def __len__(self) -> int:
        return len(self.ids)

    def holders(self, modality: str) -> np.ndarray:
        """The row of the table that holds each sample's value of a modality, int64 [N]: its own or one above."""
        valid = self._table[modality].is_valid().to_numpy()
        return np.maximum.accumulate(np.where(valid, np.arange(len(valid)), 0))[self._rows]

    def frames(self, modality: str, row: int) -> list[bytes]:
        """The JPEG files of the frames that a row holds, in order of time."""
        return self._table[modality][row].as_py()

    def frame(self, modality: str, row: int, index: int) -> bytearray:
        """The JPEG file of one frame that a row holds."""
        return bytearray(self._table[modality][row].values[index].as_buffer())

    def smaller_side(self, modality: str, most: int) -> int:
        """The largest smaller side (pixels, at most `most`) of the pictures of a modality, or of LOOKED_AT of them,
        evenly spread: what they are all brought to that have sizes of their own."""
        from PIL import Image

        holders = np.unique(self.holders(modality))
        chosen = holders[np.linspace(0, len(holders) - 1, min(LOOKED_AT, len(holders))).astype(int)]
        sizes = [1]
        for row in chosen.tolist():
            with Image.open(io.BytesIO(self.frame(modality, row, 0))) as picture:
                sizes.append(min(picture.size))
        return min(most, max(sizes))

    def lengths(self, modality: str) -> np.ndarray:
        """How many frames or numbers each row of the table holds, int64; 0 where it holds none of its own."""
        counts = pc.list_value_length(self._table[modality])  # pyright: ignore[reportAttributeAccessIssue]
        return counts.fill_null(0).to_numpy().astype(np.int64)

    def array(self, modality: str, row: int) -> np.ndarray:
        """The numbers that a row holds, one after another, a read-only view of the file."""
        return self._table[modality][row].values.to_numpy()

    def dtype(self, modality: str) -> np.dtype[Any]:
        """The type of the numbers of a modality."""
        return np.dtype(self._table.schema.field(modality).type.value_type.to_pandas_dtype())

    def column(self, name: str) -> np.ndarray:
        """`label` or a further column of numbers: int64 [N], float32 [N] of kind "number", int64 [N, S] of
        "integers". ValueError where rows of these have different lengths."""
        if name == "label":
            return self.labels
        values = self._table[name]
        if not pa.types.is_list(values.type):
            return values.to_numpy().astype(np.float32)[self._rows]
        lengths = set(self.lengths(name).tolist()) or {0}  # no rows: no numbers
        if len(lengths) > 1:
            raise ValueError(f"The rows of '{name}' have {min(lengths)} to {max(lengths)} numbers.")
        numbers = values.combine_chunks().flatten().to_numpy()
        return numbers.astype(np.int64).reshape(len(values), *lengths)[self._rows]

    def extra(self, name: str) -> list[Any]:
        """A further column of the data set, one value per sample."""
        return self._table[name].take(pa.array(self._rows)).to_pylist()

    def in_two(self, modalities: Iterable[str], groups: str | None) -> dict[str, "PreparedSplit"]:
        """Its samples as "train" and, a fifth of them, "val", by the rule of data.splitting. Those that share a stored
        value, or are of one group of the column `groups`, stay together."""
        if groups is None:
            own = np.logical_and.reduce([self._table[name].is_valid().to_numpy() for name in modalities])
            together = np.cumsum(own)[self._rows].astype(str).tolist()
        else:
            together = self.extra(groups)
        samples = {str(place): [str(label)] for place, label in enumerate(self.labels)}
        parts = list(split_by_rule(samples, HELD_OUT, dict(zip(samples, together, strict=True))).values())
        return {
            part: PreparedSplit(self._table, self._rows[[one == part for one in parts]]) for part in HELD_OUT
        }


class PreparedSet:
    """A prepared data set. Made by `open_set`; `split` gives the samples.

    `modalities` is ordered and maps a name to the modality's spec, of which `kind_of` makes its kind.
    `extras` maps further columns to one of EXTRAS. `split_description` says whose split it is. `reader` is the data set
    whose class made it, `split_name` the name of its split, `official_lists` whether its lists are the published ones;
    None where a former version did not record it. `counts` are the samples in the shards of each split, `expected`
    those that the lists ask for.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.name: str = manifest["dataset"]
        self.classes: list[str] = manifest["classes"]
        self.modalities: dict[str, dict[str, Any]] = manifest["modalities"]
        self.extras: dict[str, str] = manifest.get("extras", {})
        self.split_description: str = manifest.get("split_description", manifest.get("protocol", ""))
        self.reader: str | None = manifest.get("reader")
        self.split_name: str | None = manifest.get("split_name")
        self.official_lists: bool | None = manifest.get("official_lists")
        self.counts: dict[str, int] = {name: own["prepared"] for name, own in manifest["splits"].items()}
        self.expected: dict[str, int] = {name: own["expected"] for name, own in manifest["splits"].items()}
        self.content_hash: str = manifest["content_hash"]
        self.splits_hash: str = manifest["splits_hash"]
        self._parts = {name: [name] for name in manifest["splits"]}  # of the manifest, that make up a split
        self._held_out: dict[
            str, PreparedSplit
        ] = {}  # the splits that are made by holding out training samples

    @property
    def folds(self) -> list[str]:
        """The folds that it is cut into, in order; none of a set with splits."""
        count = sum(map(is_fold, self.manifest["splits"]))
        return [fold_name(number + 1) for number in range(count)]

    def for_run(self, seed: int, tested_on: str = "test") -> "PreparedSet":
        """The set as a run of that seed sees it. Of one that is cut into folds (data.folds) the run is tested on
        fold seed modulo their number, and trained on the others; of any other, all runs see the same.

        A trial of a search (`tested_on` "val") sees validation samples for its test split, of folds those of the next
        one, of a set without any a fifth of the training samples, which are then none; and the test samples in none of
        its splits. InputError where there are too few samples for that.
        """
        folds = self.folds
        if not folds and tested_on == "test":
            return self
        seen = PreparedSet(self.folder, self.manifest)
        if not folds and not self.counts.get("val"):
            seen._hold_out(self.split("train"))
            return seen
        # of a trial, methods that measure on the val split find it by its own name, as in any other run
        of_trial = {"train": ["train"], "val": ["val"], "test": ["val"]}
        seen._parts = self._parts_of_folds(folds, seed, tested_on) if folds else of_trial
        for counts in (seen.counts, seen.expected):
            found = {split: sum(counts[name] for name in names) for split, names in seen._parts.items()}
            counts.clear()
            counts.update(found)
        return seen

    def _parts_of_folds(self, folds: list[str], seed: int, tested_on: str) -> dict[str, list[str]]:
        held_out = [folds[seed % len(folds)]]
        if tested_on == "val":
            held_out.append(folds[(seed + 1) % len(folds)])
        if len(held_out) == len(folds):
            raise InputError(
                f"{self.folder} has {len(folds)} folds, and a search needs a third: one to test on, one to choose by, "
                "the others to train on. Prepare it again with more --folds."
            )
        return {"train": [name for name in folds if name not in held_out], "test": held_out[-1:]}

    def _hold_out(self, train: PreparedSplit) -> None:
        """Test on some of the training samples. InputError where they are too few to be in two parts."""
        parts = train.in_two(self.modalities, "group" if "group" in self.extras else None)
        if not all(map(len, parts.values())):
            raise InputError(
                f"{self.folder} has no validation samples to choose settings by, and too few training samples to hold "
                "some of them out. Prepare it again with more."
            )
        self._held_out = {"train": parts["train"], "test": parts["val"]}
        self._parts = {name: ["train"] for name in self._held_out}
        for counts in (self.counts, self.expected):
            counts.clear()
            counts.update({name: len(part) for name, part in self._held_out.items()})

    def split(self, name: str) -> PreparedSplit:
        """Open a split. UsageError when there is none of that name, InputError when a shard is damaged, as far as
        that shows without reading the media: size, columns, rows, offsets and labels. `verify` reads all."""
        if name not in self.counts:
            raise UsageError(
                f"Data set '{self.name}' has no split '{name}'. Its splits: {', '.join(self.counts)}."
            )
        if name in self._held_out:
            return self._held_out[name]
        shards = [shard for part in self._parts[name] for shard in self.manifest["splits"][part]["shards"]]
        tables = [self._open_shard(shard) for shard in shards]
        schema = shard_schema(self.modalities, self.extras)
        return PreparedSplit(pa.concat_tables(tables) if tables else schema.empty_table())

    def verify(self) -> int:
        """Read every shard and compare its SHA-256 with the manifest's. Returns how many bytes they have; InputError
        for one that is damaged."""
        total = 0
        for shard in [shard for own in self.manifest["splits"].values() for shard in own["shards"]]:
            path = self.folder / shard["file"]
            try:
                found, size = file_hash(path), path.stat().st_size
            except OSError as error:
                raise _damaged(path, f"cannot be read ({type(error).__name__})") from None
            if found != shard["sha256"]:
                raise _damaged(path, "is damaged: its SHA-256 is not the one of the manifest")
            total += size
        return total

    def _open_shard(self, shard: dict[str, Any]) -> pa.Table:
        """The table of a shard, mapped to memory, and checked so that nothing in it points out of the file."""
        path = self.folder / shard["file"]
        try:
            if path.stat().st_size != shard.get("bytes", path.stat().st_size):
                raise _damaged(path, f"is damaged: it has not the {shard['bytes']:,} bytes of the manifest")
            with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
                if reader.schema != shard_schema(self.modalities, self.extras):
                    raise _damaged(path, "has other columns than its manifest says")
                table = reader.read_all()
            table.validate(full=True)  # reads offsets and texts, not the media
        except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
            raise _damaged(path, f"cannot be read ({type(error).__name__})") from None
        if table.num_rows != shard["rows"]:
            raise _damaged(path, "is damaged: it has other rows than its manifest says")
        labels = table["label"]
        if (
            labels.null_count
            or not ((labels.to_numpy() >= 0) & (labels.to_numpy() < len(self.classes))).all()
        ):
            raise _damaged(path, "is damaged: it has labels that are no class")
        return table


def open_set(folder: Path) -> PreparedSet:
    """Read the manifest of a prepared folder. InputError when it is absent, damaged or of another format."""
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no prepared data set in {folder}. Make it with `bmm prepare`.") from None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "is damaged") from None
    if version != FORMAT:
        raise InputError(
            f"{path} is of format {version}, this program reads format {FORMAT}. "
            "Delete the folder and prepare it again, or use the program's version that made it."
        )
    try:
        prepared = PreparedSet(folder, manifest)
        if content_hash(manifest) == prepared.content_hash:
            return prepared
    except (KeyError, TypeError, AttributeError):
        pass
    raise _damaged(path, "is damaged")


def content_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of what a run sees of a set: classes, modalities, and the shards of each split."""
    splits = {
        name: {
            "prepared": own["prepared"],
            "shards": [{key: shard[key] for key in ("file", "rows", "sha256")} for shard in own["shards"]],
        }
        for name, own in manifest["splits"].items()
    }
    return digest([FORMAT, manifest["classes"], list(manifest["modalities"].items()), splits])


def digest(value: object) -> str:
    """SHA-256 of a plain value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shard_schema(modalities: dict[str, dict[str, Any]], extras: dict[str, str]) -> pa.Schema:
    """The Arrow columns of a shard."""
    columns = [(name, kind_of(spec).column_type) for name, spec in modalities.items()]
    further = [(name, EXTRAS[kind]) for name, kind in extras.items()]
    return pa.schema([("id", pa.string()), ("label", pa.int32()), *columns, *further])


def write_shard(
    path: Path,
    rows: Iterable[Row],
    modalities: dict[str, dict[str, Any]],
    extras: dict[str, str] | None = None,
) -> int:
    """Write rows as one shard: `id`, `label`, for each modality a value of its kind, or None for that of the row
    above, and the extras.

    The file appears whole or not at all. Returns the number of rows. InputError for a value that is not of its kind.
    """
    schema = shard_schema(modalities, extras or {})
    kinds = {name: kind_of(spec) for name, spec in modalities.items()}
    count = 0
    with atomic_file(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in _batches(rows, kinds):
            count += len(batch)
            values = {field: [row[field.name] for row in batch] for field in schema}
            columns = [
                kinds[field.name].to_arrow(column) if field.name in kinds else pa.array(column, field.type)
                for field, column in values.items()
            ]
            writer.write_batch(pa.record_batch(columns, schema))
    return count


def write_json(path: Path, value: object) -> None:
    """Write a plain value as JSON; the file appears whole or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_rejected(path: Path, rejected: Iterable[dict[str, str]]) -> None:
    """Write rejected.csv (id, split, file, reason); other keys of the entries are left out."""
    columns = ("id", "split", "file", "reason")
    write_csv(path, columns, ([entry[column] for column in columns] for entry in rejected))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV; the file appears whole or not at all."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name; flushed to the disk and renamed when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a failed write does not know its file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _batches(rows: Iterable[Row], kinds: dict[str, Kind]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(_bytes(row, name, kind) for name, kind in kinds.items())
        if size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bytes(row: Row, name: str, kind: Kind) -> int:
    """The bytes of a row's value of a modality, which is checked."""
    if row[name] is None:
        return 0
    try:
        kind.check(row[name])
    except ValueError as error:
        raise InputError(
            f"Sample '{row['id']}': its {name} {error}. Correct what the data set's Clip reads."
        ) from None
    return kind.bytes_of(row[name])


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} {what}. Delete the folder {path.parent} and prepare it again.")
