"""balancemm_cli.data.reading.media against headers, hand-made files and Pillow."""

import io
import os
import shutil
import struct
import tracemalloc
import wave
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import MEDIA, needs_media, tone, write_video, write_wav
from PIL import Image

from balancemm_cli.data.reading import media, stream
from balancemm_cli.data.reading.media import (
    MediaError,
    at_rate,
    encode_jpeg,
    read_audio,
    read_frames,
    read_pairs,
    read_picture,
)
from balancemm_cli.data.reading.stream import needed_packets

READ = {"audio": lambda path: read_audio(path, 16000), "visual": lambda path: read_frames(path, 24, 32)}


def kind_of(path: Path, modality: str) -> str:
    """The kind of the MediaError, or "" where the file is read."""
    try:
        READ[modality](path)
    except MediaError as error:
        assert str(error).startswith(error.kind)
        return error.kind
    return ""


DEFECTS = [
    ("broken/bbb_truncated_5pct.webm", "visual", "truncated"),
    ("broken/bbb_truncated_5pct.webm", "audio", "truncated"),
    ("broken/bitflips_h264_aac.mp4", "visual", "damaged"),
    ("broken/bitflips_h264_aac.mp4", "audio", "damaged"),
    ("broken/decord_corrupted.mp4", "visual", "damaged"),
    ("broken/decord_corrupted.mp4", "audio", "no audio stream"),
    ("broken/html_error_page.mp4", "visual", "web page"),
    ("broken/lfs_pointer.flv", "visual", "git-LFS pointer"),
    ("broken/lfs_pointer.wav", "audio", "git-LFS pointer"),
    ("broken/nasa_truncated_70pct.mp4", "visual", "truncated"),
    ("broken/silent_zeros_16k.wav", "audio", "silent"),
    ("broken/truncated_half.avi", "visual", "truncated"),
    ("broken/truncated_half.avi", "audio", "truncated"),
    ("broken/truncated_half.flv", "visual", "truncated"),
    ("broken/truncated_half.flv", "audio", "truncated"),
    ("broken/truncated_half.wav", "audio", "truncated"),
    ("broken/truncated_moov_missing.mp4", "visual", "truncated"),
    ("broken/zero_bytes.mp4", "visual", "empty file"),
    ("broken/zero_bytes.wav", "audio", "empty file"),
    ("broken/zero_samples.wav", "audio", "no audio samples"),
    ("derived/bbb_10s_audio_only.mp4", "visual", "no video stream"),
    ("derived/bbb_10s_h264_noaudio.mp4", "audio", "no audio stream"),
    ("video/cockatoo.mp4", "audio", "silent"),
    ("video/no_duration.webm", "audio", "silent"),
    ("nowhere.mp4", "visual", "missing"),
]
FINE = [
    ("broken/decord_unordered.mov", "visual"),
    ("broken/video_with_failing_audio.mp4", "visual"),
    ("broken/video_with_failing_audio.mp4", "audio"),
    *(
        (f"audio/{name}", "audio")
        for name in ("audio-mono-8-bit-44100Hz.wav", "chinese.flac", "crunching.mp3")
    ),
    *(
        (f"video/{name}", "visual")
        for name in ("av1_video.mkv", "fire2.mp4", "h265_video.mp4", "no_duration.webm")
    ),
    *(
        (f"derived/{name}", "visual")
        for name in ("1001_IEO_NEU_XX.flv", "bbb_2frames.mp4", "v_YoYo_g01_c01_like.avi")
    ),
]


@needs_media
@pytest.mark.parametrize(("name", "modality", "kind"), DEFECTS)
def test_each_defect_is_named(name, modality, kind):
    assert kind_of(MEDIA / name, modality) == kind


@needs_media
@pytest.mark.parametrize(("name", "modality"), FINE)
def test_healthy_files_are_read(name, modality):
    assert kind_of(MEDIA / name, modality) == ""


