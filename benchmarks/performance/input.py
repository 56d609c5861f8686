"""Samples a second that reach the network, resident and streaming, beside the loader that people write; in one run.

The data are shaped as CREMA-D's: JPEG frames of 480×360 (three a clip, as one a second gives; one of them is drawn)
and 3 s of sound at 16 kHz. They are made here: noise that swells, and pictures whose amplitudes fall with the
frequency f as 1 / f^1.8. Natural ones fall as 1 / f (--exponent 1), but what went through a video codec has less
detail: frames of real videos at this size take bmm 20 to 90 kB, half of them under 45, as large as those made here.
The recipe is crema-d/paper: a random crop resized to 224×224, mirrored, normalised; a log spectrogram of 257×299.

The other loader does the same, sample by sample, in a DataLoader with --workers processes: Pillow opens the frame from
its file, torchvision's transforms work on the picture, librosa loads the WAV file (whose rate is 16 kHz already) and
computes the spectrogram. All read the same bytes, which the operating system has in its memory. The contenders take
turns, each for one epoch after an epoch of warming up; the median over rounds counts. Beside the time stand the
seconds that the processor worked, of all processes (Linux), which other programs on the machine disturb less. The
last line is one JSON object.

With --shorter N two more contenders read the same pictures stored smaller, their shorter side of N pixels: streaming
and the DataLoader. Each stands beside the DataLoader that reads its pictures.

With --flat N the cost per sample of a streaming epoch over N samples is measured instead, beside that over 2,000:
small pictures, in shards of 2,000 samples. The process's own memory (Linux) is given without the pages of the mapped
files, which the operating system takes back as it needs.

    python benchmarks/performance/input.py
    python benchmarks/performance/input.py --shorter 256
    python benchmarks/performance/input.py --flat 200000
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from balancemm_cli.config.run import resolve
from balancemm_cli.data import store
from balancemm_cli.data.loading import Source, make_resident
from balancemm_cli.data.reading.media import encode_jpeg
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.random_streams import RandomStreams

RATE, SECONDS, FRAMES = 16000, 3, 3
HEIGHT, WIDTH = 360, 480
DISTINCT = 32  # pictures that are made; samples share them
SHARD = 2000  # samples
BATCH = 32
CPU = torch.device("cpu")
Epochs = dict[
    str, Callable[[int], Iterator[dict[str, torch.Tensor]]]
]  # of each contender, by the epoch's number


def main() -> None:
    """Measure, and print a line a contender and the JSON object."""
    options = parse_options()
    torch.set_num_threads(options.workers)
    with tempfile.TemporaryDirectory() as folder:
        (measure_flat if options.flat else measure)(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Resident, streaming and the DataLoader on the same samples."""
    epochs, prepared_in, jpeg = make_contenders(options, folder, (HEIGHT, WIDTH))
    if options.shorter:
        size = options.shorter, round(options.shorter * WIDTH / HEIGHT)
        smaller, _, _ = make_contenders(options, folder / "smaller", size)
        epochs |= {f"{name} of smaller": smaller[name] for name in ("streaming", "dataloader")}
    rates, work = ({name: [] for name in epochs} for _ in range(2))
    for epoch in range(options.rounds + 1):
        for name, batches in epochs.items():
            worked = cpu_seconds()
            taken = seconds_of(batches(epoch), options.samples)
            if epoch:
                work[name].append(1000 * (cpu_seconds() - worked) / options.samples)
                rates[name].append(options.samples / taken)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    cpu = {name: statistics.median(found) for name, found in work.items()}
    beside = {
        name: "dataloader" + name.partition("streaming")[2] for name in epochs if "dataloader" not in name
    }
    ratios = {name: medians[name] / medians[other] for name, other in beside.items()}
    cpu_ratios = {name: cpu[other] / cpu[name] for name, other in beside.items()}
    for name, rate in medians.items():
        print(f"{name:21} {rate:8.0f} samples a second, {cpu[name]:6.2f} ms of processor a sample")
    for name, other in beside.items():
        print(f"{name} is {ratios[name]:.1f} times as fast as {other}, by processor {cpu_ratios[name]:.1f}")
    print(f"Decoding all once took {prepared_in:.1f} s.")
    found = {"ratios": ratios, "cpu_ratios": cpu_ratios, "samples_a_second": medians, "cpu_ms": cpu}
    found |= {"all_rates": rates, "decoding_seconds": prepared_in, "jpeg_bytes": jpeg}
    print(json.dumps({**found, **vars(options)}))


