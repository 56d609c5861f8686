"""What `bmm eval` finds out about trained runs, against other ways to the same numbers."""

import json
import sys
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import classification_report
from test_resume import assert_same_run

from balancemm_cli.cli import main
from balancemm_cli.cli.eval import parse_amounts
from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import file_hash, open_set
from balancemm_cli.engine import analysis, checkpoint, run_evaluation
from balancemm_cli.engine.evaluator import Corruption, Evaluation, evaluate
from balancemm_cli.engine.restore import restore
from balancemm_cli.engine.run_evaluation import DRAWS, Wanted, evaluate_run
from balancemm_cli.engine.trainer import Interrupted, train_run
from balancemm_cli.errors import InputError
from balancemm_cli.metrics.calibration import calibration
from balancemm_cli.metrics.classification import by_class
from balancemm_cli.metrics.contribution import shapley, subsets
from balancemm_cli.runs.evaluation import keep, read_evaluation
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.tasks import TASKS

CPU = torch.device("cpu")


def train(prepared, runs, *overrides, model="concat", **watch):
    config = resolve("synthetic", model, "opm", overrides=overrides)
    folder = RunFolder(runs, config, open_set(prepared / "synthetic"))
    train_run(folder, CPU, **watch)
    return folder.path


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """A run of five epochs, whose weights are kept after each second one."""
    return train(prepared, tmp_path_factory.mktemp("kept"), "epochs=5", "snapshots=2")


@pytest.fixture(scope="module")
def two(prepared, tmp_path_factory):
    """The same run, that ends after its second epoch."""
    return train(prepared, tmp_path_factory.mktemp("two"), "epochs=2")


@pytest.fixture(scope="module")
def restored(run, prepared):
    return restore(run, prepared, CPU)


# ---- snapshots -----------------------------------------------------------------------------------------------


def test_snapshots_change_nothing_and_are_those_of_their_epochs(run, two, prepared, tmp_path):
    assert list(checkpoint.snapshots(run / "checkpoints")) == [2, 4]
    plain = train(prepared, tmp_path, "epochs=5")
    assert plain.name == run.name and not checkpoint.snapshots(plain / "checkpoints")
    text = (run / "config.toml").read_text()
    assert text == (plain / "config.toml").read_text().replace("snapshots = 0", "snapshots = 2")
    (plain / "config.toml").write_text(text)
    result = json.loads((plain / "result.json").read_text()) | {"config_hash": file_hash(run / "config.toml")}
    (plain / "result.json").write_text(json.dumps(result))
    assert_same_run(run, plain)
    kept = checkpoint.load_snapshot(run / "checkpoints" / "epoch-002.pt")
    last = checkpoint.load_last(two / "checkpoints")["network"]
    assert all(torch.equal(kept[name], last[name]) for name in last)


def test_a_run_that_is_interrupted_keeps_them_all(run, prepared, tmp_path):
    def stop_in_third_epoch(event):
        if event.get("epoch") == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(prepared, tmp_path, "epochs=5", "snapshots=2", on_progress=stop_in_third_epoch)
    again = train(prepared, tmp_path, "epochs=5", "snapshots=1")  # another choice is no other run
    assert list(checkpoint.snapshots(again / "checkpoints")) == [2, 3, 4, 5]
    for name in ("epoch-002.pt", "epoch-004.pt"):
        mine, other = (checkpoint.load_snapshot(one / "checkpoints" / name) for one in (again, run))
        assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_probes_of_the_kept_epochs(run, two, prepared):
    evaluation, _ = evaluate_run(run, prepared, CPU, Wanted(probe=True, kept_epochs=True))
    assert list(evaluation.probe) == [2, 4, 5]
    assert evaluate_run(two, prepared, CPU, Wanted(probe=True))[0].probe == {2: evaluation.probe[2]}


def test_a_damaged_snapshot_is_named(run, prepared, tmp_path):
    path = tmp_path / "epoch-003.pt"
    path.write_bytes((run / "checkpoints" / "epoch-002.pt").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"epoch-003\.pt is damaged"):
        checkpoint.load_snapshot(path)


# ---- missing and noisy modalities ----------------------------------------------------------------------------


def test_curves_have_known_ends(run, prepared, restored):
    wanted = Wanted(missing={"audio": [0, 0.5, 1]}, noise={"visual": [0, 1]})
    found, _ = evaluate_run(run, prepared, CPU, wanted)
    first, middle, last = found.missing["audio"]
    for point in (first, found.noise["visual"][0]):
        assert point.model_dump(exclude={"amount", "draws"}) == found.test.model_dump()
    assert (middle.draws, found.noise["visual"][1].draws) == (DRAWS, 1)
    labels, hits = restored.test.labels, 0  # by hand: audio's input is zero for all
    restored.network.eval()
    with torch.no_grad():
        for raw, wanted_labels in restored.test.batches([np.arange(len(labels))], [None], CPU):
            values = restored.inputs(raw)
            values["audio"] = torch.zeros_like(values["audio"])
            hits += int((restored.network(values).argmax(1) == wanted_labels).sum())
    assert last.accuracy == hits / len(labels)


