"""Pictures of a prepared set to look at: for each class a sheet with a few of its train samples.

A sheet shows for each sample a line a modality: frames, flow in colour (the hue is the direction, the brightness
the speed), log-spectrograms, feature sequences as heat maps, texts. All of it is read from the prepared folder, so
it is what a run gets, before crops and normalisation.
"""

import io
import re
import shutil
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import hsv_to_rgb
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from balancemm_cli.data.preparing.work import Progress, disk_full, interruption, work_folder
from balancemm_cli.data.reading.flow import LIMIT
from balancemm_cli.data.store import PreparedSet, atomic_file
from balancemm_cli.errors import InputError

SAMPLES = 4  # of a class
FRAMES = 6  # of a clip at most, evenly spread over it
GAP = 10  # pixels, as all that follows
LABELS, STRIP = 190, 1020  # width of the names of the modalities, and of what is right of them
WIDTH = LABELS + STRIP + 3 * GAP
HEIGHT = 120  # of a strip

WINDOW, STEP = 512, 160  # samples of a spectrogram's window, and at least from one to the next
LOUDNESS = 80  # dB from the loudest point of a spectrogram down to black
STILL = 1.0  # pixels: slower motion than this is never shown in full brightness
DEVIATIONS = 2.5  # of a feature from its mean, in full colour

FILE = re.compile(r"\d+-.*\.png")

Strip = tuple[Image.Image, list[str]]  # and the notes to write below the modality's name


def write_preview(prepared: PreparedSet, on_progress: Progress | None = None) -> Path:
    """Write a sheet a class into the folder `<name>-preview` beside the prepared one, in the place of those of an
    earlier call; returns the folder. `on_progress("preview", done, total)` counts classes. InputError where the
    folder holds other files, or a shard is damaged."""
    folder = prepared.folder.with_name(f"{prepared.folder.name}-preview")
    if folder.exists() and not (
        folder.is_dir() and all(FILE.fullmatch(path.name) for path in folder.iterdir())
    ):
        raise InputError(f"{folder} holds other files than the pictures of a preview. Move it away.")
    sheets = Sheets(prepared)
    digits = len(str(len(prepared.classes) - 1))
    kept = f"{prepared.folder} is whole."
    with interruption(kept), disk_full(folder.parent), work_folder(folder) as work:
        shutil.rmtree(work / "set", ignore_errors=True)
        (work / "set").mkdir()
        for number, name in enumerate(prepared.classes):
            with atomic_file(work / "set" / f"{number:0{digits}d}-{_safe(name)}.png") as file:
                sheets.draw(number).save(file, "PNG")
            if on_progress:
                on_progress("preview", number + 1, len(prepared.classes))
        shutil.rmtree(folder, ignore_errors=True)
        (work / "set").rename(folder)
    shutil.rmtree(work, ignore_errors=True)
    return folder


class Sheets:
    """The train samples of a prepared set, drawn class by class."""

    def __init__(self, prepared: PreparedSet) -> None:
        self.prepared = prepared
        self.split = prepared.split("train")
        self.holders = {modality: self.split.holders(modality) for modality in prepared.modalities}
        self.extras = {name: self.split.extra(name) for name in prepared.extras}

    def draw(self, number: int) -> Image.Image:
        """The sheet of a class: SAMPLES of its train samples, evenly spread over the lists."""
        rows = np.flatnonzero(self.split.labels == number)
        chosen = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).round().astype(int)]
        of = f"class {number + 1} of {len(self.prepared.classes)}, {len(chosen)} of {len(rows):,} train samples"
        blocks = [
            _text([f"{self.prepared.name}: {self.prepared.classes[number]}"], 26, WIDTH - 2 * GAP),
            _text([of], 15, WIDTH - 2 * GAP, "#555555"),
        ]
        for row in chosen.tolist():
            blocks.append(Image.new("RGB", (WIDTH - 2 * GAP, 1), "#aaaaaa"))
            blocks.append(_text([self._caption(row)], 17, WIDTH - 2 * GAP))
            for modality, spec in self.prepared.modalities.items():
                blocks.append(_line(modality, spec.get("content", ""), *self._strip(modality, spec, row)))
        return _stack(blocks, GAP, (GAP, GAP))

    def _caption(self, row: int) -> str:
        """A sample's id and further columns."""
        return "   ".join(
            [self.split.ids[row], *(f"{name}: {own[row]}" for name, own in self.extras.items())]
        )

    def _strip(self, modality: str, spec: dict[str, Any], row: int) -> Strip:
        holder = int(self.holders[modality][row])
        match spec["kind"]:
            case "frames":
                return _frames(self.split.frames(modality, holder), spec)
            case "waveform":
                return _spectrogram(self.split.array(modality, holder), spec["rate"])
            case "features":
                values = self.split.array(modality, holder).reshape(-1, spec["width"])
                return _heat_map(values)
            case _:
                words = [spec["words"][word] for word in self.split.array(modality, holder) if word]
                return _text([" ".join(words)], 20, STRIP), [f"{len(words)} words"]


