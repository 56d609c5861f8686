"""Reading media: frames, waveforms and pictures out of any file that FFmpeg reads, through PyAV.

Headers are not trusted. What was decoded is compared with what the file declares, and every way in which a
file can be unusable has a name (`MediaError.kind`), because many broken files open happily and decode short.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from math import ceil, inf
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

JPEG_QUALITY = 95  # with full chroma; the loss is below what a video codec did before
SLACK = 0.25  # seconds that media may end early: the last packets of healthy files differ by up to 0.1 s
SLACK_SHARE = 0.01  # the same as a share of the declared duration, for long files
SILENCE = 1  # int16 steps (-90 dB): digital silence, also after dither; recordings of a quiet room exceed it
TAIL = 0.5  # seconds decoded beyond the end, so that the resampler ends cleanly
ROUNDING = 1e-3  # seconds; FLV and Matroska round time stamps to milliseconds
MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz; a header that says 1 Hz would turn a second into hours
NOT_MEDIA = {"tty", "concat", "hls"}  # text that FFmpeg would draw, and lists of other files
SEEK_FROM = 5.0  # seconds; a clip that starts earlier is reached by decoding

# Bit-exact, so that one file gives the same picture on every processor.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

T = TypeVar("T")


class MediaError(Exception):
    """A file, or the asked part of it, that cannot be used. `kind` names the defect in a word or two."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def read_frames(
    path: Path,
    height: int,
    width: int,
    fps: float | None = 1.0,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
) -> list[np.ndarray]:
    """Frames of a video (or the one of a picture file), uint8 RGB [height, width, 3], in order of time.

    The frames are those shown at start, start + 1/fps, … up to the end (seconds), by their time stamps and
    turned upright by the file's rotation; `fps=None` means every frame, and at least one is always returned.
    `whole=False` accepts a file that ends early. Raises MediaError.
    """
    return _read_frames(path, height, width, fps, start, end, whole, lambda picture: picture)


def read_jpegs(
    path: Path,
    height: int,
    width: int,
    fps: float | None = 1.0,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
) -> list[bytes]:
    """The frames of `read_frames` as JPEG files, each made as it comes: an hour of them fits into the memory."""
    return _read_frames(path, height, width, fps, start, end, whole, encode_jpeg)


def _read_frames(
    path: Path,
    height: int,
    width: int,
    fps: float | None,
    start: float | None,
    end: float | None,
    whole: bool,
    convert: Callable[[np.ndarray], T],
) -> list[T]:
    everything = whole and start is None and end is None
    if everything and fps and (found := _read_sparsely(path, height, width, fps, convert)):
        return found
    with _open(path, whole) as container:
        reader = _Reader(container, "video")
        if reader.still:
            return [convert(reader.picture(next(frame for _, _, frame in reader.timed()), height, width))]
        timed = reader.timed(start or 0.0, end)
        chosen = at_rate(timed, fps, start or 0.0, end) if fps else within(timed, start or 0.0, end)
        found = [convert(reader.picture(frame, height, width)) for frame in chosen]
        reader.check_frames(len(found), start or 0.0, end, whole)
    return found


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
    with _open(path, whole) as container:
        reader = _Reader(container, "video")
        pairs = _neighbours(reader.timed(start or 0.0, end))
        chosen = at_rate(pairs, fps, start or 0.0, end)
        pictures = [
            (reader.picture(one, height, width), reader.picture(two, height, width)) for one, two in chosen
        ]
        if not pictures and reader.decoded:
            raise MediaError("one frame", "motion needs two")
        reader.check_frames(len(pictures), start or 0.0, end, whole)
    return pictures


def read_picture(path: Path, height: int, width: int) -> np.ndarray:
    """A picture file (or the first frame of a video), uint8 RGB [height, width, 3]. Raises MediaError."""
    return read_frames(path, height, width)[0]


def read_audio(
    path: Path,
    rate: int,
    start: float | None = None,
    end: float | None = None,
    whole: bool = True,
    loud: bool = True,
) -> np.ndarray:
    """The sound from start to end (seconds), mixed to one channel and resampled to `rate` Hz, int16 [T].

    `whole=False` accepts a file that ends early, `loud=False` one that is silent. Raises MediaError.
    """
    begin = start or 0.0
    with _open(path, whole) as container:
        reader = _Reader(container, "audio")
        samples = _resampled(reader, rate, begin, end)
        reader.check(begin, end, whole)
    if not len(samples):
        raise MediaError("no audio samples")
    if loud and max(samples.max(), -int(samples.min())) <= SILENCE:
        raise MediaError("silent", "the audio is digital silence")
    return samples


