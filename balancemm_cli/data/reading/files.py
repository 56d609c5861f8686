"""Opening media files: what a file is by its first bytes, and whether it is whole by its own form."""

import io
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import av.logging
from av.error import FFmpegError, PatchWelcomeError
from PIL import Image

NOT_MEDIA = {"tty", "concat", "hls"}  # text that FFmpeg would draw, and lists of other files
UNKNOWN_WITHIN = (
    2**16
)  # bytes below 2 or 4 GiB: a WAV size that a writer puts into a pipe instead of the size
BOXES = frozenset(
    b"ftyp moov mdat free skip wide pnot uuid moof mfra meta idat styp sidx ssix prft pdin emsg udta".split()
)
PAGES = (b"<!doctype", b"<!--", b"<html", b"<head", b"<body", b"<?xml", b"<error")
JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG", b"BM"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the object with the size of a WMV or WMA file
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
PORTABLE = tuple(b"P%d%c" % (number, blank) for number in range(1, 7) for blank in b" \t\r\n")
HEIF = re.compile(rb"(?s).{4}ftyp(?:.{4})*?(?:avif|heic|heix|heim|heis|mif1|mif2)")
COMPOSED = re.compile(rb"(?s)infe.{8}(?:..)?(?:grid|iovl|iden|tili)")  # an item without a picture of its own


class MediaError(Exception):
    """A file, or the asked part of it, that cannot be used. `kind` names the defect in a word or two."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


Log = list[tuple[int, str, str]]  # level, name of a part of FFmpeg, message


@contextmanager
def open_media(path: Path, whole: bool) -> Iterator[tuple[Any, Log]]:
    """A media file, opened by FFmpeg, and the errors that FFmpeg logs while it is read. Raises MediaError, which says
    by the first bytes what the file is instead, where `whole` also for a file that is cut by its own form."""
    if (cut := examine(path)) and whole:
        raise MediaError("truncated", cut)
    with ExitStack() as stack:
        # "file:" for names with a colon; no other protocol, as a playlist could name anything.
        source = stack.enter_context(_without_name(path)) if "%" in str(path) else f"file:{path}"
        try:
            container = av.open(source, metadata_errors="replace", options={"protocol_whitelist": "file"})
        except PatchWelcomeError:
            raise MediaError("unsupported", "FFmpeg knows this form of media, but cannot read it") from None
        except FFmpegError:
            raise MediaError("unreadable", "not media, or its header is damaged") from None
        stack.enter_context(container)
        log = stack.enter_context(_listening())
        if container.format.name in NOT_MEDIA:
            raise MediaError("unreadable", "not media")
        yield container, log


def examine(path: Path) -> str | None:
    """Raise MediaError for a file that is no media at all, or that no reader shows as meant; say how it is cut where
    its form shows it."""
    try:
        return _examine(path)
    except FileNotFoundError:
        raise MediaError("missing") from None
    except OSError as error:
        raise MediaError("unreadable", error.strerror or "the file cannot be read") from None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture of a form that Pillow reads, by its first bytes. HEIF with HEVC is none."""
    if path.suffix.lower() in (".mjpeg", ".mjpg"):  # pictures one behind the other
        return False
    head = _head(path)
    if head[4:8] == b"ftyp" and b"avif" in head and b"avis" not in head:
        return _pillow_knows(path)  # else FFmpeg may read it
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith((JPEG, PNG, BMP, *TIFF, *JPEG_2000, *PORTABLE))


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of one that cannot be read, which `examine` says."""
    if not path.is_file():  # to open a pipe is to wait for a writer
        return b""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _pillow_knows(path: Path) -> bool:
    try:
        with Image.open(path, formats=["AVIF"]):
            return True
    except (OSError, SyntaxError, KeyError):
        return False


def _refuse_composed(path: Path, file: io.BufferedReader) -> None:
    """MediaError for a HEIF picture of which neither FFmpeg nor Pillow shows what is meant: of tiles, or cropped."""
    file.seek(0)
    index = file.read(2**20).partition(b"mdat")[0]
    if b"moov" in index:  # a sequence, which is a video
        return
    if COMPOSED.search(index) and not is_picture(path):
        raise MediaError("unsupported", "a HEIF picture made of tiles or layers; convert it to JPEG or PNG")
    for property, what in ((b"clap", "with a crop"), (b"imir", "that is mirrored")):
        if property in index and not (property == b"imir" and is_picture(path)):
            raise MediaError("unsupported", f"a HEIF picture {what}; convert it to JPEG or PNG")


def declared_samples(path: Path) -> int | None:
    """The samples that an MP3 file says to have, None where it does not; FFmpeg guesses where bytes lie behind them.

    A header named Xing or Info, or VBRI, lies in the first frame, at a place that depends on the channels.
    """
    with path.open("rb") as file:
        head = file.read(10)
        while head[:3] == b"ID3" and len(head) == 10:
            size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            file.seek(size + 10 * bool(head[5] & 16), 1)
            head = file.read(10)
        frame = (head + file.read(4096)).lstrip(b"\0")
    if len(frame) < 64 or frame[0] != 0xFF:
        return None
    samples = 1152 if frame[1] & 8 else 576
    for place in (13, 15, 21, 23, 36, 38):
        if frame[place : place + 4] in (b"Xing", b"Info") and frame[place + 7] & 1:
            return samples * int.from_bytes(frame[place + 8 : place + 12], "big")
        if frame[place : place + 4] == b"VBRI":
            return samples * int.from_bytes(frame[place + 14 : place + 18], "big")
    return None


@contextmanager
def _listening() -> Iterator[Log]:
    """Each error that FFmpeg logs in this thread, where none was asked for before."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_skip_repeated(skip)
        av.logging.set_level(level)


