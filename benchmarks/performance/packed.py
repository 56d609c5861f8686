"""The time of Table 12's CREMA-D column, with so many of its runs at a time on one device.

Whole runs as `bmm train --jobs N` trains them: 4 methods × 5 seeds × 100 epochs of 6,698 training and 744 test samples
under the recipe crema-d/paper (two ResNet-18, batch 32, pictures 224×224, spectrograms 257×299), on data of that shape
made as in input.py. N runs of --epochs epochs are trained at a time, whose methods are in turn opm+ogm, baseline, opm
and ogm. The first epoch, which decodes, tunes and captures, counts once a run; the others give samples a second of all
N together, with evaluation and checkpoints. From both follows `minutes`, the time of the whole column; the best N and
switches are named last.

`input_share` is what the input path takes of a training step, of one run alone (evaluation and writing left out), as
`bmm train --profile` measures it. The last line is one JSON object.

    python benchmarks/performance/packed.py --switches eager amp+channels_last
    python benchmarks/performance/packed.py --device cpu --samples 16 --size 32 --bins 33 --at-once 1 2
"""

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from input import FRAMES, HEIGHT, RATE, SECONDS, WIDTH, make_samples, write_set
from step import EPOCHS, RUNS, TEST, TRAIN, as_settings

from balancemm_cli.config.run import RunConfig, resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.launch import Job, check_jobs, choose_device, run_jobs
from balancemm_cli.engine.profiling import Profile
from balancemm_cli.engine.trainer import Trainer
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.runs.folder import RunFolder

METHODS = ("opm+ogm", "baseline", "opm", "ogm")  # the slowest first, for a single run


def main() -> None:
    """Measure, and print one line per row and the JSON object. What can't run here is named and left out."""
    options = parse_options()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        data = make_data(Path(place) / "crema-d", options)
        for switches in options.switches:
            try:
                share = input_share(switches, data, Path(place) / f"{switches}-alone", options)
                for at_once in options.at_once:
                    row = measure(switches, at_once, data, Path(place) / f"{switches}-{at_once}", options)
                    found.append({**row, "input_share": share})
                    print(as_line(found[-1]), flush=True)
            except BmmError as error:
                print(f"{switches}: left out. {error}")
    best = min(found, key=lambda row: row["minutes"], default=None)
    if best:
        print(f"Best: {as_line(best)}")
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(json.dumps({"rows": found, "best": best, "name": name, **vars(options)}))


def measure(
    switches: str, at_once: int, data: Path, runs: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: the runs of METHODS in turn, `at_once` at a time. InputError when one of them fails."""
    configs = [config_of(switches, METHODS[index % len(METHODS)], index, options) for index in range(at_once)]
    jobs = [Job(config, data, runs, device=options.device, loading=options.loading) for config in configs]
    check_jobs(jobs)
    ends: dict[str, list[float]] = defaultdict(list)  # of each epoch, by the job's name

    def note(job: Job, event: dict[str, Any]) -> None:
        if "epoch" in event:
            ends[job.name].append(time.monotonic())

    started = time.monotonic()
    for outcome in run_jobs(jobs, at_once, note, lambda _: None):
        if outcome.error:
            raise InputError(f"{outcome.job.name} failed. {outcome.error}")
    later = options.epochs - 1
    rate = sum(later * options.samples / (times[-1] - times[0]) for times in ends.values())
    first = max(times[0] for times in ends.values()) - started
    return {
        "switches": switches,
        "at_once": at_once,
        "samples_per_second": rate,
        "first_epoch_seconds": first,
        "minutes": (RUNS * (EPOCHS - 1) * TRAIN / rate + math.ceil(RUNS / at_once) * first) / 60,
    }


def input_share(switches: str, data: Path, runs: Path, options: argparse.Namespace) -> float:
    """What the input path takes of a training step, of one run alone."""
    device = choose_device(options.device)
    folder = RunFolder(runs, config_of(switches, METHODS[0], 0, options), open_set(data))
    profile = Profile(device)
    with folder.open():
        Trainer(folder, device, options.loading, mark=profile.mark).run()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the runs to come have processes of their own
    seconds = {
        name: taken for name, taken in profile.seconds().items() if name not in ("evaluation", "writing")
    }
    return seconds["input"] / sum(seconds.values())


def config_of(switches: str, method: str, seed: int, options: argparse.Namespace) -> RunConfig:
    """The recipe of the paper for a few epochs, at the size that the options ask for."""
    sizes = [f"frames.size={options.size}", f"waveform.n_fft={2 * (options.bins - 1)}"]
    overrides = [f"epochs={options.epochs}", *sizes, *as_settings(switches)]
    return resolve("crema-d", method=method, recipe="paper", seed=seed, overrides=overrides)


def make_data(folder: Path, options: argparse.Namespace) -> Path:
    """A prepared set of CREMA-D's shape, with as large a test split for its training samples."""
    counts = {"train": options.samples, "test": math.ceil(options.samples * TEST / TRAIN)}
    splits = {
        name: make_samples(count, (HEIGHT, WIDTH), RATE * SECONDS, FRAMES, exponent=1.8)
        for name, count in counts.items()
    }
    return write_set(folder, splits, (HEIGHT, WIDTH), RATE).folder


def as_line(row: dict[str, Any]) -> str:
    """A row for people."""
    return (
        f"{row['switches']:36} {row['at_once']:3} at a time: {row['samples_per_second']:8.1f} samples/s, "
        f"input {100 * row['input_share']:.1f} % of a step, first epoch {row['first_epoch_seconds']:.0f} s, "
        f"Table 12's column in {row['minutes']:.0f} min"
    )


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="runs")
    parser.add_argument("--switches", nargs="+", default=["eager"], help="joined by +, as in step.py")
    parser.add_argument("--epochs", type=int, default=3, help="of each run, two at least")
    parser.add_argument("--samples", type=int, default=TRAIN, help="of the training split")
    parser.add_argument("--size", type=int, default=224, help="of the pictures")
    parser.add_argument("--bins", type=int, default=257, help="of the spectrograms")
    parser.add_argument("--loading", choices=["auto", "resident", "streaming"], default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be 2 at least: the first one is not counted.")
    return options


if __name__ == "__main__":
    main()
