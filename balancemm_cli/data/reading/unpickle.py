"""Pickles of plain values and numpy arrays, read without running anything that they ask for.

A pickle is a program that may call whatever it names. Here it gets nothing of Python or numpy at all: the names
under which numpy 1 and 2 write their arrays lead to stand-ins, which build arrays out of checked types, shapes
and bytes, and every other name is refused. numpy's own functions would not do: a pickle that may set the state
of a `numpy.dtype` can have bytes of the file taken for addresses of objects.
"""

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from balancemm_cli.errors import InputError

# The types of the items of an array, as pickles write them: numbers, strings, and objects that are strings.
TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,8}|O8?")


def load(path: Path) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """The content of a pickle of any protocol, by Python 2 or 3: dicts, lists, tuples, strings, bytes, numbers,
    None and arrays, whose items are numbers or strings. Python 2's strings are read as Latin-1.

    Arrays are of a subclass of np.ndarray; np.asarray gives plain ones. InputError for a pickle that asks for
    anything else, which it names, and for a file that is absent, damaged or no pickle.
    """
    try:
        _check(path)
        with path.open("rb") as file:
            return _Unpickler(file, path).load()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. Check the path.") from None
    except (InputError, OSError):
        raise
    except MemoryError:
        raise InputError(f"{path} is damaged, or it does not fit into the memory of this machine.") from None
    except Exception as error:  # what a damaged pickle raises can be nearly anything
        reason = ascii(str(error))[1:-1][:100]
        raise InputError(
            f"{path} is damaged or no pickle of arrays ({type(error).__name__}: {reason}). Get the file anew."
        ) from None


def _check(path: Path) -> None:
    """Refuse files that are no pickles at all, and places in the memo beyond what the file can fill: Python
    makes room up to the highest, so that five bytes would take all memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if not head:
            raise InputError(f"{path} is empty. Get the file anew.")
        if head.startswith(b"version https://git-lfs"):
            raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
        if head.lstrip().startswith(b"<"):
            raise InputError(f"{path} is a web page saved as a pickle. Download the file again.")
        file.seek(0)
        for instruction, argument, _ in pickletools.genops(file):
            if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
                raise pickle.UnpicklingError(f"place {argument} of the memo in a file of {size} bytes")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401 - as in the base
        """The stand-in for a name that numpy's arrays need; InputError for any other."""
        name = f"{module_name}.{global_name}".replace("numpy._core.", "numpy.core.", 1)
        if name == "numpy.ndarray":
            return name  # only ever an argument of _reconstruct
        if name in _STAND_INS:
            return _Call(_STAND_INS[name])
        asked = ascii(f"{module_name}.{global_name}"[:100])
        raise InputError(
            f"{self._path} asks for {asked}, which is neither a plain value nor an array; a pickle can run programs "
            "that way, so it is not read. Get the file from its official source."
        )


class _Call:
    """Calls one of the functions below. Made anew each time, so that a pickle which sets its attribute changes
    nothing beyond itself."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - those of the pickle
        return self._function(*arguments)


class _Type:
    """The type of an array's items: made as `numpy.dtype("f4", False, True)`, then given its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: object) -> None:
        if not TYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of type '{code}'")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, base, names, fields, *_ = state
        if base or names or fields or order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array of a composite type")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array, filled by the pickle after it was made."""

    __slots__ = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        dtype, content = _checked(kind, shape, content)
        super().__setstate__((1, shape, dtype, bool(fortran), content))  # pyright: ignore


def _checked(kind: object, shape: object, content: object) -> tuple[np.dtype[Any], Any]:
    """The type and the content (bytes, or a list of strings) of an array of that shape. numpy takes memory for
    the shape, so what the file holds must be of just that size. UnpicklingError where it is not."""
    if not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("an array without a type or a shape")
    dtype = kind.dtype
    content = content.encode("latin1") if isinstance(content, str) else content
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise pickle.UnpicklingError("an array whose shape is not of whole numbers")
    if dtype.hasobject:
        if not isinstance(content, list) or not all(isinstance(item, str | bytes) for item in content):
            raise pickle.UnpicklingError("an array of objects other than strings")
    elif not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array without its bytes")
    if len(content) != math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize):
        raise pickle.UnpicklingError(f"an array whose {len(content)} bytes or items do not fill its shape")
    return dtype, content


def _reconstruct(*_: object) -> np.ndarray:
    return np.ndarray.__new__(_Array, 0)


def _from_buffer(
    content: object,
    kind: object,
    shape: tuple[int, ...],
    order: Literal["C", "F", "K"],
    axes: tuple[int, ...] | None = None,
) -> np.ndarray:
    """An array in pickles of protocol 5."""
    dtype, values = _checked(kind, shape, content)
    array = np.frombuffer(values, dtype).view(_Array)
    if order == "K":
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _scalar(kind: object, content: object) -> np.generic:
    dtype, values = _checked(kind, (), content)
    return np.frombuffer(values, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes in pickles of protocols below 3."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in the encoding '{encoding}'")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Empty bytes in pickles of protocols below 3."""
    return b""


_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
}
