"""Made data in the official formats: what each modality can tell, written once, and read as the real ones are."""

import io
import json
import pickle
import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from PIL import Image

from balancemm_cli.data.datasets import DATASETS, ave, ave_features
from balancemm_cli.data.made import (
    synthetic_ave,
    synthetic_cmu_mosi,
    synthetic_music_avqa,
    synthetic_ucf_101_three,
)
from balancemm_cli.data.made.common import patterns
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.errors import InputError

COUNTS = {
    "synthetic-ave": {"train": 28, "val": 2, "test": 6},
    "synthetic-music-avqa": {"train": 36, "val": 1, "test": 2},
    "synthetic-cmu-mosi": {"train": 40, "valid": 8, "test": 16},
    "synthetic-ucf-101-three": {"train": 24, "test": 12},
}


@pytest.fixture
def made(tmp_path):
    def make(name):
        DATASETS[name].make(tmp_path / name, counts=COUNTS[name])
        return tmp_path / name

    return make


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COUNTS)
def test_written_twice_or_after_an_interruption_the_files_are_the_same(name, made, tmp_path):
    folder = made(name)
    first = content(folder)
    DATASETS[name].make(folder)  # whole: left as it is
    assert content(folder) == first
    (folder / "design.json").unlink()
    (folder / ".begun").touch()
    next(path for path in sorted(folder.rglob("*")) if path.is_file()).write_bytes(b"half")
    DATASETS[name].make(folder, counts=COUNTS[name])
    again = content(folder)
    assert again.keys() == first.keys()
    for file, one in again.items():
        assert one == first[file] or file.endswith(".h5"), file  # HDF5 may say when it was written
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        DATASETS[name].make(tmp_path / "other")
    with pytest.raises(InputError, match="There are no made data in"):
        DATASETS[name].plan(tmp_path / "nowhere", None, False)


# ---- AVE -----------------------------------------------------------------------------------------------------


def test_seconds_of_synthetic_ave_take_both_modalities():
    """Bayes' rule with the patterns known, on 140 clips: each modality alone stays where it must, both come to all."""
    sounds = patterns(synthetic_ave.SOUNDS, synthetic_ave.SOUND, "sound")
    sights = patterns(synthetic_ave.SIGHTS, synthetic_ave.SIGHT, "sight")
    length, right, there = synthetic_ave.LENGTH, Counter(), []
    for number in range(140):
        sound, pictures, category, start, end = synthetic_ave.draw("test", number)
        now = np.arange(10)
        event = (now >= start) & (now < end)
        there.append(event)
        heard = length * sound @ sounds.T - length**2 / 2  # log-likelihood ratios against noise
        seen = length * pictures.reshape(10, 9, -1) @ sights.T - length**2 / 2
        seen = np.logaddexp.reduce(seen, 1) - np.log(9)
        truth = np.where(event, category, 28)
        by_ear = np.where(heard.max(1) > 0, heard.argmax(1), 28)  # any category of that sound
        by_eye = np.where(seen.max(1) > 0, 4 * seen.argmax(1), 28)
        both = (heard[:, None, :] + seen[:, :, None]).reshape(10, 28)
        chosen = np.where(both.max(1) > 0, both.argmax(1), 28)
        for name, found in (("audio", by_ear), ("visual", by_eye), ("both", chosen)):
            right[name] += int((found == truth).sum())
    ceilings = synthetic_ave.ceilings(np.array(there))
    assert ceilings["background"] == pytest.approx(0.4, abs=0.03)
    for name in ("audio", "visual", "both"):
        assert right[name] / 1400 == pytest.approx(ceilings[name], abs=0.03), name


def test_ave_reads_the_feature_files(made):
    source = made("synthetic-ave")
    prepared = prepare_dataset("synthetic-ave", source, out=source.parent / "out", workers=1)
    assert prepared.counts == {"train": 28, "val": 2, "test": 6}
    assert prepared.classes == ave.CLASSES and prepared.split_description == "made data in the form of AVE"
    assert prepared.modalities == {
        "audio": {"kind": "features", "length": 10, "width": 128},
        "visual": {"kind": "features", "length": 10, "width": 64, "positions": 9},
    }
    test = prepared.split("test")
    sound, pictures, category, start, end = synthetic_ave.draw("test", 5)
    np.testing.assert_array_equal(test.array("audio", 5), sound.reshape(-1))
    np.testing.assert_array_equal(test.array("visual", 5), pictures.reshape(-1))
    assert test.extra("segments")[5] == [category if start <= second < end else 28 for second in range(10)]


