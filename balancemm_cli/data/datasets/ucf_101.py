"""UCF-101 as videos or as pictures of them, by the three official splits.

The media come in three forms, looked for in this order, each of them for all clips or none:

- packs: jpegs_256/<clip>/frame000001.jpg … and tvl1_flow/{u,v}/<clip>/frame000001.jpg …, published with
  "Convolutional Two-Stream Network Fusion for Video Action Recognition" (Feichtenhofer et al., 2016);
- dense-flow: rawframes/<class>/<clip>/img_00001.jpg, flow_x_00001.jpg, flow_y_00001.jpg …;
- official: UCF-101/<class>/<clip>.avi.

RGB may come in one form and flow in another. Flow that is nowhere is computed from the RGB pictures.
Split: ucfTrainTestlist/ of the official page, three ways to cut the clips into train and test; a group of clips
(of one person or background) is never in both. The official lists and videos write v_HandStandPushups where
the packs write v_HandstandPushups, so clips are matched without regard to capitals.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import OTHER_LISTS, Official, check_official, find_file, read_text
from balancemm_cli.data.datasets.plan import (
    COMPUTED,
    Clip,
    Plan,
    Sample,
    Spec,
    content_of,
    frames,
    stamp_of,
)
from balancemm_cli.data.datasets.tree import files_below, need_folder, refuse_outside
from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

OPTIONS = {"split": ("1", "2", "3"), "flow": ("tv-l1", "dis")}
RGB = frames(256, 340, 1.0)
FLOW = {**RGB, "channels": 2, "content": "flow"}
PICTURES_A_SECOND = 25  # of the videos (Soomro et al., 2012); folders of pictures don't say it
STEP = round(PICTURES_A_SECOND / RGB["fps"])  # from a picture that is read to the next one

JOIN = "join the three parts of each pack before unzipping (`cat NAME.zip.00* > NAME.zip`)"
HOW_TO_GET = (
    "Unpack UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip of https://www.crcv.ucf.edu/data/UCF101.php "
    "into data/raw/ucf-101, or name the folder that holds UCF-101/ with --source; the packs jpegs_256/ and "
    "tvl1_flow/ do as well as the videos."
)
REMEDY = f"Unpack UCF101.rar whole, or, for packs, {JOIN}."
HOW_TO_GET_LISTS = (
    "Get UCF101TrainTestSplits-RecognitionTask.zip (not DetectionTask) of https://www.crcv.ucf.edu/data/UCF101.php "
    "and put its ucfTrainTestlist/ beside the media, or name that folder with --splits."
)

# Number of entries and SHA-256 of each list with the spelling HandstandPushups.
LISTS = {
    "classInd": (101, "18f147f3b964c42d878075f06dd62b5f5b6f92434c06a127334bed591da82172"),
    "trainlist01": (9537, "33d2631d62e2bb17f4d31a67bdb446ae5ef31c04e72ce22a1256625527223ff1"),
    "trainlist02": (9586, "ca9430423cec52787556315bf95f9275b16da6a49358b0d71dabbf870e82aad5"),
    "trainlist03": (9624, "a58ff9f9a76db83fd01ff353f5c60f0ce3e2bee4b55dcb04a5062639c8c487a4"),
    "testlist01": (3783, "ad9463240a558b9454b9dc655818750344727255fb563a46fb725f13eb444fb8"),
    "testlist02": (3734, "cf52f8f33b98b84d7e4a17f0c957ffd74431c831f99bf134b53f79ec74c1d444"),
    "testlist03": (3696, "9106737822a916fed432f8a06251cc9ec0b950b5bf16395971ebe4d7e05cf705"),
}
CLASS = re.compile(r"(\d+) ([A-Za-z]+)")
ENTRY = re.compile(r"([A-Za-z]+)/(v_([A-Za-z]+)_g\d\d_c\d\d)\.avi(?: (\d+))?")


@dataclass(frozen=True, slots=True)
class Video(Clip):
    """A video, which has motion between its neighbouring frames too."""

    def read(self, spec: Spec, waived: frozenset[str]) -> list[bytes]:
        """JPEG files of frames, or of the motion from each to the next one. Raises media.MediaError."""
        from balancemm_cli.data.reading import media

        if "content" not in spec:
            return Clip.read(self, spec, waived)
        pairs = media.read_pairs(self.path, spec["height"], spec["width"], spec["fps"])
        return [_motion(first, second, spec) for first, second in pairs]


@dataclass(frozen=True, slots=True)
class Pictures(Clip):
    """A folder of numbered pictures; `name` is that of all of them, as in `jpegs_256/v_YoYo_g01_c01/frame*.jpg`."""

    def size(self) -> int | None:
        """How many pictures there are; None where there is none."""
        return len(_pictures(self.root, self.name)) or None

    def stamp(self) -> str | None:
        """As Clip, of the pictures that are read; None where there is none."""
        paths = _used(self.root, [self.name])
        return stamp_of(paths) if paths else None

    def content(self) -> str:
        """As Clip, of the pictures that are read."""
        return content_of(_used(self.root, [self.name]))

    def read(self, spec: Spec, waived: frozenset[str]) -> list[bytes]:
        """JPEG files as those of a video. Raises media.MediaError."""
        from balancemm_cli.data.reading import media

        paths = _whole(self.root, self.name)
        if "content" not in spec:
            return [media.encode_jpeg(_read(path, spec)) for path in paths[::STEP]]
        if len(paths) == 1:
            raise media.MediaError("one frame", "motion needs two")
        pairs = zip(paths[:-1:STEP], paths[1::STEP], strict=True)
        return [_motion(_read(first, spec), _read(second, spec), spec) for first, second in pairs]


@dataclass(frozen=True, slots=True)
class StoredFlow(Clip):
    """Flow in two sets of grey pictures, to the right and down; `name` is that of all of them, as in
    `tvl1_flow/{u,v}/v_YoYo_g01_c01/frame*.jpg`. `rgb` names the clip's RGB pictures where they are pictures."""

    rgb: str = ""

    def size(self) -> int | None:
        """How many pictures there are; None where one of the sets is missing."""
        counts = [len(_pictures(self.root, name)) for name in self._names()]
        return sum(counts) if all(counts) else None

    def stamp(self) -> str | None:
        """As Clip, of the pictures of both sets that are read; None where one of the sets is missing."""
        paths = _used(self.root, self._names())
        return stamp_of(paths) if paths else None

    def content(self) -> str:
        """As Clip, of the pictures of both sets that are read."""
        return content_of(_used(self.root, self._names()))

    def describe(self) -> list[Any]:
        """All that decides what is read."""
        return [*Clip.describe(self), self.rgb]

    def read(self, spec: Spec, waived: frozenset[str]) -> list[bytes]:
        """JPEG files with two channels. Raises media.MediaError."""
        import numpy as np

        from balancemm_cli.data.reading import media

        u, v = (_whole(self.root, name) for name in self._names())
        if len(u) != len(v):
            raise media.MediaError("incomplete", f"{len(u):,} pictures to the right, {len(v):,} down")
        expected = len(_pictures(self.root, self.rgb)) - 1 if self.rgb else len(u)
        if abs(expected - len(u)) > PICTURES_A_SECOND:  # both should end within the same second
            raise media.MediaError(
                "incomplete", f"{len(u):,} pictures of flow belong to {expected + 1:,} RGB pictures"
            )
        both = zip(u[::STEP], v[::STEP], strict=True)
        channels = ([_read(path, spec)[..., 0] for path in paths] for paths in both)
        return [media.encode_jpeg(np.stack(pair, 2)) for pair in channels]

    def _names(self) -> list[str]:
        letters = (("u", "x"), ("v", "y"))
        return [self.name.replace("{u,v}", one).replace("{x,y}", other) for one, other in letters]