def test_files_that_are_no_media(tmp_path):
    texts = {
        "notes.txt": "just text\n" * 50,
        "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n",
        "concat.mp4": "ffconcat version 1.0\nfile notes.txt\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert kind_of(tmp_path / name, "visual") == "unreadable"
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    assert kind_of(tmp_path / "noise.mp4", "visual") == "unreadable"
    (tmp_path / "folder.mp4").mkdir()
    assert kind_of(tmp_path / "folder.mp4", "visual") == "unreadable"


def test_cut_pictures_are_rejected(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    for name, kind in (("a.jpg", "truncated"), ("a.png", "truncated"), ("a.webp", "truncated")):
        noise.save(tmp_path / name)
        assert kind_of(tmp_path / name, "visual") == ""
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert kind_of(tmp_path / name, "visual") == kind


def test_waived_checks(tmp_path):
    silent = write_wav(tmp_path / "silent.wav", np.zeros(16000, np.int16))
    assert kind_of(silent, "audio") == "silent"
    assert len(read_audio(silent, 16000, loud=False)) == 16000
    dithered = write_wav(tmp_path / "dither.wav", np.resize(np.array([0, 1, -1], np.int16), 16000))
    assert kind_of(dithered, "audio") == "silent"
    faint = write_wav(tmp_path / "faint.wav", np.resize(np.array([0, 2, -2], np.int16), 16000))
    assert kind_of(faint, "audio") == ""
    cut = write_wav(tmp_path / "cut.wav", tone(1.0))
    cut.write_bytes(cut.read_bytes()[:16044])
    assert kind_of(cut, "audio") == "truncated"
    assert 7000 < len(read_audio(cut, 16000, whole=False)) <= 8000


def test_a_wav_of_unknown_length_is_read(tmp_path):
    """A writer that cannot go back leaves all ones in the header."""
    path = write_wav(tmp_path / "a.wav", tone(0.5))
    data = bytearray(path.read_bytes())
    position = data.index(b"data")
    data[position + 4 : position + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, 16000)) == 8000


def test_audio_of_the_same_rate_is_exact(tmp_path):
    samples = tone(1.3)
    path = write_wav(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(read_audio(path, 16000), samples)
    np.testing.assert_array_equal(read_audio(path, 16000, 0.25, 0.75), samples[4000:12000])


@needs_media
def test_audio_matches_the_wave_module():
    path = MEDIA / "derived" / "1001_IEO_NEU_XX.wav"
    with wave.open(str(path)) as file:
        expected = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    np.testing.assert_array_equal(read_audio(path, file.getframerate()), expected)


def test_resampling_keeps_length_and_frequency(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(2.0, rate=44100, frequency=1000), rate=44100)
    samples = read_audio(path, 16000)
    assert abs(len(samples) - 32000) <= 32
    assert np.abs(np.fft.rfft(samples[:32000])).argmax() == 2000  # bins of half a hertz


def test_stereo_is_mixed(tmp_path):
    left = tone(0.5)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.stack([left, np.zeros_like(left)], 1).tobytes())
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000), left / 2, atol=1)


def levels(frames):
    return [int(frame.mean().round()) for frame in frames]


def test_frames_are_picked_by_time(tmp_path):
    shades = list(range(0, 250, 10))  # 25 frames at 5 a second: 5 s
    path = write_video(tmp_path / "a.mkv", shades)
    assert levels(read_frames(path, 16, 24)) == shades[::5]
    assert levels(read_frames(path, 16, 24, fps=2.0, start=1.0, end=3.0)) == [50, 70, 100, 120]
    assert levels(read_frames(path, 16, 24, fps=None)) == shades
    assert levels(read_frames(path, 16, 24, fps=10.0, start=0.0, end=0.5)) == [0, 0, 10, 10, 20]
    assert levels(read_frames(path, 16, 24, start=4.9)) == [240]


def test_pairs_are_a_frame_and_the_next_one(tmp_path):
    path = write_video(tmp_path / "a.mkv", list(range(0, 110, 10)))  # 11 frames at 5 a second
    pairs = read_pairs(path, 16, 24, 1.0)
    assert [levels(pair) for pair in pairs] == [[0, 10], [50, 60]]  # the frame at 2 s is the last one
    assert [levels(pair) for pair in read_pairs(path, 16, 24, 5.0, start=1.0, end=1.4)] == [[50, 60]]
    with pytest.raises(MediaError, match="one frame"):
        read_pairs(write_video(tmp_path / "b.mkv", [7]), 16, 24, 1.0)


def test_parts_outside_the_media_are_rejected(tmp_path):
    path = write_video(tmp_path / "a.mkv", [0, 50, 100, 150, 200], samples=tone(1.0))
    for start, end in ((2.0, 3.0), (0.0, 1.5), (7.0, None)):
        with pytest.raises(MediaError, match=r"outside: the media end at 1\.00 s"):
            read_frames(path, 16, 24, start=start, end=end)
        with pytest.raises(MediaError, match="outside"):
            read_audio(path, 16000, start, end)


