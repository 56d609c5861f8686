"""What every kind of modality answers: the class to derive a new one from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from balancemm_cli.shapes import SequenceShape

if TYPE_CHECKING:  # heavy; a list of data sets has no need of them
    import numpy as np
    import pyarrow as pa

    from balancemm_cli.data.kinds.strips import Strip
    from balancemm_cli.data.loading import Column
    from balancemm_cli.data.store import PreparedSplit
    from balancemm_cli.data.transforms import Transform

Spec = dict[str, Any]  # of a modality, as in the manifest of a prepared set
Settings = (
    Any  # the section of a recipe that bears the kind's name (config/recipe.py); None where there is none
)
Value = Any  # what a shard holds of one sample: a list of files or an array

LARGEST = 2**30
"""Numbers of a row. A batch of Arrow's lists takes 2³¹, of which up to store.BATCH_BYTES may be there already."""


@dataclass(frozen=True)
class Storing:
    """How media of a user's own are stored: sound at `rate` Hz, pictures of `size` pixels (`pictures.fitted` says how
    they are brought to it), `fps` a second; of both the first `seconds`, or all."""

    rate: int = 16000
    fps: float = 1.0
    size: int = 256
    fit: str = "keep"
    seconds: float | None = None

    def limited(self, spec: Spec) -> Spec:
        """The spec, with the limit where there is one."""
        return spec if self.seconds is None else {**spec, "seconds": self.seconds}


@dataclass(frozen=True)
class Own:
    """What a CSV has of a modality in one row: a file, or what the cell itself says; and whether the row is one of the
    training part."""

    value: Path | str
    training: bool


class CellError(ValueError):
    """What is wrong with the cell in row `row` of a column."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row = row


class Kind:
    """A kind of modality: how its values are decoded, stored, described, drawn, and made inputs of a network.

    `spec` is the modality's entry in the manifest, in which the kind has its `name` under "kind". All that is not
    implemented here has to be, besides `decode`, which only media files need, and the columns of a user's CSV.
    """

    name: ClassVar[str]
    stored: ClassVar[str]  # Arrow's name for the items of a value, which is a list of them in a shard
    time_axis: ClassVar[int | None]  # of a batch of network inputs; None where there are no parts of time
    takes_noise: ClassVar[bool] = True  # whether noise can be added to network inputs

    # Of a CSV of the user's own: the word for the kind in a header (none: it has no such columns), names by which a
    # column is known to be of the kind, extensions of files that are of no other, and whether a cell may hold the
    # value itself in the place of a file's path.
    word: ClassVar[str] = ""
    column_names: ClassVar[frozenset[str]] = frozenset()
    extensions: ClassVar[frozenset[str]] = frozenset()
    in_cells: ClassVar[bool] = False
    storing: ClassVar[frozenset[str]] = frozenset()  # which fields of Storing have an effect on it

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def describe(self) -> str:
        """What is stored, in a few words."""
        raise NotImplementedError

    # From media to a prepared set

    @classmethod
    def own(cls, values: "list[Own]", storing: Storing) -> tuple[Spec, list[str]]:
        """The spec of a modality of a user's own, and notes on it. CellError for a cell that can't be used; of files
        that can't, `decode` says so."""
        raise NotImplementedError

    def parse(self, cell: str) -> Value:
        """The value that a cell holds. ValueError, with the end of a sentence, where it holds none."""
        raise NotImplementedError

    @property
    def rate(self) -> float:
        """Items of a value that a second of media gives (Hz)."""
        raise NotImplementedError

    def decode(self, path: Path, start: float | None, end: float | None, waived: frozenset[str]) -> Value:
        """The value of a media file between two times (s; None: the file's own). `waived` names checks to leave out,
        see Sample. MediaError for a file that is not usable."""
        raise NotImplementedError(
            f"{self.name} are not decoded from files; their data set's Clip has to read them"
        )

    def expected_bytes(self, seconds: float) -> float:
        """About what the value of a clip of that length (s) takes in a shard."""
        raise NotImplementedError

    def decoding_seconds(self, seconds: float) -> float:
        """About how long one processor decodes a clip of that length (s)."""
        return 0.0

    def check(self, value: Value) -> None:
        """ValueError, with the end of a sentence on what it is instead, for a value that is not of the spec."""
        raise NotImplementedError

    def bytes_of(self, value: Value) -> int:
        """The bytes of a value in a shard."""
        raise NotImplementedError

    @property
    def column_type(self) -> "pa.DataType":
        """The type of its columns of a shard: a list of `stored` a row."""
        import pyarrow as pa

        return pa.list_(pa.type_for_alias(self.stored))

    def to_arrow(self, values: list[Value | None]) -> "pa.Array":
        """A shard's column of some rows; None stands for the value of the row above."""
        import pyarrow as pa

        return pa.array(values, self.column_type)

    def read(self, split: "PreparedSplit", modality: str, row: int) -> Value:
        """The value that a row holds, as it was written."""
        raise NotImplementedError

    def draw(self, value: Value) -> "Strip":
        """A value as a picture for the preview of a set."""
        raise NotImplementedError

    # From a prepared set to a network

    @property
    def shape(self) -> int | SequenceShape:
        """What the encoder of the network inputs gets to know of them."""
        raise NotImplementedError

    def transform(self, settings: Settings) -> "Transform":
        """What makes network inputs of a batch that the column gives."""
        raise NotImplementedError

    def column(
        self, split: "PreparedSplit", modality: str, settings: Settings, transform: "Transform", repeat: bool
    ) -> "Column":
        """The modality's column of a split. `repeat`: what a short clip lacks may be its begin once more, else it is
        silence or the like."""
        raise NotImplementedError

    def settings_for_parts(self, count: int) -> dict[str, Any] | None:
        """The settings with which `count` equal parts of the network inputs are the first `count` seconds of a clip;
        None where it cannot be cut so."""
        return None


