"""Time of a modulated epoch over a baseline epoch, all methods side by side in one run.

ResNet-18 encoders, 64×64 pictures, batch 64, on the CPU unless --device says otherwise. The spectrogram is
CREMA-D's (257×188) unless --spectrogram says otherwise. The methods take turns, step by step, so that a machine
whose speed drifts treats all alike; the median over steps is what counts. The last line is one JSON object.

    python benchmarks/performance/overhead.py

"unmeasured" among the --methods is the baseline without uni-modal logits, which every other one computes. For a model
without an exact split that is the cost of zero-out estimation:

    python benchmarks/performance/overhead.py --model mlp --methods unmeasured opm ogm
"""

import argparse
import json
import statistics
import time
from collections import defaultdict

import torch

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.random_streams import RandomStreams

METHODS = ("baseline", "opm", "ogm", "opm+ogm")
UNMEASURED = "unmeasured"  # the baseline without uni-modal logits
SHAPES = {"audio": 1, "visual": 3}
CLASSES = 6


class Contender:
    """One method with a network of its own."""

    def __init__(self, method: str, options: argparse.Namespace) -> None:
        config = resolve(
            "crema-d",
            options.model,
            "baseline" if method == UNMEASURED else method,
            options.variant,
            overrides=["opm.first_epoch=0", "encoder=resnet18", "g-blending.weights=[1,1,1]"],
        )
        self.methods = config.build_methods(list(SHAPES))
        self.network = config.build_network(SHAPES, list(map(str, range(CLASSES))), self.methods).to(
            options.device
        )
        self.optimizer = build_optimizer(self.network, OptimizerSettings())
        self.discrepancy = config.settings.discrepancy
        if method == UNMEASURED:
            nothing = torch.zeros(options.batch, CLASSES, device=options.device)
            self.network.unimodal_logits = lambda features, _=None: dict.fromkeys(features, nothing)

    def step(self, index: int, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> float:
        """Train one step; the seconds it took."""
        started = time.perf_counter()
        progress = torch.full((), 0.5, device=labels.device)
        step = Step(0, RandomStreams(0, 0, index), labels, progress)
        train_step(self.network, self.methods, self.optimizer, inputs, step, self.discrepancy)
        if labels.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def main() -> None:
    """Measure, and print one line per method and the JSON object."""
    options = parse_options()
    generator = torch.Generator().manual_seed(0)
    rows, columns = options.spectrogram
    inputs = {
        "audio": torch.randn(options.batch, 1, rows, columns, generator=generator).to(options.device),
        "visual": torch.randn(options.batch, 3, 1, 64, 64, generator=generator).to(options.device),
    }
    labels = torch.randint(CLASSES, (options.batch,), generator=generator).to(options.device)
    methods = list(dict.fromkeys(["baseline", *options.methods]))
    contenders = {name: Contender(name, options) for name in methods}
    seconds = defaultdict(list)
    for index in range(options.warmup + options.steps):
        for shift in range(len(methods)):
            name = methods[(index + shift) % len(methods)]
            taken = contenders[name].step(index, inputs, labels)
            if index >= options.warmup:
                seconds[name].append(taken)
    medians = {name: statistics.median(seconds[name]) for name in methods}
    ratios = {name: medians[name] / medians["baseline"] for name in methods}
    width = max(9, *map(len, methods))
    for name in methods:
        print(f"{name:{width}} {medians[name]:.4f} s a step, {ratios[name]:.3f} of baseline")
    print(
        json.dumps(
            {"ratios": ratios, "seconds": medians, **vars(options), "threads": torch.get_num_threads()}
        )
    )


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="concat", help="any that takes a spectrogram and pictures")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, help=f"as of bmm train, or {UNMEASURED}; baseline always is"
    )
    parser.add_argument("--steps", type=int, default=12, help="counted steps of each method")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--spectrogram", type=int, nargs=2, default=(257, 188), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--variant", default="paper", choices=("paper", "official"))
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