@needs_media
@pytest.mark.parametrize(
    "name", ["video/big_buck_bunny_0_30.webm", "video/nasa_13013.mp4", "derived/bbb_10s_h264_aac.mp4"]
)
def test_seeking_gives_the_frames_of_decoding_from_the_start(name, monkeypatch):
    sought = read_frames(MEDIA / name, 32, 32, fps=2.0, start=6.0, end=8.0)
    monkeypatch.setattr(stream, "SEEK_FROM", float("inf"))
    decoded = read_frames(MEDIA / name, 32, 32, fps=2.0, start=6.0, end=8.0)
    assert len(sought) == 4
    np.testing.assert_array_equal(sought, decoded)


SPARSE = [
    *(
        f"derived/{name}"
        for name in ("1001_IEO_NEU_XX.flv", "bbb_4s_h264_aac.mp4", "v_YoYo_g01_c01_like.avi")
    ),
    *(f"video/{name}" for name in ("av1_video.mkv", "bikes.mp4", "carphone_pristine.mp4", "fire2.mp4")),
    *(f"video/{name}" for name in ("h265_video.mp4", "nasa_13013.mp4", "no_duration.webm")),
    *("video/decord_video_90.mov", "broken/decord_unordered.mov"),
]


@needs_media
@pytest.mark.parametrize("name", SPARSE)
def test_decoding_only_what_is_needed_gives_the_frames_of_decoding_everything(name, monkeypatch):
    rates = (0.7, 1.0, 6.0)
    sparse = [
        media._read_sparsely(MEDIA / name, (32, 32, "stretch"), fps, lambda picture: picture) for fps in rates
    ]
    monkeypatch.setattr(media, "_read_sparsely", lambda *arguments: [])
    for fps, frames in zip(rates, sparse, strict=True):
        np.testing.assert_array_equal(frames, read_frames(MEDIA / name, 32, 32, fps))


def test_jpegs_are_those_of_the_frames(tmp_path):
    path = write_video(tmp_path / "a.mkv", list(range(0, 250, 10)))
    assert media.read_jpegs(path, 16, 24) == [encode_jpeg(frame) for frame in read_frames(path, 16, 24)]


def test_needed_packets():
    """Two groups of pictures; the second opens with a frame (time 5) that is shown before its key frame."""
    packets = [(0, True), (3, False), (1, False), (2, False), (6, True), (5, False), (8, False), (7, False)]
    needs = {0: "x.......", 1: "xxx.....", 2: "xxxx....", 5: "xxxxxx..", 6: "....x...", 7: "....xxxx"}
    for wanted, expected in needs.items():
        assert "".join(".x"[needed] for needed in needed_packets(packets, {wanted})) == expected
    assert needed_packets(packets, {3, 6}) == [True, True, False, False, True, False, False, False]


@needs_media
def test_rotated_video_is_upright():
    """Stored 568×320 with a rotation of 90°: shown, it is upright, so the unrotated frame differs."""
    path = MEDIA / "video" / "decord_video_90.mov"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    shown = read_frames(path, 568, 320)[0].astype(float)
    right_turned = np.rot90(stored, -1)
    assert np.abs(shown - right_turned).mean() < 3
    assert np.abs(shown - np.rot90(stored, 1)).mean() > 10


def test_a_photo_is_turned_as_pillow_turns_it(tmp_path):
    from PIL import ImageOps

    ramp = np.linspace(0, 255, 60 * 90).reshape(60, 90).astype(np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.repeat(ramp[..., None], 3, 2)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture)).astype(float)
    assert np.abs(read_picture(tmp_path / "a.jpg", 90, 60) - expected).max() <= 4


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "100%d.png", "-x: y.png"])
def test_lossless_pictures_match_pillow(tmp_path, name):
    pixels = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    np.testing.assert_array_equal(read_picture(tmp_path / name, 20, 30), pixels)


def test_two_channels_become_one_grey_jpeg():
    flow = np.zeros((16, 24, 2), np.uint8)
    flow[:8, :, 0], flow[8:, :, 1] = 200, 90
    picture = Image.open(io.BytesIO(encode_jpeg(flow)))
    assert picture.mode == "L" and picture.size == (24, 32)
    stacked = np.concatenate([flow[..., 0], flow[..., 1]]).astype(int)
    assert np.abs(np.asarray(picture) - stacked).max() <= 3


def test_jpeg_is_close_and_repeatable():
    from io import BytesIO

    x = np.linspace(0, 4 * np.pi, 64)
    pixels = (127 + 100 * np.sin(x)[:, None, None] * np.cos(x + np.array([[0], [1], [2]])).T).astype(np.uint8)
    data = encode_jpeg(pixels)
    assert data == encode_jpeg(pixels)
    assert np.abs(np.asarray(Image.open(BytesIO(data))).astype(int) - pixels).mean() < 2


