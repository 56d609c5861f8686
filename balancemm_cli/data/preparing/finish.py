"""From finished shards to a prepared folder: rejected.csv, manifest.json, and the folder's rename into place.

What is written comes from two things alone, which the parts of a set bring along: the description of the whole set,
and a record of each shard. The description's `splits` names the shards of each split in order, and how many samples
the lists ask for. A record holds `source` (a hash of the samples and the files' content that the shard was made
from), `rows`, `bytes`, `sha256`, `labels` (rows by label), `rejected` and `defects` (id to defect, of those kept).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import PIL

from balancemm_cli import __version__
from balancemm_cli.data import store
from balancemm_cli.data.datasets.plan import COMPUTED, Plan, Spec
from balancemm_cli.data.folds import is_fold
from balancemm_cli.data.reading import media
from balancemm_cli.data.reading.flow import load_opencv
from balancemm_cli.data.store import open_set
from balancemm_cli.errors import InputError

SetDescription = dict[str, Any]
Records = dict[str, dict[str, Any]]  # by the shards' names
RECORD = ("source", "rows", "bytes", "sha256", "labels", "rejected", "defects")
IDENTITY = ("reader", "split_name", "official_lists")


def describe_set(plan: Plan, shards: dict[str, list[str]]) -> SetDescription:
    """The description of a plan's set, whose `shards` are named by split."""
    expected = Counter(sample.split for sample in plan.samples)
    return {
        "dataset": plan.name,
        "reader": plan.reader,
        "split_name": plan.split_name,
        "official_lists": plan.official_lists,
        "classes": plan.classes,
        "modalities": plan.modalities,
        "extras": plan.extras,
        "split_description": plan.split_description,
        "notes": plan.notes,
        "decoding": settings(),
        "tools": tools(plan.modalities),
        "splits_hash": store.digest([[sample.id, sample.split, sample.label] for sample in plan.samples]),
        "splits": {split: {"expected": expected[split], "shards": files} for split, files in shards.items()},
    }


def settings() -> dict[str, Any]:
    """What is the same for all data sets and decides how media are decoded."""
    return {"jpeg_quality": media.JPEG_QUALITY, "scaling": "bicubic", "silence": media.SILENCE}


def tools(modalities: dict[str, Spec]) -> dict[str, str]:
    """The versions of what decodes, and of OpenCV where it computes flow."""
    versions = {"balancemm-cli": __version__, "av": av.__version__, "pillow": PIL.__version__}
    if any(spec.get("source", "").startswith(COMPUTED) for spec in modalities.values()):
        versions["opencv"] = load_opencv("dis").__version__
    return versions


def fingerprint(described: SetDescription, sources: Iterable[str]) -> str:
    """A hash of all that a prepared set is made from: settings, lists, samples, and the content of files, but no
    versions. `sources` are those of the shards, in order."""
    columns = [list(described["modalities"].items()), described["extras"]]
    what = [store.FORMAT, described["dataset"], *_pick(described, *IDENTITY).values(), described["classes"]]
    return store.digest([*what, columns, described["decoding"], list(sources)])


def same_set(out: Path, described: SetDescription, sources: Iterable[str]) -> str:
    """A sentence on the prepared set in `out`, which is the one that is described, made from the same `sources`.
    InputError for anything else, and where a shard is damaged."""
    if not (out / store.MANIFEST).exists():
        raise InputError(f"{out} exists and is no prepared data set. Name another folder with --out.")
    prepared = open_set(out)
    manifest = prepared.manifest
    if prepared.reader is None:
        same = all(
            manifest[key] == described[key] for key in ("dataset", "classes", "modalities", "splits_hash")
        )
        said = (
            f"{out} is prepared already, from the same lists; a former version made it, which did not record "
        )
        said += "the content of the media. To have them compared, delete it and prepare it again."
    else:
        same = manifest.get("plan") == fingerprint(described, sources)
        said = f"{out} is prepared already, from the same media and lists."
    if not same:
        raise InputError(
            f"{out} was prepared from other media, lists or settings. Name another folder with --out, or "
            "delete it."
        )
    for split in prepared.counts:
        prepared.split(split)
    return said


def finish(folder: Path, described: SetDescription, records: Records, out: Path) -> None:
    """Write rejected.csv and manifest.json beside the shards in `folder`, and rename it to `out`. InputError
    where what was rejected leaves too little; rejected.csv then lies above the folder."""
    rejected = [entry for record in records.values() for entry in record["rejected"]]
    beside = folder.parent / store.REJECTED
    store.write_rejected(beside, rejected)
    _check_left(described, records, beside)
    beside.replace(folder / store.REJECTED)
    store.write_json(folder / store.MANIFEST, _manifest(described, records, rejected))
    folder.replace(out)


def _check_left(described: SetDescription, records: Records, rejected: Path) -> None:
    """InputError where rejection left a split without samples, or a class without train samples (of folds: without
    samples in two of them)."""
    whole: Counter[str] = Counter()
    for split, own in described["splits"].items():
        labels: Counter[str] = Counter()
        for file in own["shards"]:
            labels.update(records[file]["labels"])
        whole.update(labels.keys())
        wanted = described["classes"] if split == "train" else []
        empty = [f"class '{label}' has no sample" for label in wanted if not labels[label]]
        if not any(records[file]["rows"] for file in own["shards"]):
            empty = ["no sample is left"]
        if empty:
            raise _too_little(f"In the split '{split}' of '{described['dataset']}', {empty[0]}", rejected)
    if any(map(is_fold, described["splits"])):
        for label in described["classes"]:
            if whole[label] < 2:
                of = f"class '{label}' of '{described['dataset']}'"
                raise _too_little(f"Fewer than two folds have a sample of {of}", rejected)


def _too_little(what: str, rejected: Path) -> InputError:
    return InputError(
        f"{what}: the files were rejected, and {rejected} says why. Get them anew and run the same command."
    )


def _manifest(described: SetDescription, records: Records, rejected: list[dict[str, str]]) -> dict[str, Any]:
    splits = {}
    for split, own in described["splits"].items():
        shards = [{"file": file, **_pick(records[file], "rows", "bytes", "sha256")} for file in own["shards"]]
        splits[split] = {
            "expected": own["expected"],
            "prepared": sum(shard["rows"] for shard in shards),
            "rejected": _count(entry["kind"] for entry in rejected if entry["split"] == split),
            "shards": shards,
        }
    manifest: dict[str, Any] = {
        "format": store.FORMAT,
        **_pick(described, "dataset", *IDENTITY, "classes", "modalities", "extras", "split_description"),
        "splits": splits,
        "rejected": _count(entry["kind"] for entry in rejected),
        "defects_kept": {key: text for one in records.values() for key, text in one["defects"].items()},
        **_pick(described, "notes", "decoding", "tools", "splits_hash"),
        "plan": fingerprint(described, (record["source"] for record in records.values())),
    }
    return {**manifest, "content_hash": store.content_hash(manifest)}


def _pick(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys}


def _count(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))
