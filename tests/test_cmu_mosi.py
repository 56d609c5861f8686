"""CMU-MOSI from small pickles with the keys, types and flaws of MMSA's and MulT's."""

import json
import os
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
from media_files import SHARED, contents
from small_training import train_and_evaluate

from balancemm_cli.data.datasets import cmu_mosi
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.data.preparing.verify import verify
from balancemm_cli.errors import InputError, UsageError

STANDARD = SHARED / "data" / "splits" / "cmu-mosi" / "standard_folds.json"
# A test fold that holds every kind of label; train begins with it, so that no class is without samples.
SENTIMENTS = [-3.0, -2.5, -1.5, -0.2, 0.0, 0.5, 1.5, 2.5, 3.0, 0.4, -1.0, 0.0]
VIDEOS = {"train": ["03bSnISJMiM", "-a_b$cDEFGH"], "valid": ["lXPQBPVc5Cw"], "test": ["tmZoasNr4rU"]}
COUNTS = {"train": 16, "valid": 4, "test": 12}
STEPS = {
    "unaligned": {"text": 50, "audio": 375, "vision": 500},
    "aligned": dict.fromkeys(("text", "audio", "vision"), 50),
}


def arrays(count, steps, text, kind=np.float32):
    draw = np.random.default_rng(count)
    widths = {"text": text, "audio": 5, "vision": 20}
    return {key: draw.standard_normal((count, steps[key], widths[key])).astype(kind) for key in widths}


def sentiments(fold):
    if fold == "valid":
        return np.array([-1.0, 0.0, 1.0, 2.2])
    return np.array([*SENTIMENTS, -1.0, 1.0, 2.0, -2.0][: COUNTS[fold]])


def mmsa(form="unaligned"):
    """MMSA's unaligned_50.pkl or aligned_50.pkl, with fewer segments."""
    content = {}
    for fold, count in COUNTS.items():
        values = arrays(count, STEPS[form], 768)
        values["audio"][1, 2:4, 0] = -np.inf
        values["audio"][1, 3, 1] = np.nan
        values["vision"][2] = 0
        labels = sentiments(fold)
        videos = VIDEOS[fold]
        content[fold] = {
            "raw_text": ["A FILM"] * count,
            **values,
            "id": [f"{videos[row % len(videos)]}$_${row + 1}" for row in range(count)],
            "text_bert": np.zeros((count, 3, 50), np.float32),
            "annotations": ["Negative"] * count,
            "classification_labels": np.sign(labels) + 1,
            "regression_labels": labels.astype(np.float32),
        }
        if form == "unaligned":
            content[fold]["audio_lengths"] = [3 + row for row in range(count)]
            content[fold]["vision_lengths"] = [0, *range(1, count)]
    return content


def mult(aligned=False):
    """MulT's mosi_data_noalign.pkl or mosi_data.pkl, with fewer segments."""
    content = {}
    for fold, count in COUNTS.items():
        values = arrays(count, STEPS["aligned" if aligned else "unaligned"], 300, np.float64)
        values["audio"][0, 0, :] = -np.inf
        names = [[VIDEOS[fold][0].encode(), b"%.3f" % row, b"%.3f" % (row + 1)] for row in range(count)]
        content[fold] = {**values, "labels": sentiments(fold).reshape(-1, 1, 1), "id": np.array(names)}
    return content


