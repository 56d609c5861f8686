"""What a recipe makes of a prepared set: the columns that are read and the transforms on the device."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from balancemm_cli.data.loading import Column, FramesColumn, Source, WaveformColumn
from balancemm_cli.data.store import PreparedSet, PreparedSplit
from balancemm_cli.data.transforms import LogSpectrogram, Pictures
from balancemm_cli.draws import Draws
from balancemm_cli.engine.config import Recipe


class Inputs:
    """Raw batches of a prepared set to network inputs, for the modalities in use."""

    def __init__(self, prepared: PreparedSet, modalities: list[str], recipe: Recipe) -> None:
        self.recipe = recipe
        self.specs = {name: prepared.modalities[name] for name in modalities}
        self.transforms = {name: self._transform(spec) for name, spec in self.specs.items()}

    @property
    def channels(self) -> dict[str, int]:
        """Input channels of each modality's encoder."""
        return {name: spec.get("channels", 1) for name, spec in self.specs.items()}

    def source(self, split: PreparedSplit) -> Source:
        """The split's samples, with the columns that this recipe needs."""
        return Source(split, {name: self._column(split, name, spec) for name, spec in self.specs.items()})

    def __call__(self, raw: Mapping[str, Tensor], draws: Draws | None = None) -> dict[str, Tensor]:
        """Network inputs: spectrograms [B, 1, F, T] and pictures [B, C, T, H, W]; augmented with `draws`."""
        return {name: self.transforms[name](values, draws, name) for name, values in raw.items()}

    def _transform(self, spec: dict[str, Any]) -> LogSpectrogram | Pictures:
        if spec["kind"] == "waveform":
            wave = self.recipe.waveform
            return LogSpectrogram(spec["rate"], wave.rate, wave.n_fft, wave.hop, wave.centred, wave.floor)
        frames = self.recipe.frames
        random_crop = frames.crop == "random-resized-crop"
        return Pictures(frames.size, random_crop, frames.flip, frames.mean, frames.std)

    def _column(self, split: PreparedSplit, name: str, spec: dict[str, Any]) -> Column:
        if spec["kind"] == "waveform":
            return WaveformColumn(split, name, round(self.recipe.waveform.seconds * spec["rate"]))
        shape = (spec["height"], spec["width"], spec["channels"])
        return FramesColumn(split, name, shape, self.recipe.frames.count, self.recipe.frames.choice)
