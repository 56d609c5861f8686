"""From media to a prepared folder: list, check, decode, write shards.

The work is cut in the order of the lists into groups of samples, one a shard, each decoded by a worker
process. Beside the folder to be made, a hidden folder `.<name>.partial` holds the shards that are done, each
with a record of what it was made from; a later call keeps those whose files still have the same content. The
last step renames the finished folder into place, so a prepared folder is whole or absent, and its bytes do not
depend on the number of workers, on interruptions or on the order in which workers end, nor on whether it was
made in parts.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from balancemm_cli.data import store
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, labels_of
from balancemm_cli.data.folds import is_fold
from balancemm_cli.data.made.common import Made
from balancemm_cli.data.preparing import parts
from balancemm_cli.data.preparing.finish import (
    RECORD,
    Records,
    SetDescription,
    describe_set,
    finish,
    same_set,
    settings,
    tools,
)
from balancemm_cli.data.preparing.parts import Part
from balancemm_cli.data.preparing.sources import (
    Memory,
    compare,
    look_at,
    over_splits,
    recall,
    remember,
    source_of,
)
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
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.extensions import absent, failures_explained

SHARD_SAMPLES = 256

Options = Mapping[str, Any]  # of a data set, by name: texts, or lists of such
Sizes = dict[Clip, int | None]  # of the clips' files, None where one is missing


@dataclass(frozen=True)
class _Group:
    """The samples of one shard, and all that the worker needs to make it."""

    file: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, Spec]
    extras: dict[str, str]
    settings: str  # a hash of all that the shard's bytes depend on, but the samples and their files
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
    """What to prepare: the data set `name` under its own `options` (as its class lists them).

    `source` holds the media (default data/raw/<name>), `splits` the split lists where the set needs them, `out` is
    the folder to make (default data/prepared/<name>, with the options that are not the default behind it). Samples
    whose files are missing and other lists than the official ones need `allow_missing`. UsageError for an unknown
    data set, option or value, and for a folder with the name of another data set, which would pass for that one.
    """

    name: str
    source: Path | None = None
    splits: Path | None = None
    out: Path | None = None
    allow_missing: bool = False
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise absent("data set", self.name, DATASETS, "bmm.datasets")
        if self.out is not None and self.out.name in ("", ".."):
            raise UsageError(f"--out is {self.out}; name the folder that is to be made.")
        if self.out is not None and (other := data_set_of(self.out.name)) not in (None, self.name):
            raise UsageError(
                f"--out is {self.out}, which is a name of data set '{other}': what lies there would pass for it. "
                "Name another folder."
            )
        for option, value in self.options.items():
            flag = "--" + option.replace("_", "-")
            if option in self.dataset.SETTINGS:
                continue
            if option not in self._known:
                raise UsageError(f"Data set '{self.name}' has no {flag}; leave it away.")
            if value not in self._known[option]:
                raise UsageError(
                    f"{flag} of data set '{self.name}' is one of {', '.join(self._known[option])}, not '{value}'."
                )

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return DATASETS[self.name]

    @property
    def _known(self) -> Mapping[str, tuple[str, ...]]:
        return self.dataset.OPTIONS

    @property
    def media(self) -> Path:
        """The folder of the media."""
        return self.source or self.dataset.usual_source

    def folder(self, name: str) -> Path:
        """The folder to make of a set of that name."""
        return self.out or Path("data/prepared") / _folder_name(name, self._known, self.options)

    @cached_property
    def plan(self) -> Plan:
        """The samples of the data set. Raises as the `plan` of its class, and InputError where they come under the
        name of another data set, as those of a CSV can."""
        with failures_explained("preparation"):
            plan = self.dataset.plan(self.media, self.splits, self.allow_missing, **self.options)
        if (other := data_set_of(plan.name)) not in (None, self.name):
            raise InputError(
                f"{self.media} gives '{plan.name}', which is a name of data set '{other}': the prepared data would "
                "pass for it. Rename the file."
            )
        return replace(plan, reader=self.name)


def data_set_of(folder: str) -> str | None:
    """The data set that a prepared folder of that name holds, in whatever capitals; None where it is no data set's.

    The name holds the data set's options as in `Request.folder`, such as `synthetic-modalities-8-loud`.
    """
    return next((name for name, _ in _forms(folder)), None)


def _forms(folder: str) -> Iterator[tuple[str, Options]]:
    """The data set and the options whose prepared folder has that name."""
    for name, dataset in DATASETS.items():
        if folder.casefold().startswith(name.casefold()):
            for values in product(*dataset.OPTIONS.values()):
                options = dict(zip(dataset.OPTIONS, values, strict=True))
                if _folder_name(name, dataset.OPTIONS, options).casefold() == folder.casefold():
                    yield name, options


def _folder_name(name: str, known: Mapping[str, tuple[str, ...]], options: Options) -> str:
    """The name, with the values of options that are not the default behind it."""
    given = {option: options.get(option, values[0]) for option, values in known.items()}
    return "-".join([name, *(value for option, value in given.items() if value != known[option][0])])


def embedded(folder: Path) -> Request | None:
    """What to prepare for a folder of that name to hold data that need no files of the user's; None where the name is
    another."""
    for name, options in _forms(folder.name):
        if DATASETS[name].EMBEDDED:
            return Request(name, out=folder, options=options)
    return None


def prepare_dataset(
    name: str,
    source: Path | None = None,
    splits: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    options: Options | None = None,
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
    dataset, folder = request.dataset, request.media
    if isinstance(dataset, Made):
        kept = f"What was written is kept in {folder}."
        with interruption(kept), disk_full(folder), one_at_a_time(folder):
            dataset.make(folder, processes, on_progress)


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
    described = describe_set(plan, {split: [*own] for split, own in shards.items()})
    files = {file: samples for own in shards.values() for file, samples in own.items()}
    out = out.resolve() if out.is_symlink() else out  # a link stays, and what it leads to is filled
    target = out
    if part and is_free(out):
        files = {file: files[file] for file in part.take(list(files))}
        target = part.folder(out)
    check(plan, sizes_of(sample for samples in files.values() for sample in samples), allow_missing)
    if not is_free(target):
        contents = _compare(files, target, processes, on_progress)
        sources = {file: source_of(samples, contents) for file, samples in files.items()}
        if target == out:
            say(same_set(out, described, sources.values()))
        elif part:
            parts.same_part(part, described, sources, out)
            say(f"{target} is prepared already, from the same media and lists.")
        return target
    kept = f"Its state is kept in {work_beside(target)}."
    with interruption(kept), disk_full(out.parent), work_folder(target) as work:
        groups = list(_groups(plan, files, work))
        _decode_missing(work, groups, processes, on_progress, say)
        memory = _finish(work, groups, described, out, part)
    shutil.rmtree(work, ignore_errors=True)
    if copies := over_splits(plan.samples, memory):
        say(copies)
    return target


def _compare(
    files: dict[str, list[Sample]], target: Path, processes: int, on_progress: Progress | None
) -> Memory:
    """The content of the files of what is prepared in `target`; what had to be hashed is remembered."""
    memory = recall(target)
    contents = compare([s for samples in files.values() for s in samples], memory, processes, on_progress)
    if contents != memory:
        remember(target, contents)
    return contents


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


def check(plan: Plan, sizes: Sizes, allow_missing: bool) -> None:
    """InputError for a plan that cannot give a usable set: missing files, a class without samples."""
    for split, samples in _trained(plan).items():
        if not samples:
            raise InputError(f"Data set '{plan.name}' lists no sample of the split 'train'.")
        trained = {label for sample in samples for label in labels_of(sample, plan.classes)}
        if absent := [label for label in plan.classes if label not in trained]:
            said = f"Class '{absent[0]}' of data set '{plan.name}' has no sample in {split}."
            raise InputError(f"{said} {plan.about_classes}".strip())
    files = files_of(sizes)
    missing = [name for name, size in files.items() if size is None]
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing):,} of the {len(files):,} files of data set '{plan.name}' are missing (first: "
            f"{missing[0]}). {plan.remedy} Or pass --allow-missing to prepare without them."
        )


def _trained(plan: Plan) -> dict[str, list[Sample]]:
    """The samples that runs are trained on, by what these are called: of folds, all but one in turn."""
    folds = sorted({sample.split for sample in plan.samples if is_fold(sample.split)})
    if not folds:
        return {"the split 'train'": [sample for sample in plan.samples if sample.split == "train"]}
    return {
        f"the folds beside {fold}": [sample for sample in plan.samples if sample.split != fold]
        for fold in folds
    }


def _groups(plan: Plan, files: dict[str, list[Sample]], work: Path) -> Iterator[_Group]:
    made_by = [store.FORMAT, tools(plan.modalities), settings()]
    key = store.digest([*made_by, plan.classes, list(plan.modalities.items()), plan.extras])
    for file, samples in files.items():
        yield _Group(file, samples, plan.classes, plan.modalities, plan.extras, key, work)


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
    done = _done(groups, processes, on_progress)
    todo = [group for group in groups if group.file not in done]
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


def _done(groups: list[_Group], processes: int, on_progress: Progress | None) -> set[str]:
    """The shards that are whole and made from what the files hold now."""
    records = {group.file: record for group in groups if (record := _sound_record(group))}
    memory = {
        medium: tuple(facts) for record in records.values() for medium, facts in record["files"].items()
    }
    made = [group for group in groups if group.file in records]
    contents = compare([s for group in made for s in group.samples], memory, processes, on_progress)
    return {
        group.file for group in made if records[group.file]["source"] == source_of(group.samples, contents)
    }


def _sound_record(group: _Group) -> dict[str, Any] | None:
    """The record of a shard that is whole and made with the same settings; None where there is none."""
    try:
        record = json.loads(group.record.read_bytes())
        same = record["settings"] == group.settings and record["sha256"] == store.file_hash(group.shard)
        return record if same and isinstance(record["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decode_group(group: _Group) -> None:
    """Decode the samples of a group into its shard, then write its record. Runs in a worker."""
    contents: Memory = {}
    rejected: list[dict[str, str]] = []
    defects: dict[str, str] = {}
    prepared: Counter[str] = Counter()

    def rows() -> Iterator[store.Row]:
        above: dict[str, Clip] = {}
        for sample in group.samples:
            row: store.Row = {"id": sample.id, "label": group.classes.index(sample.label), **sample.extras}
            clip = next(iter(sample.clips.values()))
            contents.update(
                look_at(sample, contents)
            )  # before it is read: what is replaced meanwhile has changed
            try:
                for modality, clip in sample.clips.items():
                    row[modality] = None
                    if above.get(modality) != clip:
                        row[modality] = _read(sample, clip, group.modalities[modality])
            except media.MediaError as error:
                reason = {"file": clip.name, "reason": str(error), "kind": error.kind}
                rejected.append({"id": sample.id, "split": sample.split, **reason})
            else:
                prepared.update(labels_of(sample, group.classes))
                if sample.defect:
                    defects[sample.id] = sample.defect
                above = sample.clips
                yield row
            tick()

    count = store.write_shard(group.shard, rows(), group.modalities, group.extras)
    record = {
        "settings": group.settings,
        "files": contents,
        "source": source_of(group.samples, contents),
        "rows": count,
        "bytes": group.shard.stat().st_size,
        "sha256": store.file_hash(group.shard),
        "labels": dict(prepared),
        "rejected": rejected,
        "defects": defects,
    }
    store.write_json(group.record, record)


def _read(sample: Sample, clip: Clip, spec: Spec) -> Any:  # noqa: ANN401 - by kind
    """What a shard holds of a clip. MediaError where it is unusable, also for an error that nobody foresaw: a file
    can only cost its own sample."""
    try:
        return clip.read(spec, sample.waived)
    except (media.MediaError, InputError):
        raise
    except MemoryError:
        raise media.MediaError("too large", "reading it takes more memory than there is") from None
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise media.MediaError(
            "unforeseen", f"reading fails in a way that this program does not know ({what}); please report it"
        ) from error


def _finish(
    work: Path, groups: list[_Group], described: SetDescription, out: Path, part: Part | None
) -> Memory:
    """Make the folder of the finished shards the prepared set, or the part of it; returns the content of its media."""
    found = {group.file: json.loads(group.record.read_bytes()) for group in groups}
    memory = {medium: facts for record in found.values() for medium, facts in record["files"].items()}
    records: Records = {file: {key: record[key] for key in RECORD} for file, record in found.items()}
    if part:
        parts.finish_part(work / "set", part, described, records, out)
        remember(part.folder(out), memory)
        return memory
    try:
        finish(work / "set", described, records, out)
        remember(out, memory)
    except InputError:
        for group in groups:
            if records[group.file]["rejected"]:  # so that the same command looks at the files again
                group.record.unlink()
        raise
    return memory
