"""Time of a modulated epoch over a baseline epoch, all methods side by side in one run.

ResNet-18 encoders, 64×64 pictures, batch 64, on the CPU unless --device says otherwise. The spectrogram is
CREMA-D's (257×188) unless --spectrogram says otherwise. The methods take turns, step by step, so that a machine
whose speed drifts treats all alike; the median over steps is what counts. The last line is one JSON object.

    python benchmarks/performance/overhead.py
"""

import argparse
import json
import statistics
import time
from collections import defaultdict

import torch

from balancemm_cli.draws import Draws
from balancemm_cli.engine.config import OptimizerSettings, resolve
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.trainer import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.models import build

METHODS = ("baseline", "opm", "ogm", "opm+ogm")
MODALITIES = ["audio", "visual"]
CLASSES = 6


class Contender:
    """One method with a network of its own."""

    def __init__(self, method: str, variant: str, device: str) -> None:
        config = resolve("crema-d", method=method, variant=variant, overrides=["opm.first_epoch=0"])
        self.network = build("concat", "resnet18", {"audio": 1, "visual": 3}, CLASSES, seed=0).to(device)
        self.optimizer = build_optimizer(self.network, OptimizerSettings())
        self.methods = config.build_methods(MODALITIES)
        self.discrepancy = config.settings.discrepancy

    def step(self, index: int, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> float:
        """Train one step; the seconds it took."""
        started = time.perf_counter()
        step = Step(0, Draws(0, 0, index), labels)
        train_step(self.network, self.methods, self.optimizer, inputs, step, self.discrepancy)
        if labels.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def main() -> None:
    """Measure, and print a line a method and the JSON object."""
    options = parse_options()
    generator = torch.Generator().manual_seed(0)
    rows, columns = options.spectrogram
    inputs = {
        "audio": torch.randn(options.batch, 1, rows, columns, generator=generator).to(options.device),
        "visual": torch.randn(options.batch, 3, 1, 64, 64, generator=generator).to(options.device),
    }
    labels = torch.randint(CLASSES, (options.batch,), generator=generator).to(options.device)
    contenders = {name: Contender(name, options.variant, options.device) for name in METHODS}
    seconds = defaultdict(list)
    for index in range(options.warmup + options.steps):
        for shift in range(len(METHODS)):
            name = METHODS[(index + shift) % len(METHODS)]
            taken = contenders[name].step(index, inputs, labels)
            if index >= options.warmup:
                seconds[name].append(taken)
    medians = {name: statistics.median(seconds[name]) for name in METHODS}
    ratios = {name: medians[name] / medians["baseline"] for name in METHODS}
    for name in METHODS:
        print(f"{name:9} {medians[name]:.4f} s a step, {ratios[name]:.3f} of baseline")
    print(
        json.dumps(
            {"ratios": ratios, "seconds": medians, **vars(options), "threads": torch.get_num_threads()}
        )
    )


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="counted steps of each method")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--spectrogram", type=int, nargs=2, default=(257, 188), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--variant", default="paper", choices=("paper", "official"))
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
