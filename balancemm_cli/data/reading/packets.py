"""Packets of compressed video: where decoding can begin, and whether bytes were overwritten with zeros.

Decoders of arithmetic codes take any bytes for a picture. But H.264 and HEVC never have three zeros within a unit
(NAL unit, ITU H.264 7.4.1 and H.265 7.4.2), and the others never a long row of them.
"""

import re
from collections.abc import Iterator
from typing import Any

START = b"\0\0\1"
OVERWRITTEN = re.compile(rb"\x00\x00\x00[^\x00\x01]")
ROW = bytes(32)  # zeros; an arithmetic code has them by chance once in 2**256 places


def holds_a_row(data: bytes) -> bool:
    """Whether a row of zeros lies in the data of an arithmetic code; what fills them up behind is none."""
    return ROW in data.rstrip(b"\0")


class Packets:
    """What can be said of the packets of one video stream without decoding them."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - PyAV's VideoCodecContext
        self._codec = context.codec.canonical_name
        extra = bytes(context.extradata or b"")
        place = {"h264": 4, "hevc": 21}.get(self._codec, 0)
        measured = (
            place and len(extra) > place and extra[0] == 1
        )  # as in MP4; else units begin with a start code
        self._prefix = (extra[place] & 3) + 1 if measured else 0  # bytes of the length before each unit

    def is_fresh(self, packet: Any) -> bool:  # noqa: ANN401 - PyAV's Packet, as below
        """Whether decoding from this packet on gives what decoding from the start gives, from its time on.

        That it is called a key frame is not enough for H.264 and HEVC: with open groups of pictures and with intra
        refresh, what follows may need what lies before it, unless it is an IDR picture.
        """
        if not packet.is_keyframe:
            return False
        if self._codec == "h264":
            return any(unit[0] & 31 == 5 for unit in self._units(packet) if unit)
        if self._codec == "hevc":
            return any(unit[0] >> 1 & 63 in (19, 20) for unit in self._units(packet) if unit)
        return True

    def is_overwritten(self, packet: Any) -> bool:  # noqa: ANN401
        """Whether a row of zeros lies where none can be."""
        if self._codec in ("h264", "hevc"):
            return b"\0\0\0" in memoryview(packet).tobytes() and any(
                OVERWRITTEN.search(unit) for unit in self._units(packet)
            )
        return self._codec in ("vp8", "vp9", "av1") and holds_a_row(bytes(packet))

    def _units(self, packet: Any) -> Iterator[bytes]:  # noqa: ANN401
        data = bytes(packet)
        if not self._prefix:
            yield from data.split(START)[1:]
            return
        place = 0
        while place + self._prefix < len(data):
            begin = place + self._prefix
            place = begin + int.from_bytes(data[place:begin], "big")
            yield data[begin:place].rstrip(b"\0")
