"""The ensemble of the modalities trained alone, and the majority class, against plain computations on runs' files."""

import json

import numpy as np
import pytest
from run_folders import write_demo, write_run
from sklearn.metrics import average_precision_score, f1_score
from test_report import bmm

from balancemm_cli.results.bundle import write_bundle
from balancemm_cli.results.collection import collect
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.gains import gains
from balancemm_cli.results.groups import Group, choose
from balancemm_cli.results.references import with_references
from balancemm_cli.results.rows import record, row
from balancemm_cli.runs.reading import read_table
from balancemm_cli.tasks import TASKS


@pytest.fixture
def demo(tmp_path):
    """Four methods and both modalities alone, three seeds."""
    return write_demo(tmp_path, 3)


def referenced(root, **terms):
    groups, left_out = with_references(collect([root], "last").groups)
    found = {group.first.model: group for group in groups if not group.trained}
    return found, groups, left_out


def scores_of(root, model, seed, selection="last"):
    (path,) = (root / model).glob(f"*-s{seed}-*")
    table = read_table(path / "predictions.arrow").to_pandas()
    rows = table[table.selection == selection]
    return np.stack(rows.scores).astype(np.float64), rows.label.to_numpy()


def test_the_ensemble_is_the_mean_of_the_probabilities_seed_by_seed(demo):
    found, _, left_out = referenced(demo)
    assert not left_out
    ensemble = found["ensemble"]
    assert ensemble.seeds == [0, 1, 2]
    for run in ensemble.runs:
        for selection, got in run.result.selections.items():
            audio, labels = scores_of(demo, "unimodal-audio", run.result.seed, selection)
            visual, of_visual = scores_of(demo, "unimodal-visual", run.result.seed, selection)
            assert (labels == of_visual).all()
            mean = (audio + visual) / 2
            assert got.accuracy == (mean.argmax(1) == labels).mean()
            assert got.macro_f1 == pytest.approx(f1_score(labels, mean.argmax(1), average="macro"))
            precisions = [average_precision_score(labels == c, mean[:, c]) for c in range(2)]
            assert got.map == pytest.approx(np.mean(precisions))
            right = (audio.argmax(1) == labels).mean()
            assert got.unimodal["audio"] == pytest.approx(right, abs=0.5 / len(labels))
    accuracies = [run.result.selections["last"].accuracy for run in ensemble.runs]
    assert row(ensemble, "last").accuracy.mean == pytest.approx(np.mean(accuracies))


def test_its_gain_is_over_joint_training_of_the_same_seeds(demo):
    found, groups, _ = referenced(demo)
    (baseline,) = choose(groups, ["model=concat", "method=baseline"])
    gain = gains(groups, "last")[found["ensemble"].key]
    differences = [
        one.result.selections["last"].accuracy - other.result.selections["last"].accuracy
        for one, other in zip(found["ensemble"].runs, baseline.runs, strict=True)
    ]
    assert gain.comparison.difference.mean == pytest.approx(np.mean(differences))
    assert gain.comparison.difference.n == 3
    assert found["majority"].key not in gains(groups, "last")


def test_the_majority_class_is_the_best_constant_answer(demo):
    found, _, _ = referenced(demo)
    majority = found["majority"]
    assert majority.seeds == [0, 1, 2]
    for run in majority.runs:
        counts = np.bincount(scores_of(demo, "unimodal-audio", run.result.seed)[1])
        assert run.result.selections["last"].accuracy == counts.max() / counts.sum()
    assert majority.runs[0].result.selections["last"].map == pytest.approx(0.5)


def test_a_modality_without_runs_is_named_and_makes_no_ensemble(tmp_path):
    write_run(tmp_path, "baseline", 0)
    write_run(tmp_path, "baseline", 0, model="unimodal-audio", accuracy=0.8)
    found, _, left_out = referenced(tmp_path)
    assert set(found) == {"majority"}
    assert left_out == [
        "no ensemble of synthetic (paper, default): there are no runs of visual alone.",
    ]


def test_only_the_seeds_of_all_modalities_count(tmp_path):
    for model, seeds in (("unimodal-audio", (0, 1, 2)), ("unimodal-visual", (1, 2, 5))):
        for seed in seeds:
            write_run(tmp_path, "baseline", seed, model=model, accuracy=0.8)
    write_run(tmp_path, "baseline", 7)
    assert referenced(tmp_path)[0]["ensemble"].seeds == [1, 2]


