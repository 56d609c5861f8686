"""Clips a second of `bmm prepare` and of the chain that people use, side by side on the same files in one run.

The chain does what published scripts do. OGM-GE's pre-processing/ calls ffmpeg once for the sound of a clip
(`-acodec pcm_s16le -ac 1 -ar 16000`) and reads its frames, one a second, in a pass of their own (through MoviePy,
which pipes every frame out of a second ffmpeg, or OpenCV); here the second ffmpeg writes these frames alone, as
JPEG files (`-vf fps=1`). Then librosa loads the WAV, Pillow opens the frames and resizes them to
the size that bmm stores, and NumPy stores both. None of bmm's checks is made. A clip is a task of a pool with as
many processes as bmm has workers; these have imported everything before the clock starts, while bmm
(`prepare_dataset("manifest")`) starts its workers within its time. bmm gives a worker up to 256 clips of one
split, so the clips are dealt out to two splits.

By default the clips are made here: 10 s of 340×256 at 25 frames a second, H.264 (x264's own settings, 450
kbit/s) with AAC, textures that move and camera noise; four are encoded and copied. `--media` takes the user's
files instead; a WAV beside a video, of the same name, is its sound. Both contenders take turns; the median over
rounds counts. Peak memory (Linux) is that of bmm's parent process and of its largest worker. The last line is one
JSON object.

    python benchmarks/performance/prepare.py
    python benchmarks/performance/prepare.py --media my/videos --clips 0
"""

import argparse
import csv
import json
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import cycle, islice
from multiprocessing import forkserver
from pathlib import Path

import av
import numpy as np
from PIL import Image

from balancemm_cli.data.kinds.base import Storing
from balancemm_cli.data.preparing.prepare import prepare_dataset

RATE = Storing().rate
SIZE = Storing().size, Storing().size
VIDEOS = {".mp4", ".mkv", ".webm", ".avi", ".flv", ".mov"}
DISTINCT = 4  # clips that are encoded; the others are copies
FRAME_RATE, SOUND_RATE = 25, 44100


def main() -> None:
    """Measure, and print a line a contender and the JSON object."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        clips = gather(options, Path(folder))
        table = write_manifest(Path(folder) / "clips.csv", clips)
        rounds = []
        for number in range(options.rounds):
            measured = {}
            for name in ("bmm", "chain") if number % 2 else ("chain", "bmm"):
                out = Path(folder) / name
                measured[name] = bmm(table, out, options) if name == "bmm" else chain(clips, out, options)
                shutil.rmtree(out)
            rounds.append(measured)
    seconds = {name: statistics.median(found[name]["seconds"] for found in rounds) for name in rounds[0]}
    rates = {name: len(clips) / taken for name, taken in seconds.items()}
    ratio = rates["bmm"] / rates["chain"]
    peak = {key: max(found["bmm"][key] for found in rounds) for key in ("parent_mib", "worker_mib")}
    for name, rate in rates.items():
        print(f"{name:6} {rate:8.2f} clips a second")
    print(f"bmm is {ratio:.2f} times as fast. Peak memory: parent {peak['parent_mib']:.0f} MiB, ", end="")
    print(f"largest worker {peak['worker_mib']:.0f} MiB.")
    found = {"ratio": ratio, "clips_a_second": rates, **peak, "clips": len(clips)}
    print(json.dumps({**found, "workers": options.workers, "rounds": options.rounds}))


def bmm(table: Path, out: Path, options: argparse.Namespace) -> dict:
    """Prepare the clips in a fresh process: seconds, and the peak memory of it and of its largest worker."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(prepare, table, out, options.workers).result()


def prepare(table: Path, out: Path, workers: int) -> dict:
    """As `bmm`, in this process. No clip may be rejected."""
    started = time.perf_counter()
    prepared = prepare_dataset("manifest", table, out=out, workers=workers, options={"fit": "stretch"})
    seconds = time.perf_counter() - started
    if prepared.manifest["rejected"]:
        raise SystemExit(f"Some clips cannot be used: {prepared.manifest['rejected']}")
    status = Path("/proc/self/status").read_text()  # getrusage would count what this process was forked from
    parent = int(status.partition("VmHWM:")[2].split()[0])
    forkserver._forkserver._stop()  # waited for, it hands on the peak of the workers that it has waited for
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": seconds, "parent_mib": parent / 1024, "worker_mib": worker / 1024}


