"""What the settings make of a prepared set: the columns that are read and the transforms on the device."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from balancemm_cli.config.recipe import Recipe
from balancemm_cli.data.datasets.plan import SETS
from balancemm_cli.data.kinds import Kind, kind_of
from balancemm_cli.data.loading import Column, Raw, Source
from balancemm_cli.data.store import PreparedSet, PreparedSplit
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.shapes import Shape, segmented
from balancemm_cli.tasks import TASKS


class Inputs:
    """Raw batches of a prepared set to network inputs, for the modalities in use."""

    def __init__(self, prepared: PreparedSet, modalities: list[str], settings: Recipe) -> None:
        self.settings, self.task = settings, TASKS[settings.task]
        self.kinds = {name: kind_of(prepared.modalities[name]) for name in modalities}
        self._check_task(prepared)
        self.transforms = {name: kind.transform(self._of_kind(kind)) for name, kind in self.kinds.items()}

    @property
    def shapes(self) -> dict[str, Shape]:
        """What each modality's encoder gets, see models.build."""
        count = self.task.segments
        shapes = {name: kind.shape for name, kind in self.kinds.items()}
        return {name: shape if count is None else segmented(shape, count) for name, shape in shapes.items()}

    def source(self, split: PreparedSplit) -> Source:
        """The split's samples, with the columns that the settings need. InputError for labels of another form."""
        columns = {name: self._column(split, name, kind) for name, kind in self.kinds.items()}
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
        return {name: self._input(name, values, streams) for name, values in raw.items()}

    def _input(self, name: str, raw: Raw, streams: RandomStreams | None) -> Tensor:
        values, axis = self.transforms[name](raw, streams, name), self.kinds[name].time_axis
        if self.task.segments is None:
            return values
        assert axis is not None  # else refused by _check_parts
        return segments(values, self.task.segments, axis)

    def _check_task(self, prepared: PreparedSet) -> None:
        """UsageError where the data set or the settings lack what the task needs."""
        if SETS in prepared.extras and self.task.column != SETS:
            raise UsageError(
                f"{prepared.folder} has any number of labels a sample, and task {self.settings.task} takes one. Use "
                "--set task=multi-label."
            )
        wanted = {self.task.column, self.task.groups} - {"label", None, *prepared.extras}
        if wanted:
            raise UsageError(
                f"Task {self.settings.task} needs the column '{min(map(str, wanted))}', which {prepared.folder} lacks. "
                "Take another task or data set."
            )
        if self.task.segments is None:
            return
        for name, kind in self.kinds.items():
            self._check_parts(name, kind, self.task.segments)

    def _check_parts(self, name: str, kind: Kind, count: int) -> None:
        """UsageError where the parts that a modality is cut into are not the `count` seconds of the labels."""
        needed = kind.settings_for_parts(count)
        if needed is None:
            raise UsageError(
                f"Task {self.settings.task} cuts each modality into {count} parts of time, and '{name}' "
                f"({kind.describe()}) can't be cut so. Take another task or data set."
            )
        given = {key: getattr(self._of_kind(kind), key) for key in needed}
        wrong = [key for key in needed if given[key] != needed[key]]
        if wrong:
            found = ", ".join(f"{kind.name}.{key}={given[key]}" for key in wrong)
            remedy = " ".join(f"--set {kind.name}.{key}={needed[key]}" for key in wrong)
            raise UsageError(
                f"Task {self.settings.task} has a label for each of {count} seconds, and with {found} the parts "
                f"of '{name}' are not these seconds. Use {remedy}."
            )

    def _of_kind(self, kind: Kind) -> Any:  # noqa: ANN401 - by kind
        """The section of the settings for a kind of modality; None where it has none."""
        return getattr(self.settings, kind.name, None)

    def _column(self, split: PreparedSplit, name: str, kind: Kind) -> Column:
        # what a short clip lacks is silent where each second has a label of its own
        repeat = self.task.segments is None
        return kind.column(split, name, self._of_kind(kind), self.transforms[name], repeat)


def segments(values: Tensor, count: int, axis: int) -> Tensor:
    """Inputs (see encoders) cut into `count` equal parts along their axis of time, a new axis 1.

    Spectrograms [B, 1, F, T] to [B, S, 1, F, T // S]; pictures [B, C, T, H, W] to [B, S, C, T / S, H, W]; feature
    sequences [B, T, …] to [B, S, T / S, …]. What is left of a spectrogram is cut off.
    """
    each = values.shape[axis] // count
    cut = values.narrow(axis, 0, count * each).unflatten(axis, (count, each))
    return cut.movedim(axis, 1)