def write(path, content, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def prepare(source, labels="non-negative", out=None, **options):
    options = {"allow_missing": True, "workers": 1, **options}
    out = out or source.parent / "prepared" / "cmu-mosi"
    return prepare_dataset("cmu-mosi", source, out=out, options={"labels": labels}, **options)


@pytest.fixture
def source(tmp_path):
    """A folder as MMSA's, with the unaligned pickle."""
    write(tmp_path / "raw" / "MOSI" / "Processed" / "unaligned_50.pkl", mmsa())
    return tmp_path / "raw"


def test_mmsa_prepares_trains_and_evaluates(source, tmp_path):
    prepared = prepare(source)
    content = mmsa()
    assert prepared.modalities == {
        "text": {"kind": "features", "length": 50, "width": 768, "features": "bert-768"},
        "audio": {"kind": "features", "length": 375, "width": 5},
        "visual": {"kind": "features", "length": 500, "width": 20},
    }
    assert prepared.classes == ["negative", "non-negative"]
    assert prepared.counts == prepared.expected == {"train": 16, "val": 4, "test": 12}
    test = prepared.split("test")
    assert test.ids == content["test"]["id"]
    assert test.labels.tolist() == [int(value >= 0) for value in SENTIMENTS]
    assert test.extra("regression") == np.float32(SENTIMENTS).tolist()
    for modality, key in (("text", "text"), ("audio", "audio"), ("visual", "vision")):
        lengths = {"text": [50] * 12, "audio": range(3, 15), "visual": [1, *range(1, 12)]}[modality]
        for row, length in enumerate(lengths):
            expected = np.nan_to_num(content["test"][key][row, :length], nan=0, neginf=0)
            np.testing.assert_array_equal(test.array(modality, row), expected.reshape(-1), modality)
    assert prepared.manifest["notes"][3:] == [
        "audio: 9 values in 3 segments are not finite (-inf, NaN) and become 0.",
        "visual: 3 segments hold zeros alone and are kept.",
    ]
    assert (prepared.folder / "rejected.csv").read_text() == "id,split,file,reason\n"
    result = train_and_evaluate(prepared, tmp_path / "runs")
    assert set(result["selections"]["last"]["unimodal"]) == {"text", "audio", "visual"}
    assert "non-negative (>= 0)" in result["split"] and "macro_f1" in result["selections"]["last"]


@pytest.mark.parametrize("aligned", [True, False])
def test_mult(tmp_path, aligned):
    content = mult(aligned)
    path = write(tmp_path / "mosi_data.pkl", content, 2)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))  # as numpy 1 writes it
    prepared = prepare(path)
    lengths = STEPS["aligned" if aligned else "unaligned"]
    assert {name: spec["length"] for name, spec in prepared.modalities.items()} == {
        "text": 50,
        "audio": lengths["audio"],
        "visual": lengths["vision"],
    }
    assert prepared.modalities["text"]["features"] == "glove-300"
    test = prepared.split("test")
    assert test.ids[0] == "tmZoasNr4rU_0.000_1.000" and test.extra("regression") == SENTIMENTS
    found = test.array("audio", 0).reshape(-1, 5)
    np.testing.assert_array_equal(found[1:], content["test"]["audio"][0, 1:].astype(np.float32))
    assert not found[0].any()
    assert (
        "audio: 15 values in 3 segments are not finite (-inf, NaN) and become 0."
        in prepared.manifest["notes"]
    )


@pytest.mark.parametrize("protocol", range(6))
def test_the_same_samples_by_every_protocol(tmp_path, protocol):
    content = mmsa("aligned")
    prepared = prepare(write(tmp_path / "aligned_50.pkl", content, protocol))
    assert {spec["length"] for spec in prepared.modalities.values()} == {50}
    np.testing.assert_array_equal(
        prepared.split("test").array("text", 11), content["test"]["text"][11].reshape(-1)
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("non-negative", {"negative": 5, "non-negative": 7}),
        ("positive", {"negative": 5, "positive": 5}),
        ("3", {"negative": 5, "neutral": 2, "positive": 5}),
        # of -2.5, -1.5, 0.5, 1.5 and 2.5 the even neighbour
        ("7", {"-3": 1, "-2": 2, "-1": 1, "0": 5, "1": 0, "2": 2, "3": 1}),
    ],
)
def test_every_way_of_labelling(source, labels, expected):
    out = source.parent / f"cmu-mosi-{labels}"
    prepared = prepare(source, labels, out)
    test = prepared.split("test")
    names = [prepared.classes[index] for index in test.labels]
    assert {name: Counter(names)[name] for name in prepared.classes} == expected
    assert prepared.counts == prepared.expected
    left_out = [note for note in prepared.manifest["notes"] if "left out" in note]
    if labels == "positive":
        assert prepared.expected == {"train": 14, "val": 3, "test": 10}
        assert left_out == [
            "Segments at 0 are neither negative nor positive and not part of this task: "
            "2 of train, 1 of val, 2 of test are left out."
        ]
    else:
        assert prepared.expected == {"train": 16, "val": 4, "test": 12} and not left_out
    assert (prepared.folder / "rejected.csv").read_text() == "id,split,file,reason\n"


def test_seven_classes_are_rounded_as_numpy_rounds():
    for value in np.round(np.linspace(-3, 3, 61), 1).tolist():
        assert int(cmu_mosi.label(value, "7")) == np.clip(np.round(value), -3, 3), value


