"""A verdict is given for the data that a printed number was got on alone: its reader, its split, its lists, whole."""

import hashlib
import json
import shutil

import pytest
import run_folders
from run_folders import official, write_run

from balancemm_cli.config.suites import load_suite
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.results import checks, paper_tables, published, tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.verdicts import judge, reached
from balancemm_cli.runs.run import read_run
from balancemm_cli.runs.schema import DataIdentity

OTHERS = {  # the data set whose name the runs bear, which data they are of, and the word on it
    "an own CSV of that name": ("crema-d", ("manifest", None, None), "a CSV of your own"),
    "another set under --out …/crema-d": (
        "crema-d",
        ("kinetics-sounds", "test", True),
        "the data set 'kinetics-sounds', whatever their folder is called",
    ),
    "made data of that name": ("crema-d", ("synthetic", None, None), "the data set 'synthetic'"),
    "speaker-independent": (
        "crema-d",
        ("crema-d", "speaker-independent", None),
        "The split is 'speaker-independent'",
    ),
    "relearn": ("crema-d", ("crema-d", "relearn", True), "The split is 'relearn'"),
    "MOSI's own folds": (
        "cmu-mosi",
        ("cmu-mosi", "official", False),
        "The split lists are not the official ones",
    ),
    "shortened lists": (
        "vggsound",
        ("vggsound", "official", False),
        "The split lists are not the official ones",
    ),
    "unknown lists": ("crema-d", ("crema-d", "official", None), "are not known to be the official ones"),
    "the validation clips": ("kinetics-sounds", ("kinetics-sounds", "val", True), "The split is 'val'"),
    "UCF-101 split 2": ("ucf-101", ("ucf-101", "2", True), "The split is '2', the printed number is of '1'"),
    "UCF-101-Three split 3": ("ucf-101-three", ("ucf-101-three", "3", True), "The split is '3'"),
    "a version that did not record it": ("crema-d", (None, None, None), "prepare them and train again"),
}


def runs_of(root, dataset, identity, accuracy):
    """The group of three runs under this name, as their result.json says."""
    for seed in range(3):
        write_run(
            root,
            "opm",
            seed,
            accuracy=accuracy + seed / 1000,
            dataset=dataset,
            recipe="paper",
            identity=identity,
        )
    (group,) = collect([root], "last").groups
    return group


def number_of(dataset):
    """A number that the paper prints for OPM on a data set."""
    return next(
        one
        for one in published.rows()
        if (one.dataset, one.method, one.metric) == (dataset, "opm", "accuracy")
    )


@pytest.mark.parametrize("case", OTHERS)
def test_other_data_are_not_comparable(tmp_path, case):
    dataset, (reader, split, lists), reason = OTHERS[case]
    identity = DataIdentity(reader=reader, split_name=split, official_lists=lists)
    number = number_of(dataset)
    group = runs_of(tmp_path, dataset, identity, number.fraction)
    found = judge("x", group, reached(group, "accuracy", "last"), number)
    assert found.word == "not comparable" and reason in found.reason and not found.passes
    assert published.other_data(group.first.model_copy(update={"data": official(dataset)}), number) == ""


def test_the_very_data_are(tmp_path):
    group = runs_of(tmp_path, "crema-d", official("crema-d"), number_of("crema-d").fraction)
    assert judge("x", group, reached(group, "accuracy", "last"), number_of("crema-d")).word == "reproduced"


def test_a_number_whose_split_was_not_published_has_no_verdict(tmp_path):
    """The paper does not say which of the two versions of MUSIC-AVQA's lists it took."""
    identity = DataIdentity(reader="music-avqa", split_name="official", official_lists=True)
    (number, *_) = [one for one in published.rows() if one.dataset == "music-avqa"]
    group = runs_of(tmp_path, "music-avqa", identity, 0.7)
    found = judge("x", group, reached(group, "accuracy", "last"), number)
    assert found.word == "not comparable" and "Which split of music-avqa" in found.reason


def test_a_result_of_a_former_version_is_read_and_not_compared(tmp_path):
    runs_of(tmp_path, "crema-d", official("crema-d"), 0.751)
    for path in tmp_path.rglob("result.json"):
        content = json.loads(path.read_text())
        del content["data"]
        path.write_text(json.dumps(content))
    found = checks.check(load_suite("table-12")[1], collect([tmp_path], "last"), "last")
    opm = next(one for one in found if one.name == "crema-d concat opm accuracy")
    assert opm.word == "not comparable"
    assert "made by a version that did not record which data set and split" in opm.reason


