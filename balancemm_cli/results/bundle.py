"""Results without weights as one file, for others to report on: `bmm report --bundle FILE`.

A bundle is a zip archive: the files of each run that a report reads, and index.json with a SHA-256 of each. The same
runs give the same bytes. Reading trusts nothing: only files that the index names are written, into a folder of one's
own, none is larger than the index says or than LIMIT, and each must have its hash.
"""

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from balancemm_cli.data.store import atomic_file
from balancemm_cli.errors import InputError
from balancemm_cli.results.groups import Group
from balancemm_cli.runs.finding import Run
from balancemm_cli.runs.schema import first_fault

FILES = (
    "config.toml",
    "environment.json",
    "history.jsonl",
    "steps.arrow",
    "predictions.arrow",
    "result.json",
    "evaluation.json",
    "features.arrow",
)
INDEX = "index.json"
LIMIT = 16 * 2**30  # bytes of all files of a bundle together
INDEX_LIMIT = 64 * 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file: the same runs, the same bytes


class Member(BaseModel):
    """A file of a bundle: its length in bytes and its SHA-256."""

    size: int = Field(ge=0)
    sha256: str


class Index(BaseModel):
    """index.json: the files by their names, `<data set>/<model>/<run folder>/<file>`."""

    format: Literal[1]
    files: dict[str, Member]


def write_bundle(groups: Iterable[Group], path: Path) -> int:
    """Write the runs of the groups into `path`, whole or not at all; returns how many they are."""
    folders = _named([run for group in groups for run in group.runs])
    index = Index(format=1, files={})
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, folder in sorted(folders.items()):
            for part in FILES:
                if (folder / part).is_file():
                    content = (folder / part).read_bytes()
                    index.files[f"{name}/{part}"] = _member(content)
                    archive.writestr(zipfile.ZipInfo(f"{name}/{part}", EPOCH), content, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(INDEX, EPOCH), index.model_dump_json(indent=1), zipfile.ZIP_DEFLATED)
    return len(folders)


def _named(runs: Iterable[Run]) -> dict[str, Path]:
    """The runs' folders by their names in a bundle, numbered where several have the same one."""
    folders: dict[str, Path] = {}
    times: Counter[str] = Counter()
    for run in runs:
        name = f"{run.result.dataset}/{run.result.model}/{run.folder.name}"
        times[name] += 1
        folders[name if times[name] == 1 else f"{name}~{times[name]}"] = run.folder
    return folders


def _member(content: bytes) -> Member:
    return Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def unpack(path: Path, folder: Path) -> None:
    """Write the run folders of a bundle under `folder`. InputError for a file that is damaged or no bundle."""
    try:
        with zipfile.ZipFile(path) as archive:
            index = Index.model_validate_json(_read(archive, INDEX, INDEX_LIMIT))
            _check(index, archive)
            for name, member in index.files.items():
                content = _read(archive, name, member.size)
                if _member(content) != member:
                    raise ValueError(f"'{name}' is not what the index says")
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
    except ValidationError as error:
        raise InputError(
            f"{path} is no bundle that this version of bmm can read ({first_fault(error)})."
        ) from None
    except KeyError:
        raise InputError(f"{path} is a zip file, but no bundle of `bmm report --bundle`.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or no bundle ({error}). Ask for it again.") from None


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A file of the archive, of at most `limit` bytes whatever its header says. KeyError where there is none."""
    with archive.open(name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"'{name}' is larger than it may be")
    return content


def _check(index: Index, archive: zipfile.ZipFile) -> None:
    if sum(member.size for member in index.files.values()) > LIMIT:
        raise ValueError("it holds more than a bundle may")
    if {INDEX, *index.files} != set(archive.namelist()):
        raise ValueError("its files are not those of its index")
    for name in index.files:
        parts = PurePosixPath(name).parts
        if (
            PurePosixPath(name).is_absolute()
            or len(parts) != 4
            or parts[-1] not in FILES
            or any(part in ("..", ".") or "\\" in part for part in parts)
        ):
            raise ValueError(f"'{name}' is no file of a run")
