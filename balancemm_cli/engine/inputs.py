"""What a recipe makes of a prepared set: the columns that are read and the transforms on the device."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from balancemm_cli.data.loading import Column, FramesColumn, NumbersColumn, Raw, Source
from balancemm_cli.data.store import PreparedSet, PreparedSplit
from balancemm_cli.data.transforms import LogSpectrogram, MelBank, Numbers, Pictures, Waveforms
from balancemm_cli.draws import Draws
from balancemm_cli.engine.config import Recipe
from balancemm_cli.models.encoders import SequenceShape

# Of flow and of differences of pictures, whose values are not those of photos; as TSN's code has it: zero motion
# is 0.5 (0 for differences), and the deviation is that of ImageNet.
FLOW_MEAN, FLOW_STD = (0.5, 0.5), (0.226, 0.226)
DIFFERENCE_MEAN = (0.0, 0.0, 0.0)


class Inputs:
    """Raw batches of a prepared set to network inputs, for the modalities in use."""

    def __init__(self, prepared: PreparedSet, modalities: list[str], recipe: Recipe) -> None:
        self.recipe = recipe
        self.specs = {name: prepared.modalities[name] for name in modalities}
        self.transforms = {name: self._transform(spec) for name, spec in self.specs.items()}

    @property
    def shapes(self) -> dict[str, int | SequenceShape]:
        """What each modality's encoder gets, see models.build."""
        return {name: _shape(spec) for name, spec in self.specs.items()}

    def source(self, split: PreparedSplit) -> Source:
        """The split's samples, with the columns that this recipe needs."""
        return Source(split, {name: self._column(split, name, spec) for name, spec in self.specs.items()})

    def __call__(self, raw: Mapping[str, Raw], draws: Draws | None = None) -> dict[str, Tensor]:
        """Network inputs, see encoders: spectrograms, pictures, sequences; augmented with `draws`."""
        return {name: self.transforms[name](values, draws, name) for name, values in raw.items()}

    def _transform(self, spec: dict[str, Any]) -> Callable[..., Tensor]:
        if spec["kind"] in ("features", "tokens"):
            return Numbers()
        if spec["kind"] == "waveform":
            wave = self.recipe.waveform
            if wave.features == "fbank":
                return MelBank(spec["rate"], wave.rate)
            return LogSpectrogram(spec["rate"], wave.rate, wave.n_fft, wave.hop, wave.centred, wave.floor)
        frames = self.recipe.frames
        content = spec.get("content", "rgb")
        mean = {"flow": FLOW_MEAN, "rgb-difference": DIFFERENCE_MEAN}.get(content, frames.mean)
        std = FLOW_STD if content == "flow" else frames.std
        random_crop = frames.crop == "random-resized-crop"
        return Pictures(
            frames.size,
            random_crop,
            frames.flip,
            mean,
            std,
            flow=content == "flow",
            resize=frames.resize,
            area=frames.crop_area,
            ratio=frames.crop_ratio,
            centre=frames.evaluation == "centre-crop",
        )

    def _column(self, split: PreparedSplit, name: str, spec: dict[str, Any]) -> Column:
        if spec["kind"] == "waveform":
            length = round(self.recipe.waveform.seconds * spec["rate"])
            transform = self.transforms[name]
            assert isinstance(transform, Waveforms)
            return NumbersColumn(split, name, (length,), repeat=True, ready=transform)
        if spec["kind"] == "frames":
            shape = (spec["height"], spec["width"], spec["channels"])
            return FramesColumn(split, name, shape, self.recipe.frames.count, self.recipe.frames.choice)
        shape = (spec["length"], spec["width"]) if spec["kind"] == "features" else (spec["length"],)
        return NumbersColumn(split, name, shape, repeat=False)


def _shape(spec: dict[str, Any]) -> int | SequenceShape:
    if spec["kind"] == "features":
        return SequenceShape(spec["length"], width=spec["width"])
    if spec["kind"] == "tokens":
        return SequenceShape(spec["length"], words=len(spec["words"]))
    return spec.get("channels", 1)