@dataclass(frozen=True)
class _Form:
    """A form in which a modality comes: where a clip lies below the source, what reads it, and what it is."""

    kind: type[Clip]
    pattern: str
    what: str

    def name(self, label: str, clip: str) -> str:
        return self.pattern.replace("<class>", label).replace("<clip>", clip)


# The preferred form first.
VIDEOS = _Form(Video, "UCF-101/<class>/<clip>.avi", "the videos in UCF-101/")
RGB_FORMS = (
    _Form(Pictures, "jpegs_256/<clip>/frame*.jpg", "the pictures in jpegs_256/"),
    _Form(Pictures, "rawframes/<class>/<clip>/img_*.jpg", "the pictures in rawframes/"),
    VIDEOS,
)
FLOW_FORMS = (
    _Form(StoredFlow, "tvl1_flow/{u,v}/<clip>/frame*.jpg", "tv-l1 pack"),
    _Form(StoredFlow, "rawframes/<class>/<clip>/flow_{x,y}_*.jpg", "dense-flow pictures"),
)


def split_name(split: str, flow: str) -> str:
    """Which numbers these data can be compared with: those of the split, and not where the flow is another one."""
    return split if flow == OPTIONS["flow"][0] else f"{split}-{flow}"


class UCF101(Dataset):
    """UCF-101: 13,320 clips of 101 actions from YouTube (RGB pictures and optical flow)."""

    name = "ucf-101"
    HOW_TO_GET = HOW_TO_GET
    OPTIONS = OPTIONS
    SPLIT_NAMES = tuple(split_name(*options) for options in product(OPTIONS["split"], OPTIONS["flow"]))

    def plan(
        self, source: Path, splits: Path | None, allow_missing: bool, split: str = "1", flow: str = "tv-l1"
    ) -> Plan:
        """The clips of one of the three splits. Stored flow is used where there is any and `flow` is "tv-l1", else
        flow is computed by that method. InputError for absent media or lists, for other lists than the official
        ones unless `allow_missing`, and where flow can't be computed."""
        need_folder(source, HOW_TO_GET)
        notes: list[str] = []
        classes, rows = _read_lists(_lists_folder(source, splits), split, allow_missing, notes)
        official = not notes
        whose = f"split {split} of the official three, in which train and test share no group of clips"
        rgb_form, rgb_names = _rgb(source)
        flow_form, flow_names = _stored_flow(source) if flow == "tv-l1" else (None, {})
        samples = []
        for own, label, clip in rows:
            rgb = rgb_form.kind(source, rgb_names.get(clip.lower()) or rgb_form.name(label, clip))
            motion = rgb
            if flow_form is not None:
                name = flow_names.get(clip.lower()) or flow_form.name(label, clip)
                motion = StoredFlow(source, name, rgb="" if rgb_form is VIDEOS else rgb.name)
            samples.append(Sample(clip, own, label, {"rgb": rgb, "flow": motion}))
        origin = flow_form.what if flow_form else COMPUTED + flow
        notes.append(f"RGB is taken from {rgb_form.what}. {_about_flow(origin, flow)}")
        modalities = {"rgb": RGB, "flow": {**FLOW, "source": origin}}
        return Plan(
            self.name,
            samples,
            classes,
            modalities,
            whose if official else OTHER_LISTS,
            notes,
            REMEDY,
            clip_seconds=7.4,
            split_name=split_name(split, flow),
            official_lists=official,
        )


