"""A data set prepared in parts, on one machine or many, and the parts joined.

Part 3 of 16 holds every 16th shard from the third on, so that the parts take about as long as each other however
long the clips of a split or class are. It is a folder `<name>.part-3-of-16` beside the folder to be made, with
its shards and `part.json`: the description of the whole set and the records of the shards (finish.py), so that
joining needs neither media nor lists. The joined folder has the bytes of one prepared whole.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancemm_cli.data import store
from balancemm_cli.data.preparing.finish import RECORD, Records, SetDescription, finish, same_set
from balancemm_cli.data.preparing.sources import recall, remember
from balancemm_cli.data.preparing.work import Progress, disk_full, interruption, is_free, work_folder
from balancemm_cli.data.store import PreparedSet, open_set
from balancemm_cli.errors import InputError, UsageError

PART = "part.json"
FORMAT = 2  # of part.json
NAME = re.compile(r"part-([1-9]\d*)-of-([1-9]\d*)")  # behind the name of the whole folder and a point
SHARD = re.compile(r"[a-z]+-\d{5}\.arrow")
AGAIN = "Delete the folder and prepare the part again."


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"

    def folder(self, out: Path) -> Path:
        """Where the part of the set `out` is."""
        return out.with_name(f"{out.name}.part-{self.number}-of-{self.of}")

    def take(self, things: list[Any]) -> list[Any]:
        """The part's share of a list."""
        return things[self.number - 1 :: self.of]


def parse_part(text: str) -> Part:
    """The part that "3/16" names. UsageError for anything else."""
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Part(int(number), int(of))
    raise UsageError(f"--part is '{text}'; write it as 3/16, the third of sixteen parts.")


def finish_part(folder: Path, part: Part, described: SetDescription, records: Records, out: Path) -> None:
    """Write part.json beside the shards in `folder`, and rename it to the part's folder beside `out`."""
    content = {"format": FORMAT, "part": part.number, "of": part.of, "set": described, "shards": records}
    store.write_json(folder / PART, {**content, "hash": store.digest(content)})
    folder.replace(part.folder(out))


def same_part(part: Part, described: SetDescription, sources: dict[str, str], out: Path) -> None:
    """Check a part that is there already against what it would be made from: the hash of each shard's samples.
    InputError where it is another or damaged."""
    folder = part.folder(out)
    found = _read(folder, part)
    records = found["shards"]
    if found["set"] != described or {file: record["source"] for file, record in records.items()} != sources:
        raise InputError(
            f"{folder} was prepared from other media, lists, settings or versions. Delete it, or name another "
            "--out."
        )
    for file, record in records.items():
        _check_shard(folder / file, record)


def join_parts(
    out: Path, on_progress: Progress | None = None, on_message: Callable[[str], None] | None = None
) -> PreparedSet:
    """Put the parts that lie beside `out` together as the prepared folder `out`; the parts are kept.

    Shards are linked where the file system can, and else copied. `on_progress("join", done, total)` counts
    shards. InputError where a part is missing, damaged or of another set, and where `out` holds something else.
    """
    say = on_message or (lambda message: None)
    parts = _find(out)
    described, holders = _together(parts)
    for note in described["notes"]:
        say(note)
    records = {file: holders[file][1] for own in described["splits"].values() for file in own["shards"]}
    if not is_free(out):
        say(same_set(out, described, (record["source"] for record in records.values())))
        return open_set(out)
    with interruption("The parts are as they were."), disk_full(out.parent), work_folder(out) as work:
        folder = work / "joined"
        shutil.rmtree(folder, ignore_errors=True)  # of a call that was ended
        folder.mkdir()
        for done, (file, record) in enumerate(records.items(), 1):
            _check_shard(holders[file][0], record)
            _link(holders[file][0], folder / file)
            if on_progress:
                on_progress("join", done, len(records))
        finish(folder, described, records, out)
    remember(out, {medium: facts for folder in parts.values() for medium, facts in recall(folder).items()})
    shutil.rmtree(work, ignore_errors=True)
    say(f"Joined {len(parts)} parts; they are kept, and can be deleted: {out}.part-*")
    return open_set(out)