def _frames(jpegs: list[bytes], spec: dict[str, Any]) -> Strip:
    """Some of a clip's frames side by side; flow and differences as bright as they allow."""
    width = round(HEIGHT * spec["width"] / spec["height"])
    count = min(FRAMES, len(jpegs), max(1, (STRIP + GAP) // (width + GAP)))
    places = np.linspace(0, len(jpegs) - 1, count).round().astype(int)
    pictures = [np.asarray(Image.open(io.BytesIO(jpegs[place]))) for place in places]
    notes = [f"{count} of {len(jpegs)} frames", f"{spec['height']}×{spec['width']}, {spec['fps']:g} a second"]
    if spec.get("content") == "flow":
        fields = [_motion(picture) for picture in pictures]
        speed = max(STILL, float(np.percentile(np.stack([np.hypot(*field) for field in fields]), 99)))
        pictures = [_in_colour(*field, speed) for field in fields]
        notes.append(f"bright: {speed:.1f} pixels")
    if spec.get("content") == "rgb-difference":
        most = max(1, int(np.percentile(np.stack(pictures), 99.5)))
        pictures = [np.minimum(picture / most * 255, 255).astype(np.uint8) for picture in pictures]
        notes.append(f"white: {most} of 255")
    strip = Image.new("RGB", (STRIP, HEIGHT), "white")
    for place, picture in enumerate(pictures):
        strip.paste(
            Image.fromarray(picture).convert("RGB").resize((width, HEIGHT)), (place * (width + GAP), 0)
        )
    return strip, notes


def _motion(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Motion to the right and down, in pixels, out of a stored picture uint8 [2 · height, width]."""
    right, down = np.split(picture / 127.5 - 1, 2)
    return LIMIT * right, LIMIT * down


def _in_colour(right: np.ndarray, down: np.ndarray, speed: float) -> np.ndarray:
    """Motion as colour, uint8 RGB: the hue is the direction, the brightness the share of `speed`."""
    hue = np.arctan2(down, right) / (2 * np.pi) % 1
    value = np.clip(np.hypot(right, down) / speed, 0, 1)
    return _to_bytes(hsv_to_rgb(np.stack([hue, np.ones_like(hue), value], -1)))


@cache
def _wheel(size: int) -> Image.Image:
    """The colour of each direction, bright at the border."""
    down, right = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    disc = Image.fromarray((255 * (np.hypot(right, down) < 1)).astype(np.uint8))
    white = Image.new("RGB", (size, size), "white")
    return Image.composite(Image.fromarray(_in_colour(right, down, 1.0)), white, disc)


def _spectrogram(waveform: np.ndarray, rate: int) -> Strip:
    """The log magnitudes of a waveform, time to the right and frequency upwards."""
    samples = np.pad(waveform.astype(np.float32), (0, max(0, WINDOW - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[:: max(STEP, len(samples) // STRIP)]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)) ** 2
    loudness = 10 * np.log10(power / max(power.max(), 1) + 1e-20)
    shares = np.clip(1 + loudness.T[::-1] / LOUDNESS, 0, 1)
    notes = [f"{len(waveform) / rate:.2f} s, {rate:,} Hz", f"upwards: 0 to {rate / 2000:g} kHz"]
    return _fill(colormaps["magma"](shares)), notes


def _heat_map(values: np.ndarray) -> Strip:
    """Features [steps, width], time to the right, each number by how far it is from its mean over the steps."""
    deviations = values.std(0) if len(values) > 1 else np.zeros(values.shape[1])
    shares = (values - values.mean(0)) / np.where(deviations > 0, deviations, 1) / DEVIATIONS
    notes = [f"{len(values)} steps of {values.shape[1]}", "blue: below the mean,", "red: above it"]
    return _fill(colormaps["RdBu_r"](np.clip(shares.T / 2 + 0.5, 0, 1))), notes


def _fill(colours: np.ndarray) -> Image.Image:
    """A strip of the colours of a matplotlib map [height, width, 4]."""
    return Image.fromarray(_to_bytes(colours[..., :3])).resize((STRIP, HEIGHT), Image.Resampling.BOX)


def _to_bytes(colours: np.ndarray) -> np.ndarray:
    return (255 * colours).round().astype(np.uint8)


def _line(modality: str, content: str, strip: Image.Image, notes: list[str]) -> Image.Image:
    """A strip with its modality's name and notes on the left, and the key to the colours of flow."""
    words = _stack([_text([modality], 18, LABELS), _text(notes, 13, LABELS, "#555555")], 2)
    line = Image.new("RGB", (WIDTH - 2 * GAP, max(words.height, strip.height)), "white")
    line.paste(words, (0, 0))
    if content == "flow":
        line.paste(_wheel(40), (0, HEIGHT - 40))
    line.paste(strip, (LABELS + GAP, 0))
    return line


def _stack(blocks: list[Image.Image], gap: int, border: tuple[int, int] = (0, 0)) -> Image.Image:
    """Pictures below each other."""
    left, top = border
    height = sum(block.height + gap for block in blocks) - gap + 2 * top
    stack = Image.new("RGB", (max(block.width for block in blocks) + 2 * left, height), "white")
    for block in blocks:
        stack.paste(block, (left, top))
        top += block.height + gap
    return stack


def _text(lines: list[str], size: int, width: int, colour: str = "black") -> Image.Image:
    """Lines of text, wrapped to a width; a line takes three lines at most."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)
    wrapped: list[str] = []
    for line in lines:
        fitting = max(8, int(0.95 * width * len(line) / max(1, font.getlength(line))))
        wrapped += textwrap.wrap(line, fitting, max_lines=3, placeholder=" …") or [""]
    height = size * 5 // 4
    picture = Image.new("RGB", (width, height * len(wrapped)), "white")
    pen = ImageDraw.Draw(picture)
    for place, part in enumerate(wrapped):
        pen.text((0, place * height), part, colour, font)
    return picture


def _safe(name: str) -> str:
    """A class's name as a part of a file's name."""
    return re.sub(r"\W+", "-", name).strip("-")[:50] or "class"
