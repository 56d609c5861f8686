"""Pictures: frames of a video, or what moves or changes between them."""

import io
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from balancemm_cli.data.kinds.base import Kind, Own, Settings, Spec, Storing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from balancemm_cli.data.kinds.strips import Strip
    from balancemm_cli.data.loading import FramesColumn
    from balancemm_cli.data.store import PreparedSplit
    from balancemm_cli.data.transforms import Pictures, Transform


class Content(NamedTuple):
    """What the pictures show: in words, the bytes of a stored pixel, and the mean and deviation of its values where
    these are not those of the recipe.

    Bytes of a stored frame for each of its height × width pixels, at the JPEG quality of reading/media.py: about the
    median of 14 free videos (photographs 0.09 to 0.63, differences 0.05 to 0.29, flow 0.05 to 0.20 of four of them),
    scaled to 256×340, a frame a second. Flow and differences have not the values of photos; as TSN's code has it, zero
    motion is 0.5 (0 for differences), and the deviation is that of ImageNet.
    """

    words: str
    pixel_bytes: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


CONTENTS = {
    "rgb": Content("frames", 0.37),
    "rgb-difference": Content("RGB differences", 0.2, mean=(0.0, 0.0, 0.0)),
    "flow": Content("flow", 0.1, mean=(0.5, 0.5), std=(0.226, 0.226)),
}

# Seconds of one processor for each second of a clip. Of 11 free videos, frames (a frame a second, scaled to 256×340
# and encoded) took 2 to 12 ms where the videos have up to 640×360 pixels, 16 to 40 ms at 1280×720. On one core of an
# AMD EPYC, by Clip.read.
CLIP_SECOND = 0.01

# Seconds for each pair of frames of 256×340 pixels between which flow is computed; TV-L1 took 0.1 to 3.9.
FLOW_PAIR = {"computed tv-l1": 1.0, "computed dis": 0.006}

DRAWN = 6  # frames of a clip at most, evenly spread over it
STILL = 1.0  # pixels: slower motion than this is never drawn in full brightness


