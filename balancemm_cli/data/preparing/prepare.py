"""From media to a prepared folder: list, check, decode, write shards.

The work is cut in the order of the lists into groups of samples, one a shard, each decoded by a worker
process. Beside the folder to be made, a hidden folder `.<name>.partial` holds the shards that are done, each
with a record of what it was made from; a later call keeps those that still fit. The last step renames the
finished folder into place, so a prepared folder is whole or absent, and its bytes do not depend on the number
of workers, on interruptions or on the order in which workers end, nor on whether it was made in parts.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from balancemm_cli.data import store
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec
from balancemm_cli.data.preparing import parts
from balancemm_cli.data.preparing.finish import Head, fingerprint, finish, head_of, same_set, settings, tools
from balancemm_cli.data.preparing.parts import Part
from balancemm_cli.data.preparing.work import (
    Progress,
    disk_full,
    interruption,
    is_free,
    one_at_a_time,
    work_beside,
    work_folder,
)
from balancemm_cli.data.preparing.workers import cores, run, tick
from balancemm_cli.data.reading import media
from balancemm_cli.data.store import PreparedSet, open_set
from balancemm_cli.errors import InputError, UsageError, unknown

SHARD_SAMPLES = 256

Sizes = dict[Clip, int | None]  # of the clips' files, None where one is missing


@dataclass(frozen=True)
class _Group:
    """The samples of one shard, and all that the worker needs to make it."""

    file: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, Spec]
    extras: dict[str, str]
    source: str  # a hash of the samples and their files
    key: str  # a hash of everything that the shard's bytes depend on
    work: Path

    @property
    def record(self) -> Path:
        """The file that says that the shard is done, from what it was made, and what was rejected."""
        return self.work / "done" / f"{self.file}.json"

    @property
    def shard(self) -> Path:
        """Where the shard is written."""
        return self.work / "set" / self.file


@dataclass(frozen=True)
class Request:
    """What to prepare: the data set `name` under its own `options` (as its module lists them).

    `source` holds the media (default data/raw/<name>), `splits` the split lists where the set needs them, `out` is
    the folder to make (default data/prepared/<name>, with the options that are not the default behind it). Samples
    whose files are missing and other lists than the official ones need `allow_missing`. UsageError for an unknown
    data set, option or value.
    """

    name: str
    source: Path | None = None
    splits: Path | None = None
    out: Path | None = None
    allow_missing: bool = False
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise unknown("data set", self.name, DATASETS)
        if self.out is not None and self.out.name in ("", ".."):
            raise UsageError(f"--out is {self.out}; name the folder that is to be made.")
        for option, value in self.options.items():
            flag = "--" + option.replace("_", "-")
            if option not in self._known:
                raise UsageError(f"Data set '{self.name}' has no {flag}; leave it away.")
            if value not in self._known[option]:
                raise UsageError(
                    f"{flag} of data set '{self.name}' is one of {', '.join(self._known[option])}, not '{value}'."
                )

    @property
    def _known(self) -> dict[str, tuple[str, ...]]:
        return getattr(DATASETS[self.name], "OPTIONS", {})

    @property
    def media(self) -> Path:
        """The folder of the media."""
        return self.source or Path("data/raw") / self.name

    def folder(self, name: str) -> Path:
        """The folder to make of a set of that name."""
        given = [self.options.get(option, values[0]) for option, values in self._known.items()]
        unusual = [
            value for value, values in zip(given, self._known.values(), strict=True) if value != values[0]
        ]
        return self.out or Path("data/prepared") / "-".join([name, *unusual])

    @cached_property
    def plan(self) -> Plan:
        """The samples of the data set. Raises as the `plan` of its module."""
        return DATASETS[self.name].plan(self.media, self.splits, self.allow_missing, **self.options)


def embedded(folder: Path) -> Request | None:
    """What to prepare for a folder of that name to hold embedded data; None where the name is of other data.

    The name holds the data set's options as in `Request.folder`, such as `synthetic-modalities-8-loud`.
    """
    for name, module in DATASETS.items():
        if getattr(module, "EMBEDDED", False):
            options: dict[str, tuple[str, ...]] = getattr(module, "OPTIONS", {})
            for values in product(*options.values()):
                request = Request(name, options=dict(zip(options, values, strict=True)))
                if request.folder(name).name == folder.name:
                    return replace(request, out=folder)
    return None


def prepare_dataset(
    name: str,
    source: Path | None = None,
    splits: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    options: dict[str, str] | None = None,
    on_progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> PreparedSet:
    """Prepare a data set from Python: the fields of Request, and the rest as in `prepare_folder`."""
    request = Request(name, source, splits, out, allow_missing, options or {})
    return open_set(prepare_folder(request, None, workers, on_progress, on_message))


def prepare_folder(
    request: Request,
    part: Part | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Path:
    """Prepare a data set, or go on where an earlier call ended; a whole folder of the same plan is left as it is.
    A part of the set lies beside the folder to be made. Returns the folder: that of the part, or the whole one,
    also where a part is asked for and the whole is there already.

    `on_progress(stage, done, total)` counts clips in the stages "write" (a set that makes its own media) and
    "decode"; `on_message` gets sentences. Raises UsageError, InputError, OSError, and KeyboardInterrupt with a
    message that says how to go on.
    """
    _make_media(request, cores(workers), on_progress)
    plan = request.plan
    folder = request.folder(plan.name)
    return prepare_plan(plan, folder, part, workers, request.allow_missing, on_progress, on_message)


def _make_media(request: Request, processes: int, on_progress: Progress | None) -> None:
    """Write the media of a data set that makes its own."""
    module, folder = DATASETS[request.name], request.media
    if hasattr(module, "make"):
        kept = f"What was written is kept in {folder}."
        with interruption(kept), disk_full(folder), one_at_a_time(folder):
            module.make(folder, processes, on_progress)


def prepare_plan(
    plan: Plan,
    out: Path,
    part: Part | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    on_progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Path:
    """As `prepare_folder`, of a plan and the folder to make of it."""
    processes = cores(workers)
    say = on_message or (lambda message: None)
    for note in plan.notes:
        say(note)
    shards = cut(plan)
    head = head_of(plan, {split: [*own] for split, own in shards.items()})
    files = {file: samples for own in shards.values() for file, samples in own.items()}
    target = out
    if part and is_free(out):
        files = {file: files[file] for file in part.take(list(files))}
        target = part.folder(out)
    sizes = sizes_of(sample for samples in files.values() for sample in samples)
    check(plan, sizes, allow_missing)
    sources = {file: source_of(samples, sizes) for file, samples in files.items()}
    if not is_free(target):
        if target == out:
            same_set(out, fingerprint(head, sources.values()))
        elif part:
            parts.same_part(part, head, sources, out)
        say(f"{target} is prepared already, from the same media and lists.")
        return target
    kept = f"Its state is kept in {work_beside(target)}."
    with interruption(kept), disk_full(out.parent), work_folder(target) as work:
        groups = list(_groups(plan, files, sources, work))
        _decode_missing(work, groups, processes, on_progress, say)
        _finish(work, groups, head, out, part)
    shutil.rmtree(work, ignore_errors=True)
    return target


def cut(plan: Plan) -> dict[str, dict[str, list[Sample]]]:
    """The samples of each shard by its file, by split in order of their first sample."""
    by_split: dict[str, list[Sample]] = {}
    for sample in plan.samples:
        by_split.setdefault(sample.split, []).append(sample)
    return {
        split: {
            f"{split}-{number:05d}.arrow": samples[first : first + SHARD_SAMPLES]
            for number, first in enumerate(range(0, len(samples), SHARD_SAMPLES))
        }
        for split, samples in by_split.items()
    }


def sizes_of(samples: Iterable[Sample]) -> Sizes:
    """The size of every clip's file, each asked for once."""
    return {clip: clip.size() for clip in dict.fromkeys(c for s in samples for c in s.clips.values())}


