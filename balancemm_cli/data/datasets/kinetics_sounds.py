"""Kinetics-Sounds as a tree of clips of Kinetics-400, by the lists of BML or OGM-GE.

Layout: Kinetics-400 as CVDF gives it out, or any other tree of its clips; a clip is found by its YouTube id,
which occurs once in the lists. Split: KS_train_val.json of the repository BML_TPAMI2024 (14,799 / 1,320 / 2,597
training, validation and testing clips), or my_train.txt and my_test.txt of OGM-GE, which are its training and
testing clips. Classes: those of the 34 of Arandjelović and Zisserman (2017, arXiv 1705.08168) that Kinetics-400
still has, in alphabetical order as in both repositories.
"""

import json
import re
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import OTHER_LISTS, Official, check_official, find_file, read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.datasets.tree import need_folder
from balancemm_cli.data.datasets.youtube import ID, files_by_id, start_second
from balancemm_cli.errors import InputError

CLASSES = [
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
]
MODALITIES = {"audio": waveform(16000), "visual": frames(256, 340, 1.0)}
OPTIONS = {"eval_split": ("test", "val")}  # which clips the prepared split "test" holds
SECONDS = 10  # of a clip; some files are shorter

HOW_TO_GET = (
    "Get Kinetics-400 (443 GB) with the scripts of https://github.com/cvdfoundation/kinetics-dataset and put its "
    "folders train/, val/, test/ and replacement/ into data/raw/kinetics-sounds, or name their folder with "
    "--source. The clips of the 31 classes suffice."
)
HOW_TO_GET_LISTS = (
    "Clone https://github.com/GeWu-Lab/BML_TPAMI2024, which holds code/dataset/KS_train_val.json, and name the "
    "clone with --splits."
)

# Where the lists are, in the repositories and in a folder of their own, the preferred one first.
FINAL = "KS.json"
LISTS = [
    "code/dataset/KS_train_val.json",
    "KS_train_val.json",
    "data/KineticSound/my_train.txt",
    "my_train.txt",
    f"code/dataset/{FINAL}",
    FINAL,
]
BML = Official(
    "the list of BML_TPAMI2024",
    18716,
    "e708bd83f986604e5614226b7f24a1f5e46cd306a589d1a1ae21582c9c228e74",
    HOW_TO_GET_LISTS,
)
OGM_GE = {
    "train": Official(
        "the train list of OGM-GE",
        14799,
        "6c0d11f5977ecceb2005c5bdb356ced52cae7c39f9f9eb4137479a4c2e874780",
        HOW_TO_GET_LISTS,
    ),
    "test": Official(
        "the test list of OGM-GE",
        2597,
        "6dec6750836d9b9db1b2ded6fca3348de7766c78513ac55e2ba4a668f7b451bd",
        HOW_TO_GET_LISTS,
    ),
}
SUBSETS = {"training": "train", "validation": "val", "testing": "test"}

NAME = re.compile(rf"({ID})_([0-9]{{1,6}})(?:_[0-9]{{1,6}})?")  # id_000058_000068, or id_2: the first second
LINE = re.compile(r"([^,]*),10,([0-9]{1,2})")  # name, seconds, index of the class

Row = tuple[str, str, str]  # name, split, label


class KineticsSounds(Dataset):
    """Kinetics-Sounds: 18,716 clips of Kinetics-400 in 31 classes that can be both heard and seen (audio and video)."""

    name = "kinetics-sounds"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = OPTIONS
    SPLIT_NAMES = OPTIONS["eval_split"]

    def plan(self, source: Path, splits: Path | None, allow_missing: bool, eval_split: str = "test") -> Plan:
        """The samples of the lists, which are looked for in `splits` or else in `source`, with their files.

        InputError for absent media or lists, and for other lists than those of BML and OGM-GE, unless
        `allow_missing`, which takes them and notes it.
        """
        need_folder(source, HOW_TO_GET)
        notes: list[str] = []
        path = find_file(splits or source, LISTS, HOW_TO_GET_LISTS)
        if path.suffix == ".json":
            rows, owner = _read_json(path, allow_missing, notes), "BML"
        else:
            rows, owner = _read_pair(path, eval_split, allow_missing, notes), "OGM-GE"
        official, evaluated = not notes, "validation" if eval_split == "val" else "test"
        if eval_split == "val":
            rows = _evaluate_on_val(rows, notes)
        files = files_by_id(source)
        samples = [_sample(source, files, *row) for row in rows]
        notes += _other_seconds(samples)
        return Plan(
            self.name,
            samples,
            CLASSES,
            MODALITIES,
            f"the lists of {owner}, evaluated on the {evaluated} clips" if official else OTHER_LISTS,
            notes,
            HOW_TO_GET,
            clip_seconds=SECONDS,
            split_name=eval_split,
            official_lists=official,
        )


