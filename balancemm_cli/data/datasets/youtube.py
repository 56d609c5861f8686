"""Clips cut from YouTube videos, found by their file names: the video's id, then where the clip begins.

An id has 11 characters, with "-" and "_" among them and with case, so a name is cut after 11 characters and never
split at a sign. The begin is written in several ways: `<id>_000030_000040.mp4`, `<id>_000030.mp4`, `<id>_30.mp4`
(seconds), `<id>_30000_40000.mp4` (milliseconds), or not at all (`<id>.mp4`).
"""

import re
from pathlib import Path

from balancemm_cli.data.datasets.tree import files_below

ID = r"[A-Za-z0-9_-]{11}"
SUFFIXES = frozenset({".mp4", ".mkv", ".webm"})

_STEM = re.compile(rf"({ID})(?:_.*)?")
_TIMES = re.compile(r"_([0-9]{1,9})(?:_([0-9]{1,9}))?")
_MILLISECONDS = 1000  # no clip has as many seconds, so times that far apart are milliseconds


def files_by_id(root: Path) -> dict[str, list[str]]:
    """The video files in any folder below `root`, by the YouTube id that their names begin with, as paths from
    `root`. InputError for a link that leads out of it."""
    found: dict[str, list[str]] = {}
    for name in files_below(root, SUFFIXES):
        if match := _STEM.fullmatch(_stem(name)):
            found.setdefault(match[1], []).append(name)
    return found


def start_second(name: str) -> int | None:
    """Where in its video a clip begins, in seconds, by its file's name; None where the name does not say."""
    match = _TIMES.fullmatch(_stem(name)[11:])
    if match is None:
        return None
    start = int(match[1])
    in_milliseconds = match[2] is not None and int(match[2]) - start >= _MILLISECONDS
    return start // 1000 if in_milliseconds else start


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]  # pathlib takes ten times as long