def _about_flow(origin: str, method: str) -> str:
    """What to tell about the flow. InputError where it has to be computed and OpenCV is absent."""
    from balancemm_cli.data.reading.flow import load_opencv

    if not origin.startswith(COMPUTED):
        return f"Flow is stored ({origin})."
    about = f"Flow is computed by {method.upper()} of OpenCV {load_opencv(method).__version__}"
    if method == "tv-l1":
        about += ", in about 1 s of one core for each second of a clip; --flow dis takes 1/100 of that"
    return f"{about}. It is not that of the published TV-L1 pack."


def _rgb(source: Path) -> tuple[_Form, dict[str, str]]:
    found = _first(source, RGB_FORMS)
    if found is None:
        there = ", ".join(sorted(entry.name for entry in source.iterdir())[:5])
        raise InputError(
            f"{source} holds none of UCF-101/, jpegs_256/ and rawframes/ with clips (there: {there}). {HOW_TO_GET}"
        )
    return found


def _stored_flow(source: Path) -> tuple[_Form | None, dict[str, str]]:
    """The form of the stored flow, and its clips. InputError for a pack of which only a part was unzipped."""
    pack = source / "tvl1_flow"
    if pack.is_dir():
        lacking = [name for name in ("u", "v") if not any(_folders(source, f"tvl1_flow/{name}"))]
        if lacking:
            raise InputError(
                f"{pack} holds no {'/ and no '.join(lacking)}/ with clips: of its two components, u/ and v/, the first "
                f"part of the zip holds one. To use the pack, {JOIN}; to compute flow instead, move the folder away."
            )
    return _first(source, FLOW_FORMS) or (None, {})


