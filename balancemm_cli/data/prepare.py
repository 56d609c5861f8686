"""From media to a prepared folder: list, check, decode, write shards.

The work is cut in the order of the lists into groups of samples, one a shard, each decoded by a worker
process. Beside the folder to be made, a hidden folder `.<name>.partial` holds the shards that are done, each
with a record of what it was made from; a later call keeps those that still fit. The last step renames the
finished folder into place, so a prepared folder is whole or absent, and its bytes do not depend on the number
of workers, on interruptions or on the order in which workers end.
"""

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import PIL

from balancemm_cli import __version__
from balancemm_cli.data import media, store
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec
from balancemm_cli.data.store import PreparedSet, open_set
from balancemm_cli.data.workers import cores, run, tick
from balancemm_cli.errors import DISK_FULL, InputError, UsageError, unknown

SHARD_SAMPLES = 256

Progress = Callable[[str, int, int], None]
Sizes = dict[Clip, int | None]  # of the clips' files, None where one is missing


@dataclass(frozen=True)
class _Group:
    """The samples of one shard, and all that the worker needs to make it."""

    file: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, Spec]
    extras: dict[str, str]
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
    """Prepare a data set, or go on where an earlier call ended; a whole folder of the same plan is returned.

    `source` holds the media (default data/raw/<name>), `splits` the split lists where the set needs them,
    `out` is the folder to make (default data/prepared/<name>, with the options that are not the default behind
    it). Samples whose files are missing need `allow_missing`. `options` are the data set's own, as its module
    lists them. `on_progress(stage, done, total)` counts clips in the stages "write" (a set that makes
    its own media) and "decode"; `on_message` gets sentences. Raises UsageError, InputError, OSError, and
    KeyboardInterrupt with a message that says how to go on.
    """
    say = on_message or (lambda message: None)
    chosen = check_options(name, options or {})
    source = Path(source or Path("data/raw") / name)
    processes = cores(workers)
    if hasattr(DATASETS[name], "make"):
        with _disk_full(source), _interruption(f"Run the same command to go on with {source}."):
            DATASETS[name].make(source, processes, on_progress)
    plan: Plan = DATASETS[name].plan(source, Path(splits) if splits else None, allow_missing, **chosen)
    out = Path(out or Path("data/prepared") / "-".join([plan.name, *_unusual(name, chosen)]))
    for note in plan.notes:
        say(note)
    sizes = _sizes(plan)
    _check(plan, sizes, allow_missing)
    existing = _existing(out, plan, sizes)
    if existing is not None:
        say(f"{out} is prepared already, from the same media and lists.")
        return existing
    with _work_folder(out) as work, _disk_full(out.parent), _interruption(f"Its state is kept in {work}."):
        groups = list(_groups(plan, sizes, work))
        _decode_missing(groups, processes, on_progress, say)
        _finish(plan, sizes, groups, out)
    shutil.rmtree(work, ignore_errors=True)
    return open_set(out)


def check_options(name: str, given: dict[str, str]) -> dict[str, str]:
    """A data set's own options, the first of each one's values where it is not given. UsageError for an unknown
    data set, option or value."""
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    known: dict[str, tuple[str, ...]] = getattr(DATASETS[name], "OPTIONS", {})
    for option, value in given.items():
        flag = "--" + option.replace("_", "-")
        if option not in known:
            raise UsageError(f"Data set '{name}' has no {flag}; leave it away.")
        if value not in known[option]:
            raise UsageError(
                f"{flag} of data set '{name}' is one of {', '.join(known[option])}, not '{value}'."
            )
    return {option: given.get(option, values[0]) for option, values in known.items()}


def _unusual(name: str, chosen: dict[str, str]) -> list[str]:
    """The values that are not an option's default, which a prepared folder's name says."""
    return [value for option, value in chosen.items() if value != DATASETS[name].OPTIONS[option][0]]