def test_no_printed_number_stands_beside_runs_of_another_split(tmp_path):
    """None in the table of runs, with the reason under it; in the paper's own table no difference, and the mark."""
    runs_of(
        tmp_path, "crema-d", DataIdentity(reader="crema-d", split_name="relearn", official_lists=True), 0.751
    )
    groups = collect([tmp_path], "last").groups
    (table,) = tables.tables(groups, "last")
    cell = dict(zip(table.header, table.cells[0], strict=True))
    assert cell["Verdict"] == "not comparable" and not {"Published", "Δ"} & set(cell)
    (table,) = tables.tables(groups, "last", columns=["published", "delta"])
    assert table.cells[0][-2:] == ["—", "—"]
    assert any("The split is 'relearn', the printed number is of 'official'" in note for note in table.notes)
    found = paper_tables.cells("12", groups, "last")
    (opm,) = [one for one in found if one.group and one.number.metric == "accuracy"]
    assert opm.delta is None and opm.text == "75.2 ± 0.1 (3) / 75.1 / — ≠"


def test_an_own_csv_does_not_pass_for_the_embedded_data_of_a_check(tmp_path):
    own = DataIdentity(reader="manifest")
    for seed in range(3):
        for method in ("baseline", "opm", "ogm", "opm+ogm"):
            write_run(tmp_path, method, seed, identity=own if method == "opm" else None)
    found = checks.check(load_suite("demo")[1], collect([tmp_path], "last"), "last")
    words = {one.name: one.word for one in found}
    assert words["synthetic concat opm accuracy"] == "not comparable"
    assert words["synthetic concat opm+ogm accuracy"] == "reproduced"


# ---- what a reader of it tried -----------------------------------------------------------------------------------


def edit(folder, **changes):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def word_of(root, dataset="crema-d", method="opm"):
    """The word on the accuracy of Table 12."""
    groups = collect([root], "last").groups
    (cell,) = [
        one
        for one in paper_tables.cells("12", groups, "last")
        if one.group and (one.number.dataset, one.number.method, one.metric) == (dataset, method, "accuracy")
    ]
    return cell.judge()


def crema_d(root, seeds=3, **more):
    return [
        write_run(root, "opm", seed, accuracy=0.751 + seed / 1000, dataset="crema-d", recipe="paper", **more)
        for seed in range(seeds)
    ]


def test_each_seed_must_be_of_the_data(tmp_path):
    folders = crema_d(tmp_path)
    assert word_of(tmp_path).word == "reproduced"
    edit(folders[2], data={"reader": "crema-d", "split_name": "official", "official_lists": False})
    verdict = word_of(tmp_path)
    assert verdict.word == "not comparable" and "are not the official ones" in verdict.reason


@pytest.mark.parametrize("changes", [{"seed": 7}, {"method": "ogm"}, {"model": "sum"}])
def test_a_result_that_names_another_run_is_left_out(tmp_path, changes):
    """One run with another seed written into its result was a further seed."""
    edit(crema_d(tmp_path)[2], **changes)
    (line,) = collect([tmp_path], "last").left_out
    assert f"differ in '{next(iter(changes))}'" in line


def test_a_former_format_knows_nothing_of_the_data(tmp_path):
    for folder in crema_d(tmp_path):
        path = folder / "result.json"
        content = json.loads(path.read_text())
        del content["config_hash"]
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="config_hash"):
            read_run(folder)
        path.write_text(json.dumps(content | {"format": 1}))
    verdict = word_of(tmp_path)
    assert verdict.word == "not comparable" and "did not record" in verdict.reason


@pytest.mark.parametrize(
    ("weights", "word"), [("f37072fd" + "0" * 56, "worse"), ("ab" * 32, "not comparable")]
)
def test_weights_must_be_those_of_imagenet(tmp_path, monkeypatch, weights, word):
    whole = run_folders.resolve
    monkeypatch.setattr(run_folders, "resolve", lambda *names: whole(*names).starting_from(weights))
    for seed in range(3):
        accuracy = 0.6 + seed / 1000
        write_run(tmp_path, "opm", seed, accuracy=accuracy, dataset="ucf-101", recipe="paper")
    assert word_of(tmp_path, "ucf-101").word == word


def test_own_data_do_not_hide_the_runs_that_count(tmp_path):
    crema_d(tmp_path / "a")
    own = DataIdentity(reader="manifest", split_name="own")
    crema_d(tmp_path / "b", seeds=5, data="0" * 64, identity=own)
    assert word_of(tmp_path).word == "reproduced"


def test_settings_of_no_plan_must_be_the_recipes(tmp_path):
    """Of another source nobody knows the settings; those of the recipe are the least that is asked."""
    for number, overrides in enumerate(((), ("epochs=1",))):
        root = tmp_path / str(number)
        for seed in range(3):
            accuracy = 0.618 + seed / 1000
            write_run(
                root, "ogm", seed, accuracy=accuracy, dataset="crema-d", recipe="paper", overrides=overrides
            )
        (table,) = tables.tables(collect([root], "last").groups, "last", "cvpr2022")
        words = [dict(zip(table.header, line, strict=True))["Verdict"].split()[0] for line in table.cells]
        assert words == [["reproduced"], ["not"]][number]


