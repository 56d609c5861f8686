"""How the built-in synthetic data set is made, and what a network can know of it.

Six classes. The sound holds a pair of tones that codes the class, in noise; it is easy to learn, but 20 % of
the clips have noise only, so that sound alone cannot exceed 0.8 + 0.2/6 = 83 % in expectation. The picture
holds a small grating whose orientation is the class, always, at a random place and in a random colour and
phase, of low contrast (0.4 of the full range), on noise with a distracting blob. So the sound is learnt
first, and only the picture can solve the task. The noise of the picture was set by how well a
network learns from the pictures alone, with no regard to any method. truth.csv says of each clip whether its
sound is informative.

The clips are real media, Matroska files with an FFV1 video and a FLAC sound track, both lossless and written
bit-exactly, and prepared like any other set. Every clip has its own random numbers, keyed by split and
number.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from balancemm_cli.data.datasets.lists import no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.made.common import Made, Progress
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

CLASSES = [f"tilt-{180 * index // 6:03d}" for index in range(6)]  # degrees
COUNTS = {"train": 800, "test": 1200}
RATE = 8000  # Hz; one second of sound a clip
SIZE = 48  # pixels
FPS = 2  # both frames of a clip are the same picture
INFORMATIVE = 0.8  # share of clips whose sound codes the class
SOUND_NOISE = 0.1  # standard deviation, of full scale 1; the tones have the same amplitude
TONES = [(400 + 270 * index, 2020 + 270 * index) for index in range(6)]  # Hz
PICTURE_NOISE = 0.08  # standard deviation, of the range 0 to 1
CONTRAST = 0.4  # of the full range: the grating's amplitude is half of it
WAVELENGTH, SPREAD = 6.0, 5.0  # pixels; the grating and its Gaussian window
DESIGN = 1  # raised when a number above or a line below changes what is written
TASK = 50  # clips a worker writes at a time

MODALITIES = {"audio": waveform(RATE), "visual": frames(SIZE, SIZE, 1.0)}
HOW_TO_GET = "The synthetic data are built in: `bmm prepare synthetic` writes them."


@dataclass(frozen=True)
class _Task:
    folder: Path
    split: str
    numbers: range


class Synthetic(Made):
    """A built-in synthetic data set that is imbalanced by design, with the true source of each label known."""

    name = "synthetic"
    HOW_TO_GET = HOW_TO_GET

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The clips that `make` wrote under `source`, in order of their numbers."""
        no_lists(self.name, splits)
        samples = [
            Sample(f"{split}-{number:05d}", split, CLASSES[number % 6], _clips(source, split, number))
            for split, count in _design(source)["counts"].items()
            for number in range(count)
        ]
        return Plan(
            self.name,
            samples,
            CLASSES,
            MODALITIES,
            remedy=f"Delete {source} to have it written anew.",
            clip_seconds=1.0,
            split_name="made",
        )

    def make(
        self,
        source: Path,
        workers: int | None = None,
        on_progress: Progress | None = None,
        counts: dict[str, int] | None = None,
    ) -> None:
        """Write the clips and truth.csv under `source`; clips that are there already are kept.

        `counts` gives the clips of each split: those of the folder where it was begun before, else COUNTS.
        `on_progress("write", done, total)` is called while clips are written. InputError where the folder holds
        another design.
        """
        from balancemm_cli.data.preparing import workers as pool
        from balancemm_cli.data.store import write_csv, write_json

        if not (source / "design.json").exists():
            if source.is_dir() and any(not path.name.startswith(".") for path in source.iterdir()):
                raise InputError(f"{source} holds other files. Name an empty folder with --source.")
            source.mkdir(parents=True, exist_ok=True)
            write_json(source / "design.json", {"design": DESIGN, "counts": counts or COUNTS})
        planned = _design(source)["counts"]
        if counts not in (None, planned):
            raise InputError(
                f"{source} was made with the counts {planned}. Delete it or name another folder."
            )
        if (source / "truth.csv").exists():
            return
        for split in planned:
            (source / split).mkdir(exist_ok=True)
        tasks = [
            _Task(source, split, range(first, min(first + TASK, count)))
            for split, count in planned.items()
            for first in range(0, count, TASK)
        ]
        total = sum(planned.values())
        truths = pool.run(
            _write_clips,
            tasks,
            pool.cores(workers),
            lambda done: on_progress("write", done, total) if on_progress else None,
        )
        for path in source.rglob(".*.tmp"):  # of calls that were killed
            path.unlink(missing_ok=True)
        os.sync()  # truth.csv says that all clips are there
        rows = [row for part in truths for row in part]
        write_csv(source / "truth.csv", ("id", "label", "audio_informative"), rows)