def encode_jpeg(picture: np.ndarray) -> bytes:
    """A picture, uint8 [height, width, channels], as the bytes of a JPEG file: RGB of three channels; two
    channels (flow) as one grey picture, the second below the first."""
    file = io.BytesIO()
    if picture.shape[2] == 2:
        picture = np.concatenate([picture[..., 0], picture[..., 1]])
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


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


def _read_sparsely(
    path: Path, height: int, width: int, fps: float, convert: Callable[[np.ndarray], T]
) -> list[T]:
    """As `read_frames` of a whole file, but what the frames are not built from is not decoded.

    Empty where the packets' time stamps do not say which frames these are, and where anything is wrong: then
    decoding all of the file gives the frames, or the reason why it has none.
    """
    try:
        with _open(path, True) as container:
            reader = _Reader(container, "video")
            shown = list(at_rate(reader.listed(), fps))
            found = {
                frame.pts: convert(reader.picture(frame, height, width)) for frame in reader.only(set(shown))
            }
            reader.check(0.0, None, True)
            return [found[pts] for pts in shown]
    except (MediaError, FFmpegError, KeyError):
        return []


def _neighbours(timed: Iterable[tuple[float, float, T]]) -> Iterator[tuple[float, float, tuple[T, T]]]:
    """Each item with the next one, at the times of the first."""
    before: tuple[float, float, T] | None = None
    for time, until, item in timed:
        if before is not None:
            yield before[0], before[1], (before[2], item)
        before = time, until, item


