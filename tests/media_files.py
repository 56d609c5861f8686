"""Small real media for tests, written through PyAV, and where the shared ones are."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

SHARED = Path(__file__).parents[2] / "shared"
MEDIA = SHARED / "data" / "media"
needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared test media are absent")


def tone(seconds: float, rate: int = 16000, frequency: float = 440.0, level: int = 8000) -> np.ndarray:
    """A sine, int16."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_video(
    path: Path, levels: list[int], fps: int = 5, height: int = 16, width: int = 24, samples=None
) -> Path:
    """A lossless Matroska video whose frame i is the plain grey levels[i], with sound where samples are given
    (16 kHz)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska") as container:
        video = container.add_stream("ffv1", rate=fps)
        video.width, video.height, video.pix_fmt = width, height, "bgr0"
        audio = None
        if samples is not None:
            audio = container.add_stream("flac", rate=16000, layout="mono")
        for index, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def write_csv(path: Path, header: str, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes mounted at `folder`; the test is skipped for users who cannot mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """Give a small disk 64 MiB."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


def encode_video(
    path: Path, codec: str, pictures: Iterable[np.ndarray], fps: int = 25, form: str | None = None, **more
) -> Path:
    """Pictures, uint8 RGB, as a video. `more`: pix_fmt, options of the codec, container (options), times (of the
    frames, in 1/fps s), sound (a codec and float [channels, T] at 44,100 Hz)."""
    pictures = list(pictures)
    with av.open(str(path), "w", format=form, options=more.get("container", {})) as container:
        video = container.add_stream(codec, rate=fps, options=more.get("options", {}))
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt, video.time_base = more.get("pix_fmt", "yuv420p"), Fraction(1, fps)
        audio = container.add_stream(more["sound"][0], rate=44100, layout="mono") if "sound" in more else None
        for time, picture in zip(more.get("times", range(len(pictures))), pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _encode_sound(container, audio, more["sound"][1])
    return path


def encode_sound(path: Path, codec: str, samples: np.ndarray, rate: int = 44100, **more) -> Path:
    """Float samples [channels, T] as a file of sound. `more`: container (options), form."""
    with av.open(str(path), "w", format=more.get("form"), options=more.get("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo"}[len(samples)])
        _encode_sound(container, stream, samples)
    return path


def _encode_sound(container, stream, samples: np.ndarray) -> None:
    context = stream.codec_context
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = context.sample_rate, Fraction(1, context.sample_rate), 0
    size = context.frame_size or 1024
    resampler = av.AudioResampler(context.format.name, layout, context.sample_rate, size)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def colour_pictures(
    seconds: int, fps: int = 25, height: int = 64, width: int = 96, first: int = 0
) -> list[np.ndarray]:
    """Pictures with faint noise, of another colour of COLOURS each second."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 2, (seconds * fps, height, width, 1))
    return [
        (np.array(COLOURS[first + number // fps]) + noise[number]).clip(0, 255).astype(np.uint8)
        for number in range(seconds * fps)
    ]


COLOURS = [(200, 30, 30), (30, 160, 40), (40, 60, 210), (210, 190, 30), (180, 40, 190), (30, 180, 190)]


def colours_of(frames: list[np.ndarray]) -> list[int]:
    """The number in COLOURS of each frame."""
    means = [frame.mean((0, 1)) for frame in frames]
    return [int(np.abs(np.array(COLOURS) - mean).max(1).argmin()) for mean in means]


def sine(seconds: float, rate: int = 44100, frequency: float = 440.0, level: float = 0.3) -> np.ndarray:
    """A sine, float32 [T] of full scale 1."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