def _first(source: Path, forms: tuple[_Form, ...]) -> tuple[_Form, dict[str, str]] | None:
    """The first form in which any clip is there, and its clips: names below the source by small letters."""
    for form in forms:
        names = dict(_clips(source, form))
        if any(form.kind(source, name).size() is not None for name in names.values()):
            return form, names
    return None


def _clips(source: Path, form: _Form) -> Iterator[tuple[str, str]]:
    """What is there in a form: a clip in small letters, and its name below the source."""
    top = form.pattern.partition("/<")[0].replace("{u,v}", "u")
    if form is VIDEOS:
        refuse_outside(source / top, source)
        if (source / top).is_dir():
            for name in files_below(source / top, frozenset({".avi"})):
                yield Path(name).stem.lower(), f"{top}/{name}"
        return
    for label in _folders(source, top) if "<class>" in form.pattern else [""]:
        for clip in _folders(source, f"{top}/{label}".rstrip("/")):
            yield clip.lower(), form.name(label, clip)


def _folders(source: Path, below: str) -> list[str]:
    """The folders in one below the source, sorted; none where that is missing. InputError for a link that leads
    out of the source."""
    folder = source / below
    refuse_outside(folder, source)
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for entry in found:
        if entry.is_symlink():
            refuse_outside(Path(entry.path), source)
    return sorted(entry.name for entry in found)


def _pictures(root: Path, name: str) -> list[str]:
    """The file names of the pictures that a name such as `jpegs_256/v_YoYo_g01_c01/frame*.jpg` means. Anything
    else in the folder is passed over: the packs hold stray .bin files."""
    below, _, pattern = name.rpartition("/")
    numbered = re.compile(pattern.replace(".", "[.]").replace("*", "[0-9]+"))
    folder = root / below
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if numbered.fullmatch(entry.name):
                    if entry.is_symlink():
                        refuse_outside(Path(entry.path), root)
                    found.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return found


def _used(root: Path, names: list[str]) -> list[Path]:
    """The pictures that are read, of each second the first two, of those that each of the names means; none at all
    where a name means none."""
    found = {name: sorted(_pictures(root, name), key=_number) for name in names}
    if not all(found.values()):
        return []
    return [
        (root / name).with_name(file)
        for name, files in found.items()
        for place, file in enumerate(files)
        if place % STEP < 2
    ]


def _number(file: str) -> int:
    return int(re.findall("[0-9]+", file)[0])


def _whole(root: Path, name: str) -> list[Path]:
    """The pictures of a clip in the order of their numbers. MediaError where there is none, or one is missing."""
    from balancemm_cli.data.reading.media import MediaError

    numbers = {_number(file): file for file in _pictures(root, name)}
    if not numbers:
        raise MediaError("missing")
    first, last = min(numbers), max(numbers)
    if last - first + 1 != len(numbers):
        raise MediaError("incomplete", f"{len(numbers):,} pictures with the numbers {first} to {last}")
    return [(root / name).with_name(numbers[number]) for number in range(first, last + 1)]


