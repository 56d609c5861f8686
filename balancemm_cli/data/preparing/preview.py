"""Pictures of a prepared set to look at: for each class a sheet with a few of its train samples.

A sheet shows for each sample one line per modality, drawn by its kind (data/kinds). All of it is read from the prepared
folder, so it is what a run gets, before crops and normalisation.
"""

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from balancemm_cli.data.kinds import kind_of
from balancemm_cli.data.kinds.strips import GAP, HEIGHT, STRIP, Strip, text
from balancemm_cli.data.preparing.work import Progress, disk_full, interruption, work_folder
from balancemm_cli.data.store import PreparedSet, atomic_file
from balancemm_cli.errors import InputError

SAMPLES = 4  # of a class
LABELS = 190  # pixels: width of the names of the modalities
WIDTH = LABELS + STRIP + 3 * GAP

FILE = re.compile(r"\d+-.*\.png")


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
        self.split = prepared.for_run(0).split("train")
        self.kinds = {modality: kind_of(spec) for modality, spec in prepared.modalities.items()}
        self.holders = {modality: self.split.holders(modality) for modality in prepared.modalities}
        self.extras = {name: self.split.extra(name) for name in prepared.extras}

    def draw(self, number: int) -> Image.Image:
        """The sheet of a class: SAMPLES of its train samples, evenly spread over the lists."""
        rows = np.flatnonzero(self.split.labels == number)
        chosen = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).round().astype(int)]
        of = f"class {number + 1} of {len(self.prepared.classes)}, {len(chosen)} of {len(rows):,} train samples"
        blocks = [
            text([f"{self.prepared.name}: {self.prepared.classes[number]}"], 26, WIDTH - 2 * GAP),
            text([of], 15, WIDTH - 2 * GAP, "#555555"),
        ]
        for row in chosen.tolist():
            blocks.append(Image.new("RGB", (WIDTH - 2 * GAP, 1), "#aaaaaa"))
            blocks.append(text([self._caption(row)], 17, WIDTH - 2 * GAP))
            blocks += [_line(name, self._strip(name, row)) for name in self.kinds]
        return _stack(blocks, GAP, (GAP, GAP))

    def _caption(self, row: int) -> str:
        """A sample's id and further columns."""
        return "   ".join(
            [self.split.ids[row], *(f"{name}: {own[row]}" for name, own in self.extras.items())]
        )

    def _strip(self, modality: str, row: int) -> Strip:
        kind, holder = self.kinds[modality], int(self.holders[modality][row])
        return kind.draw(kind.read(self.split, modality, holder))


def _line(modality: str, strip: Strip) -> Image.Image:
    """A strip with its modality's name and notes on the left, and the key to its colours."""
    words = _stack([text([modality], 18, LABELS), text(strip.notes, 13, LABELS, "#555555")], 2)
    line = Image.new("RGB", (WIDTH - 2 * GAP, max(words.height, strip.picture.height)), "white")
    line.paste(words, (0, 0))
    if strip.key:
        line.paste(strip.key, (0, HEIGHT - strip.key.height))
    line.paste(strip.picture, (LABELS + GAP, 0))
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


def _safe(name: str) -> str:
    """A class's name as a part of a file's name."""
    return re.sub(r"\W+", "-", name).strip("-")[:50] or "class"
