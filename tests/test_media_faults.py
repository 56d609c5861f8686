"""Kinds of faulty and of odd media: nothing wrong is stored in silence, nothing good is refused."""

import csv
import math
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_media import fuzz
from media_files import (
    COLOURS,
    colour_pictures,
    colours_of,
    encode_sound,
    encode_video,
    sine,
    write_csv,
    write_wav,
)
from PIL import Image, ImageOps

from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.data.reading import media, stream
from balancemm_cli.data.reading.files import size_unknown
from balancemm_cli.data.reading.media import MediaError, read_audio, read_frames, read_picture

QUARTERS = np.repeat(np.repeat(np.array(COLOURS[:4], np.uint8).reshape(2, 2, 3), 32, 0), 48, 1)


def refused(path: Path, use: str = "visual", **part) -> str:
    """Why a file is refused; fails where it is not."""
    with pytest.raises(MediaError) as caught:
        read_audio(path, 16000, **part) if use == "audio" else read_frames(path, 48, 64, **part)
    return str(caught.value)


def pitch(samples: np.ndarray, rate: int = 16000) -> float:
    """The loudest frequency in Hz."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def overwritten(path: Path, place: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)
    return path


# ---- what is damaged ------------------------------------------------------------------------------------------------


@pytest.fixture
def photo():
    """A picture of many frequencies, without flat parts."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((320, 240), 3)
    return Image.fromarray(
        (np.asarray(coarse) + generator.normal(0, 5, (240, 320, 3))).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("form", [{}, {"progressive": True}, {"quality": 95}, {"optimize": True}])
def test_jpegs_with_missing_or_overwritten_data_are_refused(tmp_path, photo, form):
    path = tmp_path / "a.jpg"
    photo.save(path, **form)
    assert np.abs(read_picture(path, 240, 320) - np.asarray(photo).astype(int)).mean() < 12
    whole = path.read_bytes()
    scan = whole.index(b"\xff\xda") + 20
    path.write_bytes(whole[: (scan + len(whole)) // 2] + b"\xff\xd9")
    assert refused(path).startswith("damaged")
    path.write_bytes(whole)
    assert refused(overwritten(path, (scan + len(whole)) // 2, bytes(2000))).startswith("damaged")
    path.write_bytes(whole[:-2])
    assert refused(path) == "truncated: the JPEG file has no end"
    path.write_bytes(whole + b"camera data \xff\xd8\xff\xda and more" * 9)
    assert len(read_frames(path, 24, 32)) == 1


def test_a_png_whose_sums_do_not_fit_is_refused(tmp_path, photo):
    path = tmp_path / "a.png"
    photo.save(path, compress_level=0)  # so that any bytes are pixels
    assert refused(overwritten(path, 5000, bytes(30))).startswith("damaged")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.webm", "libvpx"), ("b.webm", "libvpx-vp9"), ("a.avi", "mpeg4"),
        ("b.avi", "mjpeg"), ("c.avi", "msmpeg4"), ("a.flv", "flv"), ("a.ts", "mpeg2video"), ("b.mkv", "ffv1"),
    ],
)  # fmt: skip
def test_videos_overwritten_with_zeros_are_refused(tmp_path, photo, name, codec):
    """Whether the decoder fails, conceals and marks it, only logs it, or takes zeros for a picture."""
    pictures = [np.roll(np.asarray(photo), 4 * number, 1) for number in range(25)]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode_video(tmp_path / name, codec, pictures, pix_fmt=pix_fmt)
    assert len(read_frames(path, 24, 32, fps=5.0)) == 5
    assert refused(overwritten(path, path.stat().st_size // 2, bytes(2000)), fps=5.0).startswith("damaged")


def test_a_video_whose_pictures_are_noise_is_refused(tmp_path):
    """As where it is encrypted: headers of packets are whole, what is in them is not."""
    path = encode_video(tmp_path / "a.mp4", "libx264", colour_pictures(2))
    data, generator = bytearray(path.read_bytes()), np.random.default_rng(0)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in places:
        data[place + 12 : place + size] = generator.bytes(size - 12)
    path.write_bytes(data)
    assert refused(path).startswith("damaged")


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
@pytest.mark.parametrize(
    ("value", "reason"), [(math.nan, "not finite"), (-math.inf, "not finite"), (1e6, "out of range")]
)
def test_floats_that_are_no_sound_are_refused(tmp_path, codec, value, reason):
    samples = sine(1.0)
    path = encode_sound(tmp_path / "a.wav", codec, samples[None])
    assert np.abs(read_audio(path, 44100) / 2**15 - samples).max() < 1e-3
    samples[30_000] = value
    assert reason in refused(encode_sound(tmp_path / "b.wav", codec, samples[None]), "audio")


def test_floats_of_another_scale_are_refused_and_overshoot_is_not(tmp_path):
    for level, reason in (
        (32767, "out of range"),
        (3, "out of range"),
        (1.5, "much of it exceeds full scale"),
    ):
        path = encode_sound(tmp_path / "a.wav", "pcm_f32le", sine(1.0, level=level)[None])
        assert reason in refused(path, "audio")
    read_audio(encode_sound(tmp_path / "b.wav", "pcm_f32le", sine(1.0, level=1.1)[None]), 16000)


@pytest.mark.parametrize(("name", "codec"), [("a.mka", "pcm_s16le"), ("a.webm", "libopus")])
def test_sound_of_matroska_with_a_hole_is_refused(tmp_path, name, codec):
    """FFmpeg goes on behind it, so that all later sound would come early, and says so in its log alone."""
    path = encode_sound(tmp_path / name, codec, sine(7.0, 48000)[None], 48000)
    assert len(read_audio(path, 16000)) > 6.9 * 16000
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 3000 :])
    assert refused(path, "audio").startswith("damaged: bytes are missing")


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_a_video_of_matroska_with_a_hole_is_refused(tmp_path, photo, codec):
    pictures = [np.roll(np.asarray(photo), 4 * number, 1) for number in range(75)]
    path = encode_video(tmp_path / "a.webm", codec, pictures)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 3000 :])
    assert refused(path, fps=5.0).startswith(("damaged", "truncated"))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.w64", "pcm_s16le"),
        ("a.caf", "pcm_s16be"),
        ("a.caf", "pcm_f32le"),
        ("a.ogg", "flac"),
        ("a.opus", "libopus"),
    ],
)
def test_sound_cut_within_a_packet_is_refused(tmp_path, name, codec):
    """Where FFmpeg takes the end of the file for that of the sound."""
    path = encode_sound(tmp_path / name, codec, sine(3.0, 48000)[None], 48000)
    assert abs(len(read_audio(path, 16000)) / 16000 - 3) < 0.03
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 55 // 100])
    assert refused(path, "audio").startswith("truncated")


