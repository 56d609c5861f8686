"""The user's own data of other kinds than media: texts, features, numbers, tables; splits, groups and labels."""

import io
import json
import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from media_files import tone, write_csv, write_video, write_wav
from PIL import Image

from balancemm_cli.config.run import resolve
from balancemm_cli.data.datasets.lists import read_text
from balancemm_cli.data.datasets.manifest import Manifest
from balancemm_cli.data.kinds.tokens import split_words
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.engine.run_evaluation import Wanted, evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.runs.folder import RunFolder

HEADER = "id,label,split"


def prepare(path, **options):
    return prepare_dataset("manifest", path, out=path.parent / "out", workers=1, options=options)


def plan(path, **options):
    return Manifest().plan(path, None, False, **options)


def table_of(tmp_path, header, *rows):
    return write_csv(tmp_path / "mine.csv", header, *rows)


# ---- kinds ----------------------------------------------------------------------------------------------------


def test_numbers_in_the_csv(tmp_path):
    """Two ways to write a group of columns; each group is one modality, in the order of its columns."""
    header = f"{HEADER},speed[0],person.age,speed[1],person.height"
    prepared = prepare(table_of(tmp_path, header, "x,a,train,1,30,2.5,1.8", "y,b,train,-3e2,4,.5,1"))
    assert {name: spec["width"] for name, spec in prepared.modalities.items()} == {"speed": 2, "person": 2}
    split = prepared.split("train")
    assert [split.array("speed", row).tolist() for row in (0, 1)] == [[1, 2.5], [-300, 0.5]]
    np.testing.assert_array_equal(split.array("person", 0), np.float32([30, 1.8]))


def test_feature_files_and_cells(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "b.npy", np.array([7, 8]))
    prepared = prepare(
        table_of(
            tmp_path,
            f"{HEADER},wrist:features,embedding",
            'x,a,train,a.npy,"[0.5, 1]"',
            "y,b,train,b.npy,2 3",
        )
    )
    assert prepared.modalities["wrist"] == {"kind": "features", "length": 3, "width": 2}
    split = prepared.split("train")
    assert split.array("wrist", 0).tolist() == [0, 1, 2, 3, 4, 5] and split.array("wrist", 1).tolist() == [
        7,
        8,
    ]
    assert [split.array("embedding", row).tolist() for row in (0, 1)] == [[0.5, 1], [2, 3]]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: np.save(path, np.zeros(3)), "other width: 3 numbers a step, and 2 in most files"),
        (lambda path: np.save(path, np.array([1, np.nan])), "not finite"),
        (lambda path: np.save(path, np.array([1e39, 1])), "not finite"),
        (lambda path: np.save(path, np.array(["a", "b"])), "unreadable: it holds something else"),
        (lambda path: np.save(path, np.array([{}, 1], dtype=object)), "unreadable: not an .npy file"),
        (lambda path: np.save(path, np.zeros((2, 2, 2))), r"other shape: \[2, 2, 2\]"),
        (lambda path: np.save(path, np.zeros((0, 2))), "other shape"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "unreadable"),
    ],
)
def test_a_feature_file_that_is_of_no_use_costs_its_row(tmp_path, write, reason):
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.ones(2))
    write(tmp_path / "c.npy")
    rows = ["x,a,train,a.npy", "y,b,train,b.npy", "z,b,train,c.npy"]
    prepared = prepare(table_of(tmp_path, f"{HEADER},f:features", *rows))
    rejected = pd.read_csv(prepared.folder / "rejected.csv").iloc[0]
    assert prepared.counts == {"train": 2} and rejected["id"] == "z"
    assert pd.Series([rejected["reason"]]).str.contains(reason)[0]