def _read(path: Path, spec: Spec) -> "np.ndarray":
    """A picture, uint8 RGB [height, width, 3]. MediaError with its name."""
    from balancemm_cli.data.reading import media

    try:
        return media.read_picture(path, spec["height"], spec["width"])
    except media.MediaError as error:
        raise media.MediaError(error.kind, f"{path.name} ({error})") from None


def _motion(first: "np.ndarray", second: "np.ndarray", spec: Spec) -> bytes:
    """The JPEG file of what changes from one picture to the next: flow, or the absolute difference."""
    import numpy as np

    from balancemm_cli.data.reading import flow, media

    if spec["content"] == "flow":
        motion = flow.compute(first, second, spec["source"].removeprefix(COMPUTED))
        return media.encode_jpeg(flow.as_picture(motion))
    return media.encode_jpeg(np.maximum(first, second) - np.minimum(first, second))


def _lists_folder(source: Path, splits: Path | None) -> Path:
    if splits is None:
        if not (source / "ucfTrainTestlist").is_dir():
            raise InputError(f"There is no folder ucfTrainTestlist/ in {source}. {HOW_TO_GET_LISTS}")
        splits = source
    return find_file(splits, ["ucfTrainTestlist/classInd.txt", "classInd.txt"], HOW_TO_GET_LISTS).parent


def _read_lists(
    folder: Path, number: str, allow_other: bool, notes: list[str]
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The classes, and the (split, class, clip) of each entry of both lists."""

    def read(name: str) -> tuple[Path, list[str]]:
        path = find_file(folder, [f"{name}.txt"], HOW_TO_GET_LISTS)
        text = read_text(path).replace("v_HandStandPushups", "v_HandstandPushups")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        count, sha256 = LISTS[name]
        official = Official(f"the official {name}.txt of UCF-101", count, sha256, HOW_TO_GET_LISTS)
        check_official(path, text, len(lines), official, allow_other, notes)
        return path, lines

    classes = _parse_classes(*read("classInd"))
    rows = []
    seen: dict[str, str] = {}
    for split in ("train", "test"):
        path, lines = read(f"{split}list0{number}")
        for place, line in enumerate(lines, 1):
            label, clip = _parse_entry(line, classes, f"{path}, entry {place}")
            if clip in seen:
                raise InputError(f"{path}, entry {place}: '{clip}' is listed in {seen[clip]} before.")
            seen[clip] = path.name
            rows.append((split, label, clip))
    return classes, rows


def _parse_classes(path: Path, lines: list[str]) -> list[str]:
    """The classes in the order of their numbers, which is that of the lines."""
    classes = []
    for number, line in enumerate(lines, 1):
        match = CLASS.fullmatch(line)
        if match is None or int(match[1]) != number or match[2] in classes:
            raise InputError(
                f"{path}, entry {number}: '{line}' is not of the form '{number} ApplyEyeMakeup' with a new name. "
                "Use the lists as they are."
            )
        classes.append(match[2])
    return classes


def _parse_entry(line: str, classes: list[str], where: str) -> tuple[str, str]:
    """The class and the clip of an entry. The entries of the test lists have no number of the class."""
    match = ENTRY.fullmatch(line)
    if match is None or match[1].lower() != match[3].lower():
        raise InputError(
            f"{where}: '{line}' is not of the form YoYo/v_YoYo_g01_c01.avi 101. Use the lists as they are."
        )
    label, clip, _, number = match.groups()
    if label not in classes:
        raise InputError(
            f"{where}: the class '{label}' is not in classInd.txt. Use lists that belong together."
        )
    if number and int(number) != classes.index(label) + 1:
        raise InputError(
            f"{where}: class {number} is not '{label}' by classInd.txt. Use lists that belong together."
        )
    return label, clip
