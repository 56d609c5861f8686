"""CREMA-D as its official repository lays it out, in one of three splits.

Layout: AudioWAV/<stem>.wav and VideoFlash/<stem>.flv of the official repository. The sound is always taken
from AudioWAV, because 28 of the videos were without sound until 2020. The splits:

- `official`: data/CREMAD/train.csv and test.csv of the OGM-GE repository (6,698 / 744; lines `stem,label`),
  used by the papers on OGM and OPM. The same actors occur in train and test.
- `speaker-independent`: by actor, without lists (`split_of_actor`).
- `relearn`: code/dataset/cremad of GeWu-Lab's Diagnosing_Relearning_ECCV2024, which cuts the train list of
  OGM-GE into my_train.csv and val.csv (5,954 / 744) and has its test list.

The class order is always that of OGM-GE's stat.csv; the code of `relearn` sorts the classes by their names.
The authors' code trains on all 6,698, so the samples of which a defect is known are kept as far as they
decode (DEFECTS); any other file that is damaged is rejected.
"""

import re
import wave
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import OTHER_LISTS, Official, check_official, find_file, read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.datasets.published import Published, clone_files
from balancemm_cli.data.datasets.tree import files_below, need_folder
from balancemm_cli.errors import InputError, UsageError

OPTIONS = {"split": ("official", "speaker-independent", "relearn")}
DESCRIPTIONS = {
    "official": "lists of OGM-GE: all 91 actors occur in train and test",
    "speaker-independent": "by actor: no actor is in two splits",
    "relearn": "lists of Diagnosing_Relearning (train of OGM-GE cut in train and val): "
    "the same actors occur in all splits",
}
CLASSES = ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
SENTENCES = ["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"]
FOLDERS = {"audio": ("AudioWAV", ".wav"), "visual": ("VideoFlash", ".flv")}
MODALITIES = {"audio": waveform(16000), "visual": frames(360, 480, 1.0)}
NAME = re.compile(rf"\d{{4}}_({'|'.join(SENTENCES)})_({'|'.join(CLASSES)})_(LO|MD|HI|XX)")
HEADER = "name,label"  # of some copies of the lists
NEVER_RECORDED = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
LFS_POINTER_BYTES = 200  # a pointer has 130 or 131 bytes, the smallest media file 4,262

# What is known to be wrong with samples of the lists, and the checks that are waived for it.
DEFECTS = {
    "1076_MTI_SAD_XX": ("no sound, and a very short error picture for a video", {"silent", "truncated"}),
    "1076_MTI_NEU_XX": ("very short video", {"truncated"}),
    "1064_TIE_SAD_XX": ("video without a duration", {"truncated"}),
    "1064_IEO_DIS_MD": ("video of 61 s that shows all emotions; only the length of the sound is used", set()),
    "1047_IEO_SAD_LO": ("video longer than its sound", set()),
    "1047_IEO_FEA_LO": ("video longer than its sound", set()),
}
ALL_EMOTIONS = "1064_IEO_DIS_MD"
ALIASES = {"1040_ITH_SAD_XX": "1040_ITH_SAD_X"}  # the file's name in copies from before October 2022

REPOSITORY = "https://github.com/CheyneyComputerScience/CREMA-D.git"
MIRROR = "https://gitlab.com/cs-cooper-lab/crema-d-mirror.git"
HOW_TO_GET = (
    f"Get AudioWAV/ and VideoFlash/ with `git lfs clone {REPOSITORY}` (7.6 GB; mirror: {MIRROR}) and put both "
    "folders into data/raw/crema-d, or name their folder with --source."
)
HOW_TO_GET_LISTS = {
    "official": "Clone https://github.com/GeWu-Lab/OGM-GE_CVPR2022, which holds data/CREMAD/train.csv and test.csv, "
    "and name the clone with --splits.",
    "relearn": "Clone https://github.com/GeWu-Lab/Diagnosing_Relearning_ECCV2024, which holds my_train.csv, val.csv "
    "and test.csv in code/dataset/cremad, and name the clone with --splits.",
}
AUTHORS = {"official": "OGM-GE", "relearn": "Diagnosing_Relearning"}

