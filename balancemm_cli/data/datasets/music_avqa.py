"""MUSIC-AVQA as videos or as its authors' features of them, by their lists of questions.

Lists: avqa-train.json, avqa-val.json and avqa-test.json of the authors' repository, in two versions: "update"
(data/json_update, corrected) and "original" (data/json). An entry is a question; its answer is under `anser`,
and `type` and `templ_values` are JSON in strings. Media: <video>.mp4 in any folder (the authors' are
MUSIC-AVQA-videos-Real and -Synthetic), or the authors' features, vggish/<video>.npy and res18/<video>.npy,
where there are no videos.

A sample is a question, its class the answer. Questions on one video stand next to one another in a split, so
that the video is decoded and stored once.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeGuard

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import (
    OTHER_LISTS,
    Official,
    check_official,
    find_file,
    in_two_splits,
    numbered,
    plain_name,
    read_text,
)
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, features, frames, tokens, waveform
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

OPTIONS = {"split": ("update", "original")}
FOLDERS = {"update": "data/json_update", "original": "data/json"}
DESCRIPTIONS = {
    "update": "the corrected lists of MUSIC-AVQA (json_update), answers as classes",
    "original": "the original lists of MUSIC-AVQA (json), answers as classes",
}
SPLITS = ("train", "val", "test")
TYPES = (
    "Audio-Counting",
    "Audio-Comparative",
    "Visual-Counting",
    "Visual-Location",
    "Audio-Visual-Existential",
    "Audio-Visual-Location",
    "Audio-Visual-Counting",
    "Audio-Visual-Comparative",
    "Audio-Visual-Temporal",
)
ANSWERS = 42  # over all three lists
WORDS = 14  # of the longest question
PAD, UNKNOWN = "<pad>", "<unk>"

STEPS, STRIDE = 10, 6  # the authors' loaders take every 6th of the 60 steps, one a second
FEATURES = {"audio": ("vggish", 128), "visual": ("res18", 512)}

HOW_TO_GET_LISTS = (
    "Clone https://github.com/GeWu-Lab/MUSIC-AVQA, which holds data/json_update (and data/json, the version for "
    "--split original), and name the clone with --splits."
)
HOW_TO_GET = (
    "Get the videos (36.67 GB) or the VGGish and ResNet18 features by the links of "
    "https://github.com/GeWu-Lab/MUSIC-AVQA and put the folders into data/raw/music-avqa, or name their folder "
    "with --source: <video>.mp4 in any folder, or vggish/<video>.npy and res18/<video>.npy. Name a clone of that "
    "repository with --splits."
)
HASHES = {
    ("update", "val"): "a6061b9b9e90fae07a8201fa960f374a8bfa41075604b72bab64d2b4cccae658",
    ("update", "test"): "d777ecd66d3058089008dcbaca7affa347c5b3455ba6ef0a2b87a68693bfeb55",
}
# How many questions the lists have. The hashes of the others are not known here; of the corrected train list
# only that it is a little shorter than the original one.
COUNTS = {
    ("update", "train"): range(31_000, 32_087),
    ("update", "val"): 4568,
    ("update", "test"): 9129,
    ("original", "train"): 32_087,
    ("original", "val"): 4595,
    ("original", "test"): 9185,
}


class Question(NamedTuple):
    """An entry of a list; `words` with the values in the place of the template's slots."""

    video: str
    number: int
    type: str
    words: tuple[str, ...]
    answer: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Words(Clip):
    """A question out of a list, as the places of its words in the vocabulary; there is no file to it."""

    has_file: ClassVar[bool] = False

    places: tuple[int, ...] = ()

    def size(self) -> int | None:
        """The number of words."""
        return len(self.places)

    def describe(self) -> list[Any]:
        """The places."""
        return list(self.places)

    def read(self, spec: Spec, waived: frozenset[str]) -> "np.ndarray":
        """The places, int32 [T]."""
        import numpy as np

        return np.array(self.places, np.int32)


@dataclass(frozen=True, slots=True)
class Features(Clip):
    """A file of the authors' features, of which every 6th step is taken, as their loaders do."""

    def describe(self) -> list[Any]:
        """The name and the stride."""
        return [self.name, STRIDE]

    def read(self, spec: Spec, waived: frozenset[str]) -> "np.ndarray":
        """float32 [10, width]. Raises MediaError for another shape, for Python objects, and for numbers that are
        not finite."""
        import numpy as np

        from balancemm_cli.data.reading.media import MediaError

        try:
            # Mapped, so that a header that lies about the size takes no memory. Never runs a pickle.
            stored = np.lib.format.open_memmap(self.path, mode="r")
        except FileNotFoundError:
            raise MediaError("missing") from None
        except OSError as error:
            raise MediaError("unreadable", error.strerror or "the file cannot be read") from None
        except Exception:  # of many kinds, by how the header is damaged
            raise MediaError("unreadable", "not an array of numbers in NumPy's format") from None
        whole = (STEPS * STRIDE, spec["width"])
        if stored.shape != whole or stored.dtype.kind != "f":
            raise MediaError("wrong shape", f"{stored.dtype} {stored.shape} where float {whole} belongs")
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(stored[::STRIDE], np.float32)
        if not np.isfinite(values).all():
            raise MediaError("not finite", "it holds infinite numbers or NaN")
        return values


