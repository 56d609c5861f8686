"""How the recipes of the small real data sets were chosen: by the validation accuracy of joint training alone.

    python benchmarks/statistics/recipe_grid.py htad --data data/prepared          # some minutes on one core

trains the baseline by the data set's recipe with each optimiser and learning rate of the grid over three seeds, as long
as the longest number of epochs, and prints the mean validation accuracy after each number of them: without a schedule a
run's first epochs are those of a shorter one. No method, and no sample of the test, has a part in it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.runs.folder import RunFolder

RATES = {"sgd": (0.003, 0.01, 0.03, 0.1), "adamw": (3e-4, 1e-3, 3e-3)}


def accuracies(data: Path, settings: list[str], seed: int, epochs: list[int]) -> list[float]:
    """The validation accuracy after each of the numbers of epochs."""
    config = resolve(
        data.name, "concat", "baseline", seed=seed, overrides=[*settings, f"epochs={max(epochs)}"]
    )
    found: list[float] = []

    def keep(event: dict[str, Any]) -> None:
        if "epoch" in event:
            found.append(event["accuracy"]["val"])

    with tempfile.TemporaryDirectory() as runs:
        train_run(RunFolder(Path(runs), config, open_set(data)), torch.device("cpu"), on_progress=keep)
    return [found[count - 1] for count in epochs]


def rows(data: Path, optimizers: list[str], epochs: list[int], seeds: int) -> Iterator[tuple[str, list[str]]]:
    """Of each setting its name and its cells."""
    for name in optimizers:
        for rate in RATES[name]:
            settings = [f"optimizer.name={name}", f"optimizer.lr={rate}"]
            each = zip(*(accuracies(data, settings, seed, epochs) for seed in range(seeds)), strict=True)
            yield f"{name} {rate:g}", [f"{100 * mean(own):.1f} ± {100 * stdev(own):.1f}" for own in each]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument(
        "--data", type=Path, default=Path("data/prepared"), help="the folder of prepared sets"
    )
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print(f"| {given.dataset} | " + " | ".join(f"{count} epochs" for count in given.epochs) + " |")
    print("|---" * (1 + len(given.epochs)) + "|")
    for name, cells in rows(given.data / given.dataset, given.optimizers, given.epochs, given.seeds):
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