# For each split its list in the clone, the number of its samples, and its SHA-256 without header.
LISTS = {
    "official": {
        "train": (
            "data/CREMAD/train.csv",
            6698,
            "7b95d291b847eac9c1447bb9fb63b47176d182987ac74fe041e4dd493c6d0abd",
        ),
        "test": (
            "data/CREMAD/test.csv",
            744,
            "959a667af66a01dc439b12d6ec9dc57b36a88e947f48ad63531a4b91f769394f",
        ),
    },
    "relearn": {
        "train": (
            "code/dataset/cremad/my_train.csv",
            5954,
            "eaf4d9332c743a8e0a0538e53f15f86552fb961858a8347588f6ffc09071b232",
        ),
        "val": (
            "code/dataset/cremad/val.csv",
            744,
            "ecbd82453caca8a7126df010d67b33813387af3cbe32efe5eb5a94ed2d161291",
        ),
        "test": (
            "code/dataset/cremad/test.csv",
            744,
            "959a667af66a01dc439b12d6ec9dc57b36a88e947f48ad63531a4b91f769394f",
        ),
    },
}


class CremaD(Dataset):
    """CREMA-D: 7,442 clips of 91 actors saying 12 sentences in 6 emotions (audio and video)."""

    name = "crema-d"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = OPTIONS
    SPLIT_NAMES = OPTIONS["split"]

    def plan(self, source: Path, splits: Path | None, allow_missing: bool, split: str = "official") -> Plan:
        """The samples of the split with their files. InputError for absent media or lists, and for other lists
        than the official ones, unless `allow_missing`, which takes them and notes it."""
        need_folder(source, HOW_TO_GET)
        stems = _stems(source)
        notes: list[str] = []  # first on lists that are not the official ones
        official = None
        if split == "speaker-independent":
            if splits is not None:
                raise UsageError(
                    f"--split {split} of data set 'crema-d' needs no lists; leave --splits away."
                )
            rows = speaker_independent()
        else:
            rows = _read_lists(split, splits, allow_missing, notes)
            official = not notes
        samples = [_sample(source, own, stem, stems) for own, listed in rows.items() for stem in listed]
        if not allow_missing:
            _refuse_pointers(source, samples)
        notes += _unused(stems, {sample.id for sample in samples})
        return Plan(
            self.name,
            samples,
            CLASSES,
            MODALITIES,
            OTHER_LISTS if official is False else DESCRIPTIONS[split],
            notes,
            HOW_TO_GET,
            clip_seconds=2.5,
            split_name=split,
            official_lists=official,
        )

    def official_files(self, source: Path, plan: Plan) -> Published:
        """What the pointers in the user's clone say of the files: their size and SHA-256. InputError where there
        is no clone."""
        how = f"`git clone --bare --depth 1 {REPOSITORY} {source}/.git` puts the official one (without media) there."
        return clone_files(source, [folder for folder, _ in FOLDERS.values()], how)


def split_of_actor(actor: int) -> str:
    """The split of an actor where splits share none: test for actors 1010, 1020, …, val for 1005, 1015, …."""
    return {0: "test", 5: "val"}.get(actor % 10, "train")


def speaker_independent() -> dict[str, list[str]]:
    """The stems of each split where splits share no actor, in order of their names."""
    stems: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for stem in sorted(all_stems()):
        stems[split_of_actor(int(stem[:4]))].append(stem)
    return stems


def all_stems() -> Iterator[str]:
    """The 7,442 official stems: each actor says each sentence in each emotion, one of the sentences in three
    levels of emotion; 20 were never recorded."""
    for actor, sentence, emotion in product(range(1001, 1092), SENTENCES, CLASSES):
        stem = f"{actor}_{sentence}_{emotion}"
        if not stem.startswith(NEVER_RECORDED):
            levels = ("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",)
            yield from (f"{stem}_{level}" for level in levels)


def _stems(source: Path) -> dict[str, set[str]]:
    """The stems of the files in the folder of each modality."""
    for folder, _ in FOLDERS.values():
        if not (source / folder).is_dir():
            there = ", ".join(sorted(entry.name for entry in source.iterdir())[:5])
            raise InputError(
                f"The folder {folder}/ is missing in {source} (there: {there}); many copies hold AudioWAV/ only. "
                f"{HOW_TO_GET}"
            )
    files = list(files_below(source, frozenset(suffix for _, suffix in FOLDERS.values())))
    return {
        modality: {
            name.removeprefix(f"{folder}/").removesuffix(suffix)
            for name in files
            if name.startswith(f"{folder}/") and name.endswith(suffix)
        }
        for modality, (folder, suffix) in FOLDERS.items()
    }