def _sizes(plan: Plan) -> Sizes:
    return {clip: clip.size() for clip in dict.fromkeys(c for s in plan.samples for c in s.clips.values())}


def _check(plan: Plan, sizes: Sizes, allow_missing: bool) -> None:
    """InputError for a plan that cannot give a usable set: missing files, a class without samples."""
    trained = {sample.label for sample in plan.samples if sample.split == "train"}
    if not trained:
        raise InputError(f"Data set '{plan.name}' lists no sample of the split 'train'.")
    if absent := [label for label in plan.classes if label not in trained]:
        raise InputError(f"Class '{absent[0]}' of data set '{plan.name}' has no sample in the split 'train'.")
    missing = [clip.name for clip, size in sizes.items() if size is None]
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing):,} of the {len(sizes):,} files of data set '{plan.name}' are missing (first: "
            f"{missing[0]}). {plan.remedy} Or pass --allow-missing to prepare without them."
        )


def _existing(out: Path, plan: Plan, sizes: Sizes) -> PreparedSet | None:
    """The prepared set in `out` where it is whole and of the same plan; None where `out` is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / store.MANIFEST).exists():
        raise InputError(f"{out} exists and is no prepared data set. Name another folder with --out.")
    prepared = open_set(out)
    if prepared.manifest.get("plan") != _fingerprint(plan, sizes):
        raise InputError(
            f"{out} was prepared from other media, lists or settings. Name another folder with --out, or "
            "delete it."
        )
    for split in prepared.counts:
        prepared.split(split)
    return prepared


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """The partial folder beside `out`, held by a lock so that two calls cannot write it at once."""
    work = out.parent / f".{out.name}.partial"
    for folder in (work / "set", work / "done"):
        folder.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another process is preparing {out}. Wait for it or name another --out."
            ) from None
        yield work


@contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise InputError(
                f"There is no space left for {error.filename or folder}. What was finished is kept: free "
                "some and run the same command to go on."
            ) from None
        raise


@contextmanager
def _interruption(what: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted. {what} The same command goes on from there.") from None


def _groups(plan: Plan, sizes: Sizes, work: Path) -> Iterator[_Group]:
    made_of = [store.FORMAT, _tools(), _settings(), plan.classes, plan.modalities, plan.extras]
    for split in _splits(plan):
        samples = [sample for sample in plan.samples if sample.split == split]
        for number, first in enumerate(range(0, len(samples), SHARD_SAMPLES)):
            part = samples[first : first + SHARD_SAMPLES]
            key = store.digest([*made_of, [_describe(sample, sizes) for sample in part]])
            file = f"{split}-{number:05d}.arrow"
            yield _Group(file, part, plan.classes, plan.modalities, plan.extras, key, work)


def _decode_missing(
    groups: list[_Group], processes: int, on_progress: Progress | None, say: Callable[[str], None]
) -> None:
    """Make the shards that are not there yet, and delete what belongs to none of the groups."""
    wanted = {path for group in groups for path in (group.record, group.shard)}
    work = groups[0].work
    for path in (*(work / "set").iterdir(), *(work / "done").iterdir()):
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
                        row[modality] = clip.read(group.modalities[modality], sample.waived)
            except media.MediaError as error:
                reason = {"file": clip.name, "reason": str(error), "kind": error.kind}
                rejected.append({"id": sample.id, "split": sample.split, **reason})
            else:
                prepared[sample.label] += 1
                above = sample.clips
                yield row
            tick()

    count = store.write_shard(group.shard, rows(), group.modalities, group.extras)
    record = {
        "key": group.key,
        "rows": count,
        "sha256": store.file_hash(group.shard),
        "labels": dict(prepared),
        "rejected": rejected,
    }
    store.write_json(group.record, record)


def _finish(plan: Plan, sizes: Sizes, groups: list[_Group], out: Path) -> None:
    """Write manifest.json and rejected.csv, and rename the folder into place."""
    records = {group.file: json.loads(group.record.read_bytes()) for group in groups}
    work = groups[0].work
    rejected = [entry for record in records.values() for entry in record["rejected"]]
    store.write_rejected(work / store.REJECTED, rejected)
    _check_left(plan, records, work / store.REJECTED)
    (work / store.REJECTED).replace(work / "set" / store.REJECTED)
    store.write_json(work / "set" / store.MANIFEST, _manifest(plan, sizes, records, rejected))
    (work / "set").replace(out)


def _check_left(plan: Plan, records: dict[str, Any], rejected: Path) -> None:
    """InputError where rejection left a split without samples, or a class without train samples."""
    for split in _splits(plan):
        labels: Counter[str] = Counter()
        for file in _files(records, split):
            labels.update(records[file]["labels"])
        wanted = plan.classes if split == "train" else []
        empty = [f"class '{label}' has no sample" for label in wanted if not labels[label]]
        if not labels:
            empty = ["no sample is left"]
        if empty:
            raise InputError(
                f"In the split '{split}' of '{plan.name}', {empty[0]}: the files were rejected, and "
                f"{rejected} says why. Get them anew and run the same command."
            )


def _manifest(
    plan: Plan, sizes: Sizes, records: dict[str, Any], rejected: list[dict[str, str]]
) -> dict[str, Any]:
    lost = {entry["id"] for entry in rejected}
    splits = {}
    for split in _splits(plan):
        files = _files(records, split)
        splits[split] = {
            "expected": sum(sample.split == split for sample in plan.samples),
            "prepared": sum(records[file]["rows"] for file in files),
            "rejected": _count(entry["kind"] for entry in rejected if entry["split"] == split),
            "shards": [
                {"file": file, "rows": records[file]["rows"], "sha256": records[file]["sha256"]}
                for file in files
            ],
        }
    manifest: dict[str, Any] = {
        "format": store.FORMAT,
        "dataset": plan.name,
        "classes": plan.classes,
        "modalities": plan.modalities,
        "extras": plan.extras,
        "protocol": plan.protocol,
        "splits": splits,
        "rejected": _count(entry["kind"] for entry in rejected),
        "defects_kept": {
            sample.id: sample.defect for sample in plan.samples if sample.defect and sample.id not in lost
        },
        "notes": plan.notes,
        "decoding": _settings(),
        "tools": _tools(),
        "splits_hash": store.digest([[sample.id, sample.split, sample.label] for sample in plan.samples]),
        "plan": _fingerprint(plan, sizes),
    }
    return {**manifest, "content_hash": store.content_hash(manifest)}


def _fingerprint(plan: Plan, sizes: Sizes) -> str:
    """A hash of what a prepared set is made from: samples, files with their sizes, settings."""
    samples = [_describe(sample, sizes) for sample in plan.samples]
    columns = [list(plan.modalities.items()), plan.extras, plan.protocol]
    return store.digest([store.FORMAT, plan.name, plan.classes, columns, _settings(), samples])


def _describe(sample: Sample, sizes: Sizes) -> list[Any]:
    clips = [[key, *clip.describe(), sizes[clip]] for key, clip in sample.clips.items()]
    waived = sorted(sample.waived)
    return [sample.id, sample.split, sample.label, sample.defect, waived, sample.extras, clips]


def _settings() -> dict[str, Any]:
    return {"jpeg_quality": media.JPEG_QUALITY, "scaling": "bicubic", "silence": media.SILENCE}


def _tools() -> dict[str, str]:
    return {"balancemm-cli": __version__, "av": av.__version__, "pillow": PIL.__version__}


def _splits(plan: Plan) -> list[str]:
    """The splits in order of their first sample."""
    return list(dict.fromkeys(sample.split for sample in plan.samples))


def _files(records: dict[str, Any], split: str) -> list[str]:
    return [file for file in records if file.rsplit("-", 1)[0] == split]


def _count(kinds: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))
