"""Reads the files of a run folder, one's own or a stranger's: none of them is trusted.

A file is read into memory only where it is no larger than one of its name may be, and what it holds is checked before
it is used. Arrow files are read as the stream of messages that they are, never by the offsets of their footer and never
by memory map, where a wrong offset or a file cut short ends the process.
"""

import struct
import tomllib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError
from pydantic_core import from_json

from balancemm_cli.config.run import settings_by_key
from balancemm_cli.errors import InputError
from balancemm_cli.runs.schema import Environment, Epoch, first_fault

MIB = 2**20
LIMITS = {
    "config.toml": MIB,
    "environment.json": MIB,
    "history.jsonl": 64 * MIB,
    "steps.arrow": 2048 * MIB,
    "predictions.arrow": 2048 * MIB,
    "result.json": 16 * MIB,
    "evaluation.json": 16 * MIB,
    "search.json": 16 * MIB,
    "features.arrow": 2048 * MIB,
}
"""What a report reads of a run, and how many bytes each file may have."""

START, END = (
    b"ARROW1\0\0",
    b"ARROW1",
)  # of an Arrow file; between them are a stream of messages and its footer
COMPRESSION = 3  # slot of the table RecordBatch of Arrow's format/Message.fbs

Check = Callable[[pa.DataType], bool]


def read_bytes(path: Path) -> bytes:
    """The content of a run's file. OSError where it can't be read, ValueError where it is larger than it may be."""
    limit = LIMITS[path.name]
    if path.stat().st_size > limit:
        raise ValueError(f"it has more than the {limit // MIB:,} MiB that {path.name} may have")
    return path.read_bytes()


def read_settings(folder: Path) -> dict[str, object]:
    """config.toml by the keys that --set takes. OSError or ValueError where it can't be read."""
    try:
        return settings_by_key(read_bytes(folder / "config.toml").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"config.toml holds no settings ({type(error).__name__})") from None


def read_environments(folder: Path) -> list[Environment]:
    """The environments in which a run was trained, in order. OSError or ValueError where they can't be read.

    Former versions wrote the last one alone.
    """
    content = from_json(read_bytes(folder / "environment.json"))
    several = content.get("environments", [content]) if isinstance(content, dict) else None
    if not isinstance(several, list):
        raise ValueError("environment.json holds no environment")
    return [Environment.model_validate(one) for one in several]


def read_history(folder: Path) -> list[Epoch]:
    """The epochs of history.jsonl. InputError where it can't be read."""
    path = folder / "history.jsonl"
    try:
        return [Epoch.model_validate_json(line) for line in read_bytes(path).splitlines()]
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({first_fault(error)}). Train this run again.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None


# ---- Arrow --------------------------------------------------------------------------------------------------


def read_table(path: Path) -> pa.Table:
    """The content of a run's Arrow file, checked to the last value. InputError where it isn't what its name says."""
    try:
        table = _decode(read_bytes(path), path.name)
        _check_values(table, path.name)
    except (OSError, ValueError, KeyError, struct.error, pa.ArrowException, MemoryError) as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}).") from None
    return table


@lru_cache(maxsize=1)
def _predictions(path: Path, _written: int) -> pa.Table:
    """One file at a time: its selections are asked for one after the other."""
    return read_table(path)


def read_predictions(folder: Path, selection: str) -> pa.Table:
    """What predictions.arrow of a run keeps of a selection, an answer a row: `id`, `label`, `scores`, and what its task
    adds.

    InputError where it can't be read.
    """
    path = folder / "predictions.arrow"
    table = _predictions(path, path.stat().st_mtime_ns) if path.is_file() else read_table(path)
    of_selection = pc.equal(table["selection"], selection)  # pyright: ignore[reportAttributeAccessIssue]
    return table.filter(of_selection)


def class_names(predictions: pa.Table) -> list[str] | None:
    """The names of the classes that predictions.arrow keeps; None in that of a former version."""
    kept = (predictions.schema.metadata or {}).get(b"classes")
    return None if kept is None else from_json(kept)


