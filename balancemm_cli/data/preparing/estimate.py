"""What `bmm prepare` would make, what is missing for it, and about how large it is and how long it takes; nothing
is decoded or written."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from balancemm_cli.data.datasets.plan import Clip, Plan
from balancemm_cli.data.kinds import Kind, kind_of
from balancemm_cli.data.preparing.finish import describe_set, same_set
from balancemm_cli.data.preparing.prepare import Request, Sizes, check, cut, files_of, sizes_of
from balancemm_cli.data.preparing.sources import compare, recall, source_of
from balancemm_cli.data.preparing.work import is_free
from balancemm_cli.data.preparing.workers import cores
from balancemm_cli.errors import InputError

SHOWN = 5  # names of missing files for each split, and of classes


def dry_run(request: Request, workers: int | None = None) -> list[str]:
    """The lines that `bmm prepare --dry-run` prints.

    Missing files and other split lists are reported, and raise nothing. UsageError and InputError where there is
    nothing that could be listed.
    """
    processes = cores(workers)
    stops = []
    try:
        plan = request.plan
    except InputError as error:
        if request.allow_missing:
            raise
        plan = replace(request, allow_missing=True).plan
        stops.append(str(error))
    sizes = sizes_of(plan.samples)
    try:
        check(plan, sizes, request.allow_missing)
    except InputError as error:
        stops.append(str(error))
    return [
        *_what(plan),
        *plan.notes,
        *_missing(plan, sizes),
        *_folder(plan, sizes, request.folder(plan.name), processes),
        *(f"As it stands, preparing stops: {sentence}" for sentence in stops),
    ]


def _what(plan: Plan) -> Iterator[str]:
    yield f"{plan.name}: {len(plan.samples):,} samples of {len(plan.classes):,} classes ({_some(plan.classes)})"
    for split, shards in cut(plan).items():
        samples = [sample for shard in shards.values() for sample in shard]
        classes = len({sample.label for sample in samples})
        yield f"  {split}: {len(samples):,} samples of {classes:,} classes"
    for modality, spec in plan.modalities.items():
        yield f"  {modality}: {kind_of(spec).describe()}"
    if plan.split_description:
        yield f"  split: {plan.split_description}"


def _missing(plan: Plan, sizes: Sizes) -> Iterator[str]:
    files = files_of(sizes)
    missing = {name for name, size in files.items() if size is None}
    yield f"Missing: {f'{len(missing):,}' if missing else 'none'} of {len(files):,} files"
    for split, shards in cut(plan).items():
        clips = (clip for shard in shards.values() for sample in shard for clip in sample.clips.values())
        names = [name for name in dict.fromkeys(clip.name for clip in clips) if name in missing]
        if names:
            yield f"  {split}: {len(names):,} ({_some(names)})"
    if empty := sum(size == 0 for size in files.values()):
        yield f"Empty: {empty:,} files, which would be rejected"


def _folder(plan: Plan, sizes: Sizes, folder: Path, processes: int) -> Iterator[str]:
    """What is in the folder, or how large it would be and how long that takes."""
    if is_free(folder):
        values = list(_stored(plan, sizes))
        size = sum(kind.expected_bytes(_length(clip, plan)) for clip, kind in values)
        seconds = sum(kind.decoding_seconds(_length(clip, plan)) for clip, kind in values) / processes
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(above).free
        yield f"Folder: {folder}"
        if not values:
            yield "Size: nothing, as none of the files is there."
            return
        yield f"Size: about {_size(size)}; {_size(free)} are free there{', too few' if free < size else ''}."
        yield f"Time: {_time(seconds)} with {processes} worker{'s' if processes > 1 else ''}."
        return
    shards = cut(plan)
    contents = compare(plan.samples, recall(folder), processes)
    sources = [source_of(samples, contents) for own in shards.values() for samples in own.values()]
    try:
        yield f"Folder: {same_set(folder, describe_set(plan, {s: [*own] for s, own in shards.items()}), sources)}"
    except InputError as error:
        yield f"Folder: {error}"


def _stored(plan: Plan, sizes: Sizes) -> Iterator[tuple[Clip, Kind]]:
    """The clips that would be decoded, each with its kind; equal ones of consecutive samples are once."""
    kinds = {name: kind_of(spec) for name, spec in plan.modalities.items()}
    for shards in cut(plan).values():
        for samples in shards.values():
            above: dict[str, Clip] = {}
            for sample in samples:
                for modality, clip in sample.clips.items():
                    if clip != above.get(modality) and sizes[clip] is not None:
                        yield clip, kinds[modality]
                above = sample.clips


def _length(clip: Clip, plan: Plan) -> float:
    """Seconds that a clip is expected to have."""
    return plan.clip_seconds if clip.end is None else clip.end - (clip.start or 0.0)


def _some(names: list[str]) -> str:
    return "; ".join(names[:SHOWN]) + ("; …" if len(names) > SHOWN else "")


def _size(count: float) -> str:
    power = min(max(math.floor(math.log10(max(count, 1)) / 3), 1), 4)
    count, unit = count / 1000**power, ("kB", "MB", "GB", "TB")[power - 1]
    return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return "under a minute"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.0f} h"
    return f"about {seconds / 86400:.0f} days"
