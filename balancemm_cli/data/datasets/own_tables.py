"""Tables of a user's own: the numbers of many samples, a row for each id, in a CSV, Parquet or .npy file."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.lists import number_in, read_rows, read_text
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ID = "id"
PARQUET = (".parquet", ".pq")


def read_table(path: Path) -> "tuple[list[str], np.ndarray]":
    """The ids of a table, and its numbers, float64 [N, D] or, of an .npy file, also [N, T, D].

    A CSV or Parquet file has the column `id`, and numbers in each other column. Beside NAME.npy the text file NAME.txt
    holds an id a line. InputError where the file is anything else, and where an id is empty or comes twice.
    """
    import numpy as np

    if not path.is_file():
        raise InputError(f"There is no file {path}. Correct --table.")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npy", *PARQUET):
        raise InputError(f"{path} is no .csv, .parquet or .npy file. Save the table as one of these.")
    ids, values = (_array if suffix == ".npy" else _parquet if suffix in PARQUET else _csv)(path)
    counts = Counter(ids)
    for name in ids:
        if not name:
            raise InputError(f"{path} has a row with an empty id. Fill it, or leave the row out.")
        if counts[name] > 1:
            raise InputError(f"{path} has the id '{name}' more than once. Leave one row of each id.")
    if not all(values.shape):
        raise InputError(f"{path} has no column of numbers beside '{ID}', or no step of them. Add one.")
    if not np.isfinite(values).all():
        row = ids[int(np.argwhere(~np.isfinite(values))[0][0])]
        raise InputError(
            f"{path}: the row of '{row}' has a number that is missing or not finite. Fill it, or leave the sample out."
        )
    return ids, values


def _array(path: Path) -> "tuple[list[str], np.ndarray]":
    import numpy as np

    from balancemm_cli.data.reading.numbers import UNREADABLE

    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise InputError(f"{path} needs the ids of its rows, an id a line, in {beside}. Write that file.")
    try:
        values = np.load(path, allow_pickle=False)
    except UNREADABLE:
        raise InputError(
            f"{path} is no .npy file, is cut off, or has Python objects in it. Write it with numpy.save."
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim not in (2, 3):
        raise InputError(f"{path} does not hold one array of numbers, [N, D] or [N, T, D]. Write such a one.")
    ids = [line.strip() for line in read_text(beside).rstrip("\n").split("\n")]
    if len(ids) != len(values):
        raise InputError(
            f"{beside} has {len(ids):,} ids, and {path} {len(values):,} rows. Write an id a line, in the order of the "
            "rows."
        )
    return ids, values.astype(np.float64)


def _csv(path: Path) -> "tuple[list[str], np.ndarray]":
    import numpy as np

    header, rows = read_rows(path, [ID])
    names = [name for name in header if name != ID]
    values = np.empty((len(rows), len(names)))
    for place, (line, row) in enumerate(rows):
        for column, name in enumerate(names):
            values[place, column] = number_in(row[name])
            if not np.isfinite(values[place, column]):
                found = f"holds '{row[name]}', no finite number" if row[name] else "is empty"
                raise InputError(
                    f"{path}, line {line}: the cell of '{name}' {found}. Fill it, or leave the row or the column out."
                )
    return [row[ID] for _, row in rows], values


def _parquet(path: Path) -> "tuple[list[str], np.ndarray]":
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException):
        raise InputError(f"{path} can't be read as Parquet. Write it anew.") from None
    frame = frame.reset_index() if ID not in frame and frame.index.name == ID else frame
    if ID not in frame:
        names = ", ".join(map(str, frame.columns))[:100]
        raise InputError(f"{path} has no column '{ID}'; it has {names}. Add it.")
    if any(value is None or value != value for value in frame[ID]):  # NaN and NaT differ from themselves
        raise InputError(f"{path} has a row with an empty id. Fill it, or leave the row out.")
    ids = [str(value).strip() for value in frame.pop(ID)]
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
            raise InputError(
                f"{path}: column '{name}' holds {column.dtype}, not numbers. Convert it, or leave it out."
            )
    columns = [frame[name].astype(np.float64).to_numpy() for name in frame]
    return ids, np.stack(columns, 1) if columns else np.empty((len(ids), 0))
