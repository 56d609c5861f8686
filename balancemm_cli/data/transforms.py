"""From stored media to network inputs: batched, on the device, with parameters of each sample's own.

On a CPU the samples are shared out over threads instead, each worked on alone; that is several times faster there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchaudio
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchaudio.compliance.kaldi import get_mel_banks

from balancemm_cli.data.threads import each, in_parts
from balancemm_cli.random_streams import RandomStreams

Transform = Callable[..., Tensor]  # (raw batch, streams or None, purpose of what it draws) → network inputs

CROP_AREA = (0.08, 1.0)  # shares of the picture's area, as in torchvision's RandomResizedCrop
CROP_RATIO = (3 / 4, 4 / 3)  # width over height
CROP_TRIES = 10

# Of the authors' journal code; mean and deviation are those that it gives for AudioSet.
MEL_BINS, MEL_FRAMES = 128, 1024
MEL_MEAN, MEL_STD = -4.503877, 2 * 5.141276
MEL_WINDOW, MEL_HOP = 0.025, 0.010  # seconds
PREEMPHASIS, LOWEST = 0.97, 20.0  # Kaldi's defaults; Hz


class Waveforms:
    """int16 waveforms [B, T] to pictures of their sound, in the default dtype, on the waveforms' device.

    `stored_rate` and `rate` in Hz; they differ where a recipe resamples.
    """

    def __init__(self, stored_rate: int, rate: int | None) -> None:
        self.stored_rate, self.rate = stored_rate, rate or stored_rate
        self._kept: dict[tuple[str, torch.device, torch.dtype], Any] = {}

    def __call__(self, waveforms: Tensor, streams: RandomStreams | None = None, purpose: str = "") -> Tensor:
        """The pictures; nothing in them is drawn. Floating-point values are such already, and returned."""
        if waveforms.is_floating_point():
            return waveforms
        if waveforms.device.type != "cpu":
            return self.batched(waveforms)
        if self.rate == self.stored_rate:
            return torch.cat(in_parts(self.batched, waveforms))
        # the resampler is a convolution, whose bits depend on the other samples of the batch
        return torch.cat(each(self.batched, waveforms.split(1)))

    def batched(self, waveforms: Tensor) -> Tensor:
        """The pictures of all waveforms at once."""
        samples = waveforms.to(torch.get_default_dtype()) / 2**15
        if self.rate != self.stored_rate:
            samples = self._keep("resampler", samples, self._resampler)(samples).clamp(-1, 1)
        return self.picture(samples)[:, None]

    def picture(self, samples: Tensor) -> Tensor:
        """Samples [B, T] in [−1, 1] to pictures [B, rows, columns]."""
        raise NotImplementedError

    def _keep(self, name: str, like: Tensor, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - tensor or module
        """What `make` gives, made once for a device and dtype: on a small batch it costs more than its use."""
        key = name, like.device, like.dtype
        if key not in self._kept:
            self._kept[key] = make().to(like.device, like.dtype)
        return self._kept[key]

    def _resampler(self) -> torch.nn.Module:
        return torchaudio.transforms.Resample(self.stored_rate, self.rate, dtype=torch.float64)


class LogSpectrogram(Waveforms):
    """int16 waveforms [B, T] to log magnitude spectrograms [B, 1, n_fft / 2 + 1, frames] in the default dtype.

    log(|STFT| + floor) with a periodic Hann window over samples in [−1, 1], as in librosa.stft. `centred` pads
    half a window of zeros at both ends. `stored_rate` and `rate` in Hz; they differ where a recipe resamples.
    """

    def __init__(
        self, stored_rate: int, rate: int | None, n_fft: int, hop: int, centred: bool, floor: float
    ) -> None:
        super().__init__(stored_rate, rate)
        self.n_fft, self.hop, self.centred, self.floor = n_fft, hop, centred, floor

    def picture(self, samples: Tensor) -> Tensor:
        """Spectrograms [B, n_fft / 2 + 1, frames]."""
        if self.centred:
            samples = pad(samples, (self.n_fft // 2, self.n_fft // 2))
        window = self._keep("window", samples, lambda: torch.hann_window(self.n_fft, dtype=torch.float64))
        power = _power(samples.unfold(1, self.n_fft, self.hop) * window)
        return power.sqrt_().add_(self.floor).log_().transpose(1, 2).contiguous()


class MelBank(Waveforms):
    """int16 waveforms [B, T] to Kaldi's log mel filter bank [B, 1, 128 bins, 1,024 frames] in the default dtype.

    torchaudio.compliance.kaldi.fbank with a Hanning window of 25 ms each 10 ms and no dither, filled up with
    zeros or cut to 1,024 frames, then (x + 4.503877) / (2 · 5.141276), as in the authors' journal code.
    """

    def picture(self, samples: Tensor) -> Tensor:
        """Filter banks [B, 128, 1024]."""
        length = int(self.rate * MEL_WINDOW)
        frames = samples.unfold(1, length, int(self.rate * MEL_HOP))[:, :MEL_FRAMES]
        frames = frames - frames.mean(2, keepdim=True)
        before = pad(frames, (1, 0), mode="replicate")[..., :-1]
        window = self._keep("window", samples, lambda: torch.hann_window(length, False, dtype=torch.float64))
        padded = 2 ** (length - 1).bit_length()
        power = _power(pad((frames - PREEMPHASIS * before) * window, (0, padded - length)))
        banks = self._keep("banks", samples, lambda: self._banks(padded))
        # a product a sample, so that its bits do not depend on the others
        energies = power @ banks.expand(len(power), -1, -1)
        energies = energies.clamp_min(torch.finfo(torch.float32).eps).log().transpose(1, 2)
        filled = pad(energies, (0, MEL_FRAMES - energies.shape[2]))
        return (filled - MEL_MEAN) / MEL_STD

    def _banks(self, padded: int) -> Tensor:
        banks, _ = get_mel_banks(MEL_BINS, padded, self.rate, LOWEST, 0.0, 100.0, -500.0, 1.0)
        return pad(banks, (0, 1)).T  # the highest frequency is in none


def _power(frames: Tensor) -> Tensor:
    """|FFT|² over the last dimension. (The absolute value of complex numbers takes three times as long.)"""
    spectrum = torch.fft.rfft(frames)
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


class Numbers:
    """Feature sequences and tokens, which go into the network as they are."""

    def __call__(self, values: Tensor, streams: RandomStreams | None = None, purpose: str = "") -> Tensor:
        """Features in the default dtype; tokens as integers, as they are."""
        return values.to(torch.get_default_dtype()) if values.is_floating_point() else values


@dataclass(frozen=True)
class FrameBatch:
    """uint8 frames on the host of the shape [B, T, H, W, C]; `picture` gives that of a (sample, frame), [H, W, C].

    Where it must be decoded first, the thread that goes on to crop it does so: it is in that core's cache then.
    """

    shape: tuple[int, ...]
    picture: Callable[[tuple[int, int]], Tensor]


class Pictures:
    """uint8 frames [B, T, H, W, C] to normalised pictures [B, C, T, size, size] in the default dtype.

    `resize` (height, width) comes first where it is given. In training (`streams` given) with `random_crop`, each
    sample gets a crop of its own, the same for all its frames, with the distribution of torchvision's
    RandomResizedCrop(size, area, ratio); with `flip`, half of the samples are mirrored; the horizontal component
    of a mirrored `flow` (channel 0, zero motion at the mean) changes its sign. Else the whole picture is resized,
    or its `centre` of the right size cut out. `mean` and `std` [C] are of values in [0, 1].

    All resizing is bilinear with antialiasing, as Pillow's and torchvision's. On a CPU it works on bytes, as
    theirs does on pictures, elsewhere in the default dtype; the results differ by rounding.
    """

    def __init__(
        self,
        size: int,
        random_crop: bool,
        flip: bool,
        mean: Sequence[float],
        std: Sequence[float],
        flow: bool = False,
        *,
        resize: tuple[int, int] | None = None,
        area: tuple[float, float] = CROP_AREA,
        ratio: tuple[float, float] = CROP_RATIO,
        centre: bool = False,
    ) -> None:
        self.size, self.random_crop, self.flip, self.flow = size, random_crop, flip, flow
        self.resize, self.area, self.ratio, self.centre = resize, area, ratio, centre
        self.scale = [1 / (255 * deviation) for deviation in std]
        self.shift = [-middle / deviation for middle, deviation in zip(mean, std, strict=True)]

    def __call__(
        self, frames: Tensor | FrameBatch, streams: RandomStreams | None = None, purpose: str = ""
    ) -> Tensor:
        """The pictures, on the frames' device."""
        if isinstance(frames, Tensor):
            if frames.device.type != "cpu":
                return self.batched(frames, streams, purpose)
            frames = FrameBatch(frames.shape, frames.__getitem__)
        batch, count, height, width, channels = frames.shape
        boxes, mirrored = self._draw(batch, (height, width), streams, purpose, torch.device("cpu"))
        crops = [None] * batch if boxes is None else boxes.int().tolist()
        mirrors = [False] * batch if mirrored is None else mirrored.tolist()
        values = torch.empty((batch, channels, count, self.size, self.size))
        numbers = [_on(values.device, numbers, channels) for numbers in (self.scale, self.shift)]

        def fill(sample: int) -> None:
            for frame in range(count):
                picture = self._crop(frames.picture((sample, frame)).permute(2, 0, 1)[None], crops[sample])
                values[sample, :, frame] = picture[0].flip(-1) if mirrors[sample] else picture[0]
            values[sample].mul_(numbers[0]).add_(numbers[1])
            if self.flow and mirrors[sample]:
                values[sample, 0].neg_()

        each(fill, range(batch))
        return values

    def batched(self, frames: Tensor, streams: RandomStreams | None = None, purpose: str = "") -> Tensor:
        """The pictures of a whole batch at once; nothing waits for the device."""
        batch, count, height, width, channels = frames.shape
        boxes, mirrored = self._draw(batch, (height, width), streams, purpose, frames.device)
        values = frames.permute(0, 1, 4, 2, 3).flatten(1, 2).to(torch.get_default_dtype())
        if boxes is None:
            values = self._crop(values, None)
        else:
            if self.resize:
                values = _resize(values, self.resize)
            left, top, right, bottom = boxes.unbind(1)
            across = _weights(left, right, values.shape[-1], self.size)
            down = _weights(top, bottom, values.shape[-2], self.size)
            with torch.autocast(frames.device.type, enabled=False):  # pictures keep their precision
                values = down[:, None] @ values @ across[:, None].mT
        values = values.view(batch, count, channels, self.size, self.size).transpose(1, 2)
        scale, shift = (_on(frames.device, numbers, channels) for numbers in (self.scale, self.shift))
        values = values * scale + shift
        if mirrored is not None:
            values = torch.where(mirrored.view(-1, 1, 1, 1, 1), self._mirror(values), values)
        return values

    def _draw(
        self,
        batch: int,
        shape: tuple[int, int],
        streams: RandomStreams | None,
        purpose: str,
        device: torch.device,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The samples' crops [B, 4] and whether they are mirrored [B]; None where none is."""
        boxes = mirrored = None
        if streams is not None and self.random_crop:
            shape = self.resize or shape
            boxes = random_boxes(batch, *shape, streams, purpose + "/crop", device, self.area, self.ratio)
        if streams is not None and self.flip:
            mirrored = streams.uniform((batch, 1, 1, 1, 1), purpose + "/flip", device).flatten() < 0.5
        return boxes, mirrored

    def _crop(self, values: Tensor, box: Sequence[int] | None) -> Tensor:
        """[N, C, H, W] resized, all with the same crop or none; bytes stay bytes."""
        if self.resize:
            values = _resize(values, self.resize)
        if box is not None:
            left, top, right, bottom = box
            values = values[..., top:bottom, left:right]
        elif self.centre:
            top, left = (max(0, round((length - self.size) / 2)) for length in values.shape[-2:])
            values = values[..., top : top + self.size, left : left + self.size]
        return _resize(values, (self.size, self.size))

    def _mirror(self, values: Tensor) -> Tensor:
        mirror = values.flip(-1)
        return torch.cat([-mirror[:, :1], mirror[:, 1:]], 1) if self.flow else mirror


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, H, W] of bytes or of floating-point numbers to another size."""
    if tuple(values.shape[-2:]) == size:
        return values
    return interpolate(values, size, mode="bilinear", antialias=True)


def _weights(first: Tensor, last: Tensor, length: int, size: int) -> Tensor:
    """Weights [B, size, length] that resize the pixels from `first` to `last` [B] of `length` to `size`: a
    triangle about each new pixel's centre, as wide as the new pixels are apart, at least as the old ones are."""
    scale = ((last - first) / size)[:, None, None]
    places = torch.arange(size, device=first.device, dtype=first.dtype)[:, None] + 0.5
    centres = first[:, None, None] + places * scale
    pixels = torch.arange(length, device=first.device, dtype=first.dtype) + 0.5
    weights = (1 - (pixels - centres).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((pixels > first[:, None, None]) & (pixels < last[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _on(device: torch.device, numbers: Sequence[float], channels: int) -> Tensor:
    """[C, 1, 1, 1] on `device`, filled there: a copy from the host could make the step wait."""
    parts = [torch.full((1,), number, device=device) for number in list(numbers)[:channels]]
    return torch.cat(parts).view(-1, 1, 1, 1)


def random_boxes(
    batch: int,
    height: int,
    width: int,
    streams: RandomStreams,
    purpose: str,
    device: torch.device,
    area: tuple[float, float] = CROP_AREA,
    ratio: tuple[float, float] = CROP_RATIO,
) -> Tensor:
    """Crops [B, 4] (left, top, right, bottom; pixels) distributed as torchvision's RandomResizedCrop.

    Ten tries of area and ratio are drawn at once for each sample and the first that fits is taken; where none
    fits, the largest central crop within the allowed ratios.
    """
    share, form, left, top = streams.uniform((4, batch, CROP_TRIES), purpose, device, axis=1)
    target = (area[0] + share * (area[1] - area[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + form * (high - low))
    w, h = torch.round(torch.sqrt(target * aspect)), torch.round(torch.sqrt(target / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    w, h, fits = (tries.gather(1, first)[:, 0] for tries in (w, h, fits))
    x = torch.floor(left[:, 0] * (width - w + 1))
    y = torch.floor(top[:, 0] * (height - h + 1))
    central_w = min(width, round(height * ratio[1]))
    central_h = min(height, round(width / ratio[0]))
    w, h = torch.where(fits, w, central_w), torch.where(fits, h, central_h)
    x = torch.where(fits, x, (width - central_w) // 2)
    y = torch.where(fits, y, (height - central_h) // 2)
    return torch.stack([x, y, x + w, y + h], 1)