class Frames(Kind):
    """JPEG files of pictures in order of time, which become [B, C, T, size, size].

    In the manifest `{"kind": "frames", "height": px, "width": px, "fps": Hz, "channels": n}`, for what is no RGB also
    with its "content" (CONTENTS) and its "source". The two channels of flow are stored one below the other, as one
    grey picture of twice the height. A "fit" other than stretch says how pictures were brought to that size
    (`pictures.fitted`); those of "keep" have sizes of their own, and are read as the middle of each, of one size.
    """

    name = "frames"
    stored = "binary"
    time_axis: ClassVar[int | None] = 2

    word = "visual"
    storing = frozenset({"fps", "size", "fit", "seconds"})
    column_names = frozenset({"visual", "video", "image", "rgb", "frames", "face"})
    extensions = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"])

    @staticmethod
    def make_spec(height: int, width: int, fps: float, fit: str = "stretch") -> Spec:
        """A modality of JPEG frames of height × width pixels, `fps` a second."""
        spec: Spec = {"kind": "frames", "height": height, "width": width, "fps": fps, "channels": 3}
        return spec if fit == "stretch" else {**spec, "fit": fit}

    @classmethod
    def own(cls, values: list[Own], storing: Storing) -> tuple[Spec, list[str]]:
        """Pictures and videos, as `storing` says."""
        return storing.limited(cls.make_spec(storing.size, storing.size, storing.fps, storing.fit)), []

    @property
    def _content(self) -> Content:
        return CONTENTS[self.spec.get("content", "rgb")]

    def describe(self) -> str:
        """What they show, their size and rate."""
        origin = f" ({self.spec['source']})" if "source" in self.spec else ""
        return f"{self._content.words}{origin} of {self._size}, {self.rate:g} a second"

    @property
    def _fit(self) -> str:
        return self.spec.get("fit", "stretch")

    @property
    def _size(self) -> str:
        size = f"{self.spec['height']}×{self.spec['width']}"
        return f"at most {self.spec['height']} pixels on the smaller side" if self._fit == "keep" else size

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.spec["fps"]

    def decode(
        self, path: Path, start: float | None, end: float | None, waived: frozenset[str]
    ) -> list[bytes]:
        """JPEG files. MediaError, also for a file that is truncated where that is not waived."""
        from balancemm_cli.data.reading import media

        whole = "truncated" not in waived
        height, width = self.spec["height"], self.spec["width"]
        pictures = media.read_jpegs(path, height, width, self.rate, start, end, whole, self._fit)
        return pictures[: self._count(self.spec["seconds"])] if "seconds" in self.spec else pictures

    def _count(self, seconds: float) -> int:
        return max(1, math.ceil(seconds * self.rate))

    def expected_bytes(self, seconds: float) -> float:
        """See Content."""
        return self._count(seconds) * self.spec["height"] * self.spec["width"] * self._content.pixel_bytes

    def decoding_seconds(self, seconds: float) -> float:
        """See CLIP_SECOND and FLOW_PAIR."""
        return FLOW_PAIR.get(self.spec.get("source", ""), 0.0) * self._count(seconds) + CLIP_SECOND * seconds

    def check(self, value: list[bytes]) -> None:
        """ValueError for what is no list of files."""
        if not isinstance(value, list) or not all(isinstance(file, bytes) for file in value):
            raise ValueError("is no list of JPEG files")

    def bytes_of(self, value: list[bytes]) -> int:
        """The bytes of the files."""
        return sum(map(len, value))

    def read(self, split: "PreparedSplit", modality: str, row: int) -> list[bytes]:
        """The JPEG files."""
        return split.frames(modality, row)

    def draw(self, value: list[bytes]) -> "Strip":
        """Some of the frames side by side; flow in colour (the hue is the direction, the brightness the speed), it and
        differences as bright as they allow."""
        import numpy as np
        from PIL import Image

        from balancemm_cli.data.kinds.strips import GAP, HEIGHT, STRIP, Strip

        with Image.open(io.BytesIO(value[0])) as first:
            stacked = 2 if self.spec.get("content") == "flow" else 1
            width = min(STRIP, max(1, round(HEIGHT * first.width / (first.height / stacked))))
        count = min(DRAWN, len(value), max(1, (STRIP + GAP) // (width + GAP)))
        places = np.linspace(0, len(value) - 1, count).round().astype(int)
        pictures = [np.asarray(Image.open(io.BytesIO(value[place]))) for place in places]
        notes, key = [f"{count} of {len(value)} frames", f"{self._size}, {self.rate:g} a second"], None
        if self.spec.get("content") == "flow":
            fields = [_motion(picture) for picture in pictures]
            speed = max(STILL, float(np.percentile(np.stack([np.hypot(*field) for field in fields]), 99)))
            pictures = [_in_colour(*field, speed) for field in fields]
            notes.append(f"bright: {speed:.1f} pixels")
            key = _wheel(40)
        if self.spec.get("content") == "rgb-difference":
            most = max(1, int(np.percentile(np.stack(pictures), 99.5)))
            pictures = [np.minimum(picture / most * 255, 255).astype(np.uint8) for picture in pictures]
            notes.append(f"white: {most} of 255")
        strip = Image.new("RGB", (STRIP, HEIGHT), "white")
        for place, picture in enumerate(pictures):
            drawn = Image.fromarray(picture).convert("RGB").resize((width, HEIGHT))
            strip.paste(drawn, (place * (width + GAP), 0))
        return Strip(strip, notes, key)

    @property
    def shape(self) -> int:
        """The channels."""
        return self.spec["channels"]

    def transform(self, settings: Settings) -> "Pictures":
        """Crop, mirror and normalisation, as FramesSettings say."""
        from balancemm_cli.data.transforms import Pictures

        return Pictures(
            settings.size,
            settings.crop == "random-resized-crop",
            settings.flip,
            self._content.mean or settings.mean,
            self._content.std or settings.std,
            flow=self.spec.get("content") == "flow",
            resize=settings.resize,
            area=settings.crop_area,
            ratio=settings.crop_ratio,
            centre=settings.evaluation == "centre-crop",
        )

    def column(
        self, split: "PreparedSplit", modality: str, settings: Settings, transform: "Transform", repeat: bool
    ) -> "FramesColumn":
        """The frames that FramesSettings choose."""
        from balancemm_cli.data.loading import FramesColumn

        height, width = self.spec["height"], self.spec["width"]
        if self._fit == "keep":
            height = width = split.smaller_side(modality, height)
        shape = height, width, self.spec["channels"]
        return FramesColumn(split, modality, shape, settings.count, settings.choice)

    def settings_for_parts(self, count: int) -> dict[str, Any]:
        """So many frames from the start: one a second is stored."""
        return {"count": count, "choice": "from-start"}


def _motion(picture: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
    """Motion to the right and down, in pixels, out of a stored picture uint8 [2 · height, width]."""
    import numpy as np

    from balancemm_cli.data.reading.flow import LIMIT

    right, down = np.split(picture / 127.5 - 1, 2)
    return LIMIT * right, LIMIT * down


def _in_colour(right: "np.ndarray", down: "np.ndarray", speed: float) -> "np.ndarray":
    """Motion as colour, uint8 RGB: the hue is the direction, the brightness the share of `speed`."""
    import numpy as np
    from matplotlib.colors import hsv_to_rgb

    from balancemm_cli.data.kinds.strips import to_bytes

    hue = np.arctan2(down, right) / (2 * np.pi) % 1
    value = np.clip(np.hypot(right, down) / speed, 0, 1)
    return to_bytes(hsv_to_rgb(np.stack([hue, np.ones_like(hue), value], -1)))


@cache
def _wheel(size: int) -> "Image.Image":
    """The colour of each direction, bright at the border."""
    import numpy as np
    from PIL import Image

    down, right = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    disc = Image.fromarray((255 * (np.hypot(right, down) < 1)).astype(np.uint8))
    white = Image.new("RGB", (size, size), "white")
    return Image.composite(Image.fromarray(_in_colour(right, down, 1.0)), white, disc)
