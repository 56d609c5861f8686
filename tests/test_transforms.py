"""Batched transforms against torchaudio, scipy and torchvision."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
import torchaudio
from torchvision.transforms import v2

from balancemm_cli.data.transforms import LogSpectrogram, MelBank, Pictures, random_boxes
from balancemm_cli.random_streams import RandomStreams

WAVES = torch.randint(-8000, 8000, (3, 4000), dtype=torch.int16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 353), (512, 159), (128, 168)])
def test_spectrogram_equals_torchaudios(n_fft, hop):
    reference = torchaudio.transforms.Spectrogram(n_fft, hop_length=hop, power=1, pad_mode="constant")
    expected = torch.log(reference(WAVES.float() / 2**15) + 1e-7)
    found = LogSpectrogram(16000, None, n_fft, hop, True, 1e-7)(WAVES)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-4)


def test_spectrogram_without_padding_equals_scipys():
    window = scipy.signal.get_window("hann", 512)
    signal = WAVES[0].numpy() / 2**15
    frames = [signal[start : start + 512] * window for start in range(0, 4000 - 511, 159)]
    expected = np.log(np.abs(np.fft.rfft(frames, axis=1)).T + 1e-7)
    found = LogSpectrogram(16000, 16000, 512, 159, False, 1e-7)(WAVES)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("hop", "centred"), [(353, True), (159, False)])
def test_spectrogram_equals_librosas(hop, centred):
    librosa = pytest.importorskip("librosa", reason="needs the extra 'bench'")
    transform = LogSpectrogram(16000, None, 512, hop, centred, 1e-7)
    for wave, *found in zip(WAVES, transform(WAVES), transform.batched(WAVES), strict=True):
        signal = wave.numpy().astype(np.float32) / 2**15
        stft = librosa.stft(signal, n_fft=512, hop_length=hop, center=centred, pad_mode="constant")
        for one in found:
            np.testing.assert_allclose(one[0].numpy(), np.log(np.abs(stft) + 1e-7), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rate", "seconds"), [(16000, 3), (16000, 11), (22050, 1)])
def test_mel_bank_equals_kaldis(rate, seconds):
    generator = torch.Generator().manual_seed(1)
    waves = torch.randint(-9000, 9000, (3, rate * seconds), dtype=torch.int16, generator=generator)
    waves[1] //= 1000  # quiet
    waves[2, rate // 2 :] = 0  # half silent
    transform = MelBank(rate, None)
    for wave, *found in zip(waves, transform(waves), transform.batched(waves), strict=True):
        bank = torchaudio.compliance.kaldi.fbank(
            wave[None] / 2**15,
            htk_compat=True,
            sample_frequency=rate,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        expected = torch.zeros(1024, 128)
        expected[: len(bank)] = bank[:1024]
        expected = (expected + 4.503877) / (2 * 5.141276)
        for one in found:
            torch.testing.assert_close(one[0].T, expected, rtol=0, atol=1e-4)


def test_resampling_equals_torchaudios():
    waves = WAVES.float() / 2**15
    expected = torchaudio.functional.resample(waves.double(), 16000, 22050).clamp(-1, 1)
    expected = LogSpectrogram(16000, None, 512, 353, True, 1e-2).picture(expected.float())
    found = LogSpectrogram(16000, 22050, 512, 353, True, 1e-2)(WAVES)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-4)


def test_shapes_of_the_paper_and_of_the_code():
    def shape(rate, seconds, hop, centred, stored=16000):
        waves = torch.zeros(1, stored * seconds, dtype=torch.int16)
        return tuple(LogSpectrogram(stored, rate, 512, hop, centred, 1e-7)(waves).shape[2:])

    assert shape(16000, 10, 159, False) == (257, 1004)
    assert shape(16000, 3, 159, False) == (257, 299)
    assert shape(22050, 3, 353, True) == (257, 188)


def test_crops_are_distributed_as_torchvisions():
    height, width, count = 120, 160, 4000
    ours = random_boxes(count, height, width, RandomStreams(0), "crop", torch.device("cpu"))
    torch.manual_seed(0)
    picture = torch.zeros(3, height, width)
    theirs = [v2.RandomResizedCrop(64).make_params([picture]) for _ in range(count)]
    left, top, right, bottom = ours.unbind(1)
    for mine, key in ((left, "left"), (top, "top"), (right - left, "width"), (bottom - top, "height")):
        reference = [params[key] for params in theirs]
        assert scipy.stats.ks_2samp(mine.numpy(), reference).pvalue > 1e-3, key
    assert (ours[:, :2] >= 0).all() and (right <= width).all() and (bottom <= height).all()


def test_a_crop_that_never_fits_is_central():
    boxes = random_boxes(50, 4, 400, RandomStreams(0), "crop", torch.device("cpu"))
    fallback = boxes[(boxes[:, 3] - boxes[:, 1]) == 4]
    assert fallback.tolist().count([197.0, 0.0, 202.0, 4.0]) > 10  # 4 high, 5 wide: within the ratio 4/3


def smooth_pictures(batch=4, frames=2, height=60, width=80):
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    waves = torch.stack([torch.sin(x * (b + 1)) * torch.cos(y) for b in range(batch)])
    pictures = (127 + 120 * waves).to(torch.uint8)
    return pictures[:, None, :, :, None].expand(-1, frames, -1, -1, 3).contiguous()


def noisy_pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 2, 60, 80, 3), dtype=torch.uint8, generator=generator)


def test_a_random_crop_is_torchvisions():
    pictures, draws = noisy_pictures(), RandomStreams(1)
    transform = Pictures(32, True, False, (0, 0, 0), (1, 1, 1))
    on_host, batched = transform(pictures, draws, "visual"), transform.batched(pictures, draws, "visual")
    boxes = random_boxes(4, 60, 80, draws, "visual/crop", torch.device("cpu")).int().tolist()
    for sample, (left, top, right, bottom) in enumerate(boxes):
        for time, frame in enumerate(pictures[sample].permute(0, 3, 1, 2)):
            crop = top, left, bottom - top, right - left, [32, 32]
            of_bytes = v2.functional.resized_crop(frame, *crop, antialias=True).float() / 255
            of_floats = v2.functional.resized_crop(frame.float() / 255, *crop, antialias=True)
            torch.testing.assert_close(on_host[sample, :, time], of_bytes, rtol=0, atol=1e-6)
            torch.testing.assert_close(batched[sample, :, time], of_floats, rtol=0, atol=1e-5)
    torch.testing.assert_close(on_host, batched, rtol=0, atol=2 / 255)


def test_evaluation_resizes_and_normalises_as_torchvision():
    pictures = noisy_pictures()
    transform = Pictures(32, True, True, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    frames = pictures[:, 0].permute(0, 3, 1, 2)
    for found, given in ((transform(pictures), frames), (transform.batched(pictures), frames / 255)):
        expected = v2.functional.resize(given, [32, 32], antialias=True)
        expected = v2.functional.to_dtype(expected, torch.float32, scale=True)
        expected = v2.functional.normalize(expected, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
        torch.testing.assert_close(found[:, :, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["__call__", "batched"])
def test_the_journal_codes_pictures(how):
    """Resized first; cut out at random in training, from the middle in evaluation."""
    pictures, draws = noisy_pictures(), RandomStreams(3)
    given = {"resize": (40, 52), "area": (0.25, 1.0), "centre": True}
    transform = getattr(Pictures(32, True, False, (0, 0, 0), (1, 1, 1), **given), how)
    frames = pictures[:, 0].permute(0, 3, 1, 2)
    small = v2.functional.resize(frames if how == "__call__" else frames / 255, [40, 52], antialias=True)
    small = v2.functional.to_dtype(small, torch.float32, scale=True)
    expected = v2.functional.center_crop(small, [32, 32])
    torch.testing.assert_close(transform(pictures)[:, :, 0], expected, rtol=0, atol=1e-5)
    found = transform(pictures, draws, "visual")[:, :, 0]
    boxes = random_boxes(4, 40, 52, draws, "visual/crop", torch.device("cpu"), area=(0.25, 1.0)).int()
    assert ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > 0.23 * 40 * 52).all()
    rounding = 1e-5 if how == "batched" else 2 / 255
    for sample, (left, top, right, bottom) in enumerate(boxes.tolist()):
        crop = small[sample, :, top:bottom, left:right]
        expected = v2.functional.resize(crop, [32, 32], antialias=True)
        torch.testing.assert_close(found[sample], expected, rtol=0, atol=rounding)


def test_half_of_the_samples_are_mirrored_whole():
    pictures = smooth_pictures(batch=4).repeat(100, 1, 1, 1, 1)
    plain = Pictures(60, False, False, (0,), (1,))(pictures[..., :1])
    flipped = Pictures(60, False, True, (0,), (1,))(pictures[..., :1], RandomStreams(0), "visual")
    mirrored = torch.tensor([torch.equal(one, two.flip(-1)) for one, two in zip(flipped, plain, strict=True)])
    same = torch.tensor([torch.equal(one, two) for one, two in zip(flipped, plain, strict=True)])
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_the_same_draws_give_the_same_pictures():
    transform = Pictures(32, True, True, (0, 0, 0), (1, 1, 1))
    one, two, other = (
        transform(smooth_pictures(), RandomStreams(0, 2, step), "visual") for step in (5, 5, 6)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_mirrored_flow_goes_the_other_way():
    """What moves to the right moves to the left in a mirror, what moves down still moves down."""
    flow = torch.full((200, 1, 60, 60, 2), 128, dtype=torch.uint8)
    flow[:, :, :, :20] = torch.tensor([178, 148], dtype=torch.uint8)  # on the left side only
    zero = 128 / 255
    moved = Pictures(60, False, True, (zero, zero), (1, 1), flow=True)(flow, RandomStreams(0), "flow") * 255
    for sample in moved[:, :, 0]:
        mirrored = bool(sample[1, 0, -1] > 10)
        side = slice(40, 60) if mirrored else slice(0, 20)
        expected = torch.zeros(2, 60, 60)
        expected[0, :, side], expected[1, :, side] = (-50 if mirrored else 50), 20
        torch.testing.assert_close(sample, expected, rtol=0, atol=1e-3)
    assert 0.35 < (moved[:, 1, 0, 0, -1] > 10).float().mean() < 0.65


@pytest.mark.parametrize(
    "transform",
    [
        LogSpectrogram(8000, None, 256, 100, True, 1e-7),
        LogSpectrogram(8000, 6000, 256, 100, True, 1e-7),
        MelBank(8000, None),
    ],
)
def test_a_sound_gives_the_same_bits_whatever_stands_beside_it(transform):
    waves = torch.randint(-(2**15), 2**15, (9, 8000), dtype=torch.int16, generator=torch.manual_seed(0))
    together = transform(waves)
    for first in (0, 1, 3):
        assert torch.equal(transform(waves[first:]), together[first:])
