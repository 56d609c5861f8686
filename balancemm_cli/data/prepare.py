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
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample
from balancemm_cli.data.store import PreparedSet, open_set
from balancemm_cli.data.workers import cores, run, tick
from balancemm_cli.errors import DISK_FULL, InputError, unknown

SHARD_SAMPLES = 256

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Group:
    """The samples of one shard, and all that the worker needs to make it."""

    file: str
    samples: list[Sample]
    classes: list[str]
    modalities: dict[str, dict[str, Any]]
    work: Path

    @property
    def record(self) -> Path:
        """The file that says that the shard is done, from what it was made, and what was rejected."""
        return self.work / "done" / f"{self.file}.json"

    @property
    def shard(self) -> Path:
        """Where the shard is written."""
        return self.work / "set" / self.file

    def key(self) -> str:
        """A hash of everything that the shard's bytes depend on."""
        samples = [_describe(sample) for sample in self.samples]
        return store.digest([store.FORMAT, _tools(), _settings(), self.classes, self.modalities, samples])


def prepare_dataset(
    name: str,
    source: Path | None = None,
    splits: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    on_progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> PreparedSet:
    """Prepare a data set, or go on where an earlier call ended; a whole folder of the same plan is returned.

    `source` holds the media (default data/raw/<name>), `splits` the split lists where the set needs them,
    `out` is the folder to make (default data/prepared/<name>). Samples whose files are missing need
    `allow_missing`. `on_progress(stage, done, total)` counts clips in the stages "write" (a set that makes
    its own media) and "decode"; `on_message` gets sentences. Raises UsageError, InputError, OSError, and
    KeyboardInterrupt with a message that says how to go on.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    say = on_message or (lambda message: None)
    source = Path(source or Path("data/raw") / name)
    processes = cores(workers)
    if hasattr(DATASETS[name], "make"):
        with _disk_full(source), _interruption(f"Run the same command to go on with {source}."):
            DATASETS[name].make(source, processes, on_progress)
    plan: Plan = DATASETS[name].plan(source, Path(splits) if splits else None, allow_missing)
    out = Path(out or Path("data/prepared") / plan.name)
    for note in plan.notes:
        say(note)
    _check(plan, allow_missing)
    existing = _existing(out, plan)
    if existing is not None:
        say(f"{out} is prepared already, from the same media and lists.")
        return existing
    with _work_folder(out) as work, _disk_full(out.parent), _interruption(f"Its state is kept in {work}."):
        groups = list(_groups(plan, work))
        _decode_missing(groups, processes, on_progress, say)
        _finish(plan, groups, out)
    shutil.rmtree(work, ignore_errors=True)
    return open_set(out)


def _check(plan: Plan, allow_missing: bool) -> None:
    """InputError for a plan that cannot give a usable set: missing files, a class without samples."""
    trained = {sample.label for sample in plan.samples if sample.split == "train"}
    if not trained:
        raise InputError(f"Data set '{plan.name}' lists no sample of the split 'train'.")
    if absent := [label for label in plan.classes if label not in trained]:
        raise InputError(f"Class '{absent[0]}' of data set '{plan.name}' has no sample in the split 'train'.")
    missing = [clip.name for sample in plan.samples for clip in sample.clips.values() if _size(clip) is None]
    if missing and not allow_missing:
        count = sum(len(sample.clips) for sample in plan.samples)
        raise InputError(
            f"{len(missing):,} of the {count:,} files of data set '{plan.name}' are missing (first: "
            f"{missing[0]}). {plan.remedy} Or pass --allow-missing to prepare without them."
        )


def _existing(out: Path, plan: Plan) -> PreparedSet | None:
    """The prepared set in `out` where it is whole and of the same plan; None where `out` is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / store.MANIFEST).exists():
        raise InputError(f"{out} exists and is no prepared data set. Name another folder with --out.")
    prepared = open_set(out)
    if prepared.manifest.get("plan") != _fingerprint(plan):
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


