"""Findings: how a difference is called, the measures by hand, and the smallest form of each finding, trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from run_folders import write_run, write_search
from scipy import stats

from balancemm_cli.config.run import resolve
from balancemm_cli.config.suites import load_suite
from balancemm_cli.engine.run_evaluation import Wanted, evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError
from balancemm_cli.resources import suites
from balancemm_cli.results.collection import collect
from balancemm_cli.results.findings import FINDINGS
from balancemm_cli.results.findings.finding import ACCURACY, Finding, Measure
from balancemm_cli.results.findings.trajectories import epochs_to_final
from balancemm_cli.results.findings.when_it_pays import WhenItPays
from balancemm_cli.results.groups import Group
from balancemm_cli.results.references import with_references
from balancemm_cli.runs.evaluation import keep
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.testing import sets

CPU = torch.device("cpu")


def finding(folder, kind=Finding):
    groups, _ = with_references(collect([folder], "last").groups)
    return kind(groups, "last")


@pytest.fixture
def gains(tmp_path):
    """Write joint training at 80 % with every seed, and OPM with gains of its own."""

    def write(found, dataset="synthetic"):
        for seed, gain in enumerate(found):
            write_run(tmp_path, "baseline", seed, dataset=dataset, accuracy=0.8)
            write_run(tmp_path, "opm", seed, dataset=dataset, accuracy=0.8 + gain)
        return finding(tmp_path)

    return write


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ((0.05, 0.051, 0.049, 0.052), "higher"),
        ((-0.05, -0.051, -0.049, -0.052), "lower"),
        ((0.001, -0.001, 0.002, 0.0), "equal"),
        ((0.008, 0.0081, 0.0079, 0.0082), "equal"),  # though it is not 0
        ((0.1, -0.1, 0.05, -0.02), "open"),
        ((0.05, 0.051), "open"),  # of two seeds nothing is tested
        ((0.0, 0.0, 0.0), "equal"),
        ((0.05, 0.05, 0.05), "higher"),
        ((-0.05, -0.05), "open"),
        ((0.05,), "open"),
    ],
)
def test_what_a_difference_is_called(gains, found, word):
    (one,) = gains(found).differences
    assert one.word == word
    assert one.comparison.difference.mean == pytest.approx(np.mean(found))


def test_p_is_adjusted_over_all_that_a_finding_tests(gains):
    first, second = (0.05, 0.06, 0.02, 0.04), (0.03, 0.01, 0.02, 0.05)
    gains(first)
    one, other = gains(second, "htad").differences
    p = sorted(stats.ttest_1samp(values, 0).pvalue for values in (first, second))
    assert sorted([one.p, other.p]) == pytest.approx([2 * p[0], max(2 * p[0], p[1])])


def test_runs_on_other_data_are_not_held_against_each_other(tmp_path):
    """As where a set was prepared anew under the same name, or is another owner's."""
    for seed in range(3):
        write_run(tmp_path, "baseline", seed, accuracy=0.8)
        write_run(tmp_path, "opm", seed, accuracy=0.9, data="0ther" * 12)
    shown = finding(tmp_path)
    assert not shown.differences
    assert [len(place.groups) for place in shown.places] == [1, 1]
    assert [table.title for table in shown.tables] == ["synthetic", "synthetic · data 0ther0th"]


def test_runs_of_two_owners_are_not_held_against_each_other(gains):
    joint, opm = (group for group in gains((0.05, 0.051, 0.049)).groups if group.trained)
    assert Finding([joint, opm], "last").differences
    others = Group([replace(run, owner="li") for run in opm.runs])
    assert not Finding([joint, others], "last").differences


def test_nothing_is_equal_to_a_measure_without_a_margin(gains):
    (one,) = gains((0.001, -0.001, 0.002, 0.0)).differences
    bare = Measure("x", ACCURACY.of)
    assert type(one)(one.place, one.group, "", bare, "", one.comparison, 1.0).word == "open"


def test_no_difference_at_all_is_equal(gains):
    (one,) = gains((0.0, 0.0, 0.0)).differences
    bare = Measure("x", ACCURACY.of)
    assert type(one)(one.place, one.group, "", bare, "", one.comparison, None).word == "equal"


def test_what_its_table_says(gains):
    over = gains((0.05, 0.052, 0.049, 0.053))
    (table,) = over.tables
    assert table.header == ["Row", "Accuracy", "Δ Accuracy"]
    assert table.cells[0] == ["baseline", "80.0 ± 0.0 (4)", "—"]
    low, high = (
        100 * end for end in stats.t.interval(0.95, 3, 0.051, np.std((5, 5.2, 4.9, 5.3), ddof=1) / 200)
    )
    assert table.cells[1] == ["opm", "85.1 ± 0.2 (4)", f"+5.1 [{low:+.1f}, {high:+.1f}] higher"]
    assert "Δ: from baseline" in table.notes[0]
    (chosen,) = Finding(over.groups, "best-test").tables
    assert any(note.startswith("Epoch: the epoch with the best") for note in chosen.notes), chosen.notes
    record = over.records[1]
    assert (record["row"], record["word"], record["values"][0]) == ("opm", "higher", pytest.approx(0.85))


