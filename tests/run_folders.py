"""Writes run folders as training leaves them, with curves a real run could have. For tests of reports."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from balancemm_cli.config.run import resolve
from balancemm_cli.results.published import official_split
from balancemm_cli.runs.schema import DataIdentity

REACHED = {  # test accuracy after training: fused, audio, visual
    "baseline": (0.922, 0.783, 0.658),
    "opm": (0.988, 0.827, 0.983),
    "ogm": (0.955, 0.743, 0.837),
    "opm+ogm": (0.988, 0.822, 0.976),
}

NAMES = ("dataset", "model", "method", "variant", "recipe", "seed")


def write_run(
    root: Path,
    method: str = "baseline",
    seed: int = 0,
    *,
    dataset: str = "synthetic",
    model: str = "concat",
    variant: str = "paper",
    recipe: str = "tuned",
    overrides: tuple[str, ...] = (),
    status: str = "finished",
    accuracy: float | None = None,
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
    folder = root / model / f"{method}-{variant}-s{seed}-{config.hash(data)[:8]}"
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    modalities = [model.removeprefix("unimodal-")] if model.startswith("unimodal-") else ["audio", "visual"]
    reached = REACHED[method] if accuracy is None else (accuracy, accuracy * 0.9, accuracy * 0.8)
    noise = random.normal(0, 0.005, 3) if accuracy is None else np.zeros(3)
    fused, audio, visual = np.clip(np.array(reached) + noise, 0, 1).tolist()
    unimodal = {"audio": audio, "visual": visual} if len(modalities) > 1 else {modalities[0]: fused}
    _write_history(folder, fused, unimodal, epochs, random)
    rho = _write_steps(folder, method, modalities, epochs * steps, steps, random)
    chosen = {"epoch": epochs - 1, "accuracy": fused, "map": 0.98 * fused, "macro_f1": 0.99 * fused}
    result = {
        "format": 1,
        "status": status,
        **{name: getattr(config, name) for name in NAMES},
        "epochs": epochs,
        "selections": {name: {**chosen, "unimodal": unimodal} for name in selections},
        "rho": rho,
        "split": split,
        "data": (identity or official(dataset)).model_dump(),
        "samples": {"train": [800, 800], "test": list(samples)},
        "hashes": {
            "config": config.hash(data),
            "protocol": config.hash(data, with_seed=False),
            "data": data,
            "splits": splits,
        },
        "time": {"seconds": 30.0, "samples_per_second": 800.0},
    }
    environment = {"version": "0.1.0", "torch": "2.11.0", "python": "3.11", "device": "cpu", "threads": 1}
    (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def official(dataset: str) -> DataIdentity:
    """The data on which the paper's numbers of a data set are; made data, which have no lists, are of their own."""
    split = official_split(dataset)
    return DataIdentity(reader=dataset, split_name=split or None, official_lists=True if split else None)


def write_demo(root: Path, seeds: int = 3) -> Path:
    """Write the runs of a small suite, four methods and both modalities alone, and return `root`."""
    for seed in range(seeds):
        for method in REACHED:
            write_run(root, method, seed)
        for model, accuracy in (("unimodal-audio", 0.83), ("unimodal-visual", 0.985)):
            write_run(root, "baseline", seed, model=model, accuracy=accuracy + 0.004 * seed)
    return root


def _write_history(
    folder: Path, fused: float, unimodal: dict, epochs: int, random: np.random.Generator
) -> None:
    lines = []
    for epoch in range(epochs):
        share = 1 - 0.7 * np.exp(-4 * epoch / max(epochs - 1, 1)) + random.normal(0, 0.004)
        line = {
            "epoch": epoch,
            "loss": 1.8 * np.exp(-3 * epoch / epochs),
            "lr": 0.02,
            "accuracy": {"test": min(1.0, fused * share)},
            "unimodal": {"test": {name: min(1.0, value * share) for name, value in unimodal.items()}},
        }
        lines.append(json.dumps(line))
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_steps(
    folder: Path, method: str, modalities: list[str], total: int, steps: int, random: np.random.Generator
) -> dict[str, float]:
    """Write steps.arrow: ρ, q and k by their equations; returns the mean ρ."""
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
    table = pa.table(columns)
    with pa.OSFile(str(folder / "steps.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return {name: float(value.mean()) for name, value in rho.items()}
