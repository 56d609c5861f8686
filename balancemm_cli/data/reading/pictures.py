"""Pictures: files that Pillow reads, frames that FFmpeg decoded, and how both become upright RGB of a size."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError

from balancemm_cli.data.reading import jpeg
from balancemm_cli.data.reading.files import JPEG, PNG, MediaError, examine
from balancemm_cli.data.reading.packets import holds_a_row

JPEG_QUALITY = 95  # with full chroma; the loss is below what a video codec did before
MAX_PIXELS = 2 * 89_478_485  # of a picture: where Pillow refuses, 0.7 GB as it is decoded
MOST_SIDES = 16
MAX_BYTES = 2**30  # of a picture file that is checked as a whole
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
ANIMATED = ("PNG", "WEBP")  # the others' further pictures are pages or previews
WEBP = b"RIFF"  # of the forms that Pillow reads the only one that begins so
STRIPS, TILES = (273, 279), (324, 325)  # of TIFF: where its parts lie, and their sizes in bytes
NEW_SUBFILE_TYPE, REDUCED = 254, 1  # of TIFF: a preview, as the first picture of camera raw files

# Decoders whose frames may hold a colour profile with a name: PyAV 18 frees it twice once it looks at side data.
NAMED_PROFILES = ("png", "apng", "webp", "mjpeg", "jpeg", "tiff", "libjxl", "psd")
# (a, b, c, d) of the display matrix for each number of quarter turns to the left
QUARTERS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))

# Bit-exact, so that one file gives the same picture on every processor.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """A picture file, decoded and checked as far as its form allows. What is raised while it is used becomes
    MediaError."""
    if cut := examine(path):
        raise MediaError("truncated", cut)
    with warnings.catch_warnings(), _defects():
        warnings.simplefilter("ignore")  # what is wrong with its metadata does not matter
        with path.open("rb") as file:
            head = file.read(4)
        checked = head.startswith((JPEG, PNG, WEBP))
        if checked and path.stat().st_size > MAX_BYTES:
            raise MediaError("too large", f"a picture file of more than {MAX_BYTES:,} bytes")
        data = path.read_bytes() if checked else b""
        if head.startswith(JPEG) and not jpeg.has_end(data):
            raise MediaError("truncated", "the JPEG file has no end")
        if head.startswith(PNG):
            _check_sums(data)
        if head.startswith(WEBP):
            _check_webp(data)
        with Image.open(io.BytesIO(data) if checked else path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.format == "TIFF" and image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & REDUCED:  # pyright: ignore[reportAttributeAccessIssue]
                raise MediaError("unsupported", "its first picture is a preview, as in camera raw files")
            if image.format == "TIFF" and image.info.get("compression") == "tiff_adobe_deflate":
                _check_strips(path, image)
            image.load()
            if head.startswith(JPEG):
                jpeg.check(data, image)
            yield image


def is_animated(image: Image.Image) -> bool:
    """Whether a picture file is a short video."""
    return image.format in ANIMATED and getattr(image, "n_frames", 1) > 1


def timed(image: Image.Image) -> Iterator[tuple[float, float, Image.Image]]:
    """(from, until, picture) of an animated picture, in seconds."""
    time = 0.0
    first = int(getattr(image, "default_image", False))  # of PNG: for readers that know no animation
    for number in range(first, getattr(image, "n_frames", 1)):
        image.seek(number)
        picture = image.convert("RGB")
        until = time + max(image.info.get("duration", 0) / 1000, 0.01)
        yield time, until, picture
        time = until


def scaled(image: Image.Image, height: int, width: int, fit: str = "stretch") -> np.ndarray:
    """A picture turned upright as its EXIF says, brought to a size, uint8 RGB [height, width, 3] (see `fitted`)."""
    deep = image.format in ("PNG", "PPM")  # Pillow keeps their 16 bits in 32
    with suppress(Exception):  # metadata that are no EXIF
        image = ImageOps.exif_transpose(image)
    rows, columns = fitted(image.height, image.width, height, width, fit)
    pixels = np.array(_to_rgb(image, deep).resize((columns, rows), Image.Resampling.BICUBIC))
    return _framed(pixels, height, width, fit)


def fitted(rows: float, columns: float, height: int, width: int, fit: str) -> tuple[int, int]:
    """The rows and columns to which a picture is scaled that is to be `height` × `width`.

    "stretch": to these. "crop": until it covers them, its middle is then cut out. "pad": until it lies within them,
    black is then put around it. "keep": as it is, but for a smaller side of more than the smaller of both, which is
    brought down to that (and a larger one of more than MOST_SIDES times as much, since JPEG has limits).
    """
    if fit == "stretch":
        return height, width
    if fit == "keep":
        size = min(height, width)
        factor = min(1.0, size / min(rows, columns), MOST_SIDES * size / max(rows, columns))
    else:
        factors = height / rows, width / columns
        factor = max(factors) if fit == "crop" else min(factors)
    return max(1, round(factor * rows)), max(1, round(factor * columns))


def _framed(pixels: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Pixels [rows, columns, 3] that were scaled as `fitted` says: cut out or put into the middle of the size."""
    if fit not in ("crop", "pad"):
        return pixels
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    if fit == "crop":
        return np.ascontiguousarray(pixels[-top : height - top, -left : width - left])
    framed = np.zeros((height, width, 3), np.uint8)
    framed[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return framed


class Scaler:
    """Makes frames of a decoder upright RGB of a size. One for all frames keeps the filters that it has computed.

    `pixel` is the width of a pixel over its height."""

    def __init__(self, decoder: str, pixel: float = 1.0) -> None:
        self._scaler = VideoReformatter()
        self._by_angle, self._pixel = decoder.startswith(NAMED_PROFILES), pixel

    def __call__(self, frame: av.VideoFrame, height: int, width: int, fit: str = "stretch") -> np.ndarray:
        """Bring a frame to a size (see `fitted`), turned as the video says, as uint8 RGB [height, width, 3]. MediaError
        for a form of pixels that FFmpeg cannot convert."""
        turn = self._turn(frame)
        across = abs(turn[1]) + abs(turn[2]) > abs(turn[0]) + abs(turn[3])
        high, wide = frame.height, frame.width * self._pixel
        rows, columns = fitted(wide if across else high, high if across else wide, height, width, fit)
        pixels = self._upright(frame, (rows, columns) if across else (columns, rows), turn, across)
        return _framed(pixels, height, width, fit)

    def _upright(
        self, frame: av.VideoFrame, size: tuple[int, int], turn: tuple[int, ...], across: bool
    ) -> np.ndarray:
        """A frame of that width and height, then turned."""
        try:
            pixels = self._scaler.reformat(
                frame, *size, "rgb24", interpolation=_SCALING, threads=1
            ).to_ndarray()
        except (FFmpegError, OSError, ValueError):  # sizes that its filters are not made for
            pixels = self._by_pillow(frame, size)
        return np.ascontiguousarray(_turned(pixels, turn, across))

    def _turn(self, frame: av.VideoFrame) -> tuple[int, ...]:
        """The linear map (a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y, y downwards."""
        if not self._by_angle:
            with suppress(ValueError):  # side data of a kind that PyAV does not know
                matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore
                return struct.unpack("=2i4x2i", bytes(matrix)[:20]) if matrix else QUARTERS[0]
        return QUARTERS[round(frame.rotation / 90) % 4]

    def _by_pillow(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        try:
            pixels = frame.to_ndarray(format="rgb24")
        except (FFmpegError, OSError, ValueError):
            form = f"{frame.width}×{frame.height} {frame.format.name}"
            raise MediaError("unsupported", f"FFmpeg cannot convert its pictures ({form})") from None
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def encode_jpeg(picture: np.ndarray) -> bytes:
    """A picture, uint8 [height, width, channels], as the bytes of a JPEG file: RGB of three channels; two
    channels (flow) as one grey picture, the second below the first."""
    file = io.BytesIO()
    if picture.shape[2] == 2:
        picture = np.concatenate([picture[..., 0], picture[..., 1]])
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def _turned(pixels: np.ndarray, turn: tuple[int, ...], across: bool) -> np.ndarray:
    """Pixels [y, x, 3] moved by the linear map (a, b, c, d): x' = a x + c y, y' = b x + d y, by quarter turns and
    reflections; `across` where x' goes along y."""
    a, b, c, d = turn
    if across:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _check_sums(data: bytes) -> None:
    """The sums over the parts of a PNG file, which Pillow checks on request alone."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()


def _check_webp(data: bytes) -> None:
    """MediaError where a row of zeros lies in the VP8 data of a WebP file, whose decoder takes them for a picture."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[place : place + 8])
        if name == b"VP8 " and holds_a_row(data[place + 8 : place + 8 + size]):
            raise MediaError("damaged", "zeros lie in its data")
        place += 8 + size + size % 2


def _check_strips(path: Path, image: Image.Image) -> None:
    """MediaError where the sum of a part of a TIFF file by zlib does not fit, which libtiff passes over."""
    tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    where, sizes = STRIPS if STRIPS[0] in tags else TILES
    with path.open("rb") as file:
        for place, size in zip(tags[where], tags[sizes], strict=True):
            file.seek(place)
            try:
                zlib.decompress(file.read(size))
            except zlib.error as error:
                raise MediaError("damaged", f"a part of the TIFF file: {error}") from None


def _to_rgb(image: Image.Image, deep: bool) -> Image.Image:
    """8 bits a channel; of 16 bits the upper ones, and no transparency."""
    if image.mode.startswith("I;16") or (image.mode == "I" and deep):
        values = (np.asarray(image).astype(np.int64) + 128) // 257
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise MediaError(
            "unsupported",
            "pixels of signed, floating or more than 16-bit numbers, which have no agreed black and white",
        )
    try:
        return image.convert("RGB")
    except ValueError:
        raise MediaError("unsupported", f"Pillow cannot convert its pictures ({image.mode})") from None


@contextmanager
def _defects() -> Iterator[None]:
    """What Pillow raises, as MediaError."""
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise MediaError("unsupported", f"the picture has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise MediaError(
            "unreadable",
            "Pillow cannot read it: cut off, its header is damaged, or a form that it does not know",
        ) from None
    except Exception as error:  # its decoders raise many kinds of them
        said = str(error).lower()
        kind = next((kind for kind in ("truncated", "unsupported") if kind in said), "damaged")
        raise MediaError(kind, f"Pillow says: {error}") from None
