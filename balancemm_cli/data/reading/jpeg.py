"""Whether a JPEG file (ITU T.81) holds the picture that it declares.

Decoders fill what is missing with grey and leave what is too much unread, both without an error. FFmpeg's says where
data are missing once it may not conceal; that data are left over shows where the picture is complete without the last
of them.
"""

import io
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from av.error import FFmpegError, PatchWelcomeError
from PIL import Image

from balancemm_cli.data.reading.files import MediaError

SCAN, END = 0xDA, 0xD9
BARE = frozenset(range(0xD0, 0xD8)) | {0x01}  # markers without a length: restarts
FRAMES = (0xC0, 0xC1, 0xC2)  # the forms that FFmpeg decodes as Pillow does: baseline, extended, progressive
NOT_PICTURE = frozenset(range(0xE1, 0xEE)) | {0xEF, 0xFE}  # metadata, which FFmpeg would judge too
PROGRESSIVE = 0xC2
AHEAD = 8  # bytes that a decoder looks ahead
SPARE = 16  # bytes behind the picture that some cameras leave


def check(data: bytes, picture: Image.Image) -> None:
    """MediaError where not all of the picture is there or something is left over; `picture` is what Pillow made of the
    data. Forms that FFmpeg does not decode pass."""
    parts = list(_segments(data))
    frame = next((marker for marker, _ in parts if marker in FRAMES), None)
    scans = [part for marker, part in parts if marker == SCAN]
    if frame is None or not scans:
        return
    checked = [part for marker, part in parts if marker not in NOT_PICTURE and marker != END]
    if (complete := _decodes(checked)) is None:
        return
    shorter = [part[:-SPARE] if part is scans[-1] else part for part in checked]
    left = len(scans[-1]) > 4 * SPARE
    if frame == PROGRESSIVE:
        left = left and _decodes(shorter)
    elif np.asarray(picture)[
        -1
    ].any():  # to the byte, where FFmpeg does not notice that the last block is cut
        complete = complete and _gives_last_row(checked, picture)
        left = left and _gives_last_row(shorter, picture)
    else:
        left = False
    if not complete:
        raise MediaError("damaged", "parts of the JPEG picture are missing or overwritten (truncated, too)")
    if left:
        raise MediaError(
            "damaged", "data are left over behind the JPEG picture, so that some were overwritten"
        )


def has_end(data: bytes) -> bool:
    """Whether the picture of a JPEG file ends within the file."""
    return any(marker == END for marker, _ in _segments(data))


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


def _gives_last_row(parts: list[bytes], picture: Image.Image) -> bool:
    """Whether the last row of a picture, which is not black, comes out of these segments. Where data are missing,
    Pillow waits for them, and the row stays black."""
    file = io.BytesIO(b"\xff\xd8" + b"".join(parts) + bytes(AHEAD))
    with Image.open(file, formats=["JPEG"]) as found:
        with suppress(OSError):
            found.load()
        found.tile = []  # so that Pillow takes it for decoded, as far as it is
        return np.array_equal(np.asarray(found)[-1], np.asarray(picture)[-1])


def _decodes(parts: list[bytes]) -> bool | None:
    """Whether FFmpeg decodes a picture of these segments without concealment; None where it has no code for it."""
    file = io.BytesIO(b"\xff\xd8" + b"".join(parts) + b"\xff\xd9")
    try:
        with av.open(file, "r", format="jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode", "lowres": "3"}  # an eighth is enough
            return any(packet.decode() for packet in container.demux(stream))
    except PatchWelcomeError:
        return None
    except FFmpegError:
        return False
