"""Texts."""

from typing import TYPE_CHECKING, ClassVar

from balancemm_cli.data.kinds.base import Sequence, Spec
from balancemm_cli.shapes import SequenceShape

if TYPE_CHECKING:
    import numpy as np

    from balancemm_cli.data.kinds.strips import Strip


class Tokens(Sequence):
    """Texts as the places of their words in a list, int32 [T].

    In the manifest `{"kind": "tokens", "length": n, "words": […]}`; the first word stands for padding.
    """

    name = "tokens"
    stored = "int32"
    time_axis: ClassVar[int | None] = None
    takes_noise = False

    @staticmethod
    def make_spec(length: int, words: list[str]) -> Spec:
        """A modality of texts: at most `length` words as their places in `words`, of which the first one stands for
        padding."""
        return {"kind": "tokens", "length": length, "words": words}

    def describe(self) -> str:
        """Its length."""
        return f"text, up to {self.spec['length']:,} words"

    def check(self, value: "np.ndarray") -> None:
        """ValueError for other numbers, or places that are not in the list."""
        super().check(value)
        if value.size and not 0 <= value.min() <= value.max() < len(self.spec["words"]):
            raise ValueError(f"has word {value.max()} of a list of {len(self.spec['words'])}")

    def draw(self, value: "np.ndarray") -> "Strip":
        """The words."""
        from balancemm_cli.data.kinds.strips import STRIP, Strip, text

        words = [self.spec["words"][place] for place in value if place]
        return Strip(text([" ".join(words)], 20, STRIP), [f"{len(words)} words"])

    @property
    def shape(self) -> SequenceShape:
        """Steps, and the size of the list."""
        return SequenceShape(self.spec["length"], words=len(self.spec["words"]))
