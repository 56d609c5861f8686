"""Localisation on a video that is shorter than its segments: silent at its end, where its last frame stays; and
settings by which sound and pictures would not fit the labels."""

import numpy as np
import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.reading.media import encode_jpeg
from balancemm_cli.data.store import write_shard
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.errors import UsageError
from balancemm_cli.testing.sets import finish

RATE, STORED, FRAMES = 1000, 7300, 7  # Hz, samples, and frames of 10 s
WINDOW, FLOOR = 100, 1e-7
LEVELS = [20, 50, 80, 110, 140, 170, 200]  # of grey, a second each
SETTINGS = [
    f"waveform.rate={RATE}",
    f"waveform.n_fft={WINDOW}",
    f"waveform.hop={WINDOW}",
    "frames.size=8",
    "frames.flip=false",
    "frames.crop=resize",
]


@pytest.fixture
def prepared(tmp_path):
    sound = np.random.default_rng(0).integers(-9000, 9000, STORED).astype(np.int16)
    modalities = {
        "audio": {"kind": "waveform", "rate": RATE},
        "visual": {"kind": "frames", "height": 8, "width": 8, "fps": 1.0, "channels": 3},
    }
    row = {
        "id": "short",
        "label": 0,
        "audio": sound,
        "visual": [encode_jpeg(np.full((8, 8, 3), level, np.uint8)) for level in LEVELS],
        "segments": [0] * 7 + [3] * 3,
    }
    (tmp_path / "ave").mkdir()
    extras = {"segments": "integers"}
    write_shard(tmp_path / "ave" / "test-00000.arrow", [row], modalities, extras)
    return finish(tmp_path / "ave", "ave", modalities, extras, {"test": 1}), sound


def inputs_of(prepared, *settings):
    config = resolve("ave", overrides=[*SETTINGS, *settings])
    inputs = Inputs(prepared, ["audio", "visual"], config.settings)
    ((raw, labels),) = inputs.source(prepared.split("test")).batches(
        [np.array([0])], [None], torch.device("cpu")
    )
    return inputs(raw), labels


def test_its_end_is_silent_and_shows_the_last_frame(prepared):
    prepared, sound = prepared
    given, labels = inputs_of(prepared)
    assert labels.tolist() == [[0] * 7 + [3] * 3]
    samples = np.zeros(10 * RATE)
    samples[:STORED] = sound / 2**15
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectra = np.abs(np.fft.rfft(samples.reshape(100, WINDOW) * window))  # ten windows a second, side by side
    expected = np.log(spectra + FLOOR).reshape(10, 10, 51).transpose(0, 2, 1)
    np.testing.assert_allclose(given["audio"][0, :, 0], expected, atol=1e-3)
    assert (given["audio"][0, 8:] == np.float32(np.log(FLOOR))).all()
    assert (given["audio"][0, 7, 0, :, 3:] == np.float32(np.log(FLOOR))).all()  # 7.3 s and on
    red = given["visual"][0, :, 0, 0, 0, 0] * 0.229 + 0.485
    np.testing.assert_allclose(red * 255, [*LEVELS, *3 * LEVELS[-1:]], atol=1.5)


def test_a_label_a_clip_has_it_repeated_instead(prepared):
    prepared, sound = prepared
    given, _ = inputs_of(prepared, "task=classification")
    repeated = np.resize(sound, 10 * RATE).reshape(100, WINDOW)[75] / 2**15
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    expected = np.log(np.abs(np.fft.rfft(repeated * window)) + FLOOR)
    np.testing.assert_allclose(given["audio"][0, 0, :, 75], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "given", "remedy"),
    [
        (["frames.count=20"], "frames.count=20 the parts of 'visual'", "--set frames.count=10"),
        (
            ["frames.choice=uniform"],
            "frames.choice=uniform the parts of 'visual'",
            "--set frames.choice=from-start",
        ),
        (
            ["frames.count=1", "frames.choice=random"],
            "frames.count=1, frames.choice=random the parts of 'visual'",
            "--set frames.count=10 --set frames.choice=from-start",
        ),
        (
            ["waveform.seconds=3"],
            "waveform.seconds=3.0 the parts of 'audio'",
            "--set waveform.seconds=10",
        ),
        (
            ["waveform.features=fbank"],
            "waveform.features=fbank the parts of 'audio'",
            "--set waveform.features=log-spectrogram",
        ),
    ],
)
def test_settings_that_miss_the_seconds_are_refused(prepared, settings, given, remedy):
    prepared, _ = prepared
    with pytest.raises(UsageError) as error:
        inputs_of(prepared, *settings)
    assert str(error.value) == (
        f"Task localisation has a label for each of 10 seconds, and with {given} are not these seconds. Use {remedy}."
    )
    inputs_of(prepared, "task=classification", *settings)


def test_settings_of_what_is_not_used_do_not_matter(prepared):
    config = resolve("ave", "unimodal-audio", overrides=[*SETTINGS, "frames.count=1"])
    assert list(Inputs(prepared[0], ["audio"], config.settings).shapes) == ["audio"]