def draw(split: str, number: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Clip `number` of a split: sound (float [RATE] in ±1), picture (uint8 RGB [SIZE, SIZE, 3]), and whether
    the sound is informative. The class is `number` modulo 6."""
    import numpy as np

    generator = np.random.default_rng([DESIGN, *split.encode(), number])
    label = number % 6
    informative = bool(generator.random() < INFORMATIVE)
    return _sound(generator, label if informative else None), _still(generator, label), informative


def _sound(generator: np.random.Generator, label: int | None) -> np.ndarray:
    import numpy as np

    sound = SOUND_NOISE * generator.standard_normal(RATE)
    seconds = np.arange(RATE) / RATE
    for frequency in TONES[label] if label is not None else ():
        jitter, phase = generator.uniform(-20, 20), generator.uniform(0, 2 * np.pi)
        sound += SOUND_NOISE * np.sin(2 * np.pi * (frequency + jitter) * seconds + phase)
    return sound.clip(-1, 1)


def _still(generator: np.random.Generator, label: int) -> np.ndarray:
    import numpy as np

    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    picture = 0.5 + PICTURE_NOISE * generator.standard_normal((SIZE, SIZE, 3))
    picture += _blob(generator, x, y, 0.35, 4.0)[..., None] * generator.choice([-1, 1], 3)
    angle = np.pi * label / 6
    along = x * np.cos(angle) + y * np.sin(angle)
    grating = np.sin(2 * np.pi * along / WAVELENGTH + generator.uniform(0, 2 * np.pi))
    colour = generator.standard_normal(3)
    colour /= np.abs(colour).max()
    picture += (grating * _blob(generator, x, y, CONTRAST / 2, SPREAD))[..., None] * colour
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def _blob(
    generator: np.random.Generator, x: np.ndarray, y: np.ndarray, height: float, spread: float
) -> np.ndarray:
    """A Gaussian at a random place, far enough from the border to be seen whole."""
    import numpy as np

    left, top = generator.uniform(10, SIZE - 10, 2)
    return height * np.exp(-((x - left) ** 2 + (y - top) ** 2) / (2 * spread**2))


def _write_clips(task: _Task) -> list[tuple[str, str, int]]:
    from balancemm_cli.data.preparing.workers import tick

    truth = []
    for number in task.numbers:
        sound, picture, informative = draw(task.split, number)
        path = _clip(task.folder, task.split, number)
        if not (path.exists() and path.stat().st_size):
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            _write_clip(temporary, sound, picture)
            os.replace(temporary, path)
        truth.append((f"{task.split}-{number:05d}", CLASSES[number % 6], int(informative)))
        tick()
    return truth


def _write_clip(path: Path, sound: np.ndarray, picture: np.ndarray) -> None:
    """Write one second of sound and of a still picture as a Matroska file, bit-exactly."""
    import av
    import numpy as np

    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("ffv1", rate=FPS, options={"flags": "+bitexact"})
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "bgr0"
        audio = container.add_stream("flac", rate=RATE, layout="mono", options={"flags": "+bitexact"})
        for index in range(FPS):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        samples = (sound * 32767).round().astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def _design(source: Path) -> dict:
    path = source / "design.json"
    try:
        design = json.loads(path.read_text())
        if design["design"] == DESIGN and set(design["counts"]) <= {"train", "val", "test"}:
            return design
    except FileNotFoundError:
        raise InputError(f"There are no synthetic data in {source}. {HOW_TO_GET}") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is damaged or of another version of the data. Delete the folder {source}.")


def _clips(source: Path, split: str, number: int) -> dict[str, Clip]:
    path = _clip(source, split, number)
    return dict.fromkeys(MODALITIES, Clip(source, f"{split}/{path.name}"))


def _clip(source: Path, split: str, number: int) -> Path:
    return source / split / f"{split}-{number:05d}.mkv"
