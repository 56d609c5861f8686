"""A small prepared set of features for each task that asks for more than a class."""

import numpy as np

from balancemm_cli.data.store import FORMAT, content_hash, file_hash, open_set, write_json, write_shard


def write_set(folder, name, extras, extra):
    """A prepared set of features, two modalities of ten steps; `extra` gives the further columns of a label."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    modalities = {
        "audio": {"kind": "features", "length": 10, "width": 6},
        "visual": {"kind": "features", "length": 10, "width": 5, "positions": 4},
    }
    splits = {}
    for split, count in (("train", 24), ("test", 12)):
        rows = [
            {
                "id": f"{split}-{index}",
                "label": index % 3,
                "audio": generator.normal(size=(10, 6)).astype(np.float32) + index % 3,
                "visual": generator.normal(size=(10, 4, 5)).astype(np.float32),
                **extra(index),
            }
            for index in range(count)
        ]
        write_shard(folder / f"{split}-00000.arrow", rows, modalities, extras)
        splits[split] = count
    return finish(folder, name, modalities, extras, splits)


def finish(folder, name, modalities, extras, splits):
    parts = {
        split: {
            "prepared": count,
            "expected": count,
            "shards": [
                {
                    "file": f"{split}-00000.arrow",
                    "rows": count,
                    "sha256": file_hash(folder / f"{split}-00000.arrow"),
                }
            ],
        }
        for split, count in splits.items()
    }
    manifest = {
        "format": FORMAT, "dataset": name, "classes": ["a", "b", "c"], "modalities": modalities,
        "extras": extras, "splits": parts, "splits_hash": "0" * 64,
    }  # fmt: skip
    manifest["content_hash"] = content_hash(manifest)
    write_json(folder / "manifest.json", manifest)
    return open_set(folder)


SETS = {
    "localisation": ({"segments": "integers"}, lambda n: {"segments": [3] * 4 + [n % 3] * 6}),
    "question-answering": (
        {"type": "text"},
        lambda n: {"type": ["Audio-Counting", "Visual-Location"][n % 2]},
    ),
    "regression": ({"regression": "number"}, lambda n: {"regression": float(n % 3 - 1) * 1.5}),
}
