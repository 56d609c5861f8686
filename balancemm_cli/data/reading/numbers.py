"""Numbers out of files: .npy of one sample, and tables of many (CSV, Parquet, .npy with a list of ids)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from balancemm_cli.data.reading.files import MediaError, examine
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ID = "id"


def read_npy(path: Path, width: int) -> np.ndarray:
    """float32 [T, width] out of an .npy file of [width] or [T, width] numbers. MediaError for a file that holds
    anything else, nothing, or numbers that are not finite."""
    values = _open(path)
    values = values[None] if values.ndim == 1 else values
    if values.shape[1] != width:
        raise MediaError("other width", f"{values.shape[1]:,} numbers a step, and {width:,} in most files")
    with np.errstate(over="ignore"):
        numbers = np.array(values, np.float32)
    if not np.isfinite(numbers).all():
        raise MediaError("not finite", "it holds NaN or infinite numbers, or some too large for float32")
    return numbers


def shape_of_npy(path: Path) -> tuple[int, int] | None:
    """Steps and numbers a step of an .npy file, by its header; None where `read_npy` would find it of no use."""
    try:
        values = _open(path)
    except MediaError:
        return None
    return (len(values), values.shape[1]) if values.ndim == 2 else (1, len(values))


def _open(path: Path) -> np.ndarray:
    """The array of an .npy file, [D] or [T, D], mapped to memory. MediaError where there is none."""
    examine(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError):
        raise MediaError(
            "unreadable", "not an .npy file, cut off, or one with Python objects in it"
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise MediaError("unreadable", "it holds something else than one array of real numbers")
    if values.ndim not in (1, 2) or not values.size:
        raise MediaError("other shape", f"{list(values.shape)}, where [D] or [T, D] belongs")
    return values


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """The ids of a table, and its numbers, float64 [N, D] or, of an .npy file, also [N, T, D].

    A CSV or Parquet file has the column `id`, and numbers in each other column. Beside NAME.npy the text file NAME.txt
    holds an id a line. InputError where the file is anything else, and where an id comes twice.
    """
    if path.suffix.lower() == ".npy":
        ids, values = _ids_beside(path), _array(path)
        if len(ids) != len(values):
            raise InputError(
                f"{path.with_suffix('.txt')} has {len(ids):,} ids, and {path} {len(values):,} rows. "
                "Write an id a line, in the order of the rows."
            )
    else:
        frame = _frame(path)
        ids = [str(value).strip() for value in frame.pop(ID)]
        values = _columns(path, frame, ids)
    twice = (
        next((name for place, name in enumerate(ids) if name in set(ids[:place])), None)
        if (len(set(ids)) < len(ids))
        else None
    )
    if twice is not None:
        raise InputError(f"{path} has the id '{twice}' more than once. Leave one row of each id.")
    if not np.isfinite(values).all():
        row = ids[int(np.argwhere(~np.isfinite(values))[0][0])]
        raise InputError(
            f"{path}: the row of '{row}' has a number that is missing or not finite. Fill it, or leave the sample out."
        )
    return ids, values


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. Correct --table.") from None
    except (OSError, ValueError, EOFError, SyntaxError):
        raise InputError(
            f"{path} is not an .npy file, or has Python objects in it. Write it with numpy.save."
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim not in (2, 3):
        raise InputError(f"{path} does not hold one array of numbers, [N, D] or [N, T, D]. Write such a one.")
    return values.astype(np.float64)


def _ids_beside(path: Path) -> list[str]:
    from balancemm_cli.data.datasets.lists import read_text

    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise InputError(f"{path} needs the ids of its rows, an id a line, in {beside}. Write that file.")
    return [line.strip() for line in read_text(beside).rstrip("\n").split("\n")]


def _frame(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            frame = frame if ID in frame or frame.index.name != ID else frame.reset_index()
        else:
            frame = pd.read_csv(path, dtype={ID: str}, encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. Correct --table.") from None
    except (OSError, ValueError) as error:  # pandas' and Arrow's errors are such
        said = str(error).splitlines()[0]
        raise InputError(
            f"{path} can't be read as a table: {said}. Save it as CSV (UTF-8) or Parquet."
        ) from None
    if ID not in frame:
        raise InputError(
            f"{path} has no column '{ID}'; it has {', '.join(map(str, frame.columns))[:100]}. Add it."
        )
    if len(frame.columns) == 1:
        raise InputError(f"{path} has no column of numbers beside '{ID}'. Add one.")
    return frame


def _columns(path: Path, frame: "pd.DataFrame", ids: list[str]) -> np.ndarray:
    """The columns as float64 [N, D]. InputError, with row and column, for what is no number."""
    import pandas as pd

    for name, column in frame.items():
        numbers = pd.to_numeric(column, errors="coerce")
        wrong = numbers.isna() & column.notna()
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            raise InputError(
                f"{path}: column '{name}' holds '{column.iloc[row]}' in the row of '{ids[row]}', which is no number. "
                "Correct it, or leave the column out."
            )
    return np.stack([pd.to_numeric(frame[name]).to_numpy(np.float64) for name in frame], 1)