def make_contenders(
    options: argparse.Namespace, folder: Path, size: tuple[int, int]
) -> tuple[Epochs, float, int]:
    """All three on pictures stored at a size; the seconds that decoding all once took, and a picture's bytes."""
    made = HEIGHT, WIDTH
    samples = list(make_samples(options.samples, made, RATE * SECONDS, FRAMES, options.exponent, size))
    prepared = write_set(folder / "prepared", {"train": samples}, size, RATE)
    config = resolve("crema-d")
    inputs = Inputs(prepared, list(prepared.modalities), config.settings)
    split = prepared.split("train")
    sources = {name: inputs.source(split) for name in ("resident", "streaming")}
    started = time.perf_counter()
    print(make_resident([sources["resident"]], "resident"))
    prepared_in = time.perf_counter() - started
    print(make_resident([sources["streaming"]], "streaming"))
    batch = config.settings.batch_size
    loader = make_loader(write_files(folder / "files", samples), batch, options.workers)
    epochs: Epochs = {
        name: lambda epoch, source=source: ours(source, inputs, batch, epoch)
        for name, source in sources.items()
    }
    epochs["dataloader"] = lambda _: iter(loader)
    return (
        epochs,
        prepared_in,
        round(statistics.mean(len(frame) for sample in samples for frame in sample["visual"])),
    )