def _read_lists(owner: str, splits: Path | None, allow_other: bool, notes: list[str]) -> dict[str, list[str]]:
    """The stems of each split by the lists of an owner. A difference to the official ones is an InputError, or a
    note where it is allowed."""
    how_to_get = HOW_TO_GET_LISTS[owner]
    if splits is None:
        raise InputError(f"The split lists are not named. {how_to_get}")
    rows: dict[str, list[str]] = {}
    for split, (name, count, sha256) in LISTS[owner].items():
        file = Path(name)
        official = Official(f"the {file.stem} list of {AUTHORS[owner]}", count, sha256, how_to_get)
        path = find_file(splits, [name, file.name], how_to_get)
        rows[split] = _read_list(path, official, allow_other, notes)
    _refuse_repeats(rows, splits)
    return rows


def _read_list(path: Path, official: Official, allow_other: bool, notes: list[str]) -> list[str]:
    text = read_text(path)
    headers = text.startswith(HEADER + "\n")
    lines = text.removeprefix(HEADER + "\n").strip("\n").split("\n")
    stems = [_parse(line, path, number) for number, line in enumerate(lines, 1 + headers) if line.strip()]
    check_official(path, "\n".join(lines), len(stems), official, allow_other, notes)
    return stems


def _parse(line: str, path: Path, number: int) -> str:
    stem, comma, label = line.strip().partition(",")
    match = NAME.fullmatch(stem)
    if match is None or not comma:
        raise InputError(
            f"{path}, line {number}: '{line.strip()}' is not of the form 1001_DFA_ANG_XX,ANG. "
            "Use the lists as they are."
        )
    if label.strip() != match[2]:
        raise InputError(
            f"{path}, line {number}: the label '{label.strip()}' is not the '{match[2]}' of the name. "
            "Use the lists as they are."
        )
    return stem


def _refuse_repeats(rows: dict[str, list[str]], folder: Path) -> None:
    seen: dict[str, str] = {}
    for split, stems in rows.items():
        for stem in stems:
            if stem in seen:
                raise InputError(
                    f"'{stem}' is listed twice in {folder} ({seen[stem]} and {split}). Use the lists as they are."
                )
            seen[stem] = split


def _sample(source: Path, split: str, stem: str, stems: dict[str, set[str]]) -> Sample:
    clips = {}
    for modality, (folder, suffix) in FOLDERS.items():
        alias = ALIASES.get(stem, stem)
        name = (
            f"{folder}/{alias if stem not in stems[modality] and alias in stems[modality] else stem}{suffix}"
        )
        clips[modality] = Clip(source, name)
    if stem == ALL_EMOTIONS:
        clips["visual"] = replace(clips["visual"], end=_wav_seconds(clips["audio"].path))
    defect, waived = DEFECTS.get(stem, ("", set()))
    return Sample(stem, split, stem.split("_")[2], clips, defect, frozenset(waived))


def _wav_seconds(path: Path) -> float | None:
    """The length of a WAV file by its header; None where it has none, which preparing will say."""
    try:
        with wave.open(str(path)) as file:
            return file.getnframes() / file.getframerate()
    except (OSError, EOFError, wave.Error, ZeroDivisionError):
        return None


def _refuse_pointers(source: Path, samples: list[Sample]) -> None:
    clips = [clip for sample in samples for clip in sample.clips.values()]
    pointers = [clip.name for clip in clips if _is_pointer(clip.path)]
    if pointers:
        raise InputError(
            f"{len(pointers):,} of {len(clips):,} files in {source} are git-LFS pointers, not media (first: "
            f"{pointers[0]}). Run `git lfs pull` there, or clone the mirror {MIRROR} where the LFS budget is "
            "used up; or pass --allow-missing to prepare without them."
        )


def _is_pointer(path: Path) -> bool:
    try:
        return path.stat().st_size < LFS_POINTER_BYTES and path.read_bytes().startswith(
            b"version https://git-lfs"
        )
    except OSError:
        return False


def _unused(stems: dict[str, set[str]], listed: set[str]) -> list[str]:
    known = listed | {alias for stem, alias in ALIASES.items() if stem in listed}
    counts = {FOLDERS[modality][0]: len(names - known) for modality, names in stems.items()}
    return [
        f"{count:,} file(s) of {folder}/ are in no list and are not used."
        for folder, count in counts.items()
        if count
    ]
