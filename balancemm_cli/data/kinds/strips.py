"""What the kinds of modality draw their strips of a preview with."""

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

GAP = 10  # pixels, as all that follows
STRIP, HEIGHT = 1020, 120  # of a strip; that of a text is as high as the text


class Strip(NamedTuple):
    """A value drawn from left to right, the notes to write beside it, and a key to its colours."""

    picture: Image.Image
    notes: list[str]
    key: Image.Image | None = None


def stretched(colours: np.ndarray) -> Image.Image:
    """A strip of the colours of a matplotlib map [height, width, 4]."""
    return Image.fromarray(to_bytes(colours[..., :3])).resize((STRIP, HEIGHT), Image.Resampling.BOX)


def to_bytes(colours: np.ndarray) -> np.ndarray:
    """Colours of 0 to 1 as uint8."""
    return (255 * colours).round().astype(np.uint8)


def text(lines: list[str], size: int, width: int, colour: str = "black") -> Image.Image:
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
