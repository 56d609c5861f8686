"""From stored media to network inputs: batched, on the device, with parameters of each sample's own."""

import math
from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor
from torchvision.ops import roi_align

from balancemm_cli.draws import Draws

CROP_AREA = (0.08, 1.0)  # shares of the picture's area, as in torchvision's RandomResizedCrop
CROP_RATIO = (3 / 4, 4 / 3)  # width over height
CROP_TRIES = 10


class LogSpectrogram:
    """int16 waveforms [B, T] to log magnitude spectrograms [B, 1, n_fft / 2 + 1, frames] in the default dtype.

    log(|STFT| + floor) with a periodic Hann window over samples in [−1, 1], as in librosa.stft. `centred` pads
    half a window of zeros at both ends. `stored_rate` and `rate` in Hz; they differ where a recipe resamples.
    """

    def __init__(
        self, stored_rate: int, rate: int | None, n_fft: int, hop: int, centred: bool, floor: float
    ) -> None:
        self.stored_rate, self.rate = stored_rate, rate or stored_rate
        self.n_fft, self.hop, self.centred, self.floor = n_fft, hop, centred, floor

    def __call__(self, waveforms: Tensor, draws: Draws | None = None, purpose: str = "") -> Tensor:
        """The spectrograms, on the waveforms' device; nothing in them is drawn."""
        samples = waveforms.to(torch.get_default_dtype()) / 2**15
        if self.rate != self.stored_rate:
            samples = torchaudio.functional.resample(samples, self.stored_rate, self.rate).clamp(-1, 1)
        window = torch.hann_window(self.n_fft, device=samples.device, dtype=samples.dtype)
        spectrum = torch.stft(
            samples,
            self.n_fft,
            self.hop,
            window=window,
            center=self.centred,
            pad_mode="constant",
            return_complex=True,
        )
        return torch.log(spectrum.abs() + self.floor)[:, None]


class Numbers:
    """Feature sequences and tokens, which go into the network as they are."""

    def __call__(self, values: Tensor, draws: Draws | None = None, purpose: str = "") -> Tensor:
        """Features in the default dtype; tokens as integers, as they are."""
        return values.to(torch.get_default_dtype()) if values.is_floating_point() else values


class Pictures:
    """uint8 frames [B, T, H, W, C] to normalised pictures [B, C, T, size, size] in the default dtype.

    In training (`draws` given) with `random_crop`, each sample gets a crop of its own, the same for all its
    frames, with the distribution of torchvision's RandomResizedCrop; with `flip`, half of the samples are
    mirrored; the horizontal component of a mirrored `flow` (channel 0, zero motion at the mean) changes its
    sign. In evaluation the whole picture is resized. `mean` and `std` [C] are of values in [0, 1].
    """

    def __init__(
        self,
        size: int,
        random_crop: bool,
        flip: bool,
        mean: Sequence[float],
        std: Sequence[float],
        flow: bool = False,
    ) -> None:
        self.size, self.random_crop, self.flip = size, random_crop, flip
        self.mean, self.std, self.flow = mean, std, flow

    def __call__(self, frames: Tensor, draws: Draws | None = None, purpose: str = "") -> Tensor:
        """The pictures, on the frames' device."""
        batch, count, height, width, channels = frames.shape
        values = frames.permute(0, 1, 4, 2, 3).flatten(0, 1).to(torch.get_default_dtype()) / 255
        boxes = None
        if draws is not None and self.random_crop:
            boxes = random_boxes(batch, height, width, draws, purpose + "/crop", frames.device)
        values = self._resize(values, boxes, count)
        values = values.view(batch, count, channels, self.size, self.size)
        mean, std = (_on(frames.device, numbers, channels) for numbers in (self.mean, self.std))
        values = (values - mean) / std
        if draws is not None and self.flip:
            mirrored = draws.uniform((batch, 1, 1, 1, 1), purpose + "/flip", frames.device) < 0.5
            values = torch.where(mirrored, self._mirror(values), values)
        return values.transpose(1, 2)

    def _mirror(self, values: Tensor) -> Tensor:
        mirror = values.flip(-1)
        if self.flow:
            mirror = torch.cat([-mirror[:, :, :1], mirror[:, :, 1:]], 2)
        return mirror

    def _resize(self, values: Tensor, boxes: Tensor | None, count: int) -> Tensor:
        height, width = values.shape[-2:]
        if boxes is None:
            if (height, width) == (self.size, self.size):
                return values
            return torch.nn.functional.interpolate(
                values, (self.size, self.size), mode="bilinear", antialias=True
            )
        index = torch.arange(len(values), device=values.device, dtype=values.dtype)
        rows = torch.cat([index[:, None], boxes.repeat_interleave(count, 0)], 1)
        return roi_align(values, rows, self.size, aligned=True)  # pyright: ignore[reportCallIssue]


def _on(device: torch.device, numbers: Sequence[float], channels: int) -> Tensor:
    """[1, 1, C, 1, 1] on `device`, filled there: a copy from the host could make the step wait."""
    parts = [torch.full((1,), number, device=device) for number in list(numbers)[:channels]]
    return torch.cat(parts).view(1, 1, -1, 1, 1)


def random_boxes(
    batch: int, height: int, width: int, draws: Draws, purpose: str, device: torch.device
) -> Tensor:
    """Crops [B, 4] (left, top, right, bottom; pixels) distributed as torchvision's RandomResizedCrop.

    Ten tries of area and ratio are drawn at once for each sample and the first that fits is taken; where none
    fits, the largest central crop within the allowed ratios.
    """
    area, ratio, left, top = draws.uniform((4, batch, CROP_TRIES), purpose, device)
    target = (CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0])) * (height * width)
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    aspect = torch.exp(low + ratio * (high - low))
    w, h = torch.round(torch.sqrt(target * aspect)), torch.round(torch.sqrt(target / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    w, h, fits = (tries.gather(1, first)[:, 0] for tries in (w, h, fits))
    x = torch.floor(left[:, 0] * (width - w + 1))
    y = torch.floor(top[:, 0] * (height - h + 1))
    central_w = min(width, round(height * CROP_RATIO[1]))
    central_h = min(height, round(width / CROP_RATIO[0]))
    w, h = torch.where(fits, w, central_w), torch.where(fits, h, central_h)
    x = torch.where(fits, x, (width - central_w) // 2)
    y = torch.where(fits, y, (height - central_h) // 2)
    return torch.stack([x, y, x + w, y + h], 1)
