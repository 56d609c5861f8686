"""Texts."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from balancemm_cli.data.kinds.base import Own, Sequence, Spec, Storing
from balancemm_cli.shapes import SequenceShape

if TYPE_CHECKING:
    import numpy as np

    from balancemm_cli.data.kinds.strips import Strip

PAD, RARE = "", "<rare>"  # the first words of a list that is made here
LEAST, MOST = (
    2,
    20_000,
)  # how often a word has to come in training to be told apart, and how many there may be
LONGEST = 512  # words of a text
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # scripts that part no words: each sign is one
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)*")


class Tokens(Sequence):
    """Texts as the places of their words in a list, int32 [T].

    In the manifest `{"kind": "tokens", "length": n, "words": […]}`; the first word stands for padding.
    """

    name = "tokens"
    stored = "int32"
    time_axis: ClassVar[int | None] = None
    takes_noise = False

    word = "text"
    column_names = frozenset({"text", "sentence", "transcript", "caption", "title", "review"})
    extensions = frozenset({".txt"})
    in_cells = True

    @staticmethod
    def make_spec(length: int, words: list[str]) -> Spec:
        """A modality of texts: at most `length` words as their places in `words`, of which the first one stands for
        padding."""
        return {"kind": "tokens", "length": length, "words": words}

    @classmethod
    def own(cls, values: list[Own], storing: Storing) -> tuple[Spec, list[str]]:
        """The words that training texts have at least LEAST times, MOST of them at most, the frequent ones first; as
        long as the longest training text, LONGEST at most."""
        texts = [
            (own.training, split_words(text)) for own in values if (text := _text(own.value)) is not None
        ]
        counts = Counter(word for training, words in texts if training for word in words)
        kept = sorted(
            (word for word, n in counts.items() if n >= LEAST), key=lambda word: (-counts[word], word)
        )
        kept = kept[:MOST]
        length = max([1, *(len(words) for training, words in texts if training)])
        spec = cls.make_spec(min(length, LONGEST), [PAD, RARE, *kept])
        rare = sum(counts.values()) - sum(counts[word] for word in kept)
        notes = [
            f"{len(kept):,} words stand at least {LEAST} times in the training texts and are told apart; the "
            f"{len(counts) - len(kept):,} others ({rare / max(1, sum(counts.values())):.1%} of all words there) and "
            f"words of other parts that are not among them are stored as one rare word."
        ]
        if cut := sum(len(words) > spec["length"] for _, words in texts):
            notes.append(
                f"{cut:,} text(s) have more than {spec['length']:,} words; the rest of them is cut off."
            )
        return spec, notes

    def parse(self, cell: str) -> "np.ndarray":
        """The places of the words of a text, int32 [T]; a rare one where it has none."""
        import numpy as np

        places, rare = _places(tuple(self.spec["words"])), self.spec["words"].index(RARE)
        return np.array([places.get(word, rare) for word in split_words(cell)] or [rare], np.int32)

    def decode(
        self, path: Path, start: float | None, end: float | None, waived: frozenset[str]
    ) -> "np.ndarray":
        """The text of a UTF-8 file, as `parse`. MediaError where it is none, or empty."""
        from balancemm_cli.data.reading.files import MediaError

        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise MediaError("unreadable", "a folder, a pipe or a device, which is no file")
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise MediaError("missing") from None
        except OSError as error:
            raise MediaError("unreadable", error.strerror or "the file cannot be read") from None
        except UnicodeDecodeError as error:
            raise MediaError("unreadable", f"not UTF-8 text (byte {error.start})") from None
        if text.startswith("version https://git-lfs"):
            raise MediaError("git-LFS pointer", "not the text itself; run `git lfs pull`")
        if not text.strip():
            raise MediaError("empty file")
        return self.parse(text)

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


def split_words(text: str) -> list[str]:
    """The words of a text in small letters, without signs between them."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _text(value: Path | str) -> str | None:
    """What a cell or a file says; None for a file that `decode` refuses."""
    if isinstance(value, str):
        return value
    if not value.is_file():
        return None
    try:
        return value.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=4)
def _places(words: tuple[str, ...]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words)}