def _first_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _decode(content: bytes, name: str) -> pa.Table:
    """The table of an Arrow file. ValueError or ArrowException for a damaged one, or one of other columns."""
    if content[: len(START)] != START or content[-len(END) :] != END:
        raise ValueError("it is no whole Arrow file")
    stream = pa.py_buffer(content)[len(START) :]
    for message in pa.ipc.MessageReader.open_stream(stream):
        if _is_compressed(message):
            raise ValueError("it is compressed, as those of a run are not")
    with pa.ipc.open_stream(stream) as reader:
        _check_columns(reader.schema, name)
        table = reader.read_all()
    table.validate(full=True)
    return table


def _is_compressed(message: pa.Message) -> bool:
    """Whether a message holds compressed buffers, which could become of any size.

    pyarrow tells of it only by decompressing. The message's own table, which has been verified, says it in a field.
    """
    if message.type not in ("record batch", "dictionary"):
        return False
    content = message.metadata.to_pybytes()

    def field(table: int, slot: int) -> int | None:
        """Where a table of the flatbuffer keeps a field; None where it has none."""
        slots = table - struct.unpack_from("<i", content, table)[0]
        inside = 4 + 2 * slot < struct.unpack_from("<H", content, slots)[0]
        offset = struct.unpack_from("<H", content, slots + 4 + 2 * slot)[0] if inside else 0
        return table + offset if offset else None

    def follow(place: int | None) -> int:
        if place is None:
            raise ValueError("a message of it is empty")
        return place + struct.unpack_from("<I", content, place)[0]

    header = follow(field(follow(0), 2))
    batch = follow(field(header, 1)) if message.type == "dictionary" else header
    return field(batch, COMPRESSION) is not None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_class(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and _is_text(kind.value_type)


def _is_vector(kind: pa.DataType) -> bool:
    fixed = pa.types.is_fixed_size_list(kind) and kind.list_size > 0
    return (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_number(kind.value_type)


COLUMNS: dict[str, tuple[dict[str, Check], Check]] = {
    "steps.arrow": ({"epoch": pa.types.is_integer}, _is_number),
    "predictions.arrow": (
        {"selection": _is_text, "id": _is_text, "label": pa.types.is_integer, "scores": _is_vector},
        lambda kind: _is_number(kind) or _is_text(kind),
    ),
    "features.arrow": ({"id": _is_text, "label": _is_class}, _is_vector),
}
"""The columns that an Arrow file has, by their names, and what any other one may be."""


def _check_columns(schema: pa.Schema, name: str) -> None:
    named, other = COLUMNS[name]
    if missing := [column for column in named if column not in schema.names]:
        raise ValueError(f"it has no column '{missing[0]}'")
    if len({*schema.names}) < len(schema.names):
        raise ValueError("two of its columns have one name")
    for field in schema:
        if not named.get(field.name, other)(field.type):
            raise ValueError(f"its column '{field.name}' cannot be of type {str(field.type)[:100]}")


def _check_values(table: pa.Table, name: str) -> None:
    """ValueError for a gap, lists of different lengths, or a number of an epoch or a class that can't be."""
    for column in table.column_names:
        _check_column(column, table[column])
    if name == "steps.arrow":
        _check_range("epoch", table["epoch"], table.num_rows)
    elif name == "predictions.arrow":
        width = pc.max(pc.list_value_length(table["scores"])).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
        _check_range("label", table["label"], width)
        names = class_names(table)
        if names is not None and not (
            isinstance(names, list) and len({str(one) for one in names}) == len(names) == width
        ):
            raise ValueError("its names of classes are not those of its scores")


def _check_column(name: str, column: pa.ChunkedArray) -> None:
    gaps = column.null_count
    if _is_vector(column.type):
        lengths = pc.min_max(pc.list_value_length(column)).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        if lengths["min"] != lengths["max"]:
            raise ValueError(f"the lists of its column '{name}' differ in length")
        gaps += sum(chunk.flatten().null_count for chunk in column.chunks)
    if gaps:
        raise ValueError(f"its column '{name}' has gaps")


def _check_range(name: str, column: pa.ChunkedArray, end: int) -> None:
    found = pc.min_max(column).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    if found["min"] is not None and not (found["min"] >= 0 and found["max"] < end):
        raise ValueError(f"its column '{name}' has a number that is not in 0 to {end - 1}")