def test_other_settings_are_another_ensemble(tmp_path):
    for overrides in ((), ("epochs=9",)):
        for model in ("unimodal-audio", "unimodal-visual"):
            write_run(tmp_path, "baseline", 0, model=model, accuracy=0.8, overrides=overrides)
    groups = with_references(collect([tmp_path], "last").groups)[0]
    ensembles = [group for group in groups if group.first.model == "ensemble"]
    assert len(ensembles) == 2
    assert [set(group.differences) for group in ensembles] == [{"epochs"}, {"epochs"}]


def test_tests_of_other_samples_make_no_ensemble(tmp_path):
    write_run(tmp_path, "baseline", 0, model="unimodal-audio", accuracy=0.8)
    write_run(tmp_path, "baseline", 0, model="unimodal-visual", accuracy=0.8, samples=(1000, 1200))
    found, _, left_out = referenced(tmp_path)
    assert "ensemble" not in found
    assert len(left_out) == 1 and "other samples" in left_out[0]


def test_every_format_has_the_rows_and_says_what_they_are(demo):
    for form in ("markdown", "latex", "html", "csv", "json"):
        done = bmm(str(demo), "--format", form, cwd=demo)
        assert "ensemble" in done.stdout and "majority" in done.stdout, form
    records = json.loads(bmm(str(demo), "--format", "json", cwd=demo).stdout)
    by_model = {one["model"]: one for one in records}
    assert by_model["ensemble"]["runs"] == []
    assert len(by_model["ensemble"]["computed_from"]) == 6
    assert by_model["concat"]["computed_from"] == []
    assert "ensemble" not in bmm(str(demo), "--where", "method=opm", cwd=demo).stdout
    shown = bmm(str(demo), "--where", "model=ensemble", "--selection", "all", cwd=demo).stdout
    assert "| ensemble " in shown


def test_what_is_made_of_run_folders_leaves_them_out(demo, tmp_path):
    done = bmm(str(demo), "--out", str(tmp_path / "out"), cwd=tmp_path)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| ensemble " in report and "--model ensemble" not in report
    assert not list((tmp_path / "out" / "figures").glob("*ensemble*")), done.stderr
    bundled = bmm(str(demo), "--bundle", str(tmp_path / "b.tar"), cwd=tmp_path)
    assert "18 runs" in bundled.stderr
    assert write_bundle(collect([demo], "last").groups, tmp_path / "c.tar") == 18


def test_a_record_of_an_ensemble_has_no_published_number(demo):
    found, groups, _ = referenced(demo)
    plain = record(row(found["ensemble"], "last"))
    assert plain["published"]["accuracy"] is None and plain["verdict"]["word"] is None
    assert isinstance(found["ensemble"], Group)
    assert Contents(groups, "last").shown == [group for group in groups if group.trained]


# ---- of each task -------------------------------------------------------------------------------------------


def test_the_constant_of_a_regression_is_the_median():
    truth = np.array([-2.0, -1.0, 0.5, 1.0, 3.0], np.float32)
    regression = TASKS["regression"]
    constant = regression.constant(truth, 1)
    assert constant.shape == (5, 1) and (constant == 0.5).all()
    found = regression.metrics(constant, truth, None)
    assert found["mae"] == pytest.approx((2.5 + 1.5 + 0 + 0.5 + 2.5) / 5)
    assert found["correlation"] is None


def test_the_constant_of_several_labels_decides_class_by_class():
    truth = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0]])
    constant = TASKS["multi-label"].constant(truth, 2)
    assert constant.argmax(2).tolist() == [[1, 0, 0]] * 3
    np.testing.assert_allclose(constant[0, :, 1], [1, 1 / 3, 1 / 3])


def test_the_constant_of_seconds_is_the_most_frequent_answer_of_all_of_them():
    truth = np.array([[0, 2, 2], [2, 1, 2]])
    constant = TASKS["localisation"].constant(truth, 3)
    assert constant.shape == (2, 3, 3) and (constant.argmax(2) == 2).all()
