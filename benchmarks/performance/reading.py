"""How long the commands that only read take, and how much memory.

The first row is `import torch`, which they do without. Those on the demo read what `make demo` left in the current
folder, and are left out where it is not. The last ones, one for each format, are `bmm report` over 5,000 finished runs
in the real formats: two data sets × five methods × 100 learning rates × five seeds, each with its settings, history,
744 test predictions and result; numbers are drawn. Each command runs by itself: the least of its seconds over
`--rounds`, the peak of its resident memory, and its time as a multiple of the first row's. The last line is one JSON
object.

    python benchmarks/performance/reading.py
    python benchmarks/performance/reading.py --rates 2 --formats json --rounds 1
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from balancemm_cli.config.run import RunConfig, resolve
from balancemm_cli.runs.folder import write_table

DATASETS = {"crema-d": 6, "kinetics-sounds": 31}
METHODS = ("baseline", "opm", "ogm", "opm+ogm", "greedy-adaptation")
SEEDS = 5
SAMPLES = 744
EPOCHS = 20
# A command's peak is never below that of the process that starts it, so a small one has to.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""
DATA = "da7a" * 16
FORMATS = ("json", "csv", "markdown", "latex")
COMMANDS = ("--help", "list methods", "show opm", "train --suite table-12 --dry-run")
ON_DEMO = ("train --suite demo --status", "report --suite demo")


def main() -> None:
    """Make the runs, call each command, print a line for each and the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=int, default=100, help="learning rates; 50 runs each")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        runs = sum(write_run(Path(folder) / "runs", config) for config in configs(options.rates))
        found = {"import torch": measure(here, ["-c", "import torch"], options.rounds)}
        for command in (*COMMANDS, *(ON_DEMO if (here / "runs" / "demo").is_dir() else ())):
            found[f"bmm {command}"] = measure(here, ["-m", "balancemm_cli", *command.split()], options.rounds)
        for name in options.formats:
            words = ["-m", "balancemm_cli", "report", "--format", name]
            found[f"bmm report --format {name}, {runs:,} runs"] = measure(Path(folder), words, options.rounds)
    (torch_seconds, _), *_ = found.values()
    for name, (seconds, peak) in found.items():
        print(f"{name:40} {seconds:6.2f} s {peak:6.0f} MB {seconds / torch_seconds:6.2f}")
    print(json.dumps({"runs": runs, "seconds_and_megabytes": found}))


def configs(rates: int) -> Iterator[RunConfig]:
    """The settings of every run."""
    for dataset in DATASETS:
        for method in METHODS:
            for rate in range(rates):
                config = resolve(
                    dataset, "concat", method, "paper", "paper", 0, [f"optimizer.lr={rate + 1}e-4"]
                )
                yield from (config.model_copy(update={"seed": seed}) for seed in range(SEEDS))


def write_run(root: Path, config: RunConfig) -> int:
    """Write one run folder; returns 1."""
    folder = root / f"{config.dataset}/{config.model}/{config.method}-s{config.seed}-{config.hash(DATA)[:8]}"
    folder.mkdir(parents=True)
    random = np.random.default_rng(int(config.hash(DATA)[:8], 16))
    classes = DATASETS[config.dataset]
    labels = np.arange(SAMPLES) % classes
    scores = random.normal(0, 1, (SAMPLES, classes)).astype(np.float32)
    scores[np.arange(SAMPLES), labels] += 1.5
    accuracy = float((scores.argmax(1) == labels).mean())
    metrics = {"accuracy": accuracy, "map": accuracy, "macro_f1": accuracy}
    metrics["unimodal"] = {"audio": accuracy * 0.9, "visual": accuracy * 0.8}
    names = ("dataset", "model", "method", "variant", "recipe", "seed")
    result = {
        "format": 1,
        "status": "finished",
        **{name: getattr(config, name) for name in names},
        "epochs": config.settings.epochs,
        "selections": {name: {"epoch": EPOCHS - 1, **metrics} for name in ("last", "best-test")},
        "rho": {"audio": 1.5, "visual": 0.7},
        "samples": {"train": [6698, 6698], "test": [SAMPLES, SAMPLES]},
        "hashes": {
            "config": config.hash(DATA),
            "protocol": config.hash(DATA, with_seed=False),
            "data": DATA,
            "splits": DATA,
        },
        "time": {"seconds": 100.0, "samples_per_second": 800.0},
    }
    environment = {"version": "0.1.0", "git": "0123456789ab", "torch": "2.11.0", "device": "cpu"}
    history = [{"epoch": epoch, "loss": 1.0, "accuracy": {"test": accuracy}} for epoch in range(EPOCHS)]
    (folder / "config.toml").write_text(config.to_toml())
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    write_table(folder / "predictions.arrow", predictions(labels, scores))
    (folder / "result.json").write_text(json.dumps(result))
    return 1


def predictions(labels: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Labels [N] and scores [N, classes] as a run stores them, for both selections."""
    ids = [f"sample-{number:04}" for number in range(len(labels))]
    size = scores.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(scores, (2, 1)).ravel()), size)
    columns = {"selection": ["last"] * len(labels) + ["best-test"] * len(labels), "id": ids * 2}
    return pa.table({**columns, "label": np.tile(labels, 2).astype(np.int32), "scores": values})


def measure(place: Path, words: list[str], rounds: int) -> tuple[float, float]:
    """Seconds and peak megabytes of a call of Python in `place`, the least of each."""
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, sys.executable, *words], cwd=place, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with status {done.returncode}. {done.stderr}")
        found.append([*map(float, done.stdout.split())])
    seconds, peaks = zip(*found, strict=True)
    return round(min(seconds), 2), round(min(peaks))


if __name__ == "__main__":
    main()
