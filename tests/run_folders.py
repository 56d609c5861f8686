"""Run folders as training leaves them, by the product's writer, with curves that a real run could have."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.metrics.classification import evaluate_scores
from balancemm_cli.results.published import official_split
from balancemm_cli.runs.folder import ALIVE, LOCK, RunFolder
from balancemm_cli.runs.run import read_run
from balancemm_cli.runs.schema import DataIdentity
from balancemm_cli.runs.search import RECORD, SearchRecord

REACHED = {  # test accuracy after training: fused, audio, visual
    "baseline": (0.922, 0.783, 0.658),
    "opm": (0.988, 0.827, 0.983),
    "ogm": (0.955, 0.743, 0.837),
    "opm+ogm": (0.988, 0.822, 0.976),
}


def write_run(
    root: Path,
    method: str = "baseline",
    seed: int = 0,
    *,
    dataset: str = "synthetic",
    model: str = "concat",
    variant: str = "paper",
    recipe: str = "default",
    overrides: tuple[str, ...] = (),
    status: str = "finished",
    accuracy: float | None = None,
    best_on_test: float | None = None,
    data: str = "da7a" * 16,
    splits: str = "5b117" * 12,
    samples: tuple[int, int] = (1200, 1200),
    split: str = "",
    identity: DataIdentity | None = None,
    selections: tuple[str, ...] = ("last", "best-test"),
    epochs: int = 8,
    steps: int = 5,
) -> Path:
    """Write one run folder under `root` and return it. `accuracy` is the fused one, exactly; `identity` says which data
    it is of, those of the paper unless another is given."""
    config = resolve(dataset, model, method, variant, recipe, seed, overrides)
    identity = identity or official(dataset)
    manifest = _manifest(dataset, data, splits, samples, split) | identity.model_dump()
    name = f"{method}-{variant}-s{seed}-{config.hash(data)[:8]}"
    folder = RunFolder(root, config, PreparedSet(root, manifest), place=root / model / name)
    random = np.random.default_rng(seed)
    modalities = [model.removeprefix("unimodal-")] if model.startswith("unimodal-") else ["audio", "visual"]
    reached = REACHED[method] if accuracy is None else (accuracy, accuracy * 0.9, accuracy * 0.8)
    noise = random.normal(0, 0.005, 3) if accuracy is None else np.zeros(3)
    fused, audio, visual = np.clip(np.array(reached) + noise, 0, 1).tolist()
    unimodal = {"audio": audio, "visual": visual} if len(modalities) > 1 else {modalities[0]: fused}
    reached_at = {
        name: best_on_test if name == "best-test" and best_on_test else fused for name in selections
    }
    at = {name: epochs - 1 for name in selections}
    if best_on_test:
        at["best-test"] = epochs - 2
    history = _history(fused, unimodal, epochs, random)
    for name, epoch in at.items():
        history[epoch] |= {"accuracy": {"test": reached_at[name]}, "unimodal": {"test": unimodal}}
    with folder.open():
        folder.write_environment(torch.device("cpu"), 1)
        folder.write_history(history)
        table, rho = _steps(method, modalities, epochs * steps, steps, random)
        folder.write_steps(table)
        predictions = {
            name: _of_selection(name, value, samples[0], random) for name, value in reached_at.items()
        }
        folder.write_predictions(pa.concat_tables(predictions.values()))
        folder.write_result(
            status,
            config.settings.epochs if status == "finished" else epochs,
            1,
            selections={
                name: {
                    **_metrics(table),
                    "epoch": at[name],
                    "accuracy": reached_at[name],
                    "unimodal": unimodal,
                }
                for name, table in predictions.items()
            },
            rho=rho,
            time={"seconds": 30.0, "samples_per_second": 800.0},
        )
    for lock in (LOCK, ALIVE):
        (folder.path / lock).unlink()
    return folder.path


def write_search(
    root: Path,
    run: Path,
    budget: int = 2,
    seed: int = 0,
    own: dict[str, Any] | None = None,
    seconds: float | None = None,
    as_it_was: bool = False,
) -> Path:
    """Write the record of a search of learning rates, and of `own` settings, that chose those of a run, or no others
    than the recipe's; its path.

    It has `budget` trials, also where its budget is in seconds."""
    found = read_run(run)
    assert found.config is not None
    names = {
        name: getattr(found.result, name) for name in ("dataset", "model", "method", "variant", "recipe")
    }
    trial = {"epochs": 8, "diverged": False, "accuracy": 0.5, "loss": 1.0, "seconds": 1.0, "run": "a"}
    better = {
        **trial,
        "settings": {} if as_it_was else {"optimizer.lr": found.settings["optimizer.lr"]},
        "accuracy": 0.6,
        "run": "b",
    }
    unsigned = SearchRecord.model_validate(
        {
            **{
                "format": 1,
                **names,
                "seed": seed,
                "data": found.result.hashes.data,
                "search": "quasi-random",
            },
            "space": {"optimizer.lr": {"factor": [0.1, 10.0], "scale": "log"}, **(own or {})},
            "budget": {"trainings": None if seconds else budget, "seconds": seconds},
            "trials": [{**trial, "settings": {}}] * (budget - 1) + [better],
            "chosen": budget - 1,
            "settings_hash": found.result.hashes.settings,
        }
    )
    path = root / f"search-{found.result.method}-{budget}-{seed}" / RECORD
    path.parent.mkdir(parents=True)
    record = unsigned.model_copy(update={"fingerprint": unsigned.computed_fingerprint})
    path.write_text(record.model_dump_json())
    return path


def _manifest(dataset: str, data: str, splits: str, samples: tuple[int, int], split: str) -> dict[str, Any]:
    """What a prepared set says of itself; `samples` are those of the test split, used and expected."""
    counts = {"train": (800, 800), "test": samples}
    parts = {name: {"prepared": used, "expected": expected} for name, (used, expected) in counts.items()}
    return {
        "dataset": dataset,
        "classes": [],
        "modalities": {},
        "split_description": split,
        "splits": parts,
        "content_hash": data,
        "splits_hash": splits,
    }


def official(dataset: str) -> DataIdentity:
    """The data on which the paper's numbers of a data set are; made data, which have no lists, are of their own."""
    split = official_split(dataset)
    return DataIdentity(reader=dataset, split_name=split or "made", official_lists=True if split else None)


