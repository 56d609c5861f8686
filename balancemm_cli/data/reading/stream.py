"""One stream of a media file being decoded by FFmpeg, through PyAV.

Headers are not trusted: what was decoded is compared with what the file declares. What a decoder conceals counts as
damage, and time is counted on where time stamps restart or jump.
"""

import heapq
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError, PatchWelcomeError
from av.stream import Disposition

from balancemm_cli.data.reading.files import MediaError, declared_samples
from balancemm_cli.data.reading.packets import Packets

SLACK = 0.25  # seconds that media may end early: the last packets of healthy files differ by up to 0.1 s
SLACK_SHARE = 0.01  # the same as a share of the declared duration, for long files
MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz; a header that says 1 Hz would turn a second into hours
MAX_PIXELS = 2**26  # of a frame, twice those of 8K; a decoder may keep 16 frames
SEEK_FROM = 5.0  # seconds; a clip that starts earlier is reached by decoding
BEFORE = 1.0  # seconds decoded before the start of a sound, as a frame of sound needs those before it
JUMP = 10.0  # seconds; a clock that goes further at once, or back by BACK, began anew (FFmpeg's own limit)
BACK = 1.0
LONGEST = 60.0  # seconds that one frame may be shown: more is a damaged time stamp, not a slide
BEHIND = 2**16  # bytes behind the last frame that may be no media: tags, padding of a disk's cluster
RETRIES = 20  # how often reading goes on behind what is no packet

# Containers whose clock may begin anew within a file, as recordings are joined; those whose index leads exactly to a
# time; those that do not say how long they are, of which FFmpeg's duration is a guess.
JOINED = {"mpegts", "mpeg"}
INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "wav", "w64", "aiff", "au", "caf"}
GUESSED = {
    "mpegts",
    "mpeg",
    "asf",
    "mpegvideo",
    "h264",
    "hevc",
    "m4v",
    "h263",
    "h261",
    "vc1",
    "obu",
    "ivf",
    "mjpeg",
}
GUESSED |= {
    "dv",
    "aac",
    "ac3",
    "eac3",
    "dts",
    "dtshd",
    "truehd",
    "mlp",
    "loas",
    "amr",
    "amrnb",
    "amrwb",
    "gsm",
    "g722",
}

# Containers in which FFmpeg marks packets of whole files as cut: where a recording was joined, or its size is unknown.
OPEN_ENDED = {*JOINED, "wav"}

# Decoders that conceal damage of their data and say so in FFmpeg's log alone, by the begin of their name there.
SILENT = ("ffv1", "flac", "msmpeg4", "wmv", "opus", "tta", "gif", "zmbv", "flashsv")
JUNK = "invalid sync code"  # of FLAC: what lies behind the frame of a packet is none
# Readers of containers that go on behind bytes that are missing or overwritten, and what they say then: Matroska's many
# things.
SAID = {"ogg": "CRC mismatch", "matroska,webm": ""}


def _pixel(context: Any) -> float:  # noqa: ANN401 - a decoder of PyAV
    """The width of a video's pixels over their height; 1 where it does not say, or something odd."""
    ratio = float(context.sample_aspect_ratio or 1)
    return ratio if 0.25 <= ratio <= 4 else 1.0