def write_array(path, values, name="avadataset"):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values)


def label_of(source, row, second, number):
    with h5py.File(source / "labels.h5", "r+") as file:
        file["avadataset"][row, second] = np.eye(29)[number]


DAMAGES = {
    "has the shape": lambda source: write_array(source / "audio_feature.h5", np.zeros((36, 9, 128))),
    r"labels\.h5 has the shape \(36, 10, 0\)": lambda source: write_array(
        source / "labels.h5", np.zeros((36, 10, 0))
    ),
    r"labels\.h5 has the shape \(36, 10, 1\)": lambda source: write_array(
        source / "labels.h5", np.ones((36, 10, 1))
    ),
    r"'avadataset' of .*labels\.h5 has no shape": lambda source: write_array(
        source / "labels.h5", h5py.Empty("f4")
    ),
    r"'avadataset' of .*audio_feature\.h5 has no shape": lambda source: write_array(
        source / "audio_feature.h5", h5py.Empty("f4")
    ),
    "holds no data set 'avadataset'": lambda source: write_array(source / "audio_feature.h5", [1.0], "other"),
    "not of numbers": lambda source: write_array(source / "audio_feature.h5", [b"text"]),
    "is no HDF5 file, or is damaged": lambda source: (source / "visual_feature.h5").write_bytes(b"PK"),
    "There is no file": lambda source: (source / "labels.h5").unlink(),
    r"and Annotations\.txt differ in line 3 \('Baby cry": lambda source: label_of(source, 2, 0, 7),
    r"row of the 36 of Annotations\.txt": lambda source: write_array(
        source / "val_order.h5", [0, 99], "order"
    ),
    r"val_order\.h5: nan is no row": lambda source: write_array(
        source / "val_order.h5", [28, np.nan], "order"
    ),
    r"val_order\.h5: -inf is no row": lambda source: write_array(source / "val_order.h5", [-np.inf], "order"),
    r"val_order\.h5: 28\.5 is no row": lambda source: write_array(source / "val_order.h5", [28.5], "order"),
    "or comes twice": lambda source: write_array(source / "val_order.h5", [0, 1], "order"),
    "Annotations.txt": lambda source: (source / "Annotations.txt").unlink(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_feature_files_are_named(made, message):
    source = made("synthetic-ave")
    start = synthetic_ave.draw("train", 2)[3]
    DAMAGES[message](source)
    if "line 3" in message:
        label_of(source, 2, start, 7)  # another category in one of its seconds
    with pytest.raises(InputError, match=message):
        ave.AVE().plan(source, None, True)


def test_a_link_out_of_a_feature_file_is_not_followed(made, tmp_path):
    source = made("synthetic-ave")
    shutil.move(source / "audio_feature.h5", tmp_path / "secret.h5")
    with h5py.File(source / "audio_feature.h5", "w") as file:
        file["avadataset"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "avadataset")
    with pytest.raises(InputError, match="holds no data set 'avadataset' of its own"):
        ave.AVE().plan(source, None, True)


def test_sizes_and_counts_of_others_need_to_be_allowed(made):
    source = made("synthetic-ave")
    with pytest.raises(
        InputError, match=r"has the shape \(36, 10, 3, 3, 64\), where \(36, 10, 7, 7, 512\) belongs"
    ):
        ave.AVE().plan(source, None, False)
    found = ave.AVE().plan(source, None, True)
    assert any(
        "train_order.h5 is not that of the train set of AVE: it has 28" in note for note in found.notes
    )
    (source / "trainSet.txt").write_text("Bark&x&good&0&10\n")
    with pytest.raises(InputError, match=r"trainSet\.txt has other events than train_order\.h5"):
        ave.AVE().plan(source, None, True)


def test_lists_that_are_named_must_be_there(made, tmp_path):
    source, lists = made("synthetic-ave"), tmp_path / "lists"
    with pytest.raises(InputError, match=r"There is no folder .*lists\."):
        ave.AVE().plan(source, lists, True)
    lists.mkdir()
    events = (source / "Annotations.txt").read_text().splitlines()[1:]
    for split, rows in {"train": events[:28], "val": events[28:30], "test": events[30:]}.items():
        with pytest.raises(InputError, match=rf"lists holds no {split}Set\.txt"):
            ave.AVE().plan(source, lists, True)
        (lists / f"{split}Set.txt").write_text("\n".join(rows))
    assert ave.AVE().plan(source, lists, True).samples == ave.AVE().plan(source, None, True).samples


def test_features_that_are_not_finite_are_rejected(made):
    source = made("synthetic-ave")
    with h5py.File(source / "audio_feature.h5", "r+") as file:
        file["avadataset"][28, 3, 5] = np.nan
    prepared = prepare_dataset("ave", source, out=source.parent / "out", workers=1, allow_missing=True)
    assert prepared.counts["val"] == 1
    assert "row 28 holds infinite numbers or NaN" in (prepared.folder / "rejected.csv").read_text()
    assert ave_features.are_in(source)


# ---- MUSIC-AVQA ----------------------------------------------------------------------------------------------


def test_what_each_part_of_a_question_tells(made):
    """By counting: the best answer to each type, given the question alone, with the sound, and with all."""
    source = made("synthetic-music-avqa")
    entries = json.loads((source / "avqa-train.json").read_text())
    assert len(entries) == 9 * 36 and {entry["type"] for entry in entries} == {
        json.dumps(kind.rsplit("-", 1)) for kind in synthetic_music_avqa.QUESTIONS
    }

    def best(known):
        groups = {}
        for entry in entries:
            _, truth = synthetic_music_avqa.draw("train", int(entry["video_id"]))
            groups.setdefault((entry["type"], *known(truth)), Counter())[entry["anser"]] += 1
        return sum(max(counts.values()) for counts in groups.values()) / len(entries)

    ceilings = synthetic_music_avqa.CEILINGS
    assert best(lambda truth: ()) == pytest.approx(ceilings["question"])
    assert best(lambda truth: truth[:2]) == pytest.approx(ceilings["one modality and question"])
    assert best(lambda truth: truth[2:]) == pytest.approx(ceilings["one modality and question"])
    assert best(lambda truth: truth) == ceilings["all"]


def test_synthetic_music_avqa_is_prepared(made):
    source = made("synthetic-music-avqa")
    prepared = prepare_dataset("synthetic-music-avqa", source, out=source.parent / "out", workers=1)
    assert prepared.counts == {"train": 324, "val": 9, "test": 18}
    assert prepared.manifest["notes"] == ["The authors' features are used: there are no videos."]
    test = prepared.split("test")
    assert Counter(test.extra("type")) == dict.fromkeys(synthetic_music_avqa.QUESTIONS, 2)
    drawn, _ = synthetic_music_avqa.draw("test", 1)
    np.testing.assert_array_equal(test.array("audio", 9), drawn["audio"][::6].astype(np.float32).reshape(-1))


# ---- CMU-MOSI ------------------------------------------------------------------------------------------------


def test_one_or_two_modalities_tell_three_quarters_of_the_signs(made):
    source = made("synthetic-cmu-mosi")
    labels = pickle.loads((source / synthetic_cmu_mosi.NAME).read_bytes())["train"]["regression_labels"]
    assert {round(float(value), 1) for value in labels} == {3.0, 1.4, -0.2, 0.2, -1.4, -3.0}
    bits = np.array([[number >> place & 1 for place in range(3)] for number in range(8)])
    signs = labels[:8] > 0

    def best(columns):
        groups = {}
        for row, sign in zip(bits[:, columns], signs, strict=True):
            groups.setdefault(tuple(row), Counter())[bool(sign)] += 1
        return sum(max(counts.values()) for counts in groups.values()) / 8

    assert [best([0]), best([1]), best([2]), best([0, 1]), best([1, 2]), best([0, 1, 2])] == [0.75] * 5 + [
        1.0
    ]


def test_synthetic_cmu_mosi_is_prepared(made):
    source = made("synthetic-cmu-mosi")
    prepared = prepare_dataset("synthetic-cmu-mosi", source, out=source.parent / "out", workers=1)
    assert prepared.counts == {"train": 40, "val": 8, "test": 16}
    test = prepared.split("test")
    arrays, lengths, sentiment = synthetic_cmu_mosi.draw("test", 3)
    assert test.extra("regression")[3] == pytest.approx(sentiment)
    stored = test.array("visual", 3).reshape(-1, 20)
    np.testing.assert_array_equal(stored, arrays["vision"][: lengths["vision"]])
    assert np.isinf(arrays["audio"]).any() and np.isfinite(test.array("audio", 3)).all()


# ---- UCF-101-Three -------------------------------------------------------------------------------------------


def share_of_sixteen(lines):
    """How much of what stands out of the noise is in 16 lines: both strips, where the square moved across them."""
    out = np.sort((lines - np.median(lines)).clip(0))
    return out[-16:].sum() / out.sum()


def seen(pictures, flow):
    """What one can tell by counting: the colour in the first picture and in the difference, the axis in that, and
    the direction in the flow."""
    colour = pictures[0].astype(float).mean((0, 1)).argmax()
    difference = np.abs(pictures[1].astype(float) - pictures[0])
    of_strips = difference.mean((0, 1)).argmax()
    rows, columns = (share_of_sixteen(difference.mean((axis, 2))) for axis in (1, 0))
    u, v = flow.mean((0, 1))
    direction = (0 if u > 0 else 1) if abs(u) > abs(v) else (2 if v > 0 else 3)
    return colour, of_strips, "up-down" if rows > columns else "left-right", direction


def test_each_modality_tells_its_part_of_a_class():
    for number in range(72):
        pictures, flow, label = synthetic_ucf_101_three.draw("test", number)
        colour, motion = divmod(label, 4)
        axis = "left-right" if motion < 2 else "up-down"
        assert seen(pictures, flow) == (colour, colour, axis, motion), number


def test_no_modality_tells_more():
    """The first picture is drawn before the motion, a difference is that of the way back, and flow has no colour."""
    background = np.random.default_rng(0).normal(128, 20, (64, 85, 1))
    here, there = (60, 80), (60, 88)  # and in again on the other side
    for colour in range(3):
        first, second = (synthetic_ucf_101_three.scene(background, place, colour) for place in (here, there))
        changed = (first != second).any(2)
        assert changed.sum() == 2 * 24 * 8 and changed[60:].any() and changed[:20].any()
        front = 128 + np.array(list(synthetic_ucf_101_three.COLOURS.values())[colour])
        expected = np.where(changed[..., None], np.abs(front - background), 0)
        np.testing.assert_allclose(np.abs(second - first), expected)
    counts = Counter(divmod(synthetic_ucf_101_three.draw("train", number)[2], 4) for number in range(24))
    assert counts == {(colour, motion): 2 for colour in range(3) for motion in range(4)}
    classes = [divmod(number, 4) for number in range(12)]
    known = {
        "rgb": {colour for colour, _ in classes},
        "flow": {motion for _, motion in classes},
        "rgb-difference": {(colour, motion // 2) for colour, motion in classes},
        "all": set(classes),
    }
    found = {name: len(told) / 12 for name, told in known.items()}  # one right of those that look alike
    assert found == pytest.approx(synthetic_ucf_101_three.CEILINGS)


def test_synthetic_ucf_101_three_is_prepared(made):
    source = made("synthetic-ucf-101-three")
    prepared = prepare_dataset("synthetic-ucf-101-three", source, out=source.parent / "out", workers=1)
    assert prepared.counts == {"train": 24, "test": 12} and len(prepared.classes) == 12
    assert prepared.split_description == "made data in the form of UCF-101"
    assert (prepared.reader, prepared.split_name, prepared.official_lists) == (
        "synthetic-ucf-101-three",
        "made",
        None,
    )
    assert list(prepared.modalities) == ["rgb", "flow", "rgb-difference"]
    assert prepared.modalities["flow"]["source"] == "tv-l1 pack"
    test = prepared.split("test")
    pictures, _, label = synthetic_ucf_101_three.draw("test", 7)
    row = test.ids.index("v_GreenUp_g01_c01")
    assert prepared.classes[test.labels[row]] == "GreenUp" and label == test.labels[row] == 7

    def stored(name):
        (jpeg,) = test.frames(name, row)
        return np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)

    size = (340, 256)
    for name, picture in (("rgb", pictures[0]), ("rgb-difference", np.abs(pictures[1] - pictures[0] * 1.0))):
        expected = np.asarray(Image.fromarray(picture.astype(np.uint8)).resize(size)).astype(float)
        assert np.abs(stored(name) - expected).mean() < 12, name
    right, down = stored("flow").reshape(2, 256, 340) / 255 * 40 - 20  # pixels of the made pictures
    assert down.mean() == pytest.approx(-8 * 24 * 24 / (64 * 85), abs=0.2) and abs(right.mean()) < 0.2