def _find(out: Path) -> dict[Part, Path]:
    """The folders of all parts of `out`, in order. InputError where one is missing or there are several divisions."""
    found: dict[Part, Path] = {}
    for path in sorted(out.parent.iterdir()) if out.parent.is_dir() else []:
        match = NAME.fullmatch(path.name.removeprefix(f"{out.name}."))
        if match and path.name.startswith(f"{out.name}.") and path.is_dir():
            found[Part(int(match[1]), int(match[2]))] = path
    if not found:
        raise InputError(
            f"There are no parts {out.name}.part-1-of-N … in {out.parent}. Make them with --part, or put them there; "
            "another name of the whole folder is given with --out."
        )
    if len(divisions := sorted({part.of for part in found})) > 1:
        raise InputError(
            f"In {out.parent} lie parts of {out.name} of several divisions (of "
            f"{', of '.join(map(str, divisions))}). Move away those that do not belong together."
        )
    (of,) = divisions
    missing = [Part(number, of) for number in range(1, of + 1) if Part(number, of) not in found]
    if missing:
        names = ", ".join(str(part.number) for part in missing[:10]) + (" …" if len(missing) > 10 else "")
        raise InputError(
            f"{len(missing)} of the {of} parts of {out} are missing: {names}. Make them with --part "
            f"{missing[0].number}/{of}, or put their folders beside it."
        )
    return {Part(number, of): found[Part(number, of)] for number in range(1, of + 1)}


def _together(parts: dict[Part, Path]) -> tuple[SetDescription, dict[str, tuple[Path, dict[str, Any]]]]:
    """What the parts are of, and each shard's path and record. InputError for parts of different sets."""
    described: SetDescription = {}
    holders: dict[str, tuple[Path, dict[str, Any]]] = {}
    first = next(iter(parts.values()))
    for part, folder in parts.items():
        found = _read(folder, part)
        described = described or found["set"]
        if others := [key for key in described if found["set"].get(key) != described[key]]:
            raise InputError(
                f"{folder} is a part of another set than {first}: '{others[0]}' in their part.json differs. "
                "Prepare both from the same media and lists, with the same options and versions."
            )
        for file, record in found["shards"].items():
            holders[file] = folder / file, record
    return described, holders


def _read(folder: Path, part: Part) -> dict[str, Any]:
    """The content of part.json. InputError where it is absent, damaged, or of another part."""
    path = folder / PART
    content, sound, version = {}, False, FORMAT
    try:
        content = json.loads(path.read_bytes())
        version = content["format"]
        sound = version == FORMAT and _is_sound(content)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} holds no {PART}, so it is no finished part. {AGAIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    if version != FORMAT:
        raise InputError(f"{path} is of format {version}, this program's is {FORMAT}. {AGAIN}")
    if not sound:
        raise InputError(f"{path} is damaged. {AGAIN}")
    said = Part(content["part"], content["of"])
    if said != part:
        raise InputError(f"{folder} holds {said}, not {part}. Give it its own name back.")
    return content


def _is_sound(content: dict[str, Any]) -> bool:
    """Whether part.json is as it was written: by its hash, and by what is built on."""
    files = [file for split in content["set"]["splits"].values() for file in split["shards"]]
    return (
        content.pop("hash") == store.digest(content)
        and all(SHARD.fullmatch(file) for file in files)
        and list(content["shards"]) == Part(content["part"], content["of"]).take(files)
        and all(set(record) == set(RECORD) for record in content["shards"].values())
    )


def _check_shard(path: Path, record: dict[str, Any]) -> None:
    try:
        if store.file_hash(path) == record["sha256"]:
            return
        what = "is damaged: its SHA-256 is not the one of part.json"
    except FileNotFoundError:
        what = "is missing"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise InputError(f"{path} {what}. {AGAIN}")


def _link(path: Path, target: Path) -> None:
    """The same file under another name where the file system can, so that it takes no space twice; else a copy."""
    try:
        os.link(os.path.realpath(path), target)
    except OSError:
        shutil.copyfile(path, target)