def _read_json(path: Path, allow_other: bool, notes: list[str]) -> list[Row]:
    text = read_text(path)
    try:
        entries = json.loads(text)["database"].items()
        rows = [(name, SUBSETS[entry["subset"]], entry["label"].replace("_", " ")) for name, entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(
            f'{path} is not of the form {{"database": {{"id_000058_000068": {{"subset": "training", "label": '
            f'"tap_dancing"}}}}}}. {HOW_TO_GET_LISTS}'
        ) from None
    if not any(split == "test" for _, split, _ in rows):
        raise InputError(
            f"{path} has no test clips: BML's {FINAL} is for a final training, with the test clips among those to "
            "train on, so that nothing is left to test with. Use KS_train_val.json, which lies beside it."
        )
    check_official(path, text, len(rows), BML, allow_other, notes)
    for name, _, label in rows:
        _check(name, label, str(path))
    return rows


def _read_pair(path: Path, eval_split: str, allow_other: bool, notes: list[str]) -> list[Row]:
    if eval_split == "val":
        raise InputError(f"The lists of OGM-GE in {path.parent} have no validation split. {HOW_TO_GET_LISTS}")
    rows = []
    for split in OGM_GE:
        rows += _read_txt(path.with_name(f"my_{split}.txt"), split, allow_other, notes)
    names: set[str] = set()
    for name, _, _ in rows:
        if name in names:
            raise InputError(
                f"'{name}' is listed twice in my_train.txt and my_test.txt. Use the lists as they are."
            )
        names.add(name)
    return rows


def _read_txt(path: Path, split: str, allow_other: bool, notes: list[str]) -> list[Row]:
    text = read_text(path)
    rows = [_parse(line, split, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line]
    check_official(path, text, len(rows), OGM_GE[split], allow_other, notes)
    return rows


def _parse(line: str, split: str, where: str) -> Row:
    match = LINE.fullmatch(line)
    if match is None or int(match[2]) >= len(CLASSES):
        raise InputError(
            f"{where}: '{line[:80]}' is not of the form --4-0ihtnBU_000058_000068,10,4 with a class from 0 to "
            f"{len(CLASSES) - 1}. Use the lists as they are."
        )
    row = match[1], split, CLASSES[int(match[2])]
    _check(row[0], row[2], where)
    return row


def _check(name: str, label: str, where: str) -> None:
    if NAME.fullmatch(name) is None:
        raise InputError(
            f"{where}: '{name[:80]}' is not a clip's name such as --4-0ihtnBU_000058_000068 or -3Mwkq-7TV4_2. "
            "Use the lists as they are."
        )
    if label not in CLASSES:
        raise InputError(f"{where}: '{label[:80]}' is none of the 31 classes. Use the lists as they are.")


def _evaluate_on_val(rows: list[Row], notes: list[str]) -> list[Row]:
    """The validation clips in the place of the test clips."""
    unused = sum(split == "test" for _, split, _ in rows)
    notes.append(f"The split 'test' holds the validation clips; the {unused:,} test clips are not used.")
    kept = [row for row in rows if row[1] != "test"]
    return [(name, "test" if split == "val" else split, label) for name, split, label in kept]


def _sample(source: Path, files: dict[str, list[str]], name: str, split: str, label: str) -> Sample:
    video, start = name[:11], _start(name)
    official = f"{video}_{start:06d}_{start + SECONDS:06d}.mp4"
    clip = Clip(source, min(files.get(video, [official]), key=lambda file: _order(file, start)))
    return Sample(name, split, label, {"audio": clip, "visual": clip})


def _order(file: str, start: int) -> tuple[bool, bool, bool, int, str]:
    """Which of a video's files is taken, the first one: a re-download of a corrupted file, else the one whose name
    says the listed second, else one that says none; of several, the one in the fewest folders."""
    replaced = any(folder.startswith("replacement") for folder in file.split("/")[:-1])
    second = start_second(file)
    return not replaced, second != start, second is not None, file.count("/"), file


def _start(name: str) -> int:
    """The second at which a listed clip begins."""
    return int(name[12:].partition("_")[0])


def _other_seconds(samples: list[Sample]) -> list[str]:
    """A note where files of the right video have another second in their names; Kinetics-400 has one clip of a
    video, but larger Kinetics have others."""
    files = [(sample.id, sample.clips["audio"].name) for sample in samples]
    other = [file for name, file in files if start_second(file) not in (None, _start(name))]
    if not other:
        return []
    return [
        f"{len(other):,} file(s) begin at another second of the video than the lists say, by their names (first: "
        f"{other[0]}), and are used."
    ]
