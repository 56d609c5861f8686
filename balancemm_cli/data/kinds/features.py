"""Features: vectors and sequences of numbers that others computed or measured."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.kinds.base import CellError, Own, Sequence, Spec, Storing
from balancemm_cli.shapes import SequenceShape

if TYPE_CHECKING:
    import numpy as np

    from balancemm_cli.data.kinds.strips import Strip

DEVIATIONS = 2.5  # of a feature from its mean, drawn in full colour


class Features(Sequence):
    """Feature sequences, float32 [T, width], or [T, positions, width] of several places of a picture.

    In the manifest `{"kind": "features", "length": steps, "width": n}`, where a step holds several vectors also with
    `"positions": n`.
    """

    name = "features"
    stored = "float32"

    word = "features"
    column_names = frozenset({"features", "embedding", "embeddings"})
    extensions = frozenset({".npy"})
    in_cells = True

    @staticmethod
    def make_spec(length: int, width: int, positions: int = 1) -> Spec:
        """A modality of feature sequences: at most `length` steps of `width` numbers, at each of `positions`."""
        spec: Spec = {"kind": "features", "length": length, "width": width}
        return spec if positions == 1 else {**spec, "positions": positions}

    @classmethod
    def own(cls, values: list[Own], storing: Storing) -> tuple[Spec, list[str]]:
        """As wide as the first cell, or as most of the files, and as long as the longest of these."""
        shapes = [shape for row, own in enumerate(values) if (shape := _shape(row, own.value))]
        for row, (_, width) in enumerate(shapes):
            if isinstance(values[0].value, str) and width != shapes[0][1]:
                raise CellError(row, f"has {width:,} numbers where the first row has {shapes[0][1]:,}")
        if not shapes:
            return cls.make_spec(1, 1), []
        width = Counter(shape[1] for shape in shapes).most_common(1)[0][0]
        return cls.make_spec(max(steps for steps, own in shapes if own == width), width), []

    def parse(self, cell: str) -> "np.ndarray":
        """The numbers of a cell, float32 [1, D]."""
        return _numbers(cell)[None]

    def decode(
        self, path: Path, start: float | None, end: float | None, waived: frozenset[str]
    ) -> "np.ndarray":
        """float32 [T, width] out of an .npy file with [width] or [T, width] numbers. MediaError for other content."""
        from balancemm_cli.data.reading.numbers import read_npy

        return read_npy(path, self.spec["width"])

    def describe(self) -> str:
        """Its lengths."""
        if self.spec["length"] == self._positions == 1:
            return f"features, {self.spec['width']:,} number{'s' if self.spec['width'] > 1 else ''}"
        positions = f" at {self._positions:,} positions" if self._positions > 1 else ""
        return f"features, up to {self.spec['length']:,} steps of {self.spec['width']:,} numbers{positions}"

    @property
    def _positions(self) -> int:
        return self.spec.get("positions", 1)

    @property
    def step(self) -> tuple[int, ...]:
        """One vector, or one at each position."""
        width = self.spec["width"]
        return (self._positions, width) if self._positions > 1 else (width,)

    def draw(self, value: "np.ndarray") -> "Strip":
        """Time to the right (position by position), each number by how far it is from its mean over the steps."""
        import numpy as np
        from matplotlib import colormaps

        from balancemm_cli.data.kinds.strips import Strip, stretched

        values = value.reshape(-1, self.spec["width"])
        deviations = values.std(0) if len(values) > 1 else np.zeros(values.shape[1])
        shares = (values - values.mean(0)) / np.where(deviations > 0, deviations, 1) / DEVIATIONS
        notes = [f"{len(values)} steps of {values.shape[1]}", "blue: below the mean,", "red: above it"]
        return Strip(stretched(colormaps["RdBu_r"](np.clip(shares.T / 2 + 0.5, 0, 1))), notes)

    @property
    def shape(self) -> SequenceShape:
        """Steps, their width, and positions."""
        return SequenceShape(self.spec["length"], width=self.spec["width"], positions=self._positions)

    def settings_for_parts(self, count: int) -> dict[str, Any] | None:
        """None are needed where the steps can be shared out."""
        return None if self.spec["length"] % count else {}


def _shape(row: int, value: Path | str) -> tuple[int, int] | None:
    """Steps and width of a file, None where it cannot be used; or those of a cell. CellError for a cell without
    numbers."""
    if isinstance(value, Path):
        from balancemm_cli.data.reading.numbers import shape_of_npy

        return shape_of_npy(value)
    try:
        return 1, len(_numbers(value))
    except ValueError as error:
        raise CellError(row, str(error)) from None


def _numbers(cell: str) -> "np.ndarray":
    """The numbers of a cell, float32 [D], separated by blanks, commas or semicolons, with or without brackets.
    ValueError, with the end of a sentence, for anything else."""
    import numpy as np

    try:
        if "_" in cell:
            raise ValueError
        inner = cell.strip(" []()")
        sign = next((sign for sign in ",;" if sign in inner), None)  # else blanks
        with np.errstate(over="ignore"):
            values = np.array([float(word) for word in inner.split(sign)], np.float32)
    except (ValueError, OverflowError):
        raise ValueError(f"holds '{cell[:40]}', not numbers") from None
    if not np.isfinite(values).all():
        raise ValueError(f"holds '{cell[:40]}', of which a number is not finite")
    return values