def write_demo(root: Path, seeds: int = 3) -> Path:
    """Write the runs of a small suite, four methods and both modalities alone, and return `root`."""
    for seed in range(seeds):
        for method in REACHED:
            write_run(root, method, seed)
        for model, accuracy in (("unimodal-audio", 0.83), ("unimodal-visual", 0.985)):
            write_run(root, "baseline", seed, model=model, accuracy=accuracy + 0.004 * seed)
    return root


def _history(fused: float, unimodal: dict, epochs: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """One record per epoch."""
    records = []
    for epoch in range(epochs):
        share = 1 - 0.7 * np.exp(-4 * epoch / max(epochs - 1, 1)) + random.normal(0, 0.004)
        record = {
            "epoch": epoch,
            "loss": 1.8 * np.exp(-3 * epoch / epochs),
            "lr": 0.02,
            "accuracy": {"test": min(fused, fused * share)},
            "unimodal": {"test": {name: min(1.0, value * share) for name, value in unimodal.items()}},
        }
        records.append(record)
    return records


def _metrics(predictions: pa.Table) -> dict[str, float | int]:
    """The metrics of the predictions of a selection."""
    return evaluate_scores(np.array(predictions["scores"].to_pylist()), predictions["label"].to_numpy())


def _of_selection(name: str, accuracy: float, count: int, random: np.random.Generator) -> pa.Table:
    """Test predictions of two classes at a selection, of which that share is right; labels are the same for all."""
    labels = np.random.default_rng(0).integers(2, size=count)
    sure = random.uniform(0.5, 1, size=count)
    right = random.permutation(count) < round(accuracy * count)
    first = np.where(right == (labels == 0), sure, 1 - sure)
    scores = pa.array(np.stack([first, 1 - first], 1).astype(np.float32).tolist(), pa.list_(pa.float32()))
    ids = [f"clip-{number}" for number in range(count)]
    return pa.table(
        {"selection": [name] * count, "id": ids, "label": labels.astype(np.int32), "scores": scores}
    )


def _steps(
    method: str, modalities: list[str], total: int, steps: int, random: np.random.Generator
) -> tuple[pa.Table, dict[str, float]]:
    """The table of the steps, ρ, q and k by their equations; and the mean ρ."""
    index = np.arange(total)
    columns = {
        "epoch": (index // steps).astype(np.int32),
        "step": (index % steps).astype(np.int32),
        "loss": 1.8 * np.exp(-3 * index / total),
    }
    rho: dict[str, np.ndarray] = {}
    if len(modalities) == 2:
        ahead = np.maximum(1 + 0.6 * (1 - np.exp(-6 * index / total)) + random.normal(0, 0.1, total), 0.1)
        rho = dict(zip(modalities, (ahead, 1 / ahead), strict=True))
    for name, value in rho.items():
        over = np.tanh(np.maximum(value - 1, 0))
        columns[f"rho_{name}"] = value
        columns[f"q_{name}"] = np.where(value > 1, 0.5 * (1 + 0.5 * over), 0) * ("opm" in method)
        columns[f"k_{name}"] = np.maximum(0, 1 - 0.4 * over * ("ogm" in method))
    return pa.table(columns), {name: float(value.mean()) for name, value in rho.items()}