class Numbers(Kind):
    """A kind whose value is an array [T, *step] of one type of numbers, stored row by row."""

    @property
    def step(self) -> tuple[int, ...]:
        """The shape of one of the T steps."""
        return ()

    def check(self, value: Value) -> None:
        """ValueError for other numbers, steps of another shape, and more than LARGEST of them."""
        import numpy as np

        if not isinstance(value, np.ndarray) or value.dtype != self.stored:
            raise ValueError(f"is {_type(value)} where {self.stored} belongs")
        if self.step and (value.shape[-1] != self.step[-1] or value.size % np.prod(self.step)):
            raise ValueError(f"has the shape {value.shape} where steps of {self.step} numbers belong")
        if value.size > LARGEST:
            raise ValueError(f"has {value.size:,} numbers, too many for one row of a shard")

    def bytes_of(self, value: Value) -> int:
        """The bytes of the array."""
        return value.nbytes

    def to_arrow(self, values: list[Value | None]) -> "pa.Array":
        """The arrays one after another, copied once."""
        import numpy as np
        import pyarrow as pa

        arrays = [value.reshape(-1) for value in values if value is not None]
        if not arrays:
            return super().to_arrow(values)
        ends = np.cumsum([0, *(0 if value is None else value.size for value in values)], dtype=np.int32)
        missing = pa.array([value is None for value in values]) if len(arrays) < len(values) else None
        numbers = pa.array(np.concatenate(arrays), pa.type_for_alias(self.stored))
        return pa.ListArray.from_arrays(ends, numbers, self.column_type, mask=missing)

    def read(self, split: "PreparedSplit", modality: str, row: int) -> "np.ndarray":
        """The array [T, *step], a read-only view of the file."""
        return split.array(modality, row).reshape(-1, *self.step)


class Sequence(Numbers):
    """Numbers that go into the network as they are: at most `length` steps, of which a shorter one is filled up with
    zeros and a longer one cut."""

    time_axis: ClassVar[int | None] = 1

    def expected_bytes(self, seconds: float) -> float:
        """What the longest sequence takes: their lengths are not known before they are read."""
        import numpy as np

        return self.spec["length"] * int(np.prod(self.step)) * np.dtype(self.stored).itemsize

    def transform(self, settings: Settings) -> "Transform":
        """Nothing but the dtype changes."""
        from balancemm_cli.data.transforms import Numbers as AsTheyAre

        return AsTheyAre()

    def column(
        self, split: "PreparedSplit", modality: str, settings: Settings, transform: "Transform", repeat: bool
    ) -> "Column":
        """The numbers [B, length, *step], filled up with zeros."""
        from balancemm_cli.data.loading import NumbersColumn

        return NumbersColumn(split, modality, (self.spec["length"], *self.step), repeat=False)


def _type(value: object) -> str:
    return str(getattr(value, "dtype", type(value).__name__))