def files_of(sizes: Sizes) -> dict[str, int | None]:
    """The files of the clips by name, with their sizes."""
    return {clip.name: size for clip, size in sizes.items() if clip.has_file}


def source_of(samples: list[Sample], sizes: Sizes) -> str:
    """A hash of samples and their files."""
    return store.digest([_describe(sample, sizes) for sample in samples])


def _describe(sample: Sample, sizes: Sizes) -> list[Any]:
    clips = [[key, *clip.describe(), sizes[clip]] for key, clip in sample.clips.items()]
    waived = sorted(sample.waived)
    return [sample.id, sample.split, sample.label, sample.defect, waived, sample.extras, clips]


def check(plan: Plan, sizes: Sizes, allow_missing: bool) -> None:
    """InputError for a plan that cannot give a usable set: missing files, a class without samples."""
    trained = {sample.label for sample in plan.samples if sample.split == "train"}
    if not trained:
        raise InputError(f"Data set '{plan.name}' lists no sample of the split 'train'.")
    if absent := [label for label in plan.classes if label not in trained]:
        raise InputError(f"Class '{absent[0]}' of data set '{plan.name}' has no sample in the split 'train'.")
    files = files_of(sizes)
    missing = [name for name, size in files.items() if size is None]
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing):,} of the {len(files):,} files of data set '{plan.name}' are missing (first: "
            f"{missing[0]}). {plan.remedy} Or pass --allow-missing to prepare without them."
        )


