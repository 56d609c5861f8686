"""Reading media: frames, waveforms and pictures out of any file that FFmpeg or Pillow reads.

Headers are not trusted. What was decoded is compared with what the file declares, and every way in which a
file can be unusable has a name (`MediaError.kind`), because many broken files open happily and decode short.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from math import ceil, inf
from pathlib import Path
from typing import TypeVar

import numpy as np
from av.error import FFmpegError

from balancemm_cli.data.reading import pictures
from balancemm_cli.data.reading.files import MediaError, is_picture, open_media
from balancemm_cli.data.reading.pictures import JPEG_QUALITY, encode_jpeg
from balancemm_cli.data.reading.sound import SILENCE, read_audio
from balancemm_cli.data.reading.stream import Stream

__all__ = ["JPEG_QUALITY", "SILENCE", "MediaError", "encode_jpeg", "read_audio", "read_frames"]
__all__ += ["at_rate", "read_jpegs", "read_pairs", "read_picture", "within"]

ROUNDING = 1e-3  # seconds; FLV and Matroska round time stamps to milliseconds

T = TypeVar("T")
Size = tuple[int, int, str]  # height, width and how a picture is brought to them


def read_frames(
    path: Path,
    height: int,
    width: int,
    fps: float | None = 1.0,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
    fit: str = "stretch",
) -> list[np.ndarray]:
    """Frames of a video (or the one of a picture file), uint8 RGB [height, width, 3], in order of time; brought to that
    size as `pictures.fitted` says.

    The frames are those shown at start, start + 1/fps, … up to the end (seconds), by their time stamps and
    turned upright by the file's rotation; `fps=None` means every frame, and at least one is always returned.
    `whole=False` accepts a file that ends early. Raises MediaError.
    """
    return _read_frames(path, (height, width, fit), fps, start, end, whole, lambda picture: picture)


def read_jpegs(
    path: Path,
    height: int,
    width: int,
    fps: float | None = 1.0,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
    fit: str = "stretch",
) -> list[bytes]:
    """The frames of `read_frames` as JPEG files, each made as it comes: an hour of them fits into the memory."""
    return _read_frames(path, (height, width, fit), fps, start, end, whole, encode_jpeg)


def _read_frames(
    path: Path,
    size: Size,
    fps: float | None,
    start: float | None,
    end: float | None,
    whole: bool,
    convert: Callable[[np.ndarray], T],
) -> list[T]:
    if is_picture(path):
        return _read_picture(path, size, fps, start, end, convert)
    everything = whole and start is None and end is None
    if everything and fps and (found := _read_sparsely(path, size, fps, convert)):
        return found
    with open_media(path, whole) as (container, log):
        stream = Stream(container, "video", path, log)
        scale = pictures.Scaler(stream.decoder, stream.pixel)
        if stream.still:
            return [convert(scale(next(frame for _, _, frame in stream.timed()), *size))]
        chosen = _chosen(stream.timed(start or 0.0, end), fps, start, end)
        found = [convert(scale(frame, *size)) for frame in chosen]
        _check_frames(stream, len(found), start or 0.0, end, whole)
    return found


def _read_picture(
    path: Path,
    size: Size,
    fps: float | None,
    start: float | None,
    end: float | None,
    convert: Callable[[np.ndarray], T],
) -> list[T]:
    """The one frame of a picture file, or those of an animated one."""
    with pictures.open_picture(path) as image:
        if not pictures.is_animated(image):
            return [convert(pictures.scaled(image, *size))]
        chosen = _chosen(pictures.timed(image), fps, start, end)
        if found := [convert(pictures.scaled(frame, *size)) for frame in chosen]:
            return found
    raise MediaError("outside", f"the animation ends before {start:.2f} s")


def _chosen(
    timed: Iterable[tuple[float, float, T]], fps: float | None, start: float | None, end: float | None
) -> Iterator[T]:
    return at_rate(timed, fps, start or 0.0, end) if fps else within(timed, start or 0.0, end)


def read_pairs(
    path: Path,
    height: int,
    width: int,
    fps: float,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The frames of `read_frames`, each with the frame that follows it in the file; the last frame has none.

    For motion between neighbouring frames. MediaError ("one frame") where there is no pair, else as there.
    """
    with open_media(path, whole) as (container, log):
        stream = Stream(container, "video", path, log)
        scale = pictures.Scaler(stream.decoder)
        pairs = _neighbours(stream.timed(start or 0.0, end))
        chosen = at_rate(pairs, fps, start or 0.0, end)
        found = [(scale(one, height, width), scale(two, height, width)) for one, two in chosen]
        if not found and stream.decoded:
            raise MediaError("one frame", "motion needs two")
        _check_frames(stream, len(found), start or 0.0, end, whole)
    return found


