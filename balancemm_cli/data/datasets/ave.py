"""AVE as videos of 10 s or as its authors' features of them, by the sets of its authors.

Layout: AVE/<video>.mp4, Annotations.txt, trainSet.txt, valSet.txt and testSet.txt in AVE_Dataset/. A line of a
set is a sample, `Category&VideoID&Quality&StartTime&EndTime` in whole seconds; Annotations.txt holds the lines
of all sets, in some copies below a header. The label is the line's category; the extra `segments` says of each
of the 10 seconds whether the event is there, by the category's index, or BACKGROUND.

The sets part events, not videos: a video with events of two categories can be in two sets.

A source without videos may hold the authors' features of them, see ave_features.py. Then the sets are those of the
files' orders, and the lists, where they are beside them or named, must say the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from balancemm_cli.data.datasets import ave_features
from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import (
    OTHER_LISTS,
    Official,
    accept_other,
    check_official,
    find_file,
    in_two_splits,
    numbered,
    plain_name,
    read_text,
)
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, frames, waveform
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.data.kinds import kind_of
from balancemm_cli.errors import InputError

CLASSES = [
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
]
BACKGROUND = len(CLASSES)
SECONDS = 10
MODALITIES = {"audio": waveform(16000), "visual": frames(256, 340, 1.0)}
DESCRIPTION = "the sets of AVE, with the category as label; some videos are in two sets"

HEADER = "Category&VideoID&Quality&StartTime&EndTime"
ANNOTATIONS = "Annotations.txt"
HOW_TO_GET = (
    "Get AVE_Dataset.zip from https://drive.google.com/open?id=1FjKwe79e0u96vdjIVwfRQ1V6SoDHe7kK and unpack it in "
    "data/raw/ave, or name the folder AVE_Dataset with --source; it holds the videos in AVE/, Annotations.txt, "
    "trainSet.txt, valSet.txt and testSet.txt."
)
SETS = {
    "train": Official(
        "the train set of AVE",
        3339,
        "4f6c37aff56d4a3407f8beff47ca59dcefb8e94b3e02bbc34b0c89b5cdad6945",
        HOW_TO_GET,
    ),
    "val": Official(
        "the validation set of AVE",
        402,
        "76c3c51b67aacbbacd5708e17aab491638a5e9032f786adad1a13be55d9cb3ca",
        HOW_TO_GET,
    ),
    "test": Official(
        "the test set of AVE",
        402,
        "e73c25a509bb38a691c1e08064af66d0512554f2fbc883cddd6d2a51ede8449d",
        HOW_TO_GET,
    ),
}


class Event(NamedTuple):
    """A line of a set: what is seen and heard in a video, from `start` to `end` in whole seconds."""

    category: str
    video: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TenSeconds(Clip):
    """The first ten seconds of a video, or all of a shorter one: YouTube's videos may end within a clip."""

    def describe(self) -> list[Any]:
        """The name and the seconds."""
        return [self.name, None, SECONDS]

    def read(self, spec: Spec, waived: frozenset[str]) -> Any:  # noqa: ANN401 - as Clip
        """As Clip, cut at ten seconds."""
        return Clip.read(self, spec, waived)[: round(SECONDS * kind_of(spec).rate)]


class AVE(Dataset):
    """AVE: 4,143 audio-visual events of 28 categories in 4,097 videos of 10 s (Tian et al., ECCV 2018)."""

    name = "ave"
    HOW_TO_GET = HOW_TO_GET

    def plan(self, source: Path, splits: Path | None, allow_missing: bool) -> Plan:
        """The events of the three sets with their videos. InputError for absent media or lists, for lists that
        contradict one another, and for other sets than the official ones, unless `allow_missing`, which takes them
        and notes it."""
        need_folder(source, HOW_TO_GET)
        root = source / "AVE_Dataset" if (source / "AVE_Dataset").is_dir() else source
        if not (root / "AVE").is_dir():
            if ave_features.are_in(root):
                return _plan_features(root, splits, allow_missing)
            raise InputError(f"There is no folder AVE of videos in {root}. {HOW_TO_GET}")
        lists = splits or root
        notes: list[str] = []
        sets = {split: _read_set(lists, split, allow_missing, notes) for split in SETS}
        official = not notes
        _refuse_repeats(sets, lists)
        _cross_check(sets, lists if (lists / ANNOTATIONS).is_file() else root, notes)
        notes += in_two_splits({split: {event.video for event in own} for split, own in sets.items()})
        notes += _unused(root, sets)
        events = [(split, event) for split, own in sets.items() for event in own]
        names = numbered([event.video for _, event in events])
        samples = [
            _sample(name, split, event, _videos(root, event))
            for name, (split, event) in zip(names, events, strict=True)
        ]
        return Plan(
            self.name,
            samples,
            CLASSES,
            MODALITIES,
            DESCRIPTION if official else OTHER_LISTS,
            notes,
            HOW_TO_GET,
            extras={"segments": "integers"},
            clip_seconds=SECONDS,
            split_name="official",
            official_lists=official,
        )