def test_epochs_to_95_percent_of_the_last_accuracy():
    assert epochs_to_final(np.array([0.2, 0.6, 1.0, 1.0])) == pytest.approx(
        2.875
    )  # 0.95 is 7/8 of the way from 0.6
    assert epochs_to_final(np.array([0.99, 0.5, 1.0])) == 1.0
    assert epochs_to_final(np.array([0.5, 0.0])) is None


def small_forms(name):
    """The rows of a finding's suite on the built-in set: two seeds, and those modalities and settings that it has."""
    for group in load_suite(name)[1].runs:
        lists = [value for value in group.settings.values() if isinstance(value, list)]
        if any(len(value) != 2 for value in lists):
            continue
        for model in group.models:
            if model in ("unimodal-audio", "unimodal-visual") or not model.startswith("unimodal-"):
                for method in group.methods:
                    yield model, method, dict(group.settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train such rows, each once for all findings, probed and with noise in the test; gives a folder of links."""
    place, done = tmp_path_factory.mktemp("runs"), {}
    data = sets.tiny_set(tmp_path_factory.mktemp("data") / "manifest")
    few = {"encoder": "small", "pretrained": False, "epochs": 2, "batch_size": 8, "snapshots": 1}

    def run(model, method, settings, seed):
        own = {key: value for key, value in settings.items() if key not in ("encoders.series", "batch_size")}
        config = resolve("manifest", model, method, seed=seed, overrides=[*{**own, **few}.items()])
        folder = RunFolder(place, config, data)
        if folder.path not in done:
            train_run(folder, CPU)
            amounts = {
                of: (0.0, 1.0, 2.0) for of in ("audio", "visual") if model in ("concat", f"unimodal-{of}")
            }
            wanted = Wanted(noise=amounts, probe=True, kept_epochs=True)
            keep(folder.path, evaluate_run(folder.path, data.folder.parent, CPU, wanted)[0])
            done[folder.path] = True
        return folder.path

    return run


@pytest.mark.parametrize("name", [name for name in FINDINGS if FINDINGS[name].NEEDS_RUNS])
def test_the_smallest_form_of_a_finding_is_trained_and_shown(name, trained, tmp_path):
    kind = FINDINGS[name]
    for model, method, settings in {json.dumps(one): one for one in small_forms(name)}.values():
        for seed in range(2):
            path = trained(model, method, settings, seed)
            if not (link := tmp_path / f"{path.name}-{model}").exists():
                link.symlink_to(path)
    shown = finding(tmp_path, kind)
    assert shown.tables and all(table.cells for table in shown.tables)
    written, left_out = shown.draw(tmp_path / "figures")
    assert written and not left_out, left_out
    assert all(path.stat().st_size > 1000 for path in written)
    for record in shown.records:
        assert record["values"], record


@pytest.mark.parametrize("name", [name for name in FINDINGS if FINDINGS[name].NEEDS_RUNS])
def test_without_modalities_alone_it_shows_what_is_left(name, tmp_path):
    """And of a single row on one data set, and with no row that the others could be held against."""
    write_run(tmp_path / "one", "opm")
    assert finding(tmp_path / "one", FINDINGS[name]).tables
    for seed in range(2):
        for method in ("baseline", "opm"):
            write_run(tmp_path / "two", method, seed)
    shown = finding(tmp_path / "two", FINDINGS[name])
    assert all(len(table.cells) >= 2 for table in shown.tables) and shown.records is not None
    shown.draw(tmp_path / "figures")


@pytest.mark.parametrize("name", [name for name in FINDINGS if FINDINGS[name].NEEDS_RUNS])
def test_of_modalities_alone_it_shows_what_can_be_shown(name, tmp_path):
    """Of one there is no row; of two that share no seed no ensemble either."""
    write_run(tmp_path, "baseline", 0, model="unimodal-audio")
    with pytest.raises(InputError, match="of one modality each"):
        _ = finding(tmp_path, FINDINGS[name]).tables
    write_run(tmp_path, "baseline", 1, model="unimodal-visual")
    write_run(tmp_path, "opm", 0)
    assert finding(tmp_path, FINDINGS[name]).tables


def test_each_finding_has_its_suite_and_page():
    names = {name for name in suites() if name.startswith("finding-")}
    assert names == set(FINDINGS) and len(names) == 9


def test_rows_are_held_against_what_was_tuned_alike(tmp_path):
    """Rows as they are, tuned by two trials, and by four, on one data set: three tables, each with its own baseline."""
    for rate, budget in ((None, 0), (0.01, 2), (0.03, 4)):
        for method, accuracy in (("baseline", 0.8 + 0.02 * budget), ("opm", 0.85)):
            given = () if rate is None else (f"optimizer.lr={rate}",)
            runs = [
                write_run(tmp_path, method, seed, accuracy=accuracy, overrides=given) for seed in range(3)
            ]
            if budget:
                write_search(tmp_path / str(budget), runs[0], budget)
    shown = finding(tmp_path, WhenItPays)
    gains = {one.place.label: round(one.comparison.difference.mean, 3) for one in shown.differences}
    assert gains == {
        "synthetic · untuned": 0.05,
        "synthetic · tuned (quasi-random, 2 trainings)": 0.01,
        "synthetic · tuned (quasi-random, 4 trainings)": -0.03,
    }
    assert {record["tuned"] for record in shown.records} == {
        None,
        "tuned (quasi-random, 2 trainings)",
        "tuned (quasi-random, 4 trainings)",
    }


def test_a_row_that_a_search_left_as_it_was_is_held_against_both_baselines(tmp_path):
    """OPM as it is was chosen, the baseline's rate was not: tuned it gains 2 points, untuned 5."""
    for seed in range(3):
        write_run(tmp_path, "baseline", seed, accuracy=0.80)
        tuned = write_run(tmp_path, "baseline", seed, accuracy=0.83, overrides=("optimizer.lr=0.01",))
        plain = write_run(tmp_path, "opm", seed, accuracy=0.85)
    write_search(tmp_path / "a", tuned)
    write_search(tmp_path / "b", plain, as_it_was=True)
    shown = finding(tmp_path, WhenItPays)
    texts = {table.title: dict(line[:3:2] for line in table.cells).get("opm") for table in shown.tables[1:]}
    assert texts == {
        "synthetic · untuned": "+5.0 higher",
        "synthetic · tuned (quasi-random, 2 trainings)": "+2.0 higher",
    }


def test_without_predictions_of_the_modalities_alone_nothing_is_said_of_the_data(tmp_path):
    for model in ("concat", "unimodal-audio", "unimodal-visual"):
        for seed in range(2):
            folder = write_run(tmp_path, "baseline", seed, model=model)
    (folder / "predictions.arrow").unlink()
    shown = finding(tmp_path, WhenItPays)
    assert not shown.properties and [table.title for table in shown.tables] == ["synthetic"]
    assert any("borne out" in note for note in shown.tables[0].notes)


def test_what_the_files_of_a_run_do_not_bear_out_is_said(gains, tmp_path):
    gains((0.05, 0.05, 0.05))
    assert not any("borne out" in note for note in finding(tmp_path).tables[0].notes)
    path = next(tmp_path.rglob("opm-*/result.json"))
    content = json.loads(path.read_text())
    content["selections"]["last"]["accuracy"] = 0.99
    path.write_text(json.dumps(content))
    (said,) = [note for note in finding(tmp_path).tables[0].notes if "borne out" in note]
    assert "99.00 %" in said and "right in 85.00 %" in said


def test_what_was_tuned_stands_beside_the_ensemble_and_the_best_alone(tmp_path):
    """Each row with settings of its own, as searches choose them; differences by hand."""
    rows = [
        ("concat", "baseline", 0.8, 0.01),
        ("concat", "opm", 0.85, 0.02),
        ("unimodal-audio", "baseline", 0.7, 0.03),
        ("unimodal-visual", "baseline", 0.6, 0.04),
    ]
    for model, method, accuracy, rate in rows:
        for seed in range(3):
            reached = accuracy + 0.01 * seed * (method == "opm")
            folder = write_run(
                tmp_path, method, seed, model=model, accuracy=reached, overrides=(f"optimizer.lr={rate}",)
            )
        write_search(tmp_path / model, folder)
    shown = finding(tmp_path, WhenItPays)
    (place,) = shown.places
    assert place.names == ["ensemble", "baseline", "opm", "best alone"]
    table = shown.tables[0]
    over = dict(zip([line[0] for line in table.cells], [line[-1] for line in table.cells], strict=True))
    assert over["opm"].startswith("+16.0 [") and over["best alone"] == "—"
    assert over["baseline"] == "+10.0"  # of three seeds alike
    assert "Best alone: audio, by its mean on test." in table.notes
    assert any("opm: optimizer.lr=0.02; best alone: optimizer.lr=0.03." in note for note in table.notes)