def read_picture(path: Path, height: int, width: int) -> np.ndarray:
    """A picture file (or the first frame of a video), uint8 RGB [height, width, 3]. Raises MediaError."""
    return read_frames(path, height, width)[0]


def at_rate(
    timed: Iterable[tuple[float, float, T]], fps: float, start: float = 0.0, end: float | None = None
) -> Iterator[T]:
    """The items that are shown at start, start + 1/fps, … before `end` (None: before the last item's end).

    `timed` gives (from, until, item) in seconds, in order. An item is shown from its time until the next
    one's; the first one also before its time. At least one item is returned where any reaches beyond the
    start.
    """

    def due(second: float) -> int:
        """How many of the moments lie before a second."""
        return ceil((min(second, inf if end is None else end) - ROUNDING - start) * fps)

    count = 0
    shown: tuple[float, T] | None = None
    for time, until, item in timed:
        if shown is not None and due(time) > count:
            yield from repeat(shown[1], due(time) - count)
            count = due(time)
        shown = until, item
    if shown is not None and shown[0] > start:
        yield from repeat(shown[1], max(due(shown[0]), 1) - count)


def within(
    timed: Iterable[tuple[float, float, T]], start: float = 0.0, end: float | None = None
) -> Iterator[T]:
    """The items whose time lies in [start, end)."""
    for time, _, item in timed:
        if time >= start - ROUNDING and (end is None or time < end - ROUNDING):
            yield item


def _read_sparsely(path: Path, size: Size, fps: float, convert: Callable[[np.ndarray], T]) -> list[T]:
    """As `read_frames` of a whole file, but what the frames are not built from is not decoded.

    Empty where the packets' time stamps do not say which frames these are, and where anything is wrong: then
    decoding all of the file gives the frames, or the reason why it has none.
    """
    try:
        with open_media(path, True) as (container, log):
            stream = Stream(container, "video", path, log)
            scale = pictures.Scaler(stream.decoder, stream.pixel)
            shown = list(at_rate(stream.listed(), fps))
            found = {frame.pts: convert(scale(frame, *size)) for frame in stream.only(set(shown))}
            stream.check(0.0, None, True)
            return [found[pts] for pts in shown]
    except (MediaError, FFmpegError, KeyError):
        return []


def _check_frames(stream: Stream, count: int, start: float, end: float | None, whole: bool) -> None:
    """Raise MediaError where no frame was decoded or taken, else as `Stream.check`."""
    if stream.decoded == 0:
        raise MediaError("no frames")
    stream.check(start, end, whole)
    if not count:
        raise MediaError("no frames", f"none between {start:.2f} s and {end or stream.decoded:.2f} s")


def _neighbours(timed: Iterable[tuple[float, float, T]]) -> Iterator[tuple[float, float, tuple[T, T]]]:
    """Each item with the next one, at the times of the first."""
    before: tuple[float, float, T] | None = None
    for time, until, item in timed:
        if before is not None:
            yield before[0], before[1], (before[2], item)
        before = time, until, item
