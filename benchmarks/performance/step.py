"""Samples a second of a training step by switch and batch size, at the shape of CREMA-D.

Two ResNet-18, pictures 224×224, spectrograms 257×299, inputs that lie on the device already: the step alone, without
the input path. The median over steps counts. `share_of_peak` is the convolutions' and matrices' arithmetic over
what the device's data sheet promises at that precision (float32 without TF32, bf16 dense), where the device is
known. `table_12_minutes` is the time of Table 12's CREMA-D column, 4 methods × 5 seeds × 100 epochs of 6,698
training samples and 744 test samples (a forward pass is taken as a third of a step), of one run after another at
this speed; packed.py measures it with whole runs, several at a time. The last line is one JSON object.

    python benchmarks/performance/step.py
    python benchmarks/performance/step.py --device cpu --steps 2 --batches 4 --switches eager
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.acceleration import Stepper, arrange, check_speed
from balancemm_cli.engine.launch import choose_device
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.errors import BmmError
from balancemm_cli.methods.base import Step
from balancemm_cli.models import build
from balancemm_cli.random_streams import RandomStreams

MODALITIES = ["audio", "visual"]
CLASSES, TRAIN, TEST = 6, 6698, 744
RUNS, EPOCHS = 4 * 5, 100
SWITCHES = (
    "eager",
    "channels_last",
    "amp",
    "amp+channels_last",
    "compile",
    "amp+channels_last+compile",
)
PEAK = {  # FLOP/s of the data sheets: float32, bf16
    "H100": (67e12, 989e12),  # SXM
    "H200": (67e12, 989e12),
    "A100": (19.5e12, 312e12),
}


def measure(switches: str, method: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row: the speed of `method` under `switches`, as amp+channels_last."""
    device = choose_device(options.device)
    overrides = [*as_settings(switches), f"batch_size={batch}"]
    config = resolve("crema-d", method=method, recipe="paper", overrides=overrides)
    recipe = config.settings
    check_speed(recipe.speed)
    shapes = {"audio": 1, "visual": 3}
    network = arrange(build("concat", "resnet18", shapes, CLASSES, seed=0).to(device), recipe.speed)
    optimizer = build_optimizer(network, recipe.optimizer)
    stepper = Stepper(network, config.build_methods(MODALITIES), optimizer, recipe)
    rows, columns = options.spectrogram
    inputs = {
        "audio": torch.randn(batch, 1, rows, columns, device=device),
        "visual": torch.randn(batch, 3, 1, options.size, options.size, device=device),
    }
    labels = torch.randint(CLASSES, (batch,), device=device)

    def step(index: int) -> None:
        stepper(inputs, Step(0, RandomStreams(0, 0, index), labels))

    for index in range(options.warmup):
        step(index)
    seconds = [timed(step, index, device) for index in range(options.warmup, options.warmup + options.steps)]
    rate = batch / statistics.median(seconds)
    return {
        "switches": switches,
        "method": method,
        "batch": batch,
        "samples_per_second": rate,
        "share_of_peak": share_of_peak(rate, options, device, recipe.speed.amp),
        "table_12_minutes": RUNS * EPOCHS * (TRAIN + TEST / 3) / rate / 60,
    }


def as_settings(switches: str) -> list[str]:
    """Switches such as amp+channels_last as --set takes them."""
    return [f"speed.{part}=true" for part in switches.split("+") if part != "eager"]


def timed(step: Callable[[int], None], index: int, device: torch.device) -> float:
    """Seconds of one step, with the device's work finished."""
    started = time.perf_counter()
    step(index)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def share_of_peak(rate: float, options: argparse.Namespace, device: torch.device, bf16: bool) -> float | None:
    """The share of the device's peak at `rate` samples a second; None for a device that is not in PEAK."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peaks = next((PEAK[known] for known in PEAK if known in name), None)
    return None if peaks is None else rate * flops(options) / peaks[bf16]


def flops(options: argparse.Namespace) -> float:
    """Floating-point operations of one sample's step, forward and backward."""
    network = build("concat", "resnet18", {"audio": 1, "visual": 3}, CLASSES, seed=0)
    with FlopCounterMode(display=False) as counter:
        network(
            {
                "audio": torch.randn(2, 1, *options.spectrogram),
                "visual": torch.randn(2, 3, options.size, options.size),
            }
        ).sum().backward()
    return counter.get_total_flops() / 2


def main() -> None:
    """Measure, and print one line per row and the JSON object. What can't run here is named and left out."""
    options = parse_options()
    found = []
    for switches in options.switches:
        for batch in options.batches:
            for method in options.methods:
                try:
                    row = measure(switches, method, batch, options)
                except BmmError as error:
                    print(f"{switches}: left out. {error}")
                    continue
                found.append(row)
                share = row["share_of_peak"]
                print(
                    f"{switches:40} {method:9} batch {batch:3}: {row['samples_per_second']:9.1f} samples/s, "
                    f"{'peak unknown' if share is None else f'{100 * share:.1f} % of the peak'}, "
                    f"Table 12's column in {row['table_12_minutes']:.0f} min",
                    flush=True,
                )
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(json.dumps({"rows": found, "name": name, **vars(options), "threads": torch.get_num_threads()}))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="counted steps of each row")
    parser.add_argument(
        "--warmup", type=int, default=5, help="steps that allocate, tune, compile and capture"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--methods", nargs="+", default=["baseline", "opm+ogm"])
    parser.add_argument("--switches", nargs="+", default=SWITCHES, help="joined by +, or eager")
    parser.add_argument("--size", type=int, default=224, help="of the pictures")
    parser.add_argument("--spectrogram", type=int, nargs=2, default=(257, 299), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