def test_a_suite_of_ones_own_takes_no_name_and_lowers_no_bar(tmp_path):
    lines = 'title = "t"\n{}\n[[runs]]\ndatasets = ["crema-d"]\nmethods = ["opm"]\n'
    for name in ("table-12", "..", ".hidden"):
        path = tmp_path / f"{name}.toml"
        path.write_text(lines.format(""))
        with pytest.raises(UsageError, match="can't be the name of a suite of your own"):
            load_suite(str(path))
    (tmp_path / "mine.toml").write_text(lines.format('table = "12"\nband = 0.9'))
    crema_d(tmp_path / "runs", seeds=3)
    for folder in (tmp_path / "runs").rglob("result.json"):
        selections = json.loads(folder.read_text())["selections"]
        for one in selections.values():
            one["accuracy"] -= 0.2
        edit(folder.parent, selections=selections)
    found = checks.check(
        load_suite(str(tmp_path / "mine.toml"))[1], collect([tmp_path / "runs"], "last"), "last"
    )
    (word,) = [one.word for one in found if one.name == "crema-d concat opm accuracy"]
    assert word == "worse"


def test_an_accuracy_must_be_that_of_the_predictions(tmp_path):
    first, *_ = crema_d(tmp_path)
    selections = json.loads((first / "result.json").read_text())["selections"]
    selections["last"]["accuracy"] += 0.002
    edit(first, selections=selections)
    verdict = word_of(tmp_path)
    assert verdict.word == "not comparable" and "its predictions are right in" in verdict.reason
    (first / "predictions.arrow").unlink()
    verdict = word_of(tmp_path)
    assert verdict.word == "not comparable" and "An accuracy can't be checked" in verdict.reason


def test_a_copied_run_is_no_further_seed(tmp_path):
    first, second, *_ = crema_d(tmp_path)
    shutil.copy(first / "predictions.arrow", second)
    selections = json.loads((first / "result.json").read_text())["selections"]
    selections["last"]["accuracy"] += 1e-6
    edit(second, selections=selections)
    verdict = word_of(tmp_path)
    assert verdict.word == "not comparable" and "one run was copied" in verdict.reason


def test_a_finished_run_has_all_its_epochs(tmp_path):
    first, *_ = crema_d(tmp_path)
    edit(first, epochs=1)
    with pytest.raises(InputError, match="finished after 1 epochs, and config"):
        read_run(first)


def test_a_folder_of_another_suite_fails_no_check(tmp_path):
    """A run that has just begun has a config.toml alone."""
    crema_d(tmp_path / "runs")
    other = write_run(tmp_path / "runs", "ogm", dataset="synthetic")
    (other / "result.json").unlink()
    suite = load_suite("table-12")
    assert not collect([tmp_path / "runs"], "last", suite=suite).left_out
    (write_run(tmp_path / "runs", "baseline", dataset="crema-d", recipe="paper") / "result.json").unlink()
    (line,) = collect([tmp_path / "runs"], "last", suite=suite).left_out
    assert "no result.json yet" in line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('table = "99"', "There is no table '99'"),
        ('[[expected]]\ndataset = "crema-d"\nlow = 0\nhigh = 1', "holds every number"),
        ("[[runs]]\ndatasets = ['crema-d']\nseeds = [0, 0]", "a seed stands there twice"),
        ("[[runs]]\ndatasets = ['crema-d']\nmodle = ['sum']", "Did you mean 'models'"),
    ],
)
def test_a_suite_that_is_held_against_nothing_is_refused(tmp_path, line, said):
    own = tmp_path / "own.toml"
    own.write_text(f"title = 't'\n{line}\n[[runs]]\ndatasets = ['crema-d']\n")
    with pytest.raises(UsageError, match=said):
        load_suite(str(own))


def test_a_run_from_before_a_change_is_not_comparable_and_the_revision_is_named(tmp_path):
    """A run of a model that has changed since says nothing of the model that the suite plans."""
    number = next(
        one
        for one in published.rows()
        if (one.source, one.dataset, one.table, one.model, one.method, one.metric)
        == (published.PAPER, "crema-d", "2", published.published_model("film"), "baseline", "accuracy")
    )
    for seed in range(3):
        folder = write_run(
            tmp_path,
            "baseline",
            seed,
            model="film",
            accuracy=number.fraction + seed / 1000,
            dataset="crema-d",
            recipe="paper",
        )
        config, result = folder / "config.toml", json.loads((folder / "result.json").read_text())
        config.write_text(config.read_text().replace("[revisions]\nfilm = 2\n", ""))
        result["config_hash"] = hashlib.sha256(config.read_bytes()).hexdigest()
        (folder / "result.json").write_text(json.dumps(result))
    (group,) = collect([tmp_path], "last").groups
    found = judge("x", group, reached(group, "accuracy", "last"), number)
    assert found.word == "not comparable" and "revisions.film=none for 2" in found.reason