def _without_name(path: Path) -> Any:  # noqa: ANN401 - a file that FFmpeg reads through Python
    """A file whose name FFmpeg does not see, as it would take a name with % for the pattern of many files' names."""
    raw = io.FileIO(path)
    raw.name = ""
    return io.BufferedReader(raw)


def _examine(path: Path) -> str | None:
    entry = path.stat()
    if not stat.S_ISREG(entry.st_mode):
        folder = stat.S_ISDIR(entry.st_mode)
        raise MediaError("unreadable", "a folder" if folder else "a pipe or a device, which is no file")
    size = entry.st_size
    if size == 0:
        raise MediaError("empty file")
    with path.open("rb") as file:
        head = file.read(512)
        if head.startswith(b"version https://git-lfs"):
            raise MediaError("git-LFS pointer", "not the media themselves; run `git lfs pull`")
        if head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower().startswith(PAGES):
            raise MediaError("web page", "an HTML or XML page saved as media; download the file again")
        if head[:4] in (b"RIFF", b"RF64"):
            return _cut_riff(file, size)
        if head.startswith(b"OggS"):
            return _cut_ogg(file, size)
        if head.startswith(b"GIF8"):
            return _cut_gif(file)
        if HEIF.match(head[:64]):
            _refuse_composed(path, file)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _cut_boxes(file, size)
        if (place := head.find(ASF_FILE)) >= 0:
            declared = int.from_bytes(head[place + 40 : place + 48], "little")
            if declared > size:
                return f"the ASF header declares {declared:,} bytes, the file has {size:,}"
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
    if size_unknown(declared) or position + 8 + declared <= size:
        return None
    return f"the {what} header declares {declared:,} bytes, the file has {size - position - 8:,} of them"


def size_unknown(declared: int) -> bool:
    """Whether a size of a WAV file stands for none: a writer that cannot go back, as into a pipe, leaves nothing, all
    ones or the largest size that it knows."""
    return declared == 0 or any(0 < limit - declared <= UNKNOWN_WITHIN for limit in (2**31 + 1, 2**32))


def _cut_ogg(file: io.BufferedReader, size: int) -> str | None:
    """Whether the last page of an Ogg file (RFC 3533), of 64 KiB at most, goes beyond the file."""
    file.seek(max(0, size - 2**16 - 2**9))
    tail = file.read()
    place = tail.rfind(b"OggS\0")
    page = tail[place:]
    segments = page[27 : 27 + page[26]] if place >= 0 and len(page) > 26 else b""
    missing = 27 + page[26] + sum(segments) - len(page) if segments else 0
    return f"the last Ogg page goes {missing:,} bytes beyond the file" if missing > 0 else None


def _cut_gif(file: io.BufferedReader) -> str | None:
    """Walk the blocks of a GIF file (GIF89a, sections 17 to 27), which end with a trailer."""

    def skip_table(flags: int) -> None:
        if flags & 128:
            file.seek(3 << (flags & 7) + 1, 1)

    def skip_parts() -> None:
        while length := file.read(1):
            if length == b"\0":
                return
            file.seek(length[0], 1)

    file.seek(10)
    skip_table(file.read(3).ljust(1, b"\0")[0])
    while kind := file.read(1):
        if kind == b";":
            return None
        if kind == b",":
            skip_table(file.read(9).ljust(9, b"\0")[8])
        elif kind != b"!":
            raise MediaError("damaged", "something that is no part of a GIF file lies within it")
        file.seek(1, 1)
        skip_parts()
    return "the GIF file has no end"


def _cut_boxes(file: io.BufferedReader, size: int) -> str | None:
    """Walk the top-level boxes of an MP4 or MOV file (ISO 14496-12), which tile the file when it is whole. What
    follows them without the name of a box is no part of it."""
    position, names = 0, set()
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if name not in BOXES and names & {b"moov", b"meta"}:
            break
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
