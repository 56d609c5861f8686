"""CREMA-D: 7,442 clips of 91 actors saying 12 sentences in 6 emotions (audio and video).

Layout: AudioWAV/<stem>.wav and VideoFlash/<stem>.flv of the official repository. The sound is always taken
from AudioWAV, because 28 of the videos were without sound until 2020. Split: data/CREMAD/train.csv and
test.csv of the OGM-GE repository (6,698 / 744; headerless lines `stem,label`), used by the papers on OGM and
OPM; the class order is that of its stat.csv. The same actors occur in both parts.

The authors' code trains on all 6,698, so the samples of which a defect is known are kept as far as they
decode (DEFECTS); any other file that is damaged is rejected.
"""

import hashlib
import re
import wave
from dataclasses import replace
from pathlib import Path

from balancemm_cli.data.datasets.lists import read_text
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, frames, waveform
from balancemm_cli.data.datasets.tree import need_folder
from balancemm_cli.errors import InputError

CLASSES = ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
PROTOCOL = "the lists of OGM-GE, in which all actors occur in train and test"
FOLDERS = {"audio": ("AudioWAV", ".wav"), "visual": ("VideoFlash", ".flv")}
MODALITIES = {"audio": waveform(16000), "visual": frames(360, 480, 1.0)}

# Number of samples and SHA-256 of each list, without byte order mark and carriage returns.
LISTS = {
    "train": (6698, "7b95d291b847eac9c1447bb9fb63b47176d182987ac74fe041e4dd493c6d0abd"),
    "test": (744, "959a667af66a01dc439b12d6ec9dc57b36a88e947f48ad63531a4b91f769394f"),
}
NAME = re.compile(
    r"\d{4}_(IEO|TIE|IOM|IWW|TAI|MTI|IWL|ITH|DFA|ITS|TSI|WSI)_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)"
)
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

MIRROR = "https://gitlab.com/cs-cooper-lab/crema-d-mirror.git"
HOW_TO_GET = (
    "Get AudioWAV/ and VideoFlash/ with `git lfs clone "
    f"https://github.com/CheyneyComputerScience/CREMA-D.git` (7.6 GB; mirror: {MIRROR}) and put both folders "
    "into data/raw/crema-d, or name their folder with --source."
)
HOW_TO_GET_LISTS = (
    "Clone https://github.com/GeWu-Lab/OGM-GE_CVPR2022, which holds data/CREMAD/train.csv and test.csv, and "
    "name the clone with --splits."
)


def plan(source: Path, splits: Path | None, allow_missing: bool) -> Plan:
    """The samples of the lists with their files. InputError for absent media or lists, and for other lists
    than those of OGM-GE, unless `allow_missing`, which takes them and notes it."""
    need_folder(source, HOW_TO_GET)
    stems = {modality: _stems(source, *where) for modality, where in FOLDERS.items()}
    folder = _lists_folder(splits)
    notes: list[str] = []
    rows = {split: _read_list(folder / f"{split}.csv", split, allow_missing, notes) for split in LISTS}
    _refuse_repeats(rows, folder)
    samples = [_sample(source, split, stem, stems) for split, part in rows.items() for stem in part]
    if not allow_missing:
        _refuse_pointers(source, samples)
    notes += _unused(stems, {sample.id for sample in samples})
    return Plan("crema-d", samples, CLASSES, MODALITIES, PROTOCOL, notes, HOW_TO_GET, clip_seconds=2.5)


def _stems(source: Path, folder: str, suffix: str) -> set[str]:
    path = source / folder
    if not path.is_dir():
        there = ", ".join(sorted(entry.name for entry in source.iterdir())[:5])
        raise InputError(
            f"The folder {folder}/ is missing in {source} (there: {there}); many copies hold AudioWAV/ only. "
            f"{HOW_TO_GET}"
        )
    return {entry.stem for entry in path.iterdir() if entry.suffix == suffix}


def _lists_folder(splits: Path | None) -> Path:
    """The folder of train.csv and test.csv: `splits` itself or data/CREMAD in a clone."""
    if splits is None:
        raise InputError(f"The split lists are not named. {HOW_TO_GET_LISTS}")
    if not splits.is_dir():
        raise InputError(f"There is no folder {splits}. {HOW_TO_GET_LISTS}")
    for folder in (splits / "data" / "CREMAD", splits):
        if all((folder / f"{split}.csv").is_file() for split in LISTS):
            return folder
    raise InputError(f"{splits} holds neither train.csv and test.csv nor data/CREMAD/. {HOW_TO_GET_LISTS}")


def _read_list(path: Path, split: str, allow_other: bool, notes: list[str]) -> list[str]:
    """The stems of a list; a difference to OGM-GE's list is an InputError, or a note where it is allowed."""
    text = read_text(path).strip("\n") + "\n"
    stems = [_parse(line, path, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    count, expected = LISTS[split]
    found = hashlib.sha256(text.encode()).hexdigest()
    if found == expected:
        return stems
    if len(stems) != count:
        difference = f"it has {len(stems):,} samples, that one {count:,}"
    else:
        difference = f"its SHA-256 is {found[:12]}…, that one's {expected[:12]}…"
    if not allow_other:
        raise InputError(
            f"{path} is not the {split} list of OGM-GE: {difference}. {HOW_TO_GET_LISTS} "
            "Pass --allow-missing to use this list nevertheless."
        )
    notes.append(f"The {split} list is not the one of OGM-GE: {difference}.")
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
                    f"'{stem}' is listed twice in {folder} ({seen[stem]}.csv and {split}.csv). "
                    "Use the lists as they are."
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