def test_zeros_in_tta_are_refused_and_a_tag_behind_flac_costs_nothing(tmp_path):
    path = encode_sound(tmp_path / "a.tta", "tta", sine(2.0)[None])
    assert refused(overwritten(path, path.stat().st_size // 2, bytes(2048)), "audio").startswith("damaged")
    path = encode_sound(tmp_path / "a.flac", "flac", sine(2.0)[None])
    whole = read_audio(path, 16000)
    path.write_bytes(path.read_bytes() + b"TAG".ljust(128, b" "))
    assert np.array_equal(read_audio(path, 16000), whole)


def test_a_gif_that_is_cut_or_overwritten_is_refused(tmp_path, photo):
    path, pictures = tmp_path / "a.gif", [photo.rotate(20 * number) for number in range(9)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    assert len(read_frames(path, 24, 32, fps=None)) == 9
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path).startswith("truncated")
    path.write_bytes(whole)
    assert refused(overwritten(path, len(whole) // 2, bytes(500))).startswith("damaged")


@pytest.mark.parametrize(("form", "options"), [("WEBP", {}), ("TIFF", {"compression": "tiff_adobe_deflate"})])
def test_zeros_in_other_pictures_are_refused(tmp_path, photo, form, options):
    path = tmp_path / "a"
    photo.save(path, form, **options)
    assert len(read_frames(path, 24, 32)) == 1
    assert refused(overwritten(path, path.stat().st_size // 2, bytes(100))).startswith("damaged")


def test_what_is_no_file_is_named(tmp_path):
    """A pipe would be waited for without end, and a link to itself ended the whole preparation."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    write_wav(tmp_path / "a.wav", (10_000 * sine(1.0)).astype(np.int16))
    table = write_csv(
        tmp_path / "mine.csv", "id,label,split,sound:audio", "1,a,train,pipe.mp4", "2,a,train,loop.mp4",
        "3,a,train,a.wav", "4,b,train,/dev/zero", "5,b,train,a.wav",
    )  # fmt: skip
    prepared = prepare_dataset("manifest", table, out=tmp_path / "set", workers=1)
    assert prepared.counts == {"train": 2}
    with (prepared.folder / "rejected.csv").open() as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert "a pipe or a device" in reasons["1"] and "a pipe or a device" in reasons["4"]
    assert reasons["2"].startswith("unreadable: Too many levels of symbolic links")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jpg", b"Not found", "unreadable: not a picture"),
        ("a.mp4", b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        ("a.wav", b"<Error><Code>AccessDenied</Code></Error>", "web page"),
        ("a.mp4", "\ufeff<!-- none --><html>".encode("utf-16"), "web page"),
    ],
)
def test_what_a_server_said_is_no_media(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith(kind)


# ---- what is turned, and other forms of pictures --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / "a"
    Image.fromarray(QUARTERS).save(path, form, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB").resize((64, 48))).astype(int)
    assert np.abs(read_picture(path, 48, 64) - expected).mean() < 8


@pytest.mark.parametrize(
    "turn", [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0),
             (0, -1, 1, 0)],
)  # fmt: skip
def test_each_display_matrix(tmp_path, turn):
    """x' = a x + c y, y' = b x + d y, by which each corner of the picture goes to another one."""
    path = encode_video(tmp_path / "a.mp4", "libx264", [QUARTERS] * 5, fps=5)
    a, b, c, d = turn
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    overwritten(path, path.read_bytes().index(b"tkhd") + 44, matrix)
    expected = {(a * x + c * y, b * x + d * y): (x > 0) + 2 * (y > 0) for x in (-1, 1) for y in (-1, 1)}
    found = read_frames(path, 60, 60)[0]
    corners = {
        (-1, -1): found[:20, :20],
        (1, -1): found[:20, 40:],
        (-1, 1): found[40:, :20],
        (1, 1): found[40:, 40:],
    }
    assert {place: colours_of([corner])[0] for place, corner in corners.items()} == expected


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("TIFF", {"compression": "jpeg", "quality": 95}), ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}), ("TIFF", {"compression": "tiff_deflate"}), ("JPEG", {"quality": 95}),
        ("JPEG2000", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True}),
    ],
)  # fmt: skip
def test_pictures_are_those_that_were_written(tmp_path, photo, form, options):
    photo.save(tmp_path / "a", form, **options)
    assert np.abs(read_picture(tmp_path / "a", 240, 320) - np.asarray(photo).astype(int)).mean() < 6


def test_more_modes_of_pictures(tmp_path):
    grey = np.linspace(0, 255, 64 * 48).reshape(48, 64)
    Image.fromarray((grey * 257).astype(np.uint16)).save(tmp_path / "16.png")
    assert np.abs(read_picture(tmp_path / "16.png", 48, 64)[..., 0] - grey).max() <= 1
    Image.new("CMYK", (64, 48), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(read_picture(tmp_path / "cmyk.jpg", 48, 64).mean((0, 1)) - [255, 0, 0]).max() < 8
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    assert refused(tmp_path / "float.tif").startswith("unsupported: pixels of signed, floating")


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_an_animated_picture_is_a_video(tmp_path, form):
    pictures = [Image.new("RGB", (64, 48), colour) for colour in COLOURS[:3]]
    path = tmp_path / "a"
    pictures[0].save(path, form, save_all=True, append_images=pictures[1:], duration=1000)
    assert colours_of(read_frames(path, 48, 64)) == [0, 1, 2]
    assert colours_of(read_frames(path, 48, 64, start=1.2, end=2.5)) == [1, 2]
    assert refused(path, start=7.0) == "outside: the animation ends before 7.00 s"


@pytest.mark.parametrize(
    ("item", "property", "reason"),
    [
        (b"grid", b"ispe", "tiles or layers"),
        (b"iovl", b"ispe", "tiles or layers"),
        (b"hvc1", b"clap", "a crop"),
    ],
)
def test_heif_pictures_that_no_reader_shows_as_meant(tmp_path, item, property, reason):
    def box(name: bytes, *content: bytes) -> bytes:
        return struct.pack(">I", 8 + sum(map(len, content))) + name + b"".join(content)

    entry = box(b"infe", b"\2\0\0\0", b"\0\1\0\0", item, b"\0")
    meta = box(
        b"meta", bytes(4), box(b"iinf", bytes(6), entry), box(b"iprp", box(b"ipco", box(property, bytes(32))))
    )
    (tmp_path / "a.heic").write_bytes(
        box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + box(b"mdat", bytes(64))
    )
    assert refused(tmp_path / "a.heic").startswith("unsupported: a HEIF picture") and reason in refused(
        tmp_path / "a.heic"
    )


def test_sizes_at_the_limits(tmp_path):
    for name, size in (("wide.png", (20000, 3)), ("high.jpg", (2, 30000)), ("one.png", (1, 1))):
        Image.new("RGB", size, COLOURS[0]).save(tmp_path / name)
        assert colours_of(read_frames(tmp_path / name, 48, 64)) == [0]
    path = encode_video(
        tmp_path / "wide.mkv", "ffv1", [np.full((2, 9000, 3), COLOURS[1], np.uint8)] * 5, fps=5
    )
    assert colours_of(read_frames(path, 48, 64)) == [1]
    Image.new("1", (20000, 10000)).save(tmp_path / "huge.png")
    assert refused(tmp_path / "huge.png").startswith("unsupported: the picture has more than")


@pytest.mark.parametrize("name", ["a%d", "a%02d", "100%"])
@pytest.mark.parametrize("form", ["png", "jpg", "gif", "tif"])
def test_a_name_with_a_percent_sign_is_a_name(tmp_path, name, form):
    for number in (1, 2):
        Image.new("RGB", (64, 48), COLOURS[1]).save(tmp_path / f"a{number}.{form}")
        Image.new("RGB", (64, 48), COLOURS[1]).save(tmp_path / f"a0{number}.{form}")
    Image.new("RGB", (64, 48), COLOURS[0]).save(tmp_path / f"{name}.{form}")
    assert colours_of(read_frames(tmp_path / f"{name}.{form}", 48, 64)) == [0]


# ---- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=60:bframes=0"}),
        ("a.mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=60:bframes=0"}),
        ("a.ts", "libx264", {"x264-params": "open-gop=1:keyint=40:min-keyint=40:scenecut=0:bframes=3"}),
        ("b.mp4", "libx264", {"x264-params": "open-gop=1:keyint=40:min-keyint=40:scenecut=0:bframes=3"}),
        ("b.ts", "libx265", {"x265-params": "open-gop=1:keyint=40:min-keyint=40:bframes=3:log-level=none"}),
        ("c.mp4", "libx265", {"x265-params": "open-gop=1:keyint=40:min-keyint=40:bframes=3:log-level=none"}),
        ("a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_a_part_has_the_frames_of_decoding_from_the_start(tmp_path, monkeypatch, photo, name, codec, options):
    wide = np.tile(np.asarray(photo), (1, 2, 1))
    pictures = [np.ascontiguousarray(wide[:96, number : number + 160]) for number in range(15 * 12)]
    path = encode_video(tmp_path / name, codec, pictures, fps=15, options=options)
    parts = [read_frames(path, 48, 80, start=start, end=start + 2) for start in (6.0, 7.3, 9.95)]
    whole = read_frames(path, 48, 80, fps=0.4)
    monkeypatch.setattr(stream, "SEEK_FROM", math.inf)
    monkeypatch.setattr(media, "_read_sparsely", lambda *arguments: [])
    for start, part in zip((6.0, 7.3, 9.95), parts, strict=True):
        np.testing.assert_array_equal(part, read_frames(path, 48, 80, start=start, end=start + 2))
    np.testing.assert_array_equal(whole, read_frames(path, 48, 80, fps=0.4))


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mpegts", "libx264"), ("mpegts", "mpeg2video"), ("vob", "mpeg2video"), ("mpeg", "mpeg1video")],
)
@pytest.mark.parametrize("offset", [0, 7200])
def test_joined_recordings_lose_nothing(tmp_path, form, codec, offset):
    """The clock of the second begins anew, or hours later."""
    one = encode_video(tmp_path / "1", codec, colour_pictures(3), form=form)
    shift = {"output_ts_offset": str(offset)} if offset else {}
    two = encode_video(tmp_path / "2", codec, colour_pictures(3, first=3), form=form, container=shift)
    both = joined(tmp_path / "both", one, two)
    assert colours_of(read_frames(both, 48, 64)) == [0, 1, 2, 3, 4, 5]
    assert colours_of(read_frames(both, 48, 64, start=2.5, end=5.0)) == [2, 3, 4]


def test_joined_sound_loses_nothing(tmp_path):
    one = encode_sound(tmp_path / "1.ts", "aac", sine(2.0)[None])
    two = encode_sound(tmp_path / "2.ts", "aac", sine(2.0, frequency=900)[None])
    samples = read_audio(joined(tmp_path / "both.ts", one, two), 16000)
    assert abs(len(samples) / 16000 - 4) < 0.15
    assert abs(pitch(samples[4000:28000]) - 440) < 5 and abs(pitch(samples[36000:60000]) - 900) < 5


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.flv", "flv"), ("a.mp4", "libx264")]
)
def test_a_clock_that_does_not_begin_at_zero(tmp_path, name, codec):
    path = encode_video(tmp_path / name, codec, colour_pictures(3), container={"output_ts_offset": "4"})
    assert colours_of(read_frames(path, 48, 64)) == [0, 1, 2]
    assert colours_of(read_frames(path, 48, 64, start=1.5, end=2.9)) == [1, 2]
    sound = encode_sound(tmp_path / "a.mka", "flac", sine(3.0)[None], container={"output_ts_offset": "4"})
    assert len(read_audio(sound, 16000)) == 48000


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.flv", "flv"), ("a.mp4", "libx264")])
def test_a_time_stamp_that_jumps_is_no_long_frame(tmp_path, name, codec):
    times = [number + (7200 * 25 if number >= 50 else 0) for number in range(100)]
    path = encode_video(tmp_path / name, codec, colour_pictures(4), times=times)
    assert refused(path).startswith("damaged: its time stamps jump by 7,200 s after 2.00 s")


def test_the_last_frame_stays_in_a_gap(tmp_path):
    times = [number + (100 if number >= 25 else 0) for number in range(50)]
    path = encode_video(tmp_path / "a.mkv", "libx264", colour_pictures(2), times=times)
    assert colours_of(read_frames(path, 48, 64)) == [0, 0, 0, 0, 0, 1]
    assert colours_of(read_frames(path, 48, 64, start=1.5, end=3.5)) == [0, 0]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_reordered_frames_of_avi_come_in_order(tmp_path, codec):
    path = encode_video(tmp_path / "a.avi", codec, colour_pictures(4, fps=5), fps=5, options={"bf": "3"})
    frames = read_frames(path, 48, 64, fps=5.0)
    assert colours_of(frames) == [second for second in range(4) for _ in range(5)]
    assert colours_of(read_frames(path, 48, 64)) == [0, 1, 2, 3]


# ---- what is good ---------------------------------------------------------------------------------------------------

BEHIND = {
    "noise": np.random.default_rng(0).bytes(600),
    "text": b"written behind the end\n" * 20,
    "a line end": b"\n",
    "zeros": bytes(5000),
    "ID3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "APE": b"APETAGEX" + struct.pack("<4I8x", 2000, 32, 0, 1 << 31),
}


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.flv", "flv"), ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
    ],
)  # fmt: skip
def test_bytes_behind_a_video(tmp_path, name, codec, what):
    path = encode_video(tmp_path / name, codec, colour_pictures(3))
    path.write_bytes(path.read_bytes() + BEHIND[what])
    assert colours_of(read_frames(path, 48, 64)) == [0, 1, 2]


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.aac", "aac"), ("a.flac", "flac"), ("a.ogg", "flac"),
        ("a.wav", "pcm_s16le"), ("a.ac3", "ac3"), ("a.mka", "flac"),
    ],
)  # fmt: skip
def test_bytes_behind_a_sound(tmp_path, name, codec, what):
    path = encode_sound(tmp_path / name, codec, sine(3.0)[None])
    path.write_bytes(path.read_bytes() + BEHIND[what])
    samples = read_audio(path, 16000)
    assert abs(len(samples) / 16000 - 3) < 0.1 and abs(pitch(samples) - 440) < 5


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "GIF"])
def test_bytes_behind_a_picture(tmp_path, form):
    for what, content in BEHIND.items():
        Image.new("RGB", (64, 48), COLOURS[2]).save(tmp_path / what, form)
        (tmp_path / what).write_bytes((tmp_path / what).read_bytes() + content)
        assert colours_of(read_frames(tmp_path / what, 48, 64)) == [2]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.wav", "a.mp3", "a.flac", "a.aiff"])
def test_a_cut_file_stays_refused(tmp_path, name):
    codecs = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac", "aiff": "pcm_s16be"}
    codec = codecs.get(name[2:])
    path = tmp_path / name
    if codec:
        encode_sound(path, codec, np.stack([sine(3.0)] * 2))
    else:
        encode_video(path, "flv" if name == "a.flv" else "mpeg4", colour_pictures(3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert refused(path, "audio" if codec else "visual").startswith("truncated")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0x7FFFFFD8])
def test_a_wav_written_into_a_pipe_does_not_know_its_size(tmp_path, size):
    path = write_wav(tmp_path / "a.wav", (sine(1.0, 16000) * 2**15).astype(np.int16))
    overwritten(path, path.read_bytes().index(b"data") + 4, struct.pack("<I", size))
    assert len(read_audio(path, 16000)) == 16000
    assert not size_unknown(2**31 + 2**20)


def test_a_word_of_a_tag_is_no_header_that_counts_frames(tmp_path):
    path = encode_sound(tmp_path / "a.mp3", "libmp3lame", sine(3.0)[None], container={"write_xing": "0"})
    title = b"TIT2" + struct.pack(">IH", 30, 0) + b"\0Info of a song, or Xing     "[:29].ljust(30)
    tag = b"ID3\3\0\0" + bytes([0, 0, 0, len(title)]) + title
    data = path.read_bytes()
    path.write_bytes(tag + data[data.index(b"\xff\xfb") :])
    assert abs(len(read_audio(path, 16000)) / 16000 - 3) < 0.15


def test_an_empty_last_page_of_ogg(tmp_path):
    """The mark of the end on a page of its own, as some writers leave it."""
    path = encode_sound(tmp_path / "a.opus", "libopus", sine(3.0, 48000)[None], rate=48000)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"OggS")
    page = bytearray(data[last : last + 27])
    data[last + 5] &= ~4  # no end there
    page[5], page[26] = 4, 0
    page[18:22] = struct.pack("<I", struct.unpack("<I", page[18:22])[0] + 1)
    for place, part in ((last, data[last:]), (None, page)):
        part[22:26] = bytes(4)
        part[22:26] = struct.pack("<I", ogg_sum(part))
        if place is not None:
            data[last:] = part
    path.write_bytes(data + page)
    assert abs(len(read_audio(path, 16000)) / 16000 - 3) < 0.05


def ogg_sum(page: bytes) -> int:
    """The CRC of an Ogg page (RFC 3533)."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_channels_that_cancel_each_other_are_no_silence(tmp_path, name):
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}[name[2:]]
    tone = sine(2.0)
    samples = read_audio(encode_sound(tmp_path / name, codec, np.stack([tone, -tone])), 44100) / 2**15
    assert abs(np.sqrt(np.mean(samples**2)) - 0.3 / math.sqrt(2)) < 0.02
    assert abs(pitch(samples, 44100) - 440) < 2
    mix = read_audio(encode_sound(tmp_path / name, codec, np.stack([tone, 0 * tone])), 44100) / 2**15
    assert abs(np.sqrt(np.mean(mix**2)) - 0.15 / math.sqrt(2)) < 0.02  # a mix stays a mix


def test_a_sound_that_changes_its_rate_is_read_on(tmp_path):
    one = encode_sound(tmp_path / "1.ogg", "flac", sine(1.0)[None])
    two = encode_sound(tmp_path / "2.ogg", "flac", sine(1.0, 22050)[None], rate=22050)
    samples = read_audio(joined(tmp_path / "both.ogg", one, two), 16000, whole=False)
    assert abs(len(samples) / 16000 - 2) < 0.05 and abs(pitch(samples) - 440) < 5


def test_channels_that_cannot_be_mixed_are_named(tmp_path):
    samples = (np.stack([sine(0.5, 16000)] * 9, 1) * 2**15).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 9, 16000,
                       16000 * 18, 18, 16, b"data", len(samples))  # fmt: skip
    (tmp_path / "9.wav").write_bytes(head + samples)
    assert refused(tmp_path / "9.wav", "audio").startswith("unsupported: 9 channels")


# ---- what a file can cost -------------------------------------------------------------------------------------------


def test_a_file_can_only_cost_its_row(tmp_path):
    Image.new("RGB", (20000, 3), COLOURS[0]).save(tmp_path / "wide.png")
    Image.new("RGB", (64, 48), COLOURS[0]).save(tmp_path / "good.png")
    encode_video(tmp_path / "jump.mp4", "libx264", colour_pictures(1), times=[*range(24), 10**6])
    rows = [f"{name},a,train,{name}" for name in ("wide.png", "good.png", "jump.mp4")]
    table = write_csv(tmp_path / "m.csv", "id,label,split,visual", *rows)
    prepared = prepare_dataset("manifest", table, out=tmp_path / "set", workers=1)
    assert prepared.counts == {"train": 2}
    assert 'jump.mp4,"damaged: its time stamps jump' in (tmp_path / "set" / "rejected.csv").read_text()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited on Linux alone")
def test_damaged_files_end_in_a_frame_or_a_reason(tmp_path):
    """A few of the 2,000 of fuzz_media.py."""
    outcomes, faults, _, _ = fuzz(150, 0, tmp_path)
    assert faults == [] and sum(outcomes.values()) == 150
    assert sum(number for (_, _, outcome), number in outcomes.items() if outcome == "rejected") > 75