def measure_flat(options: argparse.Namespace, folder: Path) -> None:
    """Streaming epochs over few and over many samples, in turn."""
    size, rate = (32, 40), 1000
    counts = (min(2000, options.flat // 2), options.flat)
    sources: dict[int, tuple[Source, Inputs]] = {}
    index = {}  # MiB that are kept of a set
    for count in counts:
        samples = make_samples(count, size, rate, 1, options.exponent)
        prepared = write_set(folder / str(count), {"train": samples}, size, rate)
        settings = {"waveform.rate": rate, "waveform.seconds": 1.0, "waveform.n_fft": 64, "frames.size": 24}
        config = resolve("crema-d", overrides=list(settings.items()))
        inputs = Inputs(prepared, list(prepared.modalities), config.settings)
        before = own_memory()
        sources[count] = inputs.source(prepared.split("train")), inputs
        make_resident([sources[count][0]], "streaming")
        index[count] = own_memory() - before
    few, many = counts
    before, growth, turns = own_memory(), 0.0, many // few
    seconds, work = ({count: [] for count in counts} for _ in range(2))
    for epoch in range(options.rounds):
        for batches in (ours(*sources[few], BATCH, epoch), islice(ours(*sources[many], BATCH, epoch), 50)):
            list(batches)  # warm up
        served, taken, worked = ours(*sources[many], BATCH, epoch), Counter(), Counter()
        for turn in range(
            turns
        ):  # the two take turns, so that a machine whose speed drifts treats both alike
            part = islice(served, round(few * (turn + 1) / BATCH) - round(few * turn / BATCH))
            for count, batches in ((few, ours(*sources[few], BATCH, turn)), (many, part)):
                started = time.perf_counter(), time.process_time()
                samples = sum(len(batch["visual"]) for batch in batches)
                taken[count] += (time.perf_counter() - started[0]) / samples / turns
                worked[count] += (time.process_time() - started[1]) / samples / turns
            growth = max(growth, own_memory() - before)
        for count in counts:
            seconds[count].append(1e6 * taken[count])
            work[count].append(1e6 * worked[count])
    medians = {count: statistics.median(found) for count, found in seconds.items()}
    cpu = {count: statistics.median(found) for count, found in work.items()}
    for count in counts:
        print(
            f"{count:8,} samples: {medians[count]:6.1f} µs a sample, {cpu[count]:6.1f} µs of processor, ",
            end="",
        )
        print(f"{index[count]:5.1f} MiB kept of the set")
    ratio, cpu_ratio = medians[many] / medians[few], cpu[many] / cpu[few]
    print(
        f"A sample of the larger set costs {ratio:.3f} times as much, {cpu_ratio:.3f} by processor. ", end=""
    )
    print(f"All epochs added {growth:.0f} MiB.")
    found = {"ratio": ratio, "cpu_ratio": cpu_ratio, "microseconds": medians, "cpu_microseconds": cpu}
    found |= {"kept_mib": index, "added_mib": growth}
    print(json.dumps({**found, **vars(options)}))


def seconds_of(batches: Iterator[dict[str, torch.Tensor]], samples: int) -> float:
    """The seconds that an epoch takes; every sample must come, in the right form."""
    started = time.perf_counter()
    count = 0
    for batch in batches:
        assert batch["visual"].dtype == batch["audio"].dtype == torch.float32
        count += len(batch["visual"])
    assert count == samples
    return time.perf_counter() - started


def ours(source: Source, inputs: Inputs, batch: int, epoch: int) -> Iterator[dict[str, torch.Tensor]]:
    """Network inputs of one epoch, as the trainer makes them."""
    order = np.random.default_rng(epoch).permutation(len(source))
    rows = np.split(order, range(batch, len(order), batch))
    streams = [RandomStreams(0, epoch, step) for step in range(len(rows))]
    for drawn, (raw, _) in zip(streams, source.batches(rows, streams, CPU), strict=True):
        yield inputs(raw, drawn)


class Files(Dataset):
    """Samples from files of their own, one by one, the usual way."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(224),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        import librosa

        folder = self.folders[index]
        with Image.open(folder / f"{np.random.randint(FRAMES)}.jpg") as picture:
            visual = self.transform(picture.convert("RGB"))
        samples, _ = librosa.load(folder / "sound.wav", sr=RATE)
        spectrum = librosa.stft(samples, n_fft=512, hop_length=159, center=False)
        return {
            "visual": visual[:, None],
            "audio": torch.from_numpy(np.log(np.abs(spectrum) + 1e-7))[None],
        }


def make_loader(folders: list[Path], batch: int, workers: int) -> DataLoader:
    """The DataLoader; its workers live on from epoch to epoch."""
    return DataLoader(Files(folders), batch, shuffle=True, num_workers=workers, persistent_workers=True)


def make_samples(
    count: int,
    size: tuple[int, int],
    length: int,
    frames: int,
    exponent: float,
    stored: tuple[int, int] | None = None,
) -> Iterator[store.Row]:
    """Rows for a shard, made from DISTINCT pictures of `size`, (height, width), which are scaled to `stored`."""
    generator = np.random.default_rng(0)
    height, width = stored or size
    pictures = (Image.fromarray(natural(generator, size, exponent)) for _ in range(DISTINCT))
    jpegs = [encode_jpeg(np.array(picture.resize((width, height)))) for picture in pictures]
    swell = 1 + np.sin(np.linspace(0, 20, length))
    for number in range(count):
        sound = generator.normal(0, 0.05, length) * swell
        yield {
            "id": str(number),
            "label": number % 6,
            "audio": (sound * 2**15).astype(np.int16),
            "visual": [jpegs[(number + frame) % DISTINCT] for frame in range(frames)],
        }


def natural(generator: np.random.Generator, size: tuple[int, int], exponent: float) -> np.ndarray:
    """A picture [*size, 3] whose amplitudes fall as 1 / frequency^exponent, with little colour."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    planes = [
        np.fft.irfft2(np.fft.rfft2(generator.normal(size=size)) / frequency**exponent, size) for _ in range(3)
    ]
    grey, red, blue = (plane / plane.std() for plane in planes)
    picture = 128 + 45 * grey[..., None] + 10 * np.stack([red, 0 * red, blue], 2)
    return picture.clip(0, 255).astype(np.uint8)


def write_set(
    folder: Path, splits: Mapping[str, Iterable[store.Row]], size: tuple[int, int], rate: int
) -> store.PreparedSet:
    """A prepared set."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size
    modalities = {
        "audio": {"kind": "waveform", "rate": rate},
        "visual": {"kind": "frames", "height": height, "width": width, "fps": 1.0, "channels": 3},
    }
    manifest = {
        "format": store.FORMAT,
        "dataset": "crema-d",
        "classes": [str(label) for label in range(6)],
        "modalities": modalities,
        "splits": {name: write_split(folder, name, rows, modalities) for name, rows in splits.items()},
        "splits_hash": "",
    }
    store.write_json(folder / store.MANIFEST, {**manifest, "content_hash": store.content_hash(manifest)})
    return store.open_set(folder)


def write_split(
    folder: Path, name: str, samples: Iterable[store.Row], modalities: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The shards of a split, and what the manifest says of it."""
    shards, rows, count = [], iter(samples), 0
    while part := list(islice(rows, SHARD)):
        path = folder / f"{name}-{len(shards):05d}.arrow"
        count += store.write_shard(path, part, modalities)
        shards.append({"file": path.name, "rows": len(part), "sha256": store.file_hash(path)})
    return {"prepared": count, "expected": count, "shards": shards}


def write_files(folder: Path, samples: list[store.Row]) -> list[Path]:
    """The same samples as files, a folder each."""
    folders = []
    for sample in samples:
        folders.append(folder / sample["id"])
        folders[-1].mkdir(parents=True)
        for number, jpeg in enumerate(sample["visual"]):
            (folders[-1] / f"{number}.jpg").write_bytes(jpeg)
        with wave.open(str(folders[-1] / "sound.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(sample["audio"].tobytes())
    return folders


def cpu_seconds() -> float:
    """What the processor has worked for this process and for the DataLoader's."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def own_memory() -> float:
    """MiB that this process has for itself now, without mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader, threads of bmm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exponent", type=float, default=1.8, help="how the detail of pictures falls off")
    parser.add_argument(
        "--shorter",
        type=int,
        default=0,
        metavar="N",
        help="also with pictures whose shorter side is N pixels",
    )
    parser.add_argument(
        "--flat", type=int, default=0, metavar="N", help="measure a streaming epoch over N samples"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