def test_texts_in_cells(tmp_path):
    rows = [
        'x,a,train,"The cat, the DOG"',
        "y,b,train,the cat's cat",
        "z,b,train,a Cat",
        "t,a,test,the dog sat",
    ]
    prepared = prepare(table_of(tmp_path, f"{HEADER},text", *rows))
    spec, split = prepared.modalities["text"], prepared.split("train")
    assert spec["words"] == ["", "<rare>", "cat", "the"] and spec["length"] == 4
    assert [split.array("text", row).tolist() for row in range(3)] == [[3, 2, 3, 1], [3, 1, 2], [1, 2]]
    assert prepared.split("test").array("text", 0).tolist() == [3, 1, 1]
    (note,) = [note for note in prepared.manifest["notes"] if note.startswith("text:")]
    assert "2 words stand at least 2 times" in note and "3 others (33.3% of all words there)" in note


def test_texts_in_files(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffgood good film", "utf-8")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "c.txt").write_text(" \n")
    rows = ["x,a,train,a.txt", "y,a,train,b.txt", "z,a,train,c.txt"]
    prepared = prepare(table_of(tmp_path, f"{HEADER},review:text", *rows))
    assert prepared.split("train").array("review", 0).tolist() == [2, 2, 1]
    reasons = pd.read_csv(prepared.folder / "rejected.csv")["reason"].tolist()
    assert reasons == ["unreadable: not UTF-8 text (byte 3)", "empty file"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't — STOP!", ["don't", "stop"]),
        ("ﬁne café", ["fine", "café"]),
        ("我爱 film", ["我", "爱", "film"]),
        ("?!", []),
        ("a_b 3.5", ["a_b", "3", "5"]),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_tables_joined_by_id(tmp_path):
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one", "y,b,train,two")
    frame = pd.DataFrame({"id": ["y", "x", "z"], "p": [1, 2, 3], "q": [0.5, 1.5, 2.5]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "t.npy", np.arange(12.0).reshape(3, 2, 2))
    (tmp_path / "t.txt").write_text("y\nx\nz\n")
    tables = [f"{name}={tmp_path / f't.{name}'}" for name in ("csv", "parquet", "npy")]
    prepared = prepare(path, table=tables)
    split = prepared.split("train")
    assert list(prepared.modalities) == ["text", "csv", "parquet", "npy"]
    assert split.array("csv", 0).tolist() == split.array("parquet", 0).tolist() == [2, 1.5]
    assert split.array("npy", 0).tolist() == [4, 5, 6, 7] and prepared.modalities["npy"]["length"] == 2
    assert sum("1 row(s) of" in note for note in prepared.manifest["notes"]) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,p\nx,1\n", "line 3: the id 'y' has no row in"),
        ("name,p\nx,1\n", "has no column 'id'"),
        ("id\nx\n", "no column of numbers beside 'id'"),
        ("id,p\nx,1\ny,two\n", "line 3: the cell of 'p' holds 'two', no finite number"),
        ("id,p\nx,1\ny,\n", "line 3: the cell of 'p' is empty"),
        ("id,p\nx,1\ny,2\nx,3\n", "has the id 'x' more than once"),
        ("", "is empty"),
        ("id,p\nx,7,1\ny,8,2\n", "line 2: 3 cells where the header has 2"),
        ("id,p\n,1\ny,2\n", "a row with an empty id"),
        ("id;p\nx;1\n", "no column 'id'.* Its cells are parted by semicolons"),
        (",id,p\n0,x,1\n1,y,2\n", "a column without a name"),
        (None, "There is no file"),
    ],
)
def test_bad_tables(tmp_path, content, said):
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one", "y,b,train,two")
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        plan(path, table=[f"sensors={tmp_path / 't.csv'}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["sensors", "=t.csv", "sensors="])
def test_a_table_has_a_name_and_a_file(tmp_path, text):
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one")
    with pytest.raises(UsageError, match="--table takes name=FILE"):
        plan(path, table=[text])


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("age[0]", "", "line 3: the cell of 'age\\[0\\]' is empty"),
        ("age[0]", "old", "line 3: the cell of 'age\\[0\\]' holds 'old', no finite number"),
        ("age[0]", "nan", "no finite number"),
        ("v:features", "1 2", "line 3: the cell of 'v:features' has 2 numbers where the first row has 1"),
        ("v:features", "x", "line 3: the cell of 'v:features' holds 'x', not numbers"),
        ("v:features", "1e999", "a number is not finite"),
        ("text", "", "line 3: the cell of 'text' is empty"),
        ("age", "1", "it is not clear what column 'age' holds"),
        ("group.x", "1", "'group' can't be the name of a modality"),
        ("labels", "1", "'labels' can't be the name of a modality"),
        ("a[1]", "1", "it needs each number from 0 once"),
        ("v:features", "1,,2", "holds '1,,2', not numbers"),
        ("v:features", "1,5 2,5", "holds '1,5 2,5', not numbers"),
    ],
)
def test_bad_cells(tmp_path, header, row, said):
    path = table_of(tmp_path, f"{HEADER},{header}", "x,a,train,1", f'y,b,train,"{row}"')
    with pytest.raises(InputError, match=said):
        plan(path)


def test_ids_are_read_as_they_stand(tmp_path):
    """Whatever pandas would take for a missing value or a number."""
    path = table_of(tmp_path, f"{HEADER},text", "NA,a,train,one", "007,b,train,two", "nan,b,train,two")
    (tmp_path / "t.csv").write_text("id,p\n007,1\nnan,2\nNA,3\n")
    split = prepare(path, table=[f"t={tmp_path / 't.csv'}"]).split("train")
    assert [split.array("t", row)[0] for row in range(3)] == [3, 1, 2]


def test_columns_of_parquet_that_are_no_numbers_are_refused(tmp_path):
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one", "y,b,train,two")
    for column in (pd.to_datetime(["2020-01-01", None]), ["a", "b"], pd.to_timedelta([1, 2])):
        pd.DataFrame({"id": ["x", "y"], "when": column}).to_parquet(tmp_path / "t.parquet")
        with pytest.raises(InputError, match=r"column 'when' holds .*, not numbers"):
            plan(path, table=[f"t={tmp_path / 't.parquet'}"])


@pytest.mark.parametrize("shape", [(10**30, 3), (20, 10**12), (2, 0)])
def test_a_header_that_says_more_than_there_is(tmp_path, shape):
    with (tmp_path / "c.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
    (tmp_path / "c.txt").write_text("x\ny\n")
    np.save(tmp_path / "a.npy", np.ones(2))
    rows = ["x,a,train,a.npy", "y,a,train,c.npy"]
    prepared = prepare(table_of(tmp_path, f"{HEADER},f:features", *rows))
    assert prepared.counts == {"train": 1}
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one", "y,a,train,two")
    with pytest.raises(InputError, match=r"c\.npy "):
        plan(path, table=[f"t={tmp_path / 'c.npy'}"])


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "p.txt")
    os.mkfifo(tmp_path / "t.csv")
    (tmp_path / "a.txt").write_text("one")
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,a.txt", "y,a,train,p.txt")
    assert pd.read_csv(prepare(path).folder / "rejected.csv")["reason"][0].startswith(
        "unreadable: a folder, a pipe"
    )
    with pytest.raises(InputError, match="There is no file"):
        plan(path, table=[f"t={tmp_path / 't.csv'}"])
    with pytest.raises(InputError, match="is a folder, a pipe or a device"):
        read_text(tmp_path / "p.txt")


def test_a_text_of_any_length_fits_a_cell(tmp_path):
    found = plan(table_of(tmp_path, f"{HEADER},text", f"x,a,train,{'word ' * 50_000}"))
    assert found.modalities["text"]["length"] == 512


def test_cells_that_look_like_files_are_noted(tmp_path):
    notes = plan(table_of(tmp_path, f"{HEADER},text", "x,a,train,a.txt", "y,a,train,one two")).notes
    assert any("1 cell(s) look like the paths of files" in note for note in notes)


# ---- how media are stored -------------------------------------------------------------------------------------


@pytest.fixture
def media(tmp_path):
    """Two seconds of sound, a wide video of three seconds, a small picture."""
    write_wav(tmp_path / "a.wav", tone(2.0))
    write_video(tmp_path / "v.mkv", [10 * i for i in range(15)])
    left_black = np.zeros((300, 600, 3), np.uint8)
    left_black[:, 300:] = 255
    Image.fromarray(left_black).save(tmp_path / "wide.png")
    Image.fromarray(np.full((8, 12, 3), 200, np.uint8)).save(tmp_path / "small.png")
    return write_csv(
        tmp_path / "m.csv",
        f"{HEADER},audio,video,still:visual",
        "x,a,train,a.wav,v.mkv,wide.png",
        "y,b,train,a.wav,v.mkv,small.png",
    )


def sizes(prepared, modality):
    split = prepared.split("train")
    files = [split.frames(modality, int(row)) for row in split.holders(modality)]
    return [Image.open(io.BytesIO(of[0])).size for of in files], [len(of) for of in files]


def test_pictures_keep_their_form_and_are_never_enlarged(media):
    prepared = prepare(media)
    assert sizes(prepared, "still")[0] == [(512, 256), (12, 8)]
    assert len(prepared.split("train").array("audio", 0)) == 32000


def test_how_media_are_stored_is_up_to_the_user(media):
    prepared = prepare(media, rate="8000", fps="2", size="64", fit="crop", seconds="1.5")
    assert sizes(prepared, "still")[0] == [(64, 64), (64, 64)]
    assert sizes(prepared, "video")[1] == [3, 3]
    assert len(prepared.split("train").array("audio", 0)) == 12000
    assert prepared.modalities["audio"] == {"kind": "waveform", "rate": 8000, "seconds": 1.5}
    assert prepared.modalities["still"]["fit"] == "crop"


@pytest.mark.parametrize(("fit", "means"), [("crop", (0, 255)), ("pad", (0, 127)), ("stretch", (0, 255))])
def test_each_fit_does_what_it_says(media, fit, means):
    """Left and right half of a picture whose right half is white; with bars above and below only a half of each."""
    split = prepare(media, size="64", fit=fit).split("train")
    pixels = np.asarray(Image.open(io.BytesIO(split.frames("still", 0)[0]))).astype(float)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:, :28].mean(), pixels[:, 36:].mean()) == pytest.approx(means, abs=3)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rate", "0"),
        ("rate", "8000.5"),
        ("fps", "-1"),
        ("fps", "fast"),
        ("size", "5000"),
        ("size", "nan"),
        ("fit", "squeeze"),
        ("seconds", "0"),
        ("seconds", "inf"),
    ],
)
def test_odd_ways_to_store_are_refused(media, option, value):
    with pytest.raises(UsageError, match=f"--{option} is .*, not '{value}'"):
        plan(media, **{option: value})