@st.composite
def videos(draw):
    """Time stamps of a video with any rates, and a rate to pick at."""
    gaps = draw(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=40))
    times = np.concatenate([[draw(st.floats(0, 0.5))], gaps]).cumsum()
    return [(a, b, i) for i, (a, b) in enumerate(pairwise(times.tolist()))], draw(
        st.sampled_from([0.5, 1.0, 2.0, 7.5])
    )


@given(videos(), st.floats(0, 10), st.one_of(st.none(), st.floats(0.1, 10)))
def test_picked_frames_are_those_shown(video, start, length):
    """Against a plain search for the frame shown at each moment."""
    timed, fps = video
    until = timed[-1][1]
    end = None if length is None else start + length
    picked = list(at_rate(timed, fps, start, end))
    if until <= start:
        assert picked == []
        return
    stop = min(until, end or until)
    moments = [start + k / fps for k in range(1000) if start + k / fps < stop]
    assert 0 <= len(moments) - len(picked) <= 1 or (len(moments) <= 1 and len(picked) == 1)
    assert len(picked) >= 1 and picked == sorted(picked)
    for moment, index in zip(moments, picked, strict=False):
        early = max((i for a, _, i in timed if a <= moment - 2e-3), default=0)
        late = max((i for a, _, i in timed if a <= moment + 2e-3), default=0)
        assert early <= index <= late


def test_a_file_without_permission_is_named(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.5))
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert kind_of(path, "audio") == "unreadable"
    finally:
        if root:
            os.seteuid(0)


def test_truncated_matroska(tmp_path):
    path = write_video(tmp_path / "a.mkv", list(range(100)), fps=10, samples=tone(10.0))
    assert kind_of(path, "visual") == kind_of(path, "audio") == ""
    shutil.copy(path, tmp_path / "b.mkv")
    (tmp_path / "b.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert kind_of(tmp_path / "b.mkv", "visual") in ("truncated", "damaged")
    assert kind_of(tmp_path / "b.mkv", "audio") in ("truncated", "damaged")


def test_headers_that_promise_too_much(tmp_path):
    """A rate at which a second would fill hours, a size that no memory holds, frames that are not there."""
    with av.open(str(tmp_path / "raw.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=5)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 24, 3), np.uint8), "bgr24")))
    avi, wav = (tmp_path / "raw.avi").read_bytes(), write_wav(tmp_path / "a.wav", tone(1.0)).read_bytes()
    assert kind_of(tmp_path / "raw.avi", "visual") == ""
    cases = [
        (avi, b"strf", 12, struct.pack("<ii", 60000, 60000), "visual", "damaged"),
        (avi, b"strh", 40, struct.pack("<I", 1_000_000), "visual", "truncated"),
        (wav, b"fmt ", 12, struct.pack("<I", 1), "audio", "unreadable"),
        (wav, b"fmt ", 12, struct.pack("<I", 2**31 - 1), "audio", "unreadable"),
        (wav, b"fmt ", 10, struct.pack("<H", 65535), "audio", "no audio stream"),
        (wav, b"data", 4, struct.pack("<I", 2**31 + 2**20), "audio", "truncated"),
    ]
    for number, (data, chunk, offset, wrong, modality, kind) in enumerate(cases):
        changed = bytearray(data)
        position = changed.index(chunk) + offset
        changed[position : position + len(wrong)] = wrong
        path = tmp_path / f"{number}.bin"
        path.write_bytes(changed)
        assert kind_of(path, modality) == kind


def test_a_codec_that_ffmpeg_does_not_know(tmp_path):
    wav = bytearray(write_wav(tmp_path / "a.wav", tone(1.0)).read_bytes())
    position = wav.index(b"fmt ") + 8
    wav[position : position + 2] = struct.pack("<H", 0x7777)
    (tmp_path / "a.wav").write_bytes(wav)
    with pytest.raises(MediaError, match="unreadable: FFmpeg has no decoder for its audio"):
        read_audio(tmp_path / "a.wav", 16000)


def test_three_seconds_of_a_long_recording_take_the_memory_of_seconds(tmp_path):
    samples = np.arange(1800 * 8000).astype(np.int16)  # half an hour, 55 MiB at 16 kHz
    path = write_wav(tmp_path / "a.wav", samples, rate=8000)
    tracemalloc.start()
    try:
        part = read_audio(path, 8000, 1790.0, 1793.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(part, samples[1790 * 8000 : 1793 * 8000])
    assert peak < 4e6