def chain(clips: list[tuple[Path, Path]], out: Path, options: argparse.Namespace) -> dict:
    """Prepare the clips with ffmpeg, librosa and Pillow: the seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        for _ in pool.map(warm_up, range(4 * options.workers)):
            pass
        started = time.perf_counter()
        for _ in pool.map(convert, clips, [out / str(number) for number in range(len(clips))]):
            pass
        return {"seconds": time.perf_counter() - started}


def warm_up(_: int) -> None:
    """Import what `convert` needs, down to what librosa imports late."""
    import imageio_ffmpeg
    import librosa

    imageio_ffmpeg.get_ffmpeg_exe()
    assert callable(librosa.load)
    time.sleep(0.2)  # so that every process gets one of these calls


def convert(clip: tuple[Path, Path], folder: Path) -> None:
    """One clip, the usual way."""
    import librosa

    video, sound = clip
    folder.mkdir(parents=True)
    ffmpeg("-i", video, "-vf", "fps=1", "-q:v", "2", folder / "%05d.jpg")
    ffmpeg("-i", sound, "-acodec", "pcm_s16le", "-ac", "1", "-ar", str(RATE), folder / "sound.wav")
    waveform, _ = librosa.load(folder / "sound.wav", sr=RATE)
    frames = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as picture:
            frames.append(np.asarray(picture.convert("RGB").resize(SIZE)))
    np.savez(folder / "clip.npz", frames=np.stack(frames), waveform=waveform)


def ffmpeg(*arguments: str | Path) -> None:
    """Call ffmpeg; an error of it ends everything."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True)


def gather(options: argparse.Namespace, folder: Path) -> list[tuple[Path, Path]]:
    """The files with the pictures and the sound of each clip, in `folder`."""
    if options.media:
        videos = sorted(path for path in options.media.iterdir() if path.suffix in VIDEOS)
    else:
        videos = [folder / f"made{number}.mp4" for number in range(min(DISTINCT, options.clips))]
        for number, path in enumerate(videos):
            write_clip(path, options.seconds, np.random.default_rng(number))
    clips = []
    for number, video in enumerate(islice(cycle(videos), options.clips or len(videos))):
        copies = [folder / f"{number:05d}{video.suffix}"] * 2
        shutil.copy(video, copies[0])
        if (sound := video.with_suffix(".wav")).exists():
            copies[1] = shutil.copy(sound, folder / f"{number:05d}.wav")
        clips.append((copies[0], copies[1]))
    return clips


def write_manifest(path: Path, clips: list[tuple[Path, Path]]) -> Path:
    """The CSV for bmm, every other clip in another split."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "label", "split", "visual", "audio"])
        for number, (video, sound) in enumerate(clips):
            lines.writerow([number, "any", ("train", "test")[number % 2], video.name, sound.name])
    return path


def write_clip(path: Path, seconds: float, generator: np.random.Generator) -> None:
    """A clip of two textures that move over each other, with noise, and of noise that swells."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, width=340, height=256, bit_rate=450_000)
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        for number, picture in enumerate(pictures(round(seconds * FRAME_RATE), generator)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        time_axis = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
        sound = generator.normal(0, 0.1, (2, len(time_axis))) * (1 + np.sin(2 * np.pi * time_axis))
        frame = av.AudioFrame.from_ndarray(sound.astype(np.float32), format="fltp", layout="stereo")
        frame.rate, frame.time_base, frame.pts = SOUND_RATE, Fraction(1, SOUND_RATE), 0
        container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def pictures(count: int, generator: np.random.Generator):
    """Pictures [256, 340, 3]: a background that pans, an object that wanders before it, camera noise."""
    back, front = (texture(generator, size) for size in ((400, 900), (120, 120)))
    for number in range(count):
        left = number * 2 % 560
        picture = back[left // 8 :, left:][:256, :340].copy()
        top, side = (round(68 + 60 * np.sin(number / period)) for period in (9, 14))
        picture[top : top + 120, side : side + 120] = front
        noise = generator.normal(0, 2, (256, 340, 1))
        yield (picture + noise).clip(0, 255).astype(np.uint8)


def texture(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Blurred noise of several scales, float32 [height, width, 3] from 0 to 255."""
    total = np.zeros((*size, 3), np.float32)
    for scale in (4, 16, 64):
        coarse = generator.integers(0, 255, (size[0] // scale + 1, size[1] // scale + 1, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)) / 3
    return total


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--clips", type=int, default=256, help="files are repeated up to this number; 0: once"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clips that are made")
    parser.add_argument("--media", type=Path, help="a folder with videos, instead of clips made here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
