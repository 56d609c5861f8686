"""CMU-MOSI out of a pickle of features.

The features of text, sound and face come ready in one pickle of two projects:

- MMSA, MOSI/Processed/unaligned_50.pkl or aligned_50.pkl: BERT text features (768), keys `text`, `audio`,
  `vision`, `id` (`<video>$_$<segment>`), `regression_labels`; unaligned also `audio_lengths`, `vision_lengths`.
- MulT, mosi_data_noalign.pkl or mosi_data.pkl: GloVe text features (300), keys `text`, `audio`, `vision`, `id`
  (video, start, end), `labels`.

Both are a dict with `train`, `valid` and `test`, which are the standard folds of the CMU-MultimodalSDK, by video.
Lengths are those of the arrays (MMSA's settings state them in another order than they are used). Values that
are not finite, of which the sound has many, become 0.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, features
from balancemm_cli.data.datasets.published import Facts, Published
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

KEYS = {"text": "text", "audio": "audio", "visual": "vision"}  # of each modality in the pickle
PICKLES = frozenset({".pkl", ".pickle"})
TEXT_FEATURES = {768: "bert-768", 300: "glove-300"}


@dataclass(frozen=True)
class Fold:
    """A standard fold: its name here, how many segments and videos it has, and the SHA-256 of the videos' ids,
    sorted, a line each."""

    split: str
    segments: int
    videos: int
    sha256: str


FOLDS = {
    "train": Fold("train", 1284, 52, "a11b39a1c1b50acc535094b3eb433a72dbc183d5b46275dced43d3907297e127"),
    "valid": Fold("val", 229, 10, "05264aba57d7c8fdfa92e5392e91b4602efc92ef12e0ead7025de990aac00cff"),
    "test": Fold("test", 686, 31, "d39f727168fd9a0660ad1553761a8c878c517829b088bdf91ffec2e922d31e48"),
}
SHA256 = {  # by the README of MMSA
    "unaligned_50.pkl": "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
    "aligned_50.pkl": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
}

OPTIONS = {"labels": ("non-negative", "positive", "3", "7")}
CLASSES = {
    "non-negative": ["negative", "non-negative"],
    "positive": ["negative", "positive"],
    "3": ["negative", "neutral", "positive"],
    "7": [str(number) for number in range(-3, 4)],
}
TASKS = {
    "non-negative": "negative (< 0) against non-negative (>= 0)",
    "positive": "negative (< 0) against positive (> 0), without the segments at 0",
    "3": "negative (< 0), neutral (0) and positive (> 0)",
    "7": "the sentiment rounded to a whole number, halves to the even one",
}

HOW_TO_GET = (
    "Get MOSI/Processed/unaligned_50.pkl by the links in the README of https://github.com/thuiar/MMSA, or "
    "mosi_data_noalign.pkl by those of https://github.com/yaohungt/Multimodal-Transformer, and put it into "
    "data/raw/cmu-mosi, or name it with --source."
)


@dataclass(frozen=True, slots=True)
class Row(Clip):
    """The first `steps` steps of one row of a modality's array in a fold of the pickle `path`, whose SHA-256 is
    `sha256`."""

    fold: str = ""
    key: str = ""
    row: int = 0
    steps: int = 0
    width: int = 0
    sha256: str = ""

    def size(self) -> int:
        """The bytes of the row as float32; the file was read when the row was planned."""
        return 4 * self.steps * self.width

    def content(self) -> str:
        """The SHA-256 of the pickle, which was hashed when the row was planned."""
        return self.sha256

    def describe(self) -> list[Any]:
        """All that decides what is read."""
        return [self.name, self.fold, self.key, self.row, self.steps]

    def read(self, spec: Spec, waived: frozenset[str]) -> "np.ndarray":
        """float32 [steps, width]; a process reads the pickle once. InputError where it is gone or damaged."""
        return _finite(_cached(self.path)[self.fold].arrays[self.key][self.row, : self.steps])[0]


@dataclass(frozen=True)
class Segments:
    """A fold as the pickle has it: the segments' ids and videos, the sentiments, and by key the arrays [N, T, D]
    and the lengths of their rows."""

    ids: list[str]
    videos: list[str]
    sentiments: list[float]
    arrays: "dict[str, np.ndarray]"
    lengths: dict[str, list[int]]


def split_name(labels: str) -> str:
    """The name of the split under an option of `labels`. Other labels than the first are another task, on other
    samples where those at 0 are left out, so they have a name of their own."""
    return "official" if labels == OPTIONS["labels"][0] else f"official-{labels}"


class CMUMosi(Dataset):
    """CMU-MOSI: 2,199 segments of 93 videos in which people speak their opinion, with a sentiment from -3 to 3."""

    name = "cmu-mosi"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = OPTIONS
    SPLIT_NAMES = tuple(map(split_name, OPTIONS["labels"]))

    def plan(
        self, source: Path, splits: Path | None, allow_missing: bool, labels: str = "non-negative"
    ) -> Plan:
        """The segments of the pickle `source`, or of the one below that folder. InputError where there is none or
        several, where its form is not as described above, or where its folds are not the standard ones, unless
        `allow_missing`, which takes them and notes it."""
        no_lists("cmu-mosi", splits)
        root, name = _find(source)
        with (root / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        folds = _read(root / name)
        notes = [
            note for fold in FOLDS for note in _other_fold(root / name, fold, folds[fold], allow_missing)
        ]
        official = not notes
        whose = "the standard folds, by video" if official else "folds of its own"
        samples = [
            sample for fold in FOLDS for sample in _samples(root, name, sha256, fold, folds[fold], labels)
        ]
        notes += _left_out(folds, samples)
        notes += _not_finite(folds, samples)
        return Plan(
            self.name,
            samples,
            CLASSES[labels],
            _modalities(folds["train"]),
            f"{whose}; {TASKS[labels]}",
            notes,
            HOW_TO_GET,
            extras={"regression": "number"},
            split_name=split_name(labels),
            official_lists=official,
        )

    def official_files(self, source: Path, plan: Plan) -> Published | None:
        """What the README of MMSA says of its pickles; None for those of MulT, of which nobody published hashes."""
        if plan.modalities["text"]["features"] != "bert-768":
            return None
        aligned = len({spec["length"] for spec in plan.modalities.values()}) == 1
        official = "aligned_50.pkl" if aligned else "unaligned_50.pkl"
        facts = Facts(None, SHA256[official])
        return Published(
            f"MMSA's README of {official}", {plan.samples[0].clips["text"].name: facts}, HOW_TO_GET
        )


def label(sentiment: float, labels: str) -> str | None:
    """The class of a sentiment under an option of `labels`; None where it belongs to none."""
    if labels == "7":
        return str(round(sentiment))  # halves go to the even number, as numpy's do
    if sentiment < 0:
        return "negative"
    if labels == "non-negative":
        return "non-negative"
    if sentiment > 0:
        return "positive"
    return "neutral" if labels == "3" else None


def _find(source: Path) -> tuple[Path, str]:
    """The folder of the pickle, and its path from there."""
    if source.is_file():
        return source.parent, source.name
    if source.suffix in PICKLES and not source.exists():
        raise InputError(f"There is no file {source}. {HOW_TO_GET}")
    need_folder(source, HOW_TO_GET)
    found = list(files_below(source, PICKLES))
    if not found:
        raise InputError(f"There is no .pkl file in {source}. {HOW_TO_GET}")
    if len(found) > 1:
        raise InputError(
            f"There are {len(found)} pickles in {source} ({', '.join(found[:4])}{', …' if len(found) > 4 else ''}). "
            f"Name the one to use: --source {source / found[0]}"
        )
    return source, found[0]


def _read(path: Path) -> dict[str, Segments]:
    """The folds of a pickle, checked. InputError where it is of another form."""
    from balancemm_cli.data.reading import unpickle

    content = unpickle.load(path)
    if not isinstance(content, dict):
        raise _other_form(path, "it is no dict of folds")
    folds = {fold: _part(path, fold, content.get(fold)) for fold in FOLDS}
    for key in KEYS.values():
        shapes = {segments.arrays[key].shape[1:] for segments in folds.values()}
        if len(shapes) > 1:
            raise _other_form(path, f"'{key}' has steps and numbers {sorted(shapes)}, by fold")
    seen = Counter(name for segments in folds.values() for name in segments.ids)
    (segment, times), *_ = seen.most_common(1)
    if times > 1:
        raise _other_form(path, f"it holds the segment {segment!a} {times} times")
    return folds


_cached = lru_cache(maxsize=1)(_read)  # of worker processes


def _part(path: Path, fold: str, content: Any) -> Segments:  # noqa: ANN401 - whatever the pickle holds
    if not isinstance(content, dict):
        raise _other_form(path, f"it has no fold '{fold}'")
    sentiments = "regression_labels" if "regression_labels" in content else "labels"
    for key in (*KEYS.values(), "id", sentiments):
        if key not in content:
            raise _other_form(path, f"its fold '{fold}' has no '{key}'")
    where = f"'{{}}' of its fold '{fold}'"
    ids, videos = _names(path, where.format("id"), content["id"])
    values = _numbers(path, where.format(sentiments), content[sentiments]).reshape(-1)
    arrays = {key: _array(path, where.format(key), content[key]) for key in KEYS.values()}
    for key, count in [(sentiments, len(values)), *((key, len(array)) for key, array in arrays.items())]:
        if count != len(ids) or not count:
            raise _other_form(path, f"{where.format(key)} has {count:,} entries for {len(ids):,} ids")
    for value in values:
        if not abs(value) <= 3 + 1e-6:  # float32 may lie a little above; NaN fails too
            raise _other_form(path, f"{where.format(sentiments)} holds {value}, which is not within -3 and 3")
    lengths = {
        key: _lengths(path, where.format(f"{key}_lengths"), content.get(f"{key}_lengths"), array)
        for key, array in arrays.items()
    }
    return Segments(ids, videos, values.tolist(), arrays, lengths)


def _names(path: Path, where: str, values: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401 - as above
    """The ids of the segments and of their videos, out of MMSA's strings or MulT's (video, start, end)."""
    import numpy as np

    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, list | tuple):
        raise _other_form(path, f"{where} is no list")
    ids, videos = [], []
    for value in values:
        words = value if isinstance(value, list | tuple) else [value]
        texts = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in words]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise _other_form(path, f"{where} holds something else than names")
        ids.append("_".join(texts))
        videos.append(texts[0].split("$_$")[0])
    return ids, videos


def _numbers(path: Path, where: str, values: Any) -> "np.ndarray":  # noqa: ANN401 - as above
    """An array of numbers, one a segment."""
    import numpy as np

    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _other_form(path, f"{where} holds something else than numbers") from None
    if array.ndim < 1 or array.size != len(array):
        raise _other_form(path, f"{where} has the shape {array.shape}, not one number per segment")
    return array


def _array(path: Path, where: str, values: Any) -> "np.ndarray":  # noqa: ANN401 - as above
    """An array [N, steps, numbers] of floating point."""
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise _other_form(path, f"{where} is of {kind}, not an array of floating point")
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise _other_form(path, f"{where} has the shape {values.shape}, not segments × steps × numbers")
    return np.asarray(values)


def _lengths(path: Path, where: str, values: Any, array: "np.ndarray") -> list[int]:  # noqa: ANN401 - as above
    """How many steps of each row are used: as stated, at least one; all where nothing is stated."""
    steps = array.shape[1]
    if values is None:
        return len(array) * [steps]
    numbers = _numbers(path, where, values).reshape(-1)
    if len(numbers) != len(array):
        raise _other_form(path, f"{where} has {len(numbers):,} entries for {len(array):,} rows")
    if not all(number == number // 1 and 0 <= number <= steps for number in numbers):
        raise _other_form(path, f"{where} holds something else than numbers of steps from 0 to {steps}")
    return [max(1, int(number)) for number in numbers]


def _other_form(path: Path, what: str) -> InputError:
    return InputError(f"{path} is not a CMU-MOSI pickle of MMSA or MulT: {what}. {HOW_TO_GET}")


def _other_fold(path: Path, fold: str, segments: Segments, allow_other: bool) -> Iterator[str]:
    """A note where a fold is not the standard one; InputError where that is not allowed."""
    standard = FOLDS[fold]
    videos = sorted(set(segments.videos))
    same = hashlib.sha256("\n".join(videos).encode()).hexdigest() == standard.sha256
    if same and len(segments.ids) == standard.segments:
        return
    if (len(segments.ids), len(videos)) == (standard.segments, standard.videos):
        difference = "its videos are others"
    else:
        difference = (
            f"it has {len(segments.ids):,} segments of {len(videos):,} videos, that one {standard.segments:,} of "
            f"{standard.videos:,}"
        )
    if not allow_other:
        raise InputError(
            f"The fold '{fold}' of {path} is not the standard one of CMU-MOSI: {difference}. {HOW_TO_GET} "
            "Pass --allow-missing to use this one nevertheless."
        )
    yield f"The fold '{fold}' is not the standard one of CMU-MOSI: {difference}."


def _samples(
    root: Path, name: str, sha256: str, fold: str, segments: Segments, labels: str
) -> Iterator[Sample]:
    for row, (segment, sentiment) in enumerate(zip(segments.ids, segments.sentiments, strict=True)):
        clips: dict[str, Clip] = {
            modality: Row(
                root,
                name,
                fold=fold,
                key=key,
                row=row,
                steps=segments.lengths[key][row],
                width=segments.arrays[key].shape[2],
                sha256=sha256,
            )
            for modality, key in KEYS.items()
        }
        kind = label(sentiment, labels)
        if kind is not None:
            yield Sample(segment, FOLDS[fold].split, kind, clips, extras={"regression": sentiment})


def _modalities(segments: Segments) -> dict[str, Spec]:
    modalities = {}
    for modality, key in KEYS.items():
        _, length, width = segments.arrays[key].shape
        modalities[modality] = features(length, width)
    width = modalities["text"]["width"]
    modalities["text"]["features"] = TEXT_FEATURES.get(width, f"unknown-{width}")
    return modalities


def _left_out(folds: dict[str, Segments], samples: list[Sample]) -> Iterator[str]:
    """A note on the segments that are not part of the task."""
    kept = Counter(sample.split for sample in samples)
    counts = {
        FOLDS[fold].split: len(segments.ids) - kept[FOLDS[fold].split] for fold, segments in folds.items()
    }
    if any(counts.values()):
        listed = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
        yield f"Segments at 0 are neither negative nor positive and not part of this task: {listed} are left out."


def _not_finite(folds: dict[str, Segments], samples: list[Sample]) -> Iterator[str]:
    """A note a modality on the values that become 0, and one on rows that hold zeros alone."""
    for modality in KEYS:
        values = affected = empty = 0
        for sample in samples:
            row = sample.clips[modality]
            assert isinstance(row, Row)
            cleaned, count = _finite(folds[row.fold].arrays[row.key][row.row, : row.steps])
            values += count
            affected += count > 0
            empty += not cleaned.any()
        if values:
            yield f"{modality}: {values:,} values in {affected:,} segments are not finite (-inf, NaN) and become 0."
        if empty:
            yield f"{modality}: {empty:,} segments hold zeros alone and are kept."


def _finite(values: "np.ndarray") -> "tuple[np.ndarray, int]":
    """float32 with 0 in the place of what is not finite in it, and how many values that were."""
    import numpy as np

    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    wrong = ~np.isfinite(numbers)
    numbers[wrong] = 0
    return numbers, int(wrong.sum())
