"""Whether files are those that something was prepared from: their content decides.

The content of each file is hashed when it is decoded. Beside the prepared folder, the hidden file `.<name>.sources`
remembers each hash with the file's stamp: size, times of the last write and of the last change, and inode. A file
whose stamp is as remembered counts as unchanged; of every other the content is hashed again. So the memory saves time
and decides nothing: it belongs to this machine, and where it is absent, as for a folder that was copied, all content
is compared.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from balancemm_cli.data import store
from balancemm_cli.data.datasets.plan import YOUNG, Clip, Sample
from balancemm_cli.data.preparing.work import Progress
from balancemm_cli.data.preparing.workers import run, tick

BATCH = 32  # files that a worker process hashes at a time
UNREADABLE = "unreadable"  # in the place of a hash

Memory = dict[str, tuple[str, str]]  # of each medium: its stamp, and the SHA-256 of its content


def source_of(samples: list[Sample], contents: Memory) -> str:
    """A hash of samples and of the content of their files; a missing file is one that `contents` does not hold."""
    return store.digest([_describe(sample, contents) for sample in samples])


def look(clip: Clip) -> tuple[str, str] | None:
    """The stamp of a clip's medium and the hash of its content, None where it is missing. The stamp is taken first, so
    that a file that is replaced meanwhile is one that changed."""
    stamp = clip.stamp()
    if stamp is None:
        return None
    try:
        return stamp, clip.content()
    except OSError:
        return stamp, UNREADABLE


def look_at(sample: Sample, known: Memory) -> Memory:
    """`look` at each medium of a sample that is not known yet."""
    media = {medium: clip for medium, clip in media_of([sample]).items() if medium not in known}
    return {medium: facts for medium, clip in media.items() if (facts := look(clip))}


def media_of(samples: Iterable[Sample]) -> dict[str, Clip]:
    """The media of samples by name, each with a clip of it."""
    clips = (clip for sample in samples for clip in sample.clips.values())
    return {clip.medium: clip for clip in clips if clip.has_file}


def compare(
    samples: Iterable[Sample], memory: Memory, workers: int, on_progress: Progress | None = None
) -> Memory:
    """The content of the samples' media: as remembered where their stamps are, and else hashed in worker processes.

    `on_progress("compare", done, total)` counts the media that are hashed.
    """
    same, other = _unchanged(media_of(samples), memory)
    batches = [other[first : first + BATCH] for first in range(0, len(other), BATCH)]
    report = (lambda done: on_progress("compare", done, len(other))) if on_progress else None
    few = len(batches) < 2  # not worth the start of a process
    found = map(_look_at_each, batches) if few else run(_look_at_each, batches, workers, report)
    hashed = {
        clip.medium: facts for clip, facts in zip(other, (f for part in found for f in part), strict=True)
    }
    return same | {medium: facts for medium, facts in hashed.items() if facts}


def over_splits(samples: Iterable[Sample], memory: Memory) -> str:
    """A sentence on files of other names and the same content that are in two splits; empty where there are none."""
    found: dict[str, dict[str, str]] = {}  # by content: the split of each medium
    for sample in samples:
        for medium in {clip.medium for clip in sample.clips.values()} & memory.keys():
            found.setdefault(memory[medium][1], {}).setdefault(medium, sample.split)
    found.pop(UNREADABLE, None)
    copies = [media for media in found.values() if len({*media.values()}) > 1]
    if not copies:
        return ""
    names = " and ".join(f"{medium} ({split})" for medium, split in list(copies[0].items())[:3])
    more = f" (and {len(copies) - 1:,} more)" if len(copies) > 1 else ""
    return (
        f"The same content is in two splits: {names}{more}. A network does better on samples that it was trained on: "
        "take the copies out of one of them."
    )


def recall(folder: Path) -> Memory:
    """What is remembered of the media of a prepared folder; nothing where the memory is absent or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        files = json.loads(_beside(folder).read_bytes())["files"]
        return {str(medium): (str(stamp), str(content)) for medium, (stamp, content) in files.items()}
    return {}


def remember(folder: Path, memory: Memory) -> None:
    """Keep the memory beside a prepared folder, where that can be written to; it can be done without."""
    if memory:
        with suppress(OSError):
            store.write_json(_beside(folder), {"files": memory})


def _beside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.sources"


def _unchanged(media: dict[str, Clip], memory: Memory) -> tuple[Memory, list[Clip]]:
    """What is remembered of the media whose stamps are as remembered, and a clip of each other one that is there."""
    same: Memory = {}
    other = []
    for medium, clip in media.items():
        stamp = clip.stamp()
        known = memory.get(medium)
        if known and known[0] == stamp != YOUNG:
            same[medium] = known
        elif stamp is not None:
            other.append(clip)
    return same, other


def _look_at_each(clips: list[Clip]) -> list[tuple[str, str] | None]:
    """`look` at each clip. Runs in a worker."""
    found = []
    for clip in clips:
        found.append(look(clip))
        tick()
    return found


def _describe(sample: Sample, contents: Memory) -> list[Any]:
    clips = [
        [key, *clip.describe(), contents[clip.medium][1] if clip.medium in contents else None]
        for key, clip in sample.clips.items()
    ]
    waived = sorted(sample.waived)
    return [sample.id, sample.split, sample.label, sample.defect, waived, sample.extras, clips]