class MusicAVQA(Dataset):
    """MUSIC-AVQA: 45,867 questions on 9,288 videos of music, 42 answers (Li et al., CVPR 2022)."""

    name = "music-avqa"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = OPTIONS
    SPLIT_NAMES = ("official", "original")

    def plan(self, source: Path, splits: Path | None, allow_missing: bool, split: str = "update") -> Plan:
        """The questions of the three lists of version `split`. InputError for absent media or lists, for entries that
        are not of the lists' form, and for other lists than the official ones, unless `allow_missing`, which takes
        them and notes it."""
        need_folder(source, HOW_TO_GET)
        if splits is None:
            raise InputError(f"The lists of questions are not named. {HOW_TO_GET_LISTS}")
        notes: list[str] = []
        lists = {own: _read_list(splits, split, own, allow_missing, notes) for own in SPLITS}
        classes = _answers(lists, allow_missing, notes)
        official = not notes
        words = [PAD, UNKNOWN, *sorted({word for question in lists["train"] for word in question.words})]
        notes += _unknown_words(lists, set(words)) + _deleted(lists)
        notes += in_two_splits({own: {question.video for question in found} for own, found in lists.items()})
        media, modalities, more = _media(source, {q.video for found in lists.values() for q in found})
        questions = [(own, question) for own, found in lists.items() for question in _by_video(found)]
        names = numbered(f"{question.video}-{question.number}" for _, question in questions)
        places = {word: place for place, word in enumerate(words)}
        samples = [
            Sample(
                name,
                own,
                question.answer,
                {**media[question.video], "question": _words(source, question, places)},
                extras={"type": question.type},
            )
            for name, (own, question) in zip(names, questions, strict=True)
        ]
        return Plan(
            self.name,
            samples,
            classes,
            {**modalities, "question": tokens(WORDS, words)},
            DESCRIPTIONS[split] if official else OTHER_LISTS,
            notes + more,
            HOW_TO_GET,
            extras={"type": "text"},
            clip_seconds=60.0,
            split_name="original" if split == "original" else "official",
            official_lists=official,
        )