@pytest.mark.parametrize("option", ["rate", "fps", "size", "fit", "seconds"])
def test_an_option_that_changes_nothing_is_refused(tmp_path, option):
    value = {"fit": "crop"}.get(option, "100")
    with pytest.raises(UsageError, match=f"--{option} would change nothing"):
        plan(table_of(tmp_path, f"{HEADER},text", "x,a,train,one", "y,a,train,two"), **{option: value})


# ---- splits and groups ----------------------------------------------------------------------------------------


def without_split(tmp_path, count=60, group=False):
    rows = [f"s{n},{'ab'[n % 2]},word{n}" + (f",g{n % 7}" if group else "") for n in range(count)]
    return table_of(tmp_path, "id,label,text" + (",group" if group else ""), *rows)


def parts(found):
    return Counter(sample.split for sample in found.samples)


def test_a_split_by_the_rule(tmp_path):
    found = plan(without_split(tmp_path), split="0.7,0.1,0.2")
    assert parts(found) == {"train": 42, "val": 6, "test": 12}
    assert Counter(s.label for s in found.samples if s.split == "test") == {"a": 6, "b": 6}
    assert found.split_description == "by our rule on ids, 0.7,0.1,0.2"
    assert parts(plan(without_split(tmp_path), split="0.8,0.2")) == {"train": 48, "test": 12}


