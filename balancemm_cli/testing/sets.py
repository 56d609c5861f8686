"""A small prepared set of features for each task, and the manifest of shards that were written by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from balancemm_cli.data.datasets.plan import features
from balancemm_cli.data.store import (
    FORMAT,
    PreparedSet,
    content_hash,
    file_hash,
    open_set,
    write_json,
    write_shard,
)
from balancemm_cli.tasks import TASKS
from balancemm_cli.testing.small import random_labels

COUNTS = {"train": 24, "val": 7, "test": 12}
CLASSES = ["a", "b", "c"]
GROUPS = ["Audio-Counting", "Visual-Location"]


def tiny_set(folder: Path, *tasks: str) -> PreparedSet:
    """Write a prepared set in `folder` and open it: two modalities of ten steps, with the labels of the tasks."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    modalities = {"audio": features(10, 6), "visual": features(10, 5, positions=4)}
    extras: dict[str, str] = {}
    for split, count in COUNTS.items():
        labels = {task: _labels(task, count, generator) for task in tasks}
        rows = []
        for index in range(count):
            further = [_further(task, labels[task][index], index) for task in tasks]
            columns = {name: column for of_task in further for name, column in of_task.items()}
            extras = {name: kind for name, (kind, _) in columns.items()}
            audio = torch.randn(10, 6, generator=generator) + index % len(CLASSES)
            visual = torch.randn(10, 4, 5, generator=generator)
            row: dict[str, Any] = {"id": f"{split}-{index}", "label": index % len(CLASSES)}
            row |= {"audio": audio.numpy(), "visual": visual.numpy()}
            rows.append(row | {name: value for name, (_, value) in columns.items()})
        write_shard(folder / f"{split}-00000.arrow", rows, modalities, extras)
    return finish(folder, folder.name, modalities, extras, COUNTS)


def _labels(task: str, count: int, generator: torch.Generator) -> Tensor:
    """Labels of a task, of the set's own classes."""
    return random_labels(TASKS[task], count, generator, CLASSES)


def _further(task: str, label: Tensor, index: int) -> dict[str, tuple[str, Any]]:
    """The columns of a sample beside its class, each with its kind (see data.store) and value."""
    of, found = TASKS[task], {}
    if of.column != "label":
        found[of.column] = ("number" if label.is_floating_point() else "integers", label.tolist())
    if of.groups:
        found[of.groups] = ("text", GROUPS[index % len(GROUPS)])
    return found


def finish(
    folder: Path,
    name: str,
    modalities: dict[str, dict[str, Any]],
    extras: dict[str, str],
    counts: Mapping[str, int],
) -> PreparedSet:
    """Write the manifest of a folder that has one shard a split, and open it."""
    splits = {}
    for split, count in counts.items():
        file = f"{split}-00000.arrow"
        shard = {"file": file, "rows": count, "sha256": file_hash(folder / file)}
        splits[split] = {"prepared": count, "expected": count, "shards": [shard]}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "dataset": name,
        "reader": "manifest",
        "split_name": "own",
        "classes": CLASSES,
        "modalities": modalities,
        "extras": extras,
        "splits": splits,
        "splits_hash": "0" * 64,
    }
    manifest["content_hash"] = content_hash(manifest)
    write_json(folder / "manifest.json", manifest)
    return open_set(folder)
