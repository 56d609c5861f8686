"""Classes of other installed packages, which announce them as entry points, and what of them could not be loaded."""

import hashlib
import os
import re
import traceback
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.errors import BmmError, InputError, UsageError, plain, said_by, sentence, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, PackagePath

# What a recipe, --set or config.toml may hold by a name without a dot, and our methods, which models are loaded
# before: the names of no other method or model. The modules that define them import this one, so a test keeps it whole.
RESERVED = frozenset(
    [
        *("dataset", "model", "method", "variant", "recipe", "seed", "weights", "settings", "model_settings"),
        *(
            "methods",
            "extensions",
            "revisions",
            "task",
            "modalities",
            "encoder",
            "encoders",
            "pretrained",
            "epochs",
            "snapshots",
            "batch_size",
            "tested_on",
        ),
        *("optimizer", "waveform", "frames", "discrepancy", "speed"),
        *("baseline", "g-blending", "greedy", "greedy-adaptation", "agm", "pmr", "mmpareto", "opm", "ogm"),
        *("ogm-star", "moddrop", "dropout", "annealed-dropout", "evolutional-dropout"),
        *("curriculum-dropout", "unimodal-losses", "dgl", "arl", "lfm", "mslr", "relearning", "mla"),
        *("reconboost", "cggm", "inforeg", "smv", "g2d", "input-noise"),
    ]
)


@dataclass(frozen=True)
class Extension:
    """A class that another package announces."""

    group: str
    name: str
    package: str
    version: str
    fault: str | None = None  # why it is of no use
    files: frozenset[Path] = frozenset()  # its source, see `_files`
    sha256: str = ""  # of the source, as it was when it was loaded

    @property
    def explanation(self) -> str:
        """What is wrong with it, in a sentence, and what to do."""
        fault = sentence(f"'{self.name}' ({self.group}) of {self.package} {self.fault}")
        return f"{fault} Mend or uninstall it."


LOADED: dict[tuple[str, str], Extension] = {}  # by group and name
FAULTY: list[Extension] = []  # announced, and of no use


class _Fault(Exception):
    """Why what a package announces is of no use."""


def extensions(
    group: str,
    base: type | tuple[type, ...] = object,
    taken: Iterable[str] = (),
    make: Callable[[Any, str], Any] = lambda kind, name: kind,
) -> dict[str, Any]:
    """The classes of an entry-point group such as "bmm.methods" by name, those that are subclasses of `base`; or what
    `make` makes of a class and the name under which it is announced.

    What has a name that is `taken`, in whatever capitals, or of other signs than letters, digits and hyphens, can't be
    imported or made, or is no such class is left out and stands in FAULTY.
    """
    from importlib.metadata import entry_points

    found: dict[str, Any] = {}
    for point in entry_points(group=group):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("another package", "")
        about = partial(Extension, group, *(plain(str(text)) for text in (point.name, package, version)))
        try:
            _check_name(point.name, {name.casefold() for name in (*taken, *found)})
            kind = _load(point, base)
            made = _tried("can't be used", make, kind, point.name)
            files = _tried("can't be read", _files, point, kind)
            sha256 = _tried("can't be read", _digest, point, files)
        except _Fault as fault:
            FAULTY.append(about(fault=str(fault)))
        else:
            found[point.name] = made
            LOADED[group, point.name] = about(files=frozenset(files.values()), sha256=sha256)
    return found


def _check_name(name: str, taken: Container[str]) -> None:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise _Fault("has a name of other signs than letters, digits and hyphens")
    if name.casefold() in taken:
        raise _Fault("has a name that is taken")


