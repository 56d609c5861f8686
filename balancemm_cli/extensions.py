"""Classes of other installed packages, which announce them as entry points, and what of them could not be loaded."""

import hashlib
import importlib.util
import traceback
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.errors import InputError, UsageError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Extension:
    """A class that another package announces."""

    group: str
    name: str
    package: str
    version: str
    module: str  # that defines it
    fault: str | None = None  # why it is of no use

    @property
    def explanation(self) -> str:
        """What is wrong with it, in a sentence, and what to do."""
        return f"'{self.name}' ({self.group}) of {self.package} {self.fault}. Mend or uninstall it."

    @cached_property
    def sources(self) -> list[Path]:
        """The .py files of the whole package that the module belongs to, or of the module where it stands alone."""
        parts = self.module.split(".")
        for count in range(1, len(parts) + 1):
            spec = importlib.util.find_spec(".".join(parts[:count]))
            if spec is not None and spec.origin is not None:  # else a namespace, which several packages share
                origin = Path(spec.origin)
                inside = spec.submodule_search_locations is not None
                return sorted(origin.parent.rglob("*.py")) if inside else [origin]
        return []

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the names and the contents of `sources`."""
        folder = self.sources[0].parent if self.sources else Path()
        found = hashlib.sha256()
        for path in self.sources:
            found.update(
                f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
            )
        return found.hexdigest()


LOADED: dict[tuple[str, str], Extension] = {}  # by group and name
FAULTY: list[Extension] = []  # announced, and of no use


def extensions(
    group: str, base: type | tuple[type, ...] = object, ours: Iterable[str] = ()
) -> dict[str, Any]:
    """The classes of an entry-point group such as "bmm.methods" by name, those that are subclasses of `base`.

    What can't be imported, is no such class, or takes the name of one of `ours` is left out and stands in FAULTY.
    """
    from importlib.metadata import entry_points

    found: dict[str, Any] = {}
    for point in entry_points(group=group):
        kind, fault = _load(point, base, {*ours, *found})
        module = point.module if fault else kind.__module__
        package, version = (point.dist.name, point.dist.version) if point.dist else ("another package", "")
        extension = Extension(group, point.name, package, version, module, fault)
        if fault:
            FAULTY.append(extension)
        else:
            found[point.name], LOADED[group, point.name] = kind, extension
    return found


def _load(
    point: "EntryPoint", base: type | tuple[type, ...], taken: Container[str]
) -> tuple[Any, str | None]:
    """What an entry point announces, and what is wrong with it."""
    if point.name in taken:
        return None, "has a name that is taken"
    try:
        kind = point.load()
    except Exception as error:  # whatever the other package's module raises
        return None, f"can't be imported: {str(error).rstrip('.') or type(error).__name__}"
    if isinstance(kind, type) and issubclass(kind, base):
        return kind, None
    names = " or ".join(one.__name__ for one in (base if isinstance(base, tuple) else (base,)))
    return None, f"is no subclass of {names}"


def absent(kind: str, name: str, known: Iterable[str], group: str) -> InputError | UsageError:
    """What to raise for a name that is not `known`: what is wrong with it where another package announces it."""
    for extension in FAULTY:
        if (extension.group, extension.name) == (group, name):
            return InputError(extension.explanation)
    return unknown(kind, name, known)


def source_identity(group: str, name: str) -> dict[str, str] | None:
    """Which code of another package a name stands for: `package`, `version`, and `sha256` of its source.

    The hash is over every .py file of the package that defines the class, for it may import the others. None for what
    is our own.
    """
    extension = LOADED.get((group, name))
    if extension is None:
        return None
    return {"package": extension.package, "version": extension.version, "sha256": extension.sha256}


def raised_in(error: BaseException) -> Extension | None:
    """An extension of the package in whose code an error was raised, or that called what raised it; None for others."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for extension in LOADED.values():
            if Path(frame.filename) in extension.sources:
                return extension
    return None