def _read_list(splits: Path, version: str, split: str, allow_other: bool, notes: list[str]) -> list[Question]:
    name = f"avqa-{split}.json"
    path = find_file(splits, [f"{FOLDERS[version]}/{name}", name], HOW_TO_GET_LISTS)
    text = read_text(path)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not valid JSON. {HOW_TO_GET_LISTS}") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} does not hold a list of questions. {HOW_TO_GET_LISTS}")
    questions = [_question(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]
    what = f"the {split} list of MUSIC-AVQA ({FOLDERS[version]})"
    official = Official(what, COUNTS[version, split], HASHES.get((version, split)), HOW_TO_GET_LISTS)
    check_official(path, text, len(questions), official, allow_other, notes)
    return questions


def _question(entry: object, where: str) -> Question:
    """Check an entry. InputError where a key is absent or its value is not of the lists' form."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not an object with keys. {HOW_TO_GET_LISTS}")
    number = entry.get("question_id")
    if not isinstance(number, int):
        raise InputError(f"{where}: 'question_id' is not a whole number. {HOW_TO_GET_LISTS}")
    kind = "-".join(_strings(entry, "type", where))
    if kind not in TYPES:
        raise InputError(f"{where}: '{kind[:60]}' is none of the nine types of questions. {HOW_TO_GET_LISTS}")
    return Question(
        plain_name(_text(entry, "video_id", where), where),
        number,
        kind,
        _fill(_text(entry, "question_content", where), _strings(entry, "templ_values", where), where),
        _text(entry, "anser", where),
        bool(entry.get("question_deleted")),
    )


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not _is_text(value):
        raise InputError(f"{where} has no text under '{key}'. {HOW_TO_GET_LISTS}")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that can be written as UTF-8: JSON may hold halves of characters."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _strings(entry: dict[str, Any], key: str, where: str) -> list[str]:
    """The list of strings that is written as JSON in a string."""
    try:
        values = json.loads(_text(entry, key, where))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(map(_is_text, values)):
        raise InputError(f"{where}: '{key}' is not a list of texts, written as JSON. {HOW_TO_GET_LISTS}")
    return values


def _fill(content: str, values: list[str], where: str) -> tuple[str, ...]:
    """The words of a question without its question mark, the slots <…> replaced by the values in their order."""
    words = content.rstrip(" ?？").split()
    slots = [place for place, word in enumerate(words) if "<" in word]
    if len(slots) > len(values):
        raise InputError(f"{where}: '{content[:80]}' has more slots than values. {HOW_TO_GET_LISTS}")
    for place, value in zip(slots, values, strict=False):
        words[place] = value
    if not 0 < len(words) <= WORDS:
        raise InputError(
            f"{where}: the question has {len(words)} words, not 1 to {WORDS}. {HOW_TO_GET_LISTS}"
        )
    return tuple(words)


def _answers(lists: dict[str, list[Question]], allow_other: bool, notes: list[str]) -> list[str]:
    """The answers of all lists, sorted. InputError where the train list lacks one, which then cannot be learnt."""
    answers = sorted({question.answer for questions in lists.values() for question in questions})
    trained = {question.answer for question in lists["train"]}
    if absent := [answer for answer in answers if answer not in trained]:
        raise InputError(
            f"No question of avqa-train.json has the answer '{absent[0]}' of the other lists, so it is not whole. "
            f"{HOW_TO_GET_LISTS}"
        )
    if len(answers) != ANSWERS:
        difference = f"The lists have {len(answers)} different answers, those of MUSIC-AVQA {ANSWERS}"
        if not allow_other:
            raise InputError(f"{difference}. {HOW_TO_GET_LISTS} Or pass --allow-missing to use these lists.")
        notes.append(f"{difference}.")
    return answers


def _unknown_words(lists: dict[str, list[Question]], words: set[str]) -> list[str]:
    """Notes on the questions of val and test with words that no train question has."""
    counts = {
        split: sum(not words.issuperset(question.words) for question in lists[split])
        for split in ("val", "test")
    }
    return [
        f"{count:,} question(s) of {split} have words that no train question has; they become {UNKNOWN}."
        for split, count in counts.items()
        if count
    ]


def _deleted(lists: dict[str, list[Question]]) -> list[str]:
    count = sum(question.deleted for questions in lists.values() for question in questions)
    return [f"{count:,} question(s) are marked question_deleted; they are kept."] if count else []


def _media(source: Path, videos: set[str]) -> tuple[dict[str, dict[str, Clip]], dict[str, Spec], list[str]]:
    """The clips of each video, the specs of their modalities, and notes: of the videos themselves, or of the
    features where there are none."""
    found: dict[str, dict[str, str]] = {}  # by kind of file: the name of each video's
    for name in files_below(source, frozenset({".mp4", ".npy"})):
        path = Path(name)
        kind = "mp4" if path.suffix.lower() == ".mp4" else path.parent.name
        found.setdefault(kind, {}).setdefault(path.stem, name)
    if "mp4" in found:
        modalities = {"audio": waveform(16000), "visual": frames(256, 340, 1.0)}
        clips = {video: Clip(source, found["mp4"].get(video, _usual_name(video))) for video in videos}
        unused = len(found["mp4"].keys() - videos)
        notes = [f"{unused:,} video(s) are in no list and are not used."] if unused else []
        return {video: dict.fromkeys(modalities, clip) for video, clip in clips.items()}, modalities, notes
    if not any(folder in found for folder, _ in FEATURES.values()):
        raise InputError(f"{source} holds neither videos nor features. {HOW_TO_GET}")
    modalities = {modality: features(STEPS, width) for modality, (_, width) in FEATURES.items()}
    media: dict[str, dict[str, Clip]] = {
        video: {
            modality: Features(source, found.get(folder, {}).get(video, f"feats/{folder}/{video}.npy"))
            for modality, (folder, _) in FEATURES.items()
        }
        for video in videos
    }
    return media, modalities, ["The authors' features are used: there are no videos."]


def _usual_name(video: str) -> str:
    """Where the authors have a video: the real ones are named by digits alone."""
    return f"MUSIC-AVQA-videos-{'Real' if video.isdigit() else 'Synthetic'}/{video}.mp4"


def _by_video(questions: Iterable[Question]) -> list[Question]:
    """The questions with those of a video next to one another, else in their order."""
    videos: dict[str, list[Question]] = {}
    for question in questions:
        videos.setdefault(question.video, []).append(question)
    return [question for group in videos.values() for question in group]


def _words(source: Path, question: Question, places: dict[str, int]) -> Words:
    unknown = places[UNKNOWN]
    return Words(source, "question", places=tuple(places.get(word, unknown) for word in question.words))