def test_val_out_of_train(tmp_path):
    rows = [f"s{n},{'ab'[n % 2]},{'train' if n < 40 else 'test'},word{n}" for n in range(60)]
    found = plan(table_of(tmp_path, f"{HEADER},text", *rows), val="0.25")
    assert parts(found) == {"train": 30, "val": 10, "test": 20}
    assert {s.id for s in found.samples if s.split == "test"} == {f"s{n}" for n in range(40, 60)}


def test_groups_stay_together(tmp_path):
    found = plan(without_split(tmp_path, group=True), split="0.6,0.2,0.2", val=None)
    by_group = {}
    for sample in found.samples:
        by_group.setdefault(sample.extras["group"], set()).add(sample.split)
    assert all(len(among) == 1 for among in by_group.values()) and len(parts(found)) == 3


def test_groups_in_two_splits_are_named(tmp_path):
    rows = ["x,a,train,ann,one", "y,b,test,ann,two", "z,b,train,bob,three"]
    notes = plan(table_of(tmp_path, f"{HEADER},group,text", *rows)).notes
    assert any(note.startswith("The group 'ann' is in test and train.") for note in notes)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, InputError, "no column 'split'.*--split 0.7,0.1,0.2"),
        ({"split": "0.7"}, UsageError, "takes the shares"),
        ({"split": "0.7,0.1,0.1,0.1"}, UsageError, "takes the shares"),
        ({"split": "0.7,x,0.2"}, UsageError, "takes the shares"),
        ({"split": "0.7,0.7,0.2"}, UsageError, "must add up to 1"),
        ({"split": "0.9,0.1,0"}, UsageError, "train and test need some"),
        ({"split": "0.7,0.1,0.2", "val": "0.1"}, UsageError, "There is a part 'val' already"),
        ({"split": "0.8,0.2", "val": "1"}, UsageError, "between 0 and 1"),
        ({"split": "0.8,0.2", "labels": "letters"}, UsageError, "--labels is one of"),
    ],
)
def test_odd_splits_are_refused(tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        plan(without_split(tmp_path), **options)


def test_a_split_is_not_made_beside_the_one_there_is(tmp_path):
    path = table_of(tmp_path, f"{HEADER},text", "x,a,train,one")
    with pytest.raises(UsageError, match="has a column 'split', and --split asks for another"):
        plan(path, split="0.8,0.2")


def test_folds(tmp_path):
    """Each sample is tested once; a run of seed s is tested on fold 1 + s mod 3, trained on the others, and evaluated
    again on the same."""
    rows = [f"s{n},{'ab'[n % 2]},g{n % 6},{n},{n % 2}" for n in range(30)]
    prepared = prepare(table_of(tmp_path, "id,label,group,v[0],w[0]", *rows), folds="3")
    assert set(prepared.counts) == {"fold-1", "fold-2", "fold-3"}
    tested = []
    for seed in range(3):
        seen = prepared.for_run(seed)
        train, test = seen.split("train"), seen.split("test")
        assert seen.counts == {"train": len(train), "test": len(test)} and not {*train.ids} & {*test.ids}
        assert not {*train.extra("group")} & {*test.extra("group")} and len(train) + len(test) == 30
        tested += test.ids
    assert sorted(tested) == sorted(f"s{n}" for n in range(30))
    assert prepared.for_run(4).split("test").ids == prepared.for_run(1).split("test").ids
    config = resolve("out", "concat", "baseline", seed=1, overrides=["epochs=1", "batch_size=8"])
    folder = RunFolder(tmp_path / "runs", config, prepared)
    last = train_run(folder, torch.device("cpu"))["selections"]["last"]
    assert folder.result()["samples"]["test"] == [10, 10]
    evaluated, _ = evaluate_run(folder.path, tmp_path, torch.device("cpu"), Wanted())
    assert evaluated.test.accuracy == last["accuracy"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": "1"}, "whole number from 2 to 20"),
        ({"folds": "2.5"}, "whole number"),
        ({"folds": "5", "val": "0.1"}, "goes with neither"),
    ],
)
def test_odd_folds_are_refused(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        plan(without_split(tmp_path), **options)


def test_a_class_in_one_fold_alone_is_named(tmp_path):
    rows = [*(f"s{n},{'ab'[n % 2]},{n}" for n in range(12)), "t,c,1"]
    with pytest.raises(InputError, match=r"Class 'c' .* has no sample in the folds beside fold-"):
        prepare(table_of(tmp_path, "id,label,v[0]", *rows), folds="3")


def test_copies_of_values_over_two_splits_are_noted(tmp_path):
    rows = ["x,a,train,1,same", "y,b,test,1,same", "z,b,train,2,other"]
    notes = plan(table_of(tmp_path, f"{HEADER},v[0],text", *rows)).notes
    assert any("1 sample(s) have the same values in all modalities" in note for note in notes)


# ---- labels ---------------------------------------------------------------------------------------------------


def test_labels_that_are_numbers(tmp_path):
    rows = [f"s{n},{n / 2},{'train' if n < 8 else 'test'},{n}" for n in range(12)]
    prepared = prepare(table_of(tmp_path, f"{HEADER},v[0]", *rows))
    trained = np.arange(8) / 2
    np.testing.assert_allclose(
        prepared.split("train").column("regression"), (trained - trained.mean()) / trained.std(), rtol=1e-6
    )
    assert prepared.classes == ["below the mean", "above the mean"]
    assert prepared.split("train").labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert any("(label − 1.75) / 1.14564" in note for note in prepared.manifest["notes"])


def test_whole_numbers_are_classes_that_can_be_estimated_too(tmp_path):
    rows = [f"s{n},{n % 3},{'train' if n < 8 else 'test'},{n}" for n in range(12)]
    path = table_of(tmp_path, f"{HEADER},v[0]", *rows)
    found = plan(path)
    assert found.classes == ["0", "1", "2"] and found.extras == {"regression": "number"}
    assert plan(path, labels="numbers").classes == ["below the mean", "above the mean"]
    rows.append("s12,7,test,1")
    with pytest.raises(InputError, match=r"Class '7' .* pass --labels numbers"):
        prepare(table_of(tmp_path, f"{HEADER},v[0]", *rows))


@pytest.mark.parametrize("odd", ["nan", "inf", "1e999", "1e200", "unknown"])
def test_one_odd_label_among_numbers_is_named(tmp_path, odd):
    rows = [f"s{n},{odd if n == 7 else n + 0.5},{n}" for n in range(20)]
    with pytest.raises(InputError, match=f"line 9: the label '{odd}' is no number"):
        plan(table_of(tmp_path, "id,label,v[0]", *rows), split="0.5,0.5")


def test_labels_that_are_all_equal_leave_nothing_to_estimate(tmp_path):
    rows = [f"s{n},1.5,{n}" for n in range(20)]
    with pytest.raises(InputError, match=r"are 1\.5: there is nothing to estimate"):
        plan(table_of(tmp_path, "id,label,v[0]", *rows), split="0.5,0.5")


def test_tiny_differences_of_labels_are_kept(tmp_path):
    rows = [f"s{n},{n}e-320,train,{n}" for n in range(8)]
    found = plan(table_of(tmp_path, f"{HEADER},v[0]", *rows), labels="numbers")
    values = [sample.extras["regression"] for sample in found.samples]
    assert np.std(values) == pytest.approx(1, abs=1e-2)


def test_several_labels_a_sample(tmp_path):
    rows = ["x,dog|rain,train,1", "y,rain,train,2", "z,|,train,3", "t,cat|dog,test,4", "u,cat,train,5"]
    prepared = prepare(table_of(tmp_path, f"{HEADER},v[0]", *rows))
    assert prepared.classes == ["cat", "dog", "rain"]
    expected = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert prepared.split("train").column("labels").tolist() == expected
    with pytest.raises(UsageError, match=r"any number of labels a sample.*--set task=multi-label"):
        train(prepared, tmp_path)


def test_numbers_that_are_none_are_named(tmp_path):
    path = table_of(tmp_path, f"{HEADER},v[0]", "x,1.5,train,1", "y,much,train,2")
    with pytest.raises(InputError, match="line 3: the label 'much' is no number"):
        plan(path, labels="numbers")


# ---- from file to result ----------------------------------------------------------------------------------------


def train(prepared, tmp_path, *overrides):
    small = [
        "encoder=small",
        "epochs=2",
        "batch_size=8",
        "frames.size=16",
        "waveform.seconds=0.5",
        *overrides,
    ]
    config = resolve(prepared.folder.name, "concat", "opm+ogm", overrides=small)
    result = train_run(RunFolder(tmp_path / "runs", config, prepared), torch.device("cpu"))
    return result["selections"]["last"]


@pytest.mark.parametrize("labels", ["classes", "numbers", "sets"])
def test_twelve_modalities_of_mixed_kinds_are_trained_on(tmp_path, labels):
    """Sound, pictures, text, series, vectors, cells, groups of columns and tables; no split; groups."""
    generator = np.random.default_rng(0)
    rows, ids = [], [f"s{n}" for n in range(24)]
    for n, name in enumerate(ids):
        write_wav(tmp_path / f"{n}.wav", tone(0.5, frequency=300 + 200 * (n % 2)))
        Image.fromarray(np.full((20, 30, 3), 50 + 100 * (n % 2), np.uint8)).save(tmp_path / f"{n}.png")
        np.save(tmp_path / f"{n}.npy", generator.normal(size=(2 + n % 3, 4)))
        np.save(tmp_path / f"v{n}.npy", generator.normal(size=5))
        label = {"classes": "ab"[n % 2], "numbers": f"{n + 0.5}", "sets": ["p|q", "q", "p|r"][n % 3]}[labels]
        cells = [
            f"{n}.wav",
            f"{n}.png",
            f"word{n % 3} and {'yes' if n % 2 else 'no'}",
            f"{n}.npy",
            f"v{n}.npy",
        ]
        numbers = ",".join(f"{value:.3f}" for value in generator.normal(size=6))
        rows.append(f"{name},{label},g{n % 8},{','.join(cells)},{n % 2} {n},{numbers},{n}.wav")
    header = "id,label,group,sound,face,text,wrist:features,vector:features,cell:features"
    header += ",a[0],a[1],b.x,b.y,c[0],d.only,voice:audio"
    pd.DataFrame({"id": ids, **{f"c{k}": generator.normal(size=24) for k in range(3)}}).to_csv(
        tmp_path / "t.csv", index=False
    )
    path = table_of(tmp_path, header, *rows)
    table = [f"t={tmp_path / 't.csv'}"]
    prepared = prepare(path, split="0.5,0.25,0.25", table=table)
    assert len(prepared.modalities) == 12
    task = {"classes": "classification", "numbers": "regression", "sets": "multi-label"}[labels]
    last = train(prepared, tmp_path, f"task={task}")
    assert len(last["unimodal"]) == 12 and 0 <= last["accuracy"] <= 1
    json.dumps(last, allow_nan=False)