class Stream:
    """The best stream of a kind ("video" or "audio"). Times are in seconds from the start of the container."""

    def __init__(self, container: Any, kind: str, path: Path, log: list[tuple[int, str, str]]) -> None:  # noqa: ANN401
        stream = container.streams.best(kind)
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise MediaError(f"no {kind} stream")
        context = stream.codec_context
        if context is None:
            raise MediaError("unreadable", f"FFmpeg has no decoder for its {kind}")
        if kind == "audio" and not MIN_RATE <= context.sample_rate <= MAX_RATE:
            raise MediaError("unreadable", f"its header says {context.sample_rate:,} samples a second")
        context.thread_count = 1  # the work is parallel over files
        # The decoder of MJPEG hides what it conceals; others mark it.
        strictness = "crccheck+explode" if context.name == "mjpeg" else "crccheck"
        context.options = {"err_detect": strictness, "max_pixels": str(MAX_PIXELS)}
        self.decoder: str = context.name
        self.channels: int = context.layout.nb_channels if kind == "audio" else 0
        self.pixel = _pixel(context) if kind == "video" else 1.0
        self.decoded = 0.0  # where the decoded frames end
        self._container, self._stream, self._path, self._log = container, stream, path, log
        self._base = stream.time_base.numerator, stream.time_base.denominator
        self._format = container.format.name
        self._packets = Packets(context) if kind == "video" else None
        # AVI has no time stamps to show frames by, and FFmpeg cannot guess those of reordered H.264 and HEVC.
        self._unordered = container.format.name == "avi" and context.name in ("h264", "hevc")
        self._origin = (container.start_time or 0) / av.time_base
        self._clock = _Clock(self._format in JOINED) if kind == "video" else _SampleClock()
        self._bases: dict[int, float] = {}  # seconds in a unit of each stream's time stamps
        self._reached = 0.0  # where the packets of any stream end
        self._complete = False  # whether the file was read to its end
        self._unread = 0  # bytes since the last frame that could not be decoded
        self._read = 0  # bytes that could be decoded
        self._unsupported = False
        self._cut = False  # whether the file ends within a packet
        self._listed: list[tuple[int, bool]] = []  # of a video: time stamp, whether decoding can begin there
        self.still = self._format == "image2" or self._format.endswith("_pipe")

    def timed(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, float, Any]]:
        """Decode (from, until, frame), from the file's begin or a place before `start`, up to `end`. A frame lasts at
        least until the next one."""
        if start > SEEK_FROM and self._format in INDEXED and not self._seek(start):
            self._container.seek(0)
        if self._packets is None:  # frames of sound follow each other
            for time, until, frame in self._decode():
                if end is not None and time >= end:
                    return
                self.decoded = max(self.decoded, until)
                yield time, until, frame
            return
        before: tuple[float, float, Any] | None = None
        for time, until, frame in self._decode():
            if before is not None:
                yield before[0], max(before[1], time), before[2]
            if end is not None and time >= end:
                return
            self.decoded = max(self.decoded, until)
            before = time, until, frame
        if before is not None:
            yield before

    def listed(self) -> list[tuple[float, float, int]]:
        """(from, until, time stamp) of each frame by the packets, in order of time, without decoding. Empty
        where they do not say it, as in AVI, or where the clock jumps."""
        assert self._packets
        times = []
        before, first = None, 0.0
        for packet in self._demux():
            if packet.pts is None or packet.dts is None or self._unordered:
                return []
            dts = self._to_seconds(packet.dts)
            if before is not None and not 0 <= dts - before <= JUMP:
                return []
            first = dts if before is None else first
            before = dts
            time = self._to_seconds(packet.pts)
            times.append((time, time + self._duration(packet), packet.pts))
            self._listed.append((packet.pts, self._packets.is_fresh(packet)))
        times.sort()
        if self._unread or any(later[0] - earlier[0] > JUMP for earlier, later in pairwise(times)):
            return []
        if self._format == "avi" and times:  # see `_decode`
            lag = times[0][0] - first
            times = [(time - lag, until - lag, pts) for time, until, pts in times]
        self.decoded = max((until for _, until, _ in times), default=0.0)
        self._complete = True
        return times

    def only(self, wanted: set[int]) -> Iterator[Any]:
        """Decode the listed frames with the wanted time stamps, and of the others those that they need. MediaError
        for damage of these."""
        context = self._stream.codec_context
        needed = needed_packets(self._listed, wanted)
        self._container.seek(0)
        for number, packet in zip(range(len(needed)), self._demux(), strict=False):
            if packet.pts != self._listed[number][0]:  # the file cannot go back to its begin
                return
            if not needed[number]:
                continue
            if context.name == "h264":  # other codecs gain nothing, and HEVC's mark is not reliable
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            frames = self._frames(packet)
            if not any(needed[number + 1 : number + 2]):
                frames += context.decode(None)  # frames that wait for their turn
                context.flush_buffers()
            concealed = self._conceals()
            for frame in frames:
                if concealed or frame.is_corrupt:
                    self._refuse("a frame is incomplete")
                if frame.pts in wanted:
                    yield frame

    def check(self, start: float, end: float | None, whole: bool) -> None:
        """Raise MediaError where the file ended before what it declares, or before the part asked for."""
        if not self._complete:
            return
        if whole and self._cut:
            raise MediaError("truncated", f"the file ends within a packet after {self.decoded:.2f} s")
        if whole and (declared := self._declared()):
            reached = self.decoded if self._stream.duration else max(self.decoded, self._reached)
            # Matroska and FLV declare where the clock ends, which need not begin at 0.
            reached += max(0.0, self._origin)
            rate = self._stream.average_rate if self._packets else None
            frame = 1 / float(rate) if rate else 0.0
            if declared - reached > max(SLACK, SLACK_SHARE * declared, frame):
                raise MediaError("truncated", f"{reached:.2f} s decode where {declared:.2f} s are declared")
        if start >= self.decoded:
            raise MediaError(
                "outside", f"the media end at {self.decoded:.2f} s, and the part begins at {start:.2f} s"
            )
        if end is not None and end - self.decoded > SLACK:
            raise MediaError("outside", f"the media end at {self.decoded:.2f} s, and the part at {end:.2f} s")

    def _seek(self, start: float) -> bool:
        """Go to a place before `start` from which decoding gives the frames of decoding from the file's begin. False
        where there is none, or the file cannot be sought in."""
        place = int((start + self._origin - (0 if self._packets else BEFORE)) * av.time_base)
        try:
            self._container.seek(place)
            first = next(packet for packet in self._container.demux(self._stream) if packet.size)
            early = first.pts is not None and self._to_seconds(first.pts) <= start
            fresh = self._packets is None or self._packets.is_fresh(first)
            self._container.seek(place)
        except (FFmpegError, StopIteration):
            return False
        return early and fresh

    def _decode(self) -> Iterator[tuple[float, float, Any]]:
        waiting: list[float] = []  # of an unordered stream: times of packets whose frames are to come
        first: float | None = None  # of AVI: the time of the first packet
        for packet in self._demux(flush=True):
            if self._packets and self._format == "avi" and packet is not None and packet.dts is not None:
                first = self._to_seconds(packet.dts) if first is None else first
                if self._unordered:
                    heapq.heappush(waiting, self._to_seconds(packet.dts))
            for frame in self._attempt(packet):
                stamp = None if frame.pts is None else self._to_seconds(frame.pts)
                if waiting and self._unordered:
                    stamp = heapq.heappop(waiting)
                elif first is not None and stamp is not None and not self.decoded:
                    self._origin += stamp - first  # a delay by reordering, which FFmpeg leaves in AVI's times
                    stamp = first
                time, until = self._clock(stamp, self._duration(frame))
                if self._format == "flac" and stamp is not None and stamp - time > 1e-3:
                    self._refuse("samples are missing")
                if self._packets is None and stamp is not None:  # of sound, whose stamps may leave gaps
                    self.decoded = max(self.decoded, stamp + until - time)
                yield time, until, frame
        self._check_tail()
        self._complete = True

    def _attempt(self, packet: Any) -> list[Any]:  # noqa: ANN401
        """The frames of a packet, or of the decoder's end. What cannot be decoded counts as damage as soon as
        something follows that can."""
        size = packet.size if packet is not None else 1
        if (
            packet is not None
            and packet.is_corrupt
            and self._stream.duration
            and self._format not in OPEN_ENDED
        ):
            self._cut = True
            return []
        if self._hears_of_a_gap() and packet is not None:  # at the end: of what lies behind the media
            self._refuse("bytes are missing or overwritten")
        try:
            frames = self._frames(packet)
        except PatchWelcomeError:
            self._unsupported = True
            return []
        except FFmpegError:
            self._unread += size
            return []
        if not self._log and not self._unread and not (self._packets and any(f.is_corrupt for f in frames)):
            self._read += size
            return frames
        junk = bool(frames and self._log) and self._log[0][2].startswith(JUNK)
        concealed = self._conceals() and not junk
        sound = [frame for frame in frames if not (concealed or frame.is_corrupt)]
        if sound and self._unread:
            if self.decoded or self._format not in JOINED:
                self._refuse("decoding fails, or a frame is incomplete,")
            self._unread = 0  # a recording that begins within a group of pictures
        if concealed or junk or len(sound) < len(frames):
            self._unread += size
        self._read += size if sound else 0
        return sound

    def _frames(self, packet: Any) -> list[Any]:  # noqa: ANN401
        if packet is not None and self._packets and self._packets.is_overwritten(packet):
            self._refuse("zeros lie in its data")
        return self._stream.codec_context.decode(packet)

    def _conceals(self) -> bool:
        """Whether FFmpeg logged damage since the last call that it tells in no other way."""
        if not self._log:
            return False
        said = self._hears_of_a_gap() or any(name.startswith(SILENT) for _, name, _ in self._log)
        self._log.clear()
        return said

    def _hears_of_a_gap(self) -> bool:
        """Whether the reader of the container logged that bytes are missing or overwritten."""
        return any(name in SAID and SAID[name] in message for _, name, message in self._log)

    def _refuse(self, what: str = "decoding fails") -> None:
        raise MediaError("damaged", f"{what} after {self.decoded:.2f} s")

    def _check_tail(self) -> None:
        """What could not be decoded at the end of the file lies behind the media, where it is little."""
        if self._unsupported and not self.decoded:
            raise MediaError("unsupported", "FFmpeg knows this form of media, but cannot decode it")
        if self._unread and not self.decoded:
            if self.still:
                raise MediaError("unreadable", "not a picture, or its header is damaged")
            raise MediaError("damaged", "nothing of it can be decoded (damaged or encrypted)")
        if self._unread > min(BEHIND, self._read):
            self._refuse()

    def _demux(self, flush: bool = False) -> Iterator[Any]:
        """The packets of the stream that are not empty, on request None at the end for the decoder's last frames."""
        streams = [self._stream] if self._stream.duration else []  # else all count, see `check`
        failures = 0
        while failures < RETRIES:
            try:
                for packet in self._container.demux(*streams):
                    if packet.pts is not None and packet.size and not streams:
                        self._note_end(packet)
                    if packet.stream is self._stream and packet.size:
                        yield packet
                break
            except IndexError:  # a packet of a stream that begins late, which PyAV does not know
                continue
            except FFmpegError:  # what lies here is no packet
                failures += 1
                self._unread += 1
        if flush:
            yield None

    def _note_end(self, packet: Any) -> None:  # noqa: ANN401 - of any stream
        base = self._bases.get(packet.stream_index)
        if base is None:
            base = self._bases[packet.stream_index] = float(packet.time_base)
        self._reached = max(self._reached, (packet.pts + (packet.duration or 0)) * base - self._origin)

    def _to_seconds(self, stamp: int) -> float:
        return stamp * self._base[0] / self._base[1] - self._origin

    def _duration(self, item: Any) -> float:  # noqa: ANN401 - a frame of either kind or a packet
        if isinstance(item, av.AudioFrame):
            return item.samples / item.sample_rate
        if item.duration:
            return item.duration * self._base[0] / self._base[1]
        return 1 / float(self._stream.average_rate or 25)

    def _declared(self) -> float | None:
        """The duration that the header declares in seconds; None where FFmpeg only estimates it."""
        if self._format == "mp3":
            samples = declared_samples(self._path)
            return samples / self._stream.codec_context.sample_rate if samples else None
        if self.still or self._format in GUESSED:
            return None
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None


