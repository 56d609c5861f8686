"""Feature sequences that others computed."""

from typing import TYPE_CHECKING, Any

from balancemm_cli.data.kinds.base import Sequence, Spec
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

    @staticmethod
    def make_spec(length: int, width: int, positions: int = 1) -> Spec:
        """A modality of feature sequences: at most `length` steps of `width` numbers, at each of `positions`."""
        spec: Spec = {"kind": "features", "length": length, "width": width}
        return spec if positions == 1 else {**spec, "positions": positions}

    def describe(self) -> str:
        """Its lengths."""
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