@pytest.mark.parametrize("model", ["concat", "mmtm", pytest.param("vatt", marks=pytest.mark.long)])
def test_a_curve_is_what_the_disturbance_gives(prepared, tmp_path, model):
    """The short cut of the curve against the network run on disturbed inputs, draw by draw; of mmtm and vatt, too,
    where one modality acts on what is made of another."""
    run = restore(train(prepared, tmp_path, "epochs=1", model=model), prepared, CPU)
    place = (run.network, run.test, run.inputs, CPU)
    (curve,) = analysis.missing_curve(*place, evaluate(*place, run.task), "visual", [0.4], draws=2)
    for draw, found in enumerate(curve):
        direct = evaluate(*place, run.task, Corruption({"visual": 0.4}, {}), draw)
        np.testing.assert_allclose(found.predictions, direct.predictions, atol=1e-6)
        assert found.metrics["unimodal"] == direct.metrics["unimodal"]
    assert not np.array_equal(curve[0].predictions, curve[1].predictions)


@pytest.mark.parametrize(
    ("predicted", "correlation"),
    [
        ([[1, 2, 3], [0, 0, 0], [3, 2, 1], [0, 3, 0]], 0.0),  # of 1, none, -1 and 0
        ([[1, 2, 3], [0, 0, 0]], 1.0),
        ([[0, 0, 0], [1, 1, 1]], None),
    ],
)
def test_a_point_leaves_out_draws_without_a_correlation(predicted, correlation):
    """Where all predictions of a draw are equal, their correlation with the truth is not defined."""
    truth = np.array([1, 2, 3], np.float32)
    draws = [
        Evaluation(TASKS["regression"], np.array(values, np.float32)[:, None], np.zeros(3), {}, truth)
        for values in predicted
    ]
    (point,) = run_evaluation._points([0.5], [draws])
    assert point["draws"] == len(predicted)
    assert point["correlation"] == (None if correlation is None else pytest.approx(correlation))
    assert point["mae"] == pytest.approx(np.mean([one.metrics["mae"] for one in draws]))


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("0.2", [0.2]),
        ("1,0,0.5", [0, 0.5, 1]),
        ("0:1:0.2", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("0:1:0.3", [0, 0.3, 0.6, 0.9, 1]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),
    ],
)
def test_amounts(text, amounts):
    assert parse_amounts("--missing", [f"audio={text}"], 1) == {"audio": amounts}


# ---- classes, calibration, contribution ----------------------------------------------------------------------


def test_classes_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels, fused, alone = random.integers(0, 3, (3, 200))
    found = by_class(fused, {"audio": alone}, labels, ["a", "b", "c", "absent"])
    for predicted, share in (
        (fused, lambda one: one["accuracy"]),
        (alone, lambda one: one["unimodal"]["audio"]),
    ):
        report = classification_report(labels, predicted, target_names=["a", "b", "c"], output_dict=True)
        for name in ("a", "b", "c"):
            assert share(found[name]) == pytest.approx(report[name]["recall"])
            assert found[name]["support"] == report[name]["support"]
    assert found["absent"] == {"support": 0, "accuracy": None, "unimodal": {"audio": None}}


def test_calibration_by_hand():
    """Confidences 0.6 (right), 0.62 (wrong) in (9/15, 10/15] and (8/15, 9/15], 0.9 twice (one right), 1.0 (right)."""
    confidence = np.array([0.6, 0.62, 0.9, 0.9, 1.0])
    scores = np.stack([confidence, 1 - confidence], 1)
    found = calibration(scores, np.array([0, 1, 0, 1, 0]))
    assert found["ece"] == pytest.approx((0.4 + 0.62 + abs(1 - 1.8) + 0) / 5)
    filled = {place: one["count"] for place, one in enumerate(found["bins"]) if one["count"]}
    assert filled == {8: 1, 9: 1, 13: 2, 14: 1}
    assert found["bins"][13]["accuracy"] == 0.5 and found["bins"][0]["confidence"] is None


def test_calibration_agrees_with_the_definition_bin_by_bin():
    random = np.random.default_rng(1)
    scores = random.dirichlet(np.ones(4), 500).astype(np.float32)
    labels = random.integers(0, 4, 500)
    confidence, right = scores.max(1), scores.argmax(1) == labels
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean(dtype=np.float64))
    assert calibration(scores, labels)["ece"] == pytest.approx(total)


