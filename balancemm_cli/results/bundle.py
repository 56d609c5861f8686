"""Results without weights as one file, for others to report on: `bmm report --bundle FILE`.

A bundle is a zip archive: the files of each run that a report reads, the records of the searches that chose their
settings, and index.json with a SHA-256 of each and, where it was given, the name of whose they are. The same runs give
the same bytes. Reading trusts nothing. What is declared is bounded before anything is read: the archive's
list of files, the index, each file, and all of them together, for which the disk must have room. Only files that the
index names are written, into a folder of one's own; each must have its length and hash, and hold what a run's file of
its name holds.
"""

import hashlib
import io
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from balancemm_cli.data.store import atomic_file
from balancemm_cli.errors import InputError
from balancemm_cli.results.groups import Group
from balancemm_cli.results.sharing import Bundle, told_apart
from balancemm_cli.runs.evaluation import read_evaluation
from balancemm_cli.runs.reading import (
    LIMITS,
    MIB,
    read_environments,
    read_history,
    read_settings,
    read_table,
)
from balancemm_cli.runs.run import Run, read_run
from balancemm_cli.runs.schema import first_fault
from balancemm_cli.runs.search import RECORD, read_search

INDEX = "index.json"
LIMIT = 16 * 1024 * MIB  # of all files of a bundle together
INDEX_LIMIT = 32 * MIB
LIST_LIMIT = 16 * MIB  # of zip's own list of its files, which zipfile reads whole: more than 100,000 of them
CHUNK = MIB
LONGEST = 200  # characters of a folder's name
LONGEST_OWNER = 60
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file: the same runs, the same bytes


class Member(BaseModel):
    """A file of a bundle: its length in bytes and its SHA-256."""

    size: int = Field(ge=0)
    sha256: str


def owner_named(text: str) -> str:
    """A name of who owns runs as it is shown: one line that upsets no terminal, spreadsheet or table. ValueError where
    there is none in a text; an empty one is no name."""
    name = " ".join(normalize("NFC", text).split())
    if name and not (name.isprintable() and name[0].isalnum() and len(name) <= LONGEST_OWNER):
        raise ValueError(
            f"an owner's name begins with a letter or a digit, has at most {LONGEST_OWNER} characters, and none that "
            "controls a terminal"
        )
    return name


class Index(BaseModel):
    """index.json: whose the runs are, and the files by their names, `<data set>/<model>/<run folder>/<file>`.

    Format 1, of former versions, had no owner and no search.json.
    """

    format: Literal[1, 2]
    owner: Annotated[str, AfterValidator(owner_named)] = ""
    files: dict[str, Member]


def write_bundle(groups: Iterable[Group], path: Path, owner: str = "") -> int:
    """Write the runs of the groups, and the records of their searches, into `path`, whole or not at all; returns how
    many runs they are. `owner` is whose they are, as `owner_named` gives it."""
    groups = list(groups)
    runs = _named([run for group in groups for run in group.runs])
    folders = runs | _searches(groups)
    index = Index(format=2, owner=owner, files={})
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, folder in sorted(folders.items()):
            for part in LIMITS:
                if (folder / part).is_file():
                    content = (folder / part).read_bytes()
                    index.files[f"{name}/{part}"] = _member(content)
                    archive.writestr(zipfile.ZipInfo(f"{name}/{part}", EPOCH), content, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(INDEX, EPOCH), index.model_dump_json(indent=1), zipfile.ZIP_DEFLATED)
    return len(runs)


def _named(runs: Iterable[Run]) -> dict[str, Path]:
    """The runs' folders by their names in a bundle, numbered where several have the same one."""
    folders: dict[str, Path] = {}
    times: Counter[str] = Counter()
    for run in runs:
        name = f"{run.result.dataset}/{run.result.model}/{run.folder.name}"
        times[name] += 1
        folders[name if times[name] == 1 else f"{name}~{times[name]}"] = run.folder
    return folders


def _searches(groups: Iterable[Group]) -> dict[str, Path]:
    """The folders of the groups' searches by their names in a bundle; of those of one name, which asked the same, the
    first."""
    found: dict[str, Path] = {}
    for search in (search for group in groups for search in group.searches):
        assert search.folder
        found.setdefault(f"{search.dataset}/{search.model}/{search.folder.name}", search.folder)
    return found


def _member(content: bytes) -> Member:
    return Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def unpack_all(paths: Iterable[Path], folder: Path, own: str = "") -> list[Bundle]:
    """Unpack several bundles, each into a folder of its own under `folder`; `own` is whose the runs are that bear no
    name. Runs of a bundle without a name go by that of its file."""
    found = []
    for number, path in enumerate({path.resolve(): path for path in paths}.values(), 1):
        place = folder / str(number)
        named = unpack(path, place)
        found.append(Bundle(path, place, named or own or _of_file(path, number), named))
    return told_apart(found, own)