class _Reader:
    """One stream of a container being decoded. Times are in seconds from the start of the container."""

    def __init__(self, container: Any, kind: str) -> None:  # noqa: ANN401 - PyAV's InputContainer
        stream = container.streams.best(kind)
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise MediaError(f"no {kind} stream")
        context = stream.codec_context
        if context is None:
            raise MediaError("unreadable", f"FFmpeg has no decoder for its {kind}")
        if kind == "audio" and not MIN_RATE <= context.sample_rate <= MAX_RATE:
            raise MediaError("unreadable", f"its header says {context.sample_rate:,} samples a second")
        context.thread_count = 1  # the work is parallel over files
        self._container = container
        self._scaler = VideoReformatter()  # one for all frames: it keeps the filters that it has computed
        self._stream = stream
        self._origin = (container.start_time or 0) / av.time_base
        self._reached = 0.0  # where the packets of any stream end
        self._complete = False  # whether the file was read to its end
        self._packets: list[tuple[int, bool]] = []  # of a video: time stamp, whether it is a key frame
        self.decoded = 0.0  # where the decoded frames end
        name = container.format.name
        self.still = name == "image2" or name.endswith("_pipe")

    def timed(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, float, Any]]:
        """Decode (from, until, frame), from the file's begin or a key frame before `start`, up to `end`."""
        if start > SEEK_FROM and not self._seek(start):
            self._container.seek(0)
        yield from self._decode(end)

    def listed(self) -> list[tuple[float, float, int]]:
        """(from, until, time stamp) of each frame by the packets, in order of time, without decoding. Empty
        where they do not say it, as in AVI."""
        times = []
        for packet in self._demux():
            if packet.pts is None:
                return []
            time = packet.pts * packet.time_base.numerator / packet.time_base.denominator - self._origin
            times.append((time, time + self._seconds(packet), packet.pts))
            self._packets.append((packet.pts, packet.is_keyframe))
        self.decoded = max((until for _, until, _ in times), default=0.0)
        self._complete = True
        return sorted(times)

    def only(self, wanted: set[int]) -> Iterator[Any]:
        """Decode the listed frames with the wanted time stamps, and of the others those that they need."""
        context = self._stream.codec_context
        needed = _needed(self._packets, wanted)
        self._container.seek(0)
        for number, packet in zip(range(len(needed)), self._demux(), strict=False):
            if packet.pts != self._packets[number][0]:  # the file cannot go back to its begin
                return
            if not needed[number]:
                continue
            if context.name == "h264":  # other codecs gain nothing, and HEVC's mark is not reliable
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            frames = packet.decode()
            if not any(needed[number + 1 : number + 2]):
                frames += context.decode(None)  # frames that wait for their turn
                context.flush_buffers()
            yield from (frame for frame in frames if frame.pts in wanted)

    def picture(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """Scale a frame (stretching it), turn it upright, as uint8 RGB [height, width, 3]."""
        turns = round(frame.rotation / 90)
        if turns % 2:
            height, width = width, height
        scaled = self._scaler.reformat(frame, width, height, "rgb24", interpolation=_SCALING, threads=1)
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))

    def check(self, start: float, end: float | None, whole: bool) -> None:
        """Raise MediaError where the file ended before what it declares, or before the part asked for."""
        if not self._complete:
            return
        if whole and (declared := self._declared()):
            reached = self.decoded if self._stream.duration else max(self.decoded, self._reached)
            if declared - reached > max(SLACK, SLACK_SHARE * declared):
                raise MediaError("truncated", f"{reached:.2f} s decode where {declared:.2f} s are declared")
        if start >= self.decoded:
            raise MediaError("outside", f"the media end at {self.decoded:.2f} s, before {start:.2f} s")
        if end is not None and end - self.decoded > SLACK:
            raise MediaError("outside", f"the media end at {self.decoded:.2f} s, before {end:.2f} s")

    def check_frames(self, count: int, start: float, end: float | None, whole: bool) -> None:
        """Raise MediaError where no frame was decoded or taken, else as `check`."""
        if self.decoded == 0:
            raise MediaError("no frames")
        self.check(start, end, whole)
        if not count:
            raise MediaError("no frames", f"none between {start:.2f} s and {end or self.decoded:.2f} s")

    def _seek(self, start: float) -> bool:
        """Go to a key frame before `start`. False where the file cannot seek or went too far."""
        try:
            self._container.seek(int((start + self._origin) * av.time_base))
            first = next(packet for packet in self._container.demux(self._stream) if packet.pts is not None)
            early = float(first.pts * first.time_base) - self._origin <= start
            self._container.seek(int((start + self._origin) * av.time_base))
        except (FFmpegError, StopIteration):
            return False
        return early

    def _decode(self, end: float | None) -> Iterator[tuple[float, float, Any]]:
        try:
            for packet in self._demux(flush=True):
                for frame in packet.decode():
                    time = self.decoded if frame.time is None else frame.time - self._origin
                    if end is not None and time >= end:
                        return
                    until = time + self._seconds(frame)
                    self.decoded = max(self.decoded, until)
                    yield time, until, frame
        except FFmpegError:
            raise MediaError("damaged", f"decoding fails after {self.decoded:.2f} s") from None
        self._complete = True

    def _demux(self, flush: bool = False) -> Iterator[Any]:
        """The packets of the stream, on request the empty one at the end that flushes the decoder."""
        streams = [self._stream] if self._stream.duration else []  # else all count, see `check`
        for packet in self._container.demux(*streams):
            if packet.pts is not None and packet.size and not streams:
                until = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._origin
                self._reached = max(self._reached, until)
            if packet.stream is self._stream and (packet.size or flush):
                yield packet

    def _seconds(self, frame: Any) -> float:  # noqa: ANN401 - a frame of either kind
        if isinstance(frame, av.AudioFrame):
            return frame.samples / frame.sample_rate
        if frame.duration:
            return float(frame.duration * frame.time_base)
        return 1 / float(self._stream.average_rate or 25)

    def _declared(self) -> float | None:
        """The duration that the header declares in seconds; None where FFmpeg only estimates it."""
        name = self._container.format.name
        if self.still or name == "aac" or (name == "mp3" and not _counted_mp3(Path(self._container.name))):
            return None
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None


def _needed(packets: list[tuple[int, bool]], wanted: set[int]) -> list[bool]:
    """For each packet (time stamp, whether a key frame) in order of decoding: whether a wanted one needs it.

    A frame needs all since the last key frame; one that is shown before that key frame also what lies before
    it.
    """
    begins: list[int] = []
    key = before = 0
    for number, (pts, is_key) in enumerate(packets):
        if is_key:
            key, before = number, key
        begins.append(key if packets[key][0] <= pts else before)
    needed = [False] * len(packets)
    begin = len(packets)
    for number in reversed(range(len(packets))):
        if packets[number][0] in wanted:
            begin = min(begin, begins[number])
        needed[number] = begin <= number
    return needed