class _SampleClock:
    """Counts the time of frames of sound by their samples from the first one's stamp on, as they are stored."""

    def __init__(self) -> None:
        self._until: float | None = None

    def __call__(self, stamp: float | None, duration: float) -> tuple[float, float]:
        """(from, until) of the next frame."""
        time = self._until if self._until is not None else stamp or 0.0
        self._until = time + duration
        return time, self._until


class _Clock:
    """Counts the time of pictures by their stamps, which may be absent, restart or jump."""

    def __init__(self, goes_on: bool) -> None:
        self._goes_on = goes_on  # whether time goes on where the stamps jump ahead; else the last frame stays
        self._begun = False
        self._time = self._until = self._shift = 0.0

    def __call__(self, stamp: float | None, duration: float) -> tuple[float, float]:
        """(from, until) of the next frame. MediaError for a jump that is no time that the last frame is shown."""
        before = self._time
        time = self._until if stamp is None else stamp + self._shift
        if self._begun:
            ahead = time - self._until
            if ahead < -BACK or (self._goes_on and ahead > JUMP):
                self._shift -= ahead
                time = self._until
            time = max(time, before)
            if time - before > LONGEST:
                raise MediaError(
                    "damaged", f"its time stamps jump by {ahead:,.0f} s after {self._until:.2f} s"
                )
        if duration > LONGEST:
            raise MediaError("damaged", f"its time stamps jump by {duration:,.0f} s after {time:.2f} s")
        self._begun, self._time, self._until = True, time, time + duration
        return self._time, self._until


def needed_packets(packets: list[tuple[int, bool]], wanted: set[int]) -> list[bool]:
    """For each packet (time stamp, whether decoding can begin there) in order of decoding: whether a wanted one needs
    it.

    A frame needs all since the last packet of that kind; one that is shown before that packet also what lies before
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