def _plan_features(root: Path, splits: Path | None, allow_other: bool) -> Plan:
    """The events of the three sets with their features. InputError where the files and lists contradict one another."""
    path = find_file(root, [ANNOTATIONS], HOW_TO_GET)
    events = [_parse(line, f"{path}, line {number}") for number, line in _lines(path).items()]
    notes = ["The authors' features are used: there are no videos."]
    modalities = ave_features.modalities(root, len(events), allow_other, notes)
    ave_features.check_labels(root, [(event.category, _there(event)) for event in events])
    orders = ave_features.orders(root, len(events))
    differences: list[str] = []
    for split, rows in orders.items():
        _compare_set(root, splits, split, [events[row] for row in rows], allow_other, differences)
    names = numbered(events[row].video for rows in orders.values() for row in rows)
    places = [(split, row) for split, rows in orders.items() for row in rows]
    samples = [
        _sample(name, split, events[row], ave_features.clips(root, row))
        for name, (split, row) in zip(names, places, strict=True)
    ]
    notes += in_two_splits({split: {events[row].video for row in rows} for split, rows in orders.items()})
    return Plan(
        AVE.name,
        samples,
        CLASSES,
        modalities,
        OTHER_LISTS if differences else DESCRIPTION,
        notes + differences,
        ave_features.HOW_TO_GET,
        extras={"segments": "integers"},
        clip_seconds=SECONDS,
        split_name="official",
        official_lists=not differences,
    )


def _compare_set(
    root: Path,
    splits: Path | None,
    split: str,
    events: list[Event],
    allow_other: bool,
    differences: list[str],
) -> None:
    """The events of an order with the set's list, which `splits` must hold where it is named; else, where there is none
    in the source, with the official set's size."""
    lists = splits or root
    path = lists / f"{split}Set.txt"
    if splits is not None or path.is_file():
        listed = _read_set(lists, split, allow_other, differences)
        if set(listed) != set(events):
            raise InputError(f"{path} has other events than {split}_order.h5. {ave_features.HOW_TO_GET}")
    elif len(events) != SETS[split].count:
        accept_other(
            Path(f"{split}_order.h5"),
            f"that of {SETS[split].what}",
            f"it has {len(events):,} entries, that one {SETS[split].count:,}",
            ave_features.HOW_TO_GET,
            allow_other,
            differences,
        )


def _there(event: Event) -> list[bool]:
    return [event.start <= second < event.end for second in range(SECONDS)]


def _read_set(folder: Path, split: str, allow_other: bool, notes: list[str]) -> list[Event]:
    path = find_file(folder, [f"{split}Set.txt"], HOW_TO_GET)
    lines = _lines(path)
    check_official(path, "\n".join(lines.values()), len(lines), SETS[split], allow_other, notes)
    return [_parse(line, f"{path}, line {number}") for number, line in lines.items()]


def _lines(path: Path) -> dict[int, str]:
    """The lines that are neither blank nor the header, by their numbers."""
    lines = {number: line.strip() for number, line in enumerate(read_text(path).split("\n"), 1)}
    return {number: line for number, line in lines.items() if line not in ("", HEADER)}


def _parse(line: str, where: str) -> Event:
    fields = line.split("&")
    if len(fields) != 5 or not (_is_second(fields[3]) and _is_second(fields[4])):
        raise InputError(
            f"{where}: '{line[:80]}' is not of the form Church bell&RUhOCu3LNXM&good&0&10. Get the list anew."
        )
    category, video, _, start, end = fields
    if category not in CLASSES:
        raise InputError(
            f"{where}: '{category}' is none of AVE's {len(CLASSES)} categories. Get the list anew."
        )
    event = Event(category, plain_name(video, where), int(start), int(end))
    if event.start > event.end:
        raise InputError(f"{where}: the event ends before it starts. Get the list anew.")
    return event


def _is_second(text: str) -> bool:
    return text in [str(second) for second in range(SECONDS + 1)]


def _refuse_repeats(sets: dict[str, list[Event]], folder: Path) -> None:
    seen: dict[tuple[str, str], str] = {}
    for split, events in sets.items():
        for event in events:
            key = event.video, event.category
            if key in seen:
                raise InputError(
                    f"'{event.category}' of {event.video} is listed twice in {folder} ({seen[key]}Set.txt and "
                    f"{split}Set.txt). Use the lists as they are."
                )
            seen[key] = split


def _cross_check(sets: dict[str, list[Event]], folder: Path, notes: list[str]) -> None:
    """InputError for an event of a set that Annotations.txt does not hold; a note where it holds further ones."""
    path = find_file(folder, [ANNOTATIONS], HOW_TO_GET)
    annotated = {_parse(line, f"{path}, line {number}") for number, line in _lines(path).items()}
    listed = {event: split for split, events in sets.items() for event in events}
    if foreign := [event for event in listed if event not in annotated]:
        raise InputError(
            f"{len(foreign):,} of the {len(listed):,} events of the sets are not in {path} (first: "
            f"{foreign[0].category} of {foreign[0].video}, {listed[foreign[0]]}Set.txt). {HOW_TO_GET}"
        )
    if left := len(annotated - listed.keys()):
        notes.append(f"{left:,} event(s) of {ANNOTATIONS} are in no set and are not used.")


def _unused(root: Path, sets: dict[str, list[Event]]) -> list[str]:
    listed = {f"AVE/{event.video}.mp4" for events in sets.values() for event in events}
    count = sum(name not in listed for name in files_below(root, frozenset({".mp4"})))
    return [f"{count:,} video(s) are in no set and are not used."] if count else []


def _videos(root: Path, event: Event) -> dict[str, Clip]:
    return dict.fromkeys(MODALITIES, TenSeconds(root, f"AVE/{event.video}.mp4"))


def _sample(name: str, split: str, event: Event, clips: dict[str, Clip]) -> Sample:
    label, there, defect = CLASSES.index(event.category), _there(event), ""
    if event.start == event.end:
        there, defect = SECONDS * [True], "an event without length; it is taken for the whole video"
    segments = [label if now else BACKGROUND for now in there]
    return Sample(name, split, event.category, clips, defect, extras={"segments": segments})