def _resampled(reader: _Reader, rate: int, begin: float, end: float | None) -> np.ndarray:
    """The samples from `begin` to `end`; what lies before is decoded, as the resampler needs it, but not kept."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate, frame_size=rate)
    first: float | None = None
    skip = 0  # samples of `parts` that lie before `begin`
    parts: list[np.ndarray] = []
    try:
        for time, _, frame in reader.timed(end=None if end is None else end + TAIL):
            if first is None:
                first, skip = time, max(0, round((begin - time) * rate))
            parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            while parts and len(parts[0]) <= skip:
                skip -= len(parts.pop(0))
        if first is None:
            raise MediaError("no audio samples")
        parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    except (ValueError, FFmpegError):
        raise MediaError("damaged", f"the audio changes its format at {reader.decoded:.2f} s") from None
    samples = np.concatenate([np.zeros(0, np.int16), *parts])[skip:]
    if end is None:
        return samples
    return samples[: max(0, round((end - first) * rate)) - max(0, round((begin - first) * rate))]


@contextmanager
def _open(path: Path, whole: bool) -> Iterator[Any]:
    """Open a media file, or say by its first bytes what it is instead. Raises MediaError."""
    try:
        cut = _check_bytes(path)
    except FileNotFoundError:
        raise MediaError("missing") from None
    except OSError as error:
        raise MediaError("unreadable", error.strerror or "the file cannot be read") from None
    if cut and whole:
        raise MediaError("truncated", cut)
    try:
        # "file:" for names with a colon; no other protocol, as a playlist could name anything.
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except FFmpegError:
        raise MediaError("unreadable", "not media, or its header is damaged") from None
    with container:
        if container.format.name in NOT_MEDIA:
            raise MediaError("unreadable", "not media")
        yield container


def _check_bytes(path: Path) -> str | None:
    """Raise MediaError for files that are no media at all; say how a file is cut where its form shows it."""
    size = path.stat().st_size
    if size == 0:
        raise MediaError("empty file")
    with path.open("rb") as file:
        head = file.read(512)
        if head.startswith(b"version https://git-lfs"):
            raise MediaError("git-LFS pointer", "not the media themselves; run `git lfs pull`")
        if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
            raise MediaError("web page", "an HTML or XML page saved as media; download the file again")
        if head[:4] in (b"RIFF", b"RF64"):
            return _cut_riff(file, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _cut_boxes(file, size)
        if head[:2] == b"\xff\xd8":
            file.seek(0)
            data = file.read()
            if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
                return "the JPEG file has no end"
    return None


def _cut_riff(file: io.BufferedReader, size: int) -> str | None:
    """Compare the sizes in a WAV or AVI file (RIFF) with the size of the file."""
    file.seek(4)
    declared, form = struct.unpack("<I4s", file.read(8).ljust(8, b"\0"))
    position, what = 0, form.decode("latin-1").strip()
    while form == b"WAVE":
        position = max(position, 4) + 8 + (declared + declared % 2 if position else 0)
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, declared = struct.unpack("<4sI", chunk)
        if name == b"data":
            break
    # A writer that cannot go back leaves all ones (or nothing) for the size.
    if declared in (0, 0xFFFFFFFF) or position + 8 + declared <= size:
        return None
    return f"the {what} header declares {declared:,} bytes, the file has {size - position - 8:,} of them"


def _cut_boxes(file: io.BufferedReader, size: int) -> str | None:
    """Walk the top-level boxes of an MP4 or MOV file (ISO 14496-12), which tile the file when it is whole."""
    position, names = 0, set()
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        names.add(name)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length == 0:  # to the end of the file
            break
        if length < 8:
            return None
        position += length
        if position > size:
            return f"the MP4 box '{name.decode('latin-1')}' goes {position - size:,} bytes beyond the file"
    return None if names & {b"moov", b"meta"} else "the MP4 file has no index (moov)"


def _counted_mp3(path: Path) -> bool:
    """Whether an MP3 file says how many frames it has; else FFmpeg guesses its duration by the bit rate."""
    with Path(str(path).removeprefix("file:")).open("rb") as file:
        head = file.read(65536)
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))