def _groups(plan: Plan, work: Path) -> Iterator[_Group]:
    for split in _splits(plan):
        samples = [sample for sample in plan.samples if sample.split == split]
        for number, first in enumerate(range(0, len(samples), SHARD_SAMPLES)):
            part = samples[first : first + SHARD_SAMPLES]
            yield _Group(f"{split}-{number:05d}.arrow", part, plan.classes, plan.modalities, work)


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
        return record["key"] == group.key() and record["sha256"] == store.file_hash(group.shard)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_group(group: _Group) -> None:
    """Decode the samples of a group into its shard, then write its record. Runs in a worker."""
    rejected: list[dict[str, str]] = []
    prepared: Counter[str] = Counter()

    def rows() -> Iterator[store.Row]:
        for sample in group.samples:
            row: store.Row = {"id": sample.id, "label": group.classes.index(sample.label)}
            clip = next(iter(sample.clips.values()))
            try:
                for modality, clip in sample.clips.items():
                    row[modality] = _decode(sample, clip, group.modalities[modality])
            except media.MediaError as error:
                reason = {"file": clip.name, "reason": str(error), "kind": error.kind}
                rejected.append({"id": sample.id, "split": sample.split, **reason})
            else:
                prepared[sample.label] += 1
                yield row
            tick()

    count = store.write_shard(group.shard, rows(), group.modalities)
    record = {
        "key": group.key(),
        "rows": count,
        "sha256": store.file_hash(group.shard),
        "labels": dict(prepared),
        "rejected": rejected,
    }
    store.write_json(group.record, record)


def _decode(sample: Sample, clip: Clip, modality: dict[str, Any]) -> Any:  # noqa: ANN401 - by modality
    whole = "truncated" not in sample.waived
    if modality["kind"] == "waveform":
        loud = "silent" not in sample.waived
        return media.read_audio(clip.path, modality["rate"], clip.start, clip.end, whole, loud)
    pictures = media.read_frames(
        clip.path,
        modality["height"],
        modality["width"],
        modality["fps"],
        clip.start,
        clip.end,
        whole=whole,
    )
    return [media.encode_jpeg(picture) for picture in pictures]


def _finish(plan: Plan, groups: list[_Group], out: Path) -> None:
    """Write manifest.json and rejected.csv, and rename the folder into place."""
    records = {group.file: json.loads(group.record.read_bytes()) for group in groups}
    work = groups[0].work
    rejected = [entry for record in records.values() for entry in record["rejected"]]
    store.write_rejected(work / store.REJECTED, rejected)
    _check_left(plan, records, work / store.REJECTED)
    (work / store.REJECTED).replace(work / "set" / store.REJECTED)
    store.write_json(work / "set" / store.MANIFEST, _manifest(plan, records, rejected))
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


def _manifest(plan: Plan, records: dict[str, Any], rejected: list[dict[str, str]]) -> dict[str, Any]:
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
        "splits": splits,
        "rejected": _count(entry["kind"] for entry in rejected),
        "defects_kept": {
            sample.id: sample.defect for sample in plan.samples if sample.defect and sample.id not in lost
        },
        "notes": plan.notes,
        "decoding": _settings(),
        "tools": _tools(),
        "splits_hash": store.digest([[sample.id, sample.split, sample.label] for sample in plan.samples]),
        "plan": _fingerprint(plan),
    }
    return {**manifest, "content_hash": store.content_hash(manifest)}


def _fingerprint(plan: Plan) -> str:
    """A hash of what a prepared set is made from: samples, files with their sizes, settings."""
    samples = [_describe(sample) for sample in plan.samples]
    modalities = list(plan.modalities.items())
    return store.digest([store.FORMAT, plan.name, plan.classes, modalities, _settings(), samples])


def _describe(sample: Sample) -> list[Any]:
    clips = [[key, clip.name, clip.start, clip.end, _size(clip)] for key, clip in sample.clips.items()]
    return [sample.id, sample.split, sample.label, sample.defect, sorted(sample.waived), clips]


def _size(clip: Clip) -> int | None:
    """The size of a clip's file in bytes, None where it is missing."""
    try:
        return clip.path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


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