def _of_file(path: Path, number: int) -> str:
    try:
        return owner_named(path.stem) or f"bundle {number}"
    except ValueError:
        return f"bundle {number}"


def unpack(path: Path, folder: Path) -> str:
    """Write the run folders of a bundle under `folder`; returns the name of their owner, empty where it has none.
    InputError for a file that is damaged or no bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _Bounded(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            index = _read_index(archive)
            _check(index, archive)
            _check_room(index, folder)
            for name, member in index.files.items():
                _extract(archive, name, member, folder / name)
        for run in sorted({(folder / name).parent for name in index.files}):
            _check_run(run, run.relative_to(folder))
        return index.owner
    except ValidationError as error:
        raise InputError(
            f"{path} is no bundle that this version of bmm can read ({first_fault(error)})."
        ) from None
    except KeyError:
        raise InputError(f"{path} is a zip file, but no bundle of `bmm report --bundle`.") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        InputError,
    ) as error:
        reason = str(error).replace(f"{folder}/", "").rstrip(".")[:LONGEST]
        raise InputError(f"{path} is damaged or no bundle ({reason}). Ask for it again.") from None


class _Bounded(io.BufferedReader):
    """A file of which no one reads more at once than LIST_LIMIT, or before its start. ValueError for who wants to."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if offset < 0 and whence == io.SEEK_SET:
            raise ValueError("it names a place before its own start")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(LIST_LIMIT + 1 if size is None or size < 0 else min(size, LIST_LIMIT + 1))
        if len(content) > LIST_LIMIT:
            raise ValueError("it lists more files than a bundle may have")
        return content


def _read_index(archive: zipfile.ZipFile) -> Index:
    """KeyError where there is none, ValidationError or ValueError where it is no index."""
    with archive.open(INDEX) as file:
        content = file.read(INDEX_LIMIT + 1)
    if len(content) > INDEX_LIMIT:
        raise ValueError(f"its {INDEX} is larger than it may be")
    return Index.model_validate_json(content)


def _check(index: Index, archive: zipfile.ZipFile) -> None:
    """ValueError where the index names what is no file of a run, or not what the archive has."""
    if sum(member.size for member in index.files.values()) > LIMIT:
        raise ValueError("it holds more than a bundle may")
    sizes = {one.filename: one.file_size for one in archive.infolist() if one.filename != INDEX}
    if len(archive.infolist()) != len(index.files) + 1 or sizes.keys() != index.files.keys():
        raise ValueError("its files are not those of its index")
    for name, member in index.files.items():
        parts = PurePosixPath(name).parts
        if len(parts) != 4 or name != "/".join(parts) or parts[-1] not in LIMITS or any(map(_is_odd, parts)):
            raise ValueError(f"{name[:LONGEST]!a} is no file of a run")
        if member.size > LIMITS[parts[-1]] or member.size != sizes[name]:
            raise ValueError(f"'{name}' is larger than it may be, or not as long as the index says")


def _is_odd(part: str) -> bool:
    """Whether a part of a name is none that a run's folder has: one that leads elsewhere, or upsets a terminal."""
    return part in ("..", ".") or "\\" in part or len(part) > LONGEST or not part.isprintable()


def _check_room(index: Index, folder: Path) -> None:
    needed, free = sum(member.size for member in index.files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"unpacked it is {needed // MIB:,} MiB, and {folder} has room for {free // MIB:,}")


def _extract(archive: zipfile.ZipFile, name: str, member: Member, place: Path) -> None:
    """Write a file of the archive. ValueError where it is longer than the index says, or not what it says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    found, length = hashlib.sha256(), 0
    with archive.open(name) as packed, place.open("xb") as file:
        while content := packed.read(CHUNK):
            length += len(content)
            if length > member.size:
                break
            found.update(content)
            file.write(content)
    if (length, found.hexdigest()) != (member.size, member.sha256):
        raise ValueError(f"'{name}' is not what the index says")


def _check_run(folder: Path, name: Path) -> None:
    """Read every file of a run folder as a report does. InputError or ValueError for one that can't be read."""
    readers = {
        "config.toml": read_settings,
        "environment.json": read_environments,
        "history.jsonl": read_history,
        "result.json": read_run,
        "evaluation.json": read_evaluation,
        RECORD: read_search,
    }
    for path in sorted(folder.iterdir()):
        if path.suffix == ".arrow":
            read_table(path)
        else:
            try:
                readers[path.name](folder)
            except ValidationError as error:
                raise ValueError(f"{name / path.name}: {first_fault(error)}") from None
