"""What it costs to tell that media are those of a prepared set, and to open one: by stamps, by content, by all bytes.

Writes --files small files (--bytes each) and times, with --workers processes:

- stamps: `bmm prepare` of a set that is there, no file having changed (size, times and inode of each are compared);
- content: the same without a memory, as of a folder that was copied (each file is read and hashed);
- one large file: what the content costs for each GB, beside the time for each file.

Then a prepared set of --shards shards is opened as each run opens it, and read whole as `bmm doctor --verify` does.
The files lie in the page cache: a disk that is slower than that comes on top where files are read.

    python benchmarks/performance/compare.py
    python benchmarks/performance/compare.py --files 20000 --shards 20
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from balancemm_cli.data import store
from balancemm_cli.data.datasets.plan import YOUNG_NS, Clip, Sample, content_of, waveform
from balancemm_cli.data.preparing.sources import compare, recall, remember, source_of
from balancemm_cli.data.preparing.workers import cores

Result = TypeVar("Result")

IN_A_FOLDER = 1000
SHARD_SAMPLES, SECONDS, RATE = 256, 10, 16000
LARGE = 10**9  # bytes of the file that is hashed


def main() -> None:
    """Measure, and print a line each."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as place:
        measure_media(Path(place), options.files, options.bytes, cores(options.workers))
        measure_set(Path(place) / "set", options.shards)


def measure_media(root: Path, count: int, size: int, workers: int) -> None:
    """Print what stamps and content cost."""
    samples = write_files(root / "media", count, size)
    time.sleep(YOUNG_NS / 1e9)
    memory = timed(f"content of {count:,} files", lambda: compare(samples, {}, workers))
    remember(root / "set", memory)
    kept = (root / ".set.sources").stat().st_size
    print(f"memory: {kept / 1e6:.1f} MB")
    again = timed(f"stamps of {count:,} files", lambda: compare(samples, recall(root / "set"), workers))
    assert again == memory
    timed("hash of samples and contents", lambda: source_of(samples, again))
    large = root / "large"
    with large.open("wb") as file:
        for _ in range(10):
            file.write(np.random.default_rng(0).bytes(LARGE // 10))
    timed(f"content of one file of {LARGE / 1e9:.2f} GB", lambda: content_of([large]))


def measure_set(folder: Path, shards: int) -> None:
    """Print what opening and reading a prepared set cost."""
    write_set(folder, shards)
    prepared = store.open_set(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    timed(f"opening a set of {size / 1e9:.2f} GB, {shards} shards", lambda: prepared.split("train"))
    timed("reading it whole", prepared.verify)


def write_files(folder: Path, count: int, size: int) -> list[Sample]:
    """So many files of random bytes, a sample each."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(count):
        name = f"{number // IN_A_FOLDER:03d}/{number:06d}.mp4"
        if number % IN_A_FOLDER == 0:
            (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(generator.bytes(size))
        clip = Clip(folder, name)
        samples.append(Sample(name, "train", "a", {"audio": clip, "visual": clip}))
    return samples


def write_set(folder: Path, shards: int) -> None:
    """A prepared set of sounds of ten seconds."""
    folder.mkdir()
    modalities = {"audio": waveform(RATE)}
    sound = np.random.default_rng(0).integers(-30000, 30000, SECONDS * RATE, dtype=np.int16)
    facts = []
    for number in range(shards):
        path = folder / f"train-{number:05d}.arrow"
        rows = ({"id": f"{number}-{row}", "label": 0, "audio": sound} for row in range(SHARD_SAMPLES))
        store.write_shard(path, rows, modalities)
        size = {"bytes": path.stat().st_size, "sha256": store.file_hash(path)}
        facts.append({"file": path.name, "rows": SHARD_SAMPLES, **size})
    count = shards * SHARD_SAMPLES
    manifest = {
        "format": store.FORMAT,
        "dataset": "made",
        "classes": ["a"],
        "modalities": modalities,
        "splits": {"train": {"expected": count, "prepared": count, "shards": facts}},
        "splits_hash": "",
    }
    store.write_json(folder / store.MANIFEST, {**manifest, "content_hash": store.content_hash(manifest)})


def timed(what: str, function: Callable[[], Result]) -> Result:
    """The result of a function, of which the time is printed: by the clock, and of all processors together."""
    begun, used = time.perf_counter(), processor_time()
    result = function()
    clock, used = time.perf_counter() - begun, processor_time() - used
    print(f"{what}: {clock:.2f} s, {used:.2f} s of processors", flush=True)
    return result


def processor_time() -> float:
    """Seconds that this process and its workers that ended have used, of the program and of the system for it."""
    return sum(os.times()[:4])


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--shards", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