def _groups(
    plan: Plan, files: dict[str, list[Sample]], sources: dict[str, str], work: Path
) -> Iterator[_Group]:
    made_of = [store.FORMAT, tools(plan.modalities), settings(), plan.classes, plan.modalities, plan.extras]
    for file, samples in files.items():
        key = store.digest([*made_of, sources[file]])
        yield _Group(file, samples, plan.classes, plan.modalities, plan.extras, sources[file], key, work)


def _decode_missing(
    work: Path,
    groups: list[_Group],
    processes: int,
    on_progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    """Make the shards that are not there yet, and delete what belongs to none of the groups."""
    wanted = {path for group in groups for path in (group.record, group.shard)}
    for folder in (work / "set", work / "done"):
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path not in wanted:
                path.unlink()
    todo = [group for group in groups if not _is_done(group)]
    kept = sum(len(group.samples) for group in groups) - sum(len(group.samples) for group in todo)
    total = sum(len(group.samples) for group in groups)
    if kept:
        say(f"Going on: {kept:,} of {total:,} clips were done before.")
    report = (lambda done: on_progress("decode", kept + done, total)) if on_progress else None
    try:
        if todo:
            run(_decode_group, todo, processes, report)
    finally:
        for path in (work / "set").glob(".*.tmp"):  # of workers that were ended
            path.unlink()


def _is_done(group: _Group) -> bool:
    try:
        record = json.loads(group.record.read_bytes())
        return record["key"] == group.key and record["sha256"] == store.file_hash(group.shard)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_group(group: _Group) -> None:
    """Decode the samples of a group into its shard, then write its record. Runs in a worker."""
    rejected: list[dict[str, str]] = []
    defects: dict[str, str] = {}
    prepared: Counter[str] = Counter()

    def rows() -> Iterator[store.Row]:
        above: dict[str, Clip] = {}
        for sample in group.samples:
            row: store.Row = {"id": sample.id, "label": group.classes.index(sample.label), **sample.extras}
            clip = next(iter(sample.clips.values()))
            try:
                for modality, clip in sample.clips.items():
                    row[modality] = None
                    if above.get(modality) != clip:
                        row[modality] = _read(sample, clip, group.modalities[modality])
            except media.MediaError as error:
                reason = {"file": clip.name, "reason": str(error), "kind": error.kind}
                rejected.append({"id": sample.id, "split": sample.split, **reason})
            else:
                prepared[sample.label] += 1
                if sample.defect:
                    defects[sample.id] = sample.defect
                above = sample.clips
                yield row
            tick()

    count = store.write_shard(group.shard, rows(), group.modalities, group.extras)
    record = {
        "key": group.key,
        "source": group.source,
        "rows": count,
        "sha256": store.file_hash(group.shard),
        "labels": dict(prepared),
        "rejected": rejected,
        "defects": defects,
    }
    store.write_json(group.record, record)


def _read(sample: Sample, clip: Clip, spec: Spec) -> Any:  # noqa: ANN401 - by kind
    """What a shard holds of a clip. MediaError where it is unusable; InputError, which ends the call, for an error
    that nobody foresaw: the sample may not be lost for a fault of this program."""
    try:
        return clip.read(spec, sample.waived)
    except (media.MediaError, InputError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(
            f"Sample '{sample.id}' of the split '{sample.split}': reading {clip.path} fails in a way that this "
            f"program does not know ({what}). What was finished is kept. Please report it; delete the file and pass "
            "--allow-missing to go on without the sample."
        ) from error


def _finish(work: Path, groups: list[_Group], head: Head, out: Path, part: Part | None) -> None:
    """Make the folder of the finished shards the prepared set, or the part of it."""
    records = {group.file: json.loads(group.record.read_bytes()) for group in groups}
    if part:
        parts.finish_part(work / "set", part, head, records, out)
        return
    try:
        finish(work / "set", head, records, out)
    except InputError:
        for group in groups:
            if records[group.file]["rejected"]:  # so that the same command looks at the files again
                group.record.unlink()
        raise
