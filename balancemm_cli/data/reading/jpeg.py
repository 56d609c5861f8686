"""Whether a JPEG file (ITU T.81) holds the picture that it declares.

Decoders fill what is missing with grey and leave what is too much unread, both without an error. FFmpeg's says where
data are missing once it may not conceal; that data are left over shows where the picture is complete without the last
of them.
"""

import io
import math
from collections.abc import Iterator

import av
from av.error import FFmpegError, PatchWelcomeError

from balancemm_cli.data.reading.files import MediaError

SCAN, END = 0xDA, 0xD9
BARE = frozenset(range(0xD0, 0xD8)) | {0x01}  # markers without a length: restarts
FRAMES = (0xC0, 0xC1, 0xC2)  # the forms that FFmpeg decodes as Pillow does: baseline, extended, progressive
NOT_PICTURE = frozenset(range(0xE1, 0xEE)) | {0xEF, 0xFE}  # metadata, which FFmpeg would judge too
LEFT_OVER = 4  # blocks of pixels, of average size, that a decoder may read behind the last one
SPARE = 16  # bytes of padding that some cameras leave


def check(data: bytes) -> None:
    """MediaError for a file without an end, and where not all of the picture is there or something is left over. Forms
    that FFmpeg does not decode pass."""
    parts = list(_segments(data))
    if END not in (marker for marker, _ in parts):
        raise MediaError("truncated", "the JPEG file has no end")
    frame = next((part for marker, part in parts if marker in FRAMES), b"")
    scans = [part for marker, part in parts if marker == SCAN]
    if len(frame) < 12 or not scans:
        return
    checked = [part for marker, part in parts if marker not in NOT_PICTURE]
    surplus = SPARE + math.ceil(LEFT_OVER * len(scans[-1]) / _blocks(frame))
    complete = _decodes(checked)
    if complete is False:
        raise MediaError("damaged", "parts of the JPEG picture are missing or overwritten (truncated, too)")
    if not complete or len(scans[-1]) <= 2 * surplus:
        return
    if _decodes([part[:-surplus] if part is scans[-1] else part for part in checked]):
        raise MediaError(
            "damaged", "data are left over behind the JPEG picture, so that some were overwritten"
        )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, bytes) of each segment up to the end of the picture; that of a scan with its data."""
    place = 2
    while place + 2 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0xFF:  # bytes to fill up with
            place += 1
            continue
        if marker == END:
            yield marker, b""
            return
        stop = place + 2
        if marker not in BARE:
            stop += int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == SCAN:
            stop = _end_of_scan(data, stop)
        yield marker, data[place:stop]
        place = stop


def _end_of_scan(data: bytes, place: int) -> int:
    """Where the data of a scan end: at a marker that is no restart. FF 00 is a byte FF of the data."""
    while (place := data.find(b"\xff", place)) >= 0:
        following = data[place + 1 : place + 2]
        if following and following[0] != 0 and following[0] != 0xFF and following[0] not in BARE:
            return place
        place += 2 if following != b"\xff" else 1
    return len(data)


def _blocks(frame: bytes) -> int:
    """How many blocks of 8×8 samples or of a group of them (MCU) a picture has, by its frame header."""
    height, width = (int.from_bytes(frame[place : place + 2], "big") for place in (5, 7))
    down, across = frame[11] & 15, frame[11] >> 4
    return max(1, math.ceil(height / (8 * max(down, 1))) * math.ceil(width / (8 * max(across, 1))))


def _decodes(parts: list[bytes]) -> bool | None:
    """Whether FFmpeg decodes a picture of these segments without concealment; None where it has no code for it."""
    file = io.BytesIO(b"\xff\xd8" + b"".join(parts) + b"\xff\xd9")
    try:
        with av.open(file, format="jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode", "lowres": "3"}  # an eighth is enough
            return any(packet.decode() for packet in container.demux(stream))
    except PatchWelcomeError:
        return None
    except FFmpegError:
        return False
