"""Many small runs: `bmm train --jobs 2` beside a plain torch loop in two processes, which takes the same steps.

The data are two feature vectors per sample (36 and 16 numbers, 3 classes), 1,000 samples to train on and 400 to test.
A network is a linear layer and a ReLU per modality and a linear layer on both; it is trained by SGD in batches of 64
for 50 epochs. After each epoch both evaluate the test split: the predictions of both modalities and of each, and
scikit-learn's accuracy, average precision and macro-F1. The loop measures no discrepancy and writes nothing. Both are
timed as whole commands, in turn; the median over rounds counts. The last line is one JSON object.

    python benchmarks/performance/small_runs.py
    python benchmarks/performance/small_runs.py --runs 10 --rounds 1
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch import Tensor, nn

from balancemm_cli.data.datasets.plan import features
from balancemm_cli.data.store import write_shard
from balancemm_cli.testing.sets import CLASSES, finish

COUNTS = {"train": 1000, "test": 400}
WIDTHS = {"sound": 36, "motion": 16}
BATCH, HIDDEN = 64, 128
JOBS = 2


def main() -> None:
    """Time both in turn, print a line for each and the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"bmm": [], "loop": []}
    with tempfile.TemporaryDirectory() as place:
        write_data(Path(place) / "data" / "small")
        for number in range(options.rounds):
            for name in ("bmm", "loop") if number % 2 else ("loop", "bmm"):
                runs = Path(place) / f"runs-{number}"
                command = bmm(runs, options) if name == "bmm" else loop(options)
                started = time.perf_counter()
                subprocess.run(command, cwd=place, check=True, capture_output=True)
                found[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(times) for name, times in found.items()}
    for name, taken in seconds.items():
        print(f"{name:4} {taken:7.1f} s, {taken / options.runs:.2f} s per run")
    ratio = seconds["bmm"] / seconds["loop"]
    print(f"bmm takes {ratio:.2f} times as long.")
    print(json.dumps({"ratio": ratio, "seconds": seconds, "runs": options.runs, "epochs": options.epochs}))


def bmm(runs: Path, options: argparse.Namespace) -> list[str]:
    """The command of bmm."""
    words = ["train", "--dataset", "small", "--data", "data", "--runs", str(runs), "--device", "cpu"]
    words += ["--seeds", f"0-{options.runs - 1}", "--jobs", str(JOBS)]
    words += [
        "--set",
        f"epochs={options.epochs}",
        "--set",
        f"batch_size={BATCH}",
        "--set",
        "pretrained=false",
    ]
    return [sys.executable, "-m", "balancemm_cli", *words]


def loop(options: argparse.Namespace) -> list[str]:
    """The command of the plain loop."""
    code = f"import small_runs; small_runs.train_all({options.runs}, {options.epochs})"
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"]


def train_all(runs: int, epochs: int) -> None:
    """Train the networks of all seeds in two processes."""
    with multiprocessing.get_context("fork").Pool(JOBS) as pool:
        pool.starmap(train, [(seed, epochs) for seed in range(runs)], chunksize=1)


def train(seed: int, epochs: int) -> float:
    """Train one network, and evaluate it after each epoch; the last accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = {split: (inputs, torch.from_numpy(labels)) for split, inputs, labels in samples()}
    encoders = nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU()) for name, width in WIDTHS.items()}
    )
    head = nn.Linear(HIDDEN * len(WIDTHS), len(CLASSES))
    weights = [*encoders.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    inputs, labels = data["train"]
    accuracy = 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(BATCH):
            encoded = [encoders[name](values[rows]) for name, values in inputs.items()]
            loss = nn.functional.cross_entropy(head(torch.cat(encoded, 1)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = evaluate(encoders, head, *data["test"])
    return accuracy


@torch.no_grad()
def evaluate(encoders: nn.ModuleDict, head: nn.Linear, inputs: dict[str, Tensor], labels: Tensor) -> float:
    """The accuracy; other metrics, and the predictions of each modality, are computed as well."""
    encoded = [encoders[name](values) for name, values in inputs.items()]
    scores = head(torch.cat(encoded, 1)).softmax(1).numpy()
    for values, weight in zip(encoded, head.weight.split(HIDDEN, 1), strict=True):
        alone = (values @ weight.T + head.bias / len(encoded)).argmax(1)
        accuracy_score(labels.numpy(), alone.numpy())
    truth = np.eye(len(CLASSES))[labels.numpy()]
    average_precision_score(truth, scores)
    f1_score(labels.numpy(), scores.argmax(1), average="macro")
    return float(accuracy_score(labels.numpy(), scores.argmax(1)))


def samples() -> Iterator[tuple[str, dict[str, Tensor], np.ndarray]]:
    """The splits: their inputs [N, width] by modality and labels [N]. A class is a direction in each modality."""
    random = np.random.default_rng(0)
    centres = {name: random.normal(0, 1, (len(CLASSES), width)) for name, width in WIDTHS.items()}
    for split, count in COUNTS.items():
        labels = np.arange(count) % len(CLASSES)
        values = {
            name: centre[labels] + random.normal(0, 2, (count, centre.shape[1]))
            for name, centre in centres.items()
        }
        yield split, {name: torch.from_numpy(one.astype(np.float32)) for name, one in values.items()}, labels


def write_data(folder: Path) -> None:
    """A prepared set of these samples."""
    folder.mkdir(parents=True)
    modalities = {name: features(1, width) for name, width in WIDTHS.items()}
    for split, inputs, labels in samples():
        rows = [
            {"id": f"{split}-{number}", "label": int(label)}
            | {name: values[number : number + 1].numpy() for name, values in inputs.items()}
            for number, label in enumerate(labels)
        ]
        write_shard(folder / f"{split}-00000.arrow", rows, modalities, {})
    finish(folder, folder.name, modalities, {}, COUNTS)


if __name__ == "__main__":
    main()