def random_game(names, seed=0):
    return dict(
        zip(subsets(names), np.random.default_rng(seed).random(2 ** len(names)).tolist(), strict=True)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shapley_is_the_mean_over_all_orders(count):
    """Its other definition: what a member adds on arrival, over all orders of arrival."""
    names = "abcd"[:count]
    game = random_game(names)
    added = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            added[name] += (game[before | {name}] - game[before]) / len(orders)
    found = shapley(game)
    assert found == pytest.approx(added)
    assert sum(found.values()) == pytest.approx(game[frozenset(names)] - game[frozenset()])


def test_shapley_of_members_that_are_alike_or_add_nothing():
    base = random_game("ab")
    alike = {some: len(some) ** 0.5 for some in subsets("abc")}
    assert len({round(value, 12) for value in shapley(alike).values()}) == 1
    dummy = {some: base[some - {"z"}] for some in subsets("abz")}
    assert shapley(dummy)["z"] == pytest.approx(0)
    assert shapley(dummy)["a"] == pytest.approx(shapley(base)["a"])


def test_contribution_of_a_network(restored):
    place = (restored.network, restored.test, restored.inputs, CPU, restored.task)
    values, accuracies = analysis.contribution(*place)
    whole, nothing = frozenset({"audio", "visual"}), frozenset()
    plain = evaluate(*place)
    assert accuracies[whole] == plain.metrics["accuracy"] and len(accuracies) == 4
    assert sum(values.values()) == pytest.approx(accuracies[whole] - accuracies[nothing])
    common = np.bincount(restored.test.labels.numpy()).max() / len(restored.test)
    assert accuracies[nothing] <= common  # one class for all


# ---- evaluation.json -----------------------------------------------------------------------------------------


@pytest.fixture
def bmm(monkeypatch, capsys, prepared):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["bmm", "eval", *args, "--data", str(prepared), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


def test_what_is_printed_is_kept_and_replaced_in_part(bmm, run):
    _, out, _ = bmm(str(run), "--missing", "audio=0,1", "--full", "--format", "json")
    printed, path = json.loads(out), run / "evaluation.json"
    assert printed.pop("run") == str(run)
    assert json.loads(path.read_text()) == printed
    status, out, _ = bmm(str(run), "--missing", "visual=0,1", "--probe", "linear", "--features")
    assert status == 0 and "missing visual: 0 0." in out and "features: audio 64, visual 64" in out
    kept = json.loads(path.read_text())
    assert kept["missing"].keys() == {"audio", "visual"} and kept["probe"].keys() == {"5"}
    assert kept["classes"] == printed["classes"] and kept["missing"]["audio"] == printed["missing"]["audio"]
    bmm(str(run), "--missing", "audio=0,0.5,1")
    again = json.loads(path.read_text())
    assert [point["amount"] for point in again["missing"]["audio"]] == [0, 0.5, 1]
    assert again["missing"]["visual"] == kept["missing"]["visual"]
    path.write_text(path.read_text().replace(again["checkpoint"], "0" * 64))  # the run has been trained on
    bmm(str(run))
    assert json.loads(path.read_text()).keys() == {"format", "checkpoint", "epochs", "status", "test"}


def test_runs_without_a_checkpoint_are_left_out_aloud(bmm, run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trained").symlink_to(run)
    begun = tmp_path / "runs" / "begun"
    begun.mkdir()
    (begun / "config.toml").write_bytes((run / "config.toml").read_bytes())
    status, out, err = bmm(str(tmp_path / "runs"))
    assert status == 0 and out.startswith(str(tmp_path / "runs" / "trained"))
    assert f"Left out: {begun}: it has no checkpoint yet." in err
    status, _, err = bmm(str(begun))
    assert status == 3 and "no run folder with a checkpoint" in err


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: "[]",
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"accuracy": 0', '"accuracy": 10'),  # percent
    ],
)
def test_a_damaged_evaluation_is_refused_and_left(bmm, run, damage):
    path = run / "evaluation.json"
    path.unlink(missing_ok=True)
    assert bmm(str(run))[0] == 0
    path.write_text(damage(path.read_text()))
    before = path.read_text()
    status, _, err = bmm(str(run))
    assert status == 3 and "evaluation.json is damaged" in err and len(err.splitlines()) == 1
    assert path.read_text() == before
    path.unlink()


def test_features_are_those_of_the_encoders(bmm, run, restored):
    bmm(str(run), "--features")
    table = pa.ipc.open_file(run / "features.arrow").read_all().to_pandas()
    expected = analysis.encode(restored.network, restored.test, restored.inputs, CPU)
    np.testing.assert_allclose(np.stack(table.audio), expected["audio"], atol=1e-5)
    assert table.id.tolist() == restored.test.ids
    assert table.label.tolist() == [restored.prepared.classes[label] for label in restored.test.labels]


def test_scores_that_are_not_finite_are_one_sentence(bmm, run):
    status, _, err = bmm(str(run), "--noise", "audio=1e38")
    assert status == 3 and "not finite" in err and len(err.splitlines()) == 1


def test_nothing_is_kept_of_what_was_not_evaluated(run, prepared, tmp_path):
    evaluation, features = evaluate_run(run, prepared, CPU)
    assert read_evaluation(tmp_path) is None
    keep(tmp_path, evaluation, features)
    assert read_evaluation(tmp_path) == evaluation
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["evaluation.json"]