def _load(point: "EntryPoint", base: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - a class of `base`
    """The class that an entry point announces."""
    kind = _tried("can't be imported", point.load)
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    names = " or ".join(one.__name__ for one in (base if isinstance(base, tuple) else (base,)))
    raise _Fault(f"is no subclass of {names}")


def _tried(what: str, call: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401 - what it returns
    """Call what runs code of another package, which may raise anything, also SystemExit."""
    try:
        return call(*given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Fault(f"{what}: {said_by(error)}") from error


# ---- the source ---------------------------------------------------------------------------------------------


def _files(point: "EntryPoint", kind: type) -> dict[str, Path]:
    """The files of an extension's source, by names that do not depend on where it is installed.

    They are all files of the package that defines the class and of the one that announces it, and all that their
    distribution installed; of an editable install, which installs no source, those of its top-level packages.
    """
    found = _of_module(point.module) | _of_module(kind.__module__)
    if point.dist is not None:
        installed = point.dist.files if point.dist.read_text("RECORD") else None
        recorded = {str(file): Path(str(file.locate())) for file in installed or () if _is_source(file)}
        known = {re.split(r"[/.]", name, maxsplit=1)[0] for name in recorded}
        for package in {*(point.dist.read_text("top_level.txt") or "").split()} - known:
            found |= _of_module(package)
        found |= recorded
    return {name: path for name, path in found.items() if path.is_file()}


def _is_source(file: "PackagePath") -> bool:
    """Whether a file of a distribution is none that its installation makes: records, byte code, scripts, links."""
    made = {"..", "__pycache__"}
    return (
        made.isdisjoint(file.parts)
        and not file.parts[0].endswith((".dist-info", ".egg-info"))
        and not file.name.startswith("__editable__")
        and file.suffix not in (".pyc", ".pth")
    )


def _of_module(module: str) -> dict[str, Path]:
    """The files of the outermost package that a module belongs to and that is no namespace, which several
    distributions may share; else those beside the module in its namespace, or the module alone."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1) if parts[0] != __package__ else ():
        try:
            spec = find_spec(".".join(parts[:count]))
        except (ImportError, ValueError):  # a class may say anything of where it comes from
            return {}
        if spec is not None and spec.origin is not None:
            file, inside = Path(spec.origin), spec.submodule_search_locations is not None
            archive = [path for path in file.parents if path.is_file()]
            above = parts[:count] if inside else parts[: count - 1]
            if archive or not above:
                return {path.name: path for path in archive or [file]}
            return {"/".join((*above, *path.parts)): file.parent / path for path in _below(file.parent)}
    return {}


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder by their paths from there, but for hidden ones and byte code."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if not name.startswith("."):
                yield (Path(place) / name).relative_to(folder)


def _digest(point: "EntryPoint", files: dict[str, Path]) -> str:
    """SHA-256 over what the distribution announces, and over the names and the contents of its source."""
    announced = (point.dist.read_text("entry_points.txt") if point.dist else None) or point.value
    lines = [announced, *(f"{name}\0{_sha256(files[name])}" for name in sorted(files))]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


@cache  # a package may announce many classes
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- what was loaded -------------------------------------------------------------------------------------------


def absent(kind: str, name: str, known: Iterable[str], group: str) -> InputError | UsageError:
    """What to raise for a name that is not `known`: what is wrong with it where another package announces it."""
    for extension in FAULTY:
        if (extension.group, extension.name) == (group, name):
            return InputError(extension.explanation)
    return unknown(kind, name, known)


def source_identity(group: str, name: str) -> dict[str, str] | None:
    """Which code of another package a name stands for: `package`, `version`, and `sha256` of its source.

    The source is that which was there when the class was loaded. None for what is our own.
    """
    extension = LOADED.get((group, name))
    if extension is None:
        return None
    return {"package": extension.package, "version": extension.version, "sha256": extension.sha256}


def raised_in(error: BaseException) -> Extension | None:
    """An extension of the package in whose code an error was raised, or that called what raised it; None for others."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for extension in LOADED.values():
            if Path(frame.filename) in extension.files:
                return extension
    return None


@contextmanager
def failures_explained(what: str) -> Iterator[None]:
    """Raise an error of another package that ends the block as InputError, in a sentence on `what` failed."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, BmmError, OSError):  # which say what is wrong
        raise
    except BaseException as error:
        if raised_in(error) is None:
            raise
        raise InputError(explain(error, what)) from error


def explain(error: BaseException, what: str) -> str:
    """In a sentence which error it was, and where: in another package, or in a file of our own."""
    extension, last = raised_in(error), traceback.extract_tb(error.__traceback__)[-1]
    files = extension.files if extension else ()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in files]
    frame = frames[-1] if frames else last
    of = f" of {extension.package} {extension.version}" if extension else ""
    kind, text = type(error).__name__, said_by(error)
    return sentence(
        f"The {what} failed in line {frame.lineno} of {Path(frame.filename).name}{of}: "
        f"{kind if text == kind else f'{kind}: {text}'}"
    )
