"""What the settings make of a prepared set: the columns that are read and the transforms on the device."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from balancemm_cli.config.run import Recipe
from balancemm_cli.data.loading import Column, FramesColumn, NumbersColumn, Raw, Source
from balancemm_cli.data.store import PreparedSet, PreparedSplit
from balancemm_cli.data.transforms import LogSpectrogram, MelBank, Numbers, Pictures, Waveforms
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.models.encoders import SequenceShape, Shape, segmented
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

# Of flow and of differences of pictures, whose values are not those of photos; as TSN's code has it: zero motion
# is 0.5 (0 for differences), and the deviation is that of ImageNet.
FLOW_MEAN, FLOW_STD = (0.5, 0.5), (0.226, 0.226)
DIFFERENCE_MEAN = (0.0, 0.0, 0.0)


class Inputs:
    """Raw batches of a prepared set to network inputs, for the modalities in use."""

    def __init__(self, prepared: PreparedSet, modalities: list[str], settings: Recipe) -> None:
        self.settings, self.task = settings, TASKS[settings.task]
        self.specs = {name: prepared.modalities[name] for name in modalities}
        self._check_task(prepared)
        self.transforms = {name: self._transform(spec) for name, spec in self.specs.items()}

    @property
    def shapes(self) -> dict[str, Shape]:
        """What each modality's encoder gets, see models.build."""
        count = self.task.segments
        shapes = {name: _shape(spec) for name, spec in self.specs.items()}
        return {name: shape if count is None else segmented(shape, count) for name, shape in shapes.items()}

    def source(self, split: PreparedSplit) -> Source:
        """The split's samples, with the columns that the settings need. InputError for labels of another form."""
        columns = {name: self._column(split, name, spec) for name, spec in self.specs.items()}
        try:
            source = Source(split, columns, self.task.column, self.task.groups)
        except ValueError as error:
            raise InputError(f"{error} Prepare the data set again.") from None
        if self.task.segments not in (None, *source.labels.shape[1:]):
            raise InputError(
                f"'{self.task.column}' holds {source.labels.shape[1]} labels a sample, and task {self.settings.task} "
                f"takes {self.task.segments}. Prepare the data set again."
            )
        return source

    def __call__(self, raw: Mapping[str, Raw], streams: RandomStreams | None = None) -> dict[str, Tensor]:
        """Network inputs, see encoders: spectrograms, pictures, sequences; augmented with `streams`.

        For a task with segments [B, S, …], of which each is such an input of its own.
        """
        ready = {name: self.transforms[name](values, streams, name) for name, values in raw.items()}
        count = self.task.segments
        if count is None:
            return ready
        return {name: segments(values, count, self.specs[name]["kind"]) for name, values in ready.items()}

    def _check_task(self, prepared: PreparedSet) -> None:
        """UsageError where the data set or the settings lack what the task needs."""
        wanted = {self.task.column, self.task.groups} - {"label", None, *prepared.extras}
        if wanted:
            raise UsageError(
                f"Task {self.settings.task} needs the column '{min(map(str, wanted))}', which {prepared.folder} lacks. "
                "Take another task or data set."
            )
        if self.task.segments is None:
            return
        for name, spec in self.specs.items():
            if spec["kind"] in ("frames", "waveform"):
                self._check_seconds(name, spec["kind"], self.task.segments)
            elif spec["kind"] == "tokens" or spec["length"] % self.task.segments:
                raise UsageError(
                    f"Task {self.settings.task} cuts each modality into {self.task.segments} parts of time, and "
                    f"'{name}' ({spec['kind']}, {spec['length']} steps) can't be cut so. Take another task or data set."
                )

    def _check_seconds(self, name: str, kind: str, count: int) -> None:
        """UsageError where the parts that a modality is cut into are not the `count` seconds of the labels."""
        # One frame a second is stored. A filter bank is padded to a fixed length.
        needed = {
            "frames": {"count": count, "choice": "from-start"},
            "waveform": {"seconds": count, "features": "log-spectrogram"},
        }[kind]
        given = {key: getattr(getattr(self.settings, kind), key) for key in needed}
        wrong = [key for key in needed if given[key] != needed[key]]
        if wrong:
            found = ", ".join(f"{kind}.{key}={given[key]}" for key in wrong)
            remedy = " ".join(f"--set {kind}.{key}={needed[key]}" for key in wrong)
            raise UsageError(
                f"Task {self.settings.task} has a label for each of {count} seconds, and with {found} the parts "
                f"of '{name}' are not these seconds. Use {remedy}."
            )

    def _transform(self, spec: dict[str, Any]) -> Callable[..., Tensor]:
        if spec["kind"] in ("features", "tokens"):
            return Numbers()
        if spec["kind"] == "waveform":
            wave = self.settings.waveform
            if wave.features == "fbank":
                return MelBank(spec["rate"], wave.rate)
            return LogSpectrogram(spec["rate"], wave.rate, wave.n_fft, wave.hop, wave.centred, wave.floor)
        frames = self.settings.frames
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
            length = round(self.settings.waveform.seconds * spec["rate"])
            transform = self.transforms[name]
            assert isinstance(transform, Waveforms)
            # what a short clip lacks is silent where each second has a label of its own
            repeat = self.task.segments is None
            return NumbersColumn(split, name, (length,), repeat, ready=transform)
        if spec["kind"] == "frames":
            shape = (spec["height"], spec["width"], spec["channels"])
            return FramesColumn(split, name, shape, self.settings.frames.count, self.settings.frames.choice)
        return NumbersColumn(split, name, _numbers(spec), repeat=False)


def segments(values: Tensor, count: int, kind: str) -> Tensor:
    """Inputs (see encoders) of a kind of modality, cut into `count` equal parts of time, a new axis 1.

    Spectrograms [B, 1, F, T] to [B, S, 1, F, T // S]; pictures [B, C, T, H, W] to [B, S, C, T / S, H, W]; feature
    sequences [B, T, …] to [B, S, T / S, …]. What is left of a spectrogram is cut off.
    """
    axis = {"waveform": 3, "frames": 2}.get(kind, 1)
    each = values.shape[axis] // count
    cut = values.narrow(axis, 0, count * each).unflatten(axis, (count, each))
    return cut.movedim(axis, 1)


def _numbers(spec: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a sample's features or tokens."""
    if spec["kind"] == "tokens":
        return (spec["length"],)
    positions = spec.get("positions", 1)
    return (spec["length"], positions, spec["width"]) if positions > 1 else (spec["length"], spec["width"])


def _shape(spec: dict[str, Any]) -> int | SequenceShape:
    if spec["kind"] == "features":
        return SequenceShape(spec["length"], width=spec["width"], positions=spec.get("positions", 1))
    if spec["kind"] == "tokens":
        return SequenceShape(spec["length"], words=len(spec["words"]))
    return spec.get("channels", 1)