def test_another_labelling_has_a_folder_of_its_own(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.move(source, tmp_path / "data" / "raw" / "cmu-mosi")
    prepared = prepare_dataset("cmu-mosi", workers=1, allow_missing=True, options={"labels": "3"})
    assert str(prepared.folder) == "data/prepared/cmu-mosi-3"
    with pytest.raises(UsageError, match="one of non-negative, positive, 3, 7, not '2'"):
        prepare_dataset("cmu-mosi", options={"labels": "2"})
    with pytest.raises(UsageError, match="leave --splits away"):
        prepare_dataset("cmu-mosi", splits=tmp_path)


def test_two_workers_and_a_second_call(source, tmp_path):
    first, second = (prepare(source, out=tmp_path / str(n), workers=n) for n in (1, 2))
    assert contents(first.folder) == contents(second.folder)
    said = []
    prepare(source, out=tmp_path / "1", on_message=said.append)
    assert any("prepared already" in line for line in said)
    path = source / "MOSI" / "Processed" / "unaligned_50.pkl"
    content = mmsa()
    content["test"]["text"][0, 0, 0] += 1  # a file of the same size
    write(path, content)
    with pytest.raises(InputError, match="was prepared from other media"):
        prepare(source, out=tmp_path / "1")


def test_folds_that_are_not_the_standard_ones(source):
    with pytest.raises(
        InputError,
        match=r"fold 'train' of .*unaligned_50\.pkl is not the standard one of CMU-MOSI: it has 16 segments of 2 "
        r"videos, that one 1,284 of 52\..*MMSA.*--allow-missing",
    ):
        prepare(source, allow_missing=False)
    manifest = prepare(source).manifest
    assert "The fold 'test' is not the standard one of CMU-MOSI: it has 12 segments of 1 videos" in "".join(
        manifest["notes"]
    )
    assert manifest["split_description"].startswith("folds of its own; ")
    assert (manifest["reader"], manifest["split_name"]) == ("cmu-mosi", "official")
    assert manifest["official_lists"] is False


@pytest.mark.skipif(not STANDARD.is_file(), reason="the shared folds are absent")
def test_the_true_folds_are_recognised(tmp_path):
    folds = json.loads(STANDARD.read_text())
    counts = {"train": 1284, "valid": 229, "test": 686}
    content = {}
    for fold, videos in folds.items():
        count = counts[fold]
        content[fold] = {
            "id": [f"{videos[row % len(videos)]}$_${row // len(videos) + 1}" for row in range(count)],
            **{key: np.ones((count, 1, 1), np.float32) for key in ("text", "audio", "vision")},
            "regression_labels": np.resize(np.arange(-3.0, 4), count),
        }
    plan = cmu_mosi.CMUMosi().plan(write(tmp_path / "a.pkl", content), None, False)
    assert Counter(sample.split for sample in plan.samples) == {"train": 1284, "val": 229, "test": 686}
    assert plan.notes == [] and plan.split_description.startswith("the standard folds")
    assert (plan.split_name, plan.official_lists) == ("official", True)
    other = cmu_mosi.CMUMosi().plan(tmp_path / "a.pkl", None, False, labels="positive")
    assert (other.split_name, other.official_lists) == ("official-positive", True)  # other samples
    short = {**content, "test": {key: values[:-1] for key, values in content["test"].items()}}
    with pytest.raises(InputError, match=r"it has 685 segments of 31 videos, that one 686 of 31\."):
        cmu_mosi.CMUMosi().plan(write(tmp_path / "short.pkl", short), None, False)
    swapped = content["test"]["id"][0].split("$")[0], content["valid"]["id"][0].split("$")[0]
    for fold, (mine, other) in (("test", swapped), ("valid", swapped[::-1])):
        content[fold]["id"] = [name.replace(mine, other) for name in content[fold]["id"]]
    with pytest.raises(
        InputError, match=r"'valid' .* not the standard one of CMU-MOSI: its videos are others"
    ):
        cmu_mosi.CMUMosi().plan(write(tmp_path / "b.pkl", content), None, False)


RIGHT = mmsa("aligned")


def changed(fold, **values):
    part = {**RIGHT[fold], **values}
    return {**RIGHT, fold: {key: value for key, value in part.items() if value is not None}}


WRONG = {
    "a list": ([1], "it is no dict of folds"),
    "a fold is missing": ({fold: RIGHT[fold] for fold in ("train", "test")}, "has no fold 'valid'"),
    "a fold of another kind": ({**RIGHT, "test": [1]}, "has no fold 'test'"),
    "no ids": (changed("train", id=None), "its fold 'train' has no 'id'"),
    "no vision": (changed("valid", vision=None), "its fold 'valid' has no 'vision'"),
    "no labels": (changed("test", regression_labels=None), "its fold 'test' has no 'labels'"),
    "too few ids": (
        changed("test", id=["a$_$1"]),
        "'regression_labels' of its fold 'test' has 12 entries for 1 ids",
    ),
    "too few rows": (
        changed("test", audio=np.ones((3, 50, 5))),
        "'audio' of its fold 'test' has 3 entries for 12",
    ),
    "no rows": (changed("test", id=[], regression_labels=np.zeros(0)), "has 0 entries for 0 ids"),
    "integers": (
        changed("test", audio=np.ones((12, 50, 5), int)),
        "'audio' of its fold 'test' is of int64, not",
    ),
    "a list of rows": (changed("test", text=[[1.0]]), "'text' of its fold 'test' is of list, not an array"),
    "text": (changed("test", text=np.array(["a"])), "is of <U1, not an array of floating point"),
    "two axes": (changed("test", vision=np.ones((12, 20))), r"has the shape \(12, 20\), not segments"),
    "no steps": (changed("test", vision=np.ones((12, 0, 20))), r"has the shape \(12, 0, 20\), not segments"),
    "other steps": (
        changed("test", vision=np.ones((12, 40, 20))),
        r"'vision' has steps and numbers \[\(40, 20\), \(50",
    ),
    "several labels": (
        changed("test", regression_labels=np.ones((12, 7))),
        r"shape \(12, 7\), not one number per segment",
    ),
    "labels of text": (changed("test", regression_labels=["a"] * 12), "something else than numbers"),
    "a label of NaN": (
        changed("test", regression_labels=np.full(12, np.nan)),
        "holds nan, which is not within -3 and 3",
    ),
    "a label of 4": (changed("test", regression_labels=np.full(12, 4.0)), "holds 4.0, which is not within"),
    "ids that are numbers": (
        changed("test", id=list(range(12))),
        "'id' of its fold 'test' holds something else",
    ),
    "an id for all": (changed("test", id="a"), "'id' of its fold 'test' is no list"),
    "an id twice": (changed("test", id=["a$_$1"] * 12), "holds the segment 'a[$]_[$]1' 12 times"),
    "a segment in two folds": (
        changed("test", id=[RIGHT["train"]["id"][0], *(f"b$_${n}" for n in range(11))]),
        "holds the segment '03bSnISJMiM[$]_[$]1' 2 times",
    ),
    "negative lengths": (changed("test", audio_lengths=[-1] * 12), "'audio_lengths' .* steps from 0 to 50"),
    "lengths that are too long": (
        changed("test", audio_lengths=[51] * 12),
        "'audio_lengths' .* steps from 0 to 50",
    ),
    "half a step": (changed("test", audio_lengths=[0.5] * 12), "'audio_lengths' .* steps from 0 to 50"),
    "lengths of NaN": (
        changed("test", audio_lengths=[float("nan")] * 12),
        "'audio_lengths' .* steps from 0 to 50",
    ),
    "too few lengths": (changed("test", audio_lengths=[1]), "'audio_lengths' .* has 1 entries for 12 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_pickles_of_another_form(tmp_path, case):
    content, message = WRONG[case]
    path = write(tmp_path / "a.pkl", content)
    with pytest.raises(
        InputError, match=rf"^\S+a\.pkl is not a CMU-MOSI pickle of MMSA or MulT: .*{message}"
    ):
        prepare(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pkl"]


def test_a_pickle_that_runs_a_program_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Program:
        def __reduce__(self):
            return os.system, ("touch ran",)

    with pytest.raises(
        InputError, match=r"a\.pkl asks for 'posix.system', which is neither a plain value nor an"
    ):
        prepare(write(tmp_path / "a.pkl", {**mmsa("aligned"), "meta": Program()}))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pkl"]


def test_one_pickle_is_to_be_named(source):
    write(source / "MOSI" / "Processed" / "aligned_50.pkl", mmsa("aligned"))
    with pytest.raises(
        InputError, match=r"There are 2 pickles in .*--source \S+/MOSI/Processed/aligned_50\.pkl$"
    ):
        prepare(source)
    assert prepare(source / "MOSI" / "Processed" / "unaligned_50.pkl").counts["test"] == 12


def test_what_to_get(tmp_path):
    with pytest.raises(InputError, match=r"There is no folder .*MMSA.*data/raw/cmu-mosi"):
        prepare(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.pkl.*MMSA"):
        prepare(tmp_path / "nowhere.pkl")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"There is no \.pkl file in .*MMSA"):
        prepare(tmp_path / "other")
    (tmp_path / "other" / "a.pkl").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is a link to /etc/hostname, outside"):
        prepare(tmp_path / "other")


def test_verify_knows_the_published_hashes(source):
    plan = cmu_mosi.CMUMosi().plan(source, None, True)
    published = cmu_mosi.CMUMosi().official_files(source, plan)
    (facts,) = published.files.values()
    assert list(published.files) == ["MOSI/Processed/unaligned_50.pkl"]
    assert facts.hash == "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524"
    with pytest.raises(InputError, match=r"not those that MMSA's README of unaligned_50\.pkl names"):
        verify(cmu_mosi.CMUMosi(), source, plan, workers=1)
    path = write(source / "b" / "any name.pkl", mmsa("aligned"))
    published = cmu_mosi.CMUMosi().official_files(path, cmu_mosi.CMUMosi().plan(path, None, True))
    assert published.files["any name.pkl"].hash.startswith("d3994fd25681")
    path = write(source / "c" / "mosi_data.pkl", mult())
    assert cmu_mosi.CMUMosi().official_files(path, cmu_mosi.CMUMosi().plan(path, None, True)) is None
