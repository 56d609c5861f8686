"""Tasks: losses, scores and metrics against plain computations, and real runs of each."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from sklearn import metrics
from sklearn.metrics import average_precision_score, f1_score
from small_training import SMALL

from balancemm_cli.config.run import resolve
from balancemm_cli.data.kinds import Features, Frames, Waveform
from balancemm_cli.engine.inputs import segments
from balancemm_cli.engine.run_evaluation import Wanted, evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.discrepancy import DiscrepancySettings, measure
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SegmentShape, SequenceShape
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.tasks import TASKS
from balancemm_cli.tasks.regression import ABOVE_HALF
from balancemm_cli.testing.sets import tiny_set

CPU = torch.device("cpu")
LOCALISATION, REGRESSION, ANSWERS = (
    TASKS[name] for name in ("localisation", "regression", "question-answering")
)


def logits_and_labels(*shape, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*shape, classes, generator=generator),
        torch.randint(classes, shape, generator=generator),
    )


# ---- losses, scores and the discrepancy ----------------------------------------------------------------------


def test_loss_of_localisation_is_the_mean_over_the_seconds():
    logits, labels = logits_and_labels(3, 10)
    by_hand = [
        np.mean([-torch.log_softmax(logits[clip, s], 0)[labels[clip, s]].item() for s in range(10)])
        for clip in range(3)
    ]
    np.testing.assert_allclose(LOCALISATION.losses(logits, labels), by_hand, rtol=1e-6)
    assert LOCALISATION.loss(logits, labels).item() == pytest.approx(sum(by_hand), rel=1e-6)


def test_discrepancy_of_localisation_has_a_score_a_second():
    audio, labels = logits_and_labels(2, 3, seed=1)
    visual, _ = logits_and_labels(2, 3, seed=2)
    scores = [0.0, 0.0]
    for index, logits in enumerate((audio, visual)):
        for clip in range(2):
            for second in range(3):
                raised = np.exp(logits[clip, second].numpy())
                scores[index] += raised[labels[clip, second]] / raised.sum()
    found = measure({"audio": audio, "visual": visual}, labels, DiscrepancySettings(), task=LOCALISATION)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    np.testing.assert_allclose(found.rho, [scores[0] / scores[1], scores[1] / scores[0]], rtol=1e-6)


def test_score_of_regression_falls_with_the_error():
    predicted = {"text": torch.tensor([[1.0], [2.0]]), "audio": torch.tensor([[0.0], [-1.0]])}
    labels = torch.tensor([1.0, 1.5])
    found = measure(predicted, labels, DiscrepancySettings(), task=REGRESSION)
    np.testing.assert_allclose(found.scores, [1 + np.exp(-0.5), np.exp(-1) + np.exp(-2.5)], rtol=1e-6)
    assert REGRESSION.losses(predicted["audio"], labels).tolist() == [1.0, 2.5]


# ---- metrics -------------------------------------------------------------------------------------------------


def test_answers_of_localisation_stand_clip_by_clip():
    logits, labels = logits_and_labels(5, 10)
    kept = LOCALISATION.predict(logits).numpy()
    scores, answers = LOCALISATION.answers(kept, labels.numpy())
    right = sum(kept[clip, s].argmax() == labels[clip, s].item() for clip in range(5) for s in range(10))
    assert metrics.accuracy_score(answers, scores.argmax(1)) == right / 50
    assert LOCALISATION.choose(logits).flatten().tolist() == scores.argmax(1).tolist()
    assert LOCALISATION.classes(["a", "b"]) == ["a", "b", "background"]


def test_types_of_questions_add_up():
    logits, labels = logits_and_labels(60)
    types = [["Audio-Counting", "Visual-Location", "Audio-Visual-Temporal"][index % 3] for index in range(60)]
    kept = ANSWERS.predict(logits).numpy()
    found = ANSWERS.metrics(kept, labels.numpy(), types)["by_group"]
    assert list(found) == [
        "Audio-Counting", "Audio-Visual-Temporal", "Visual-Location", "Audio", "Audio-Visual", "Visual",
    ]  # fmt: skip
    right = kept.argmax(1) == labels.numpy()
    for name, of_type in found.items():
        chosen = [right[index] for index in range(60) if types[index].startswith(name)]
        chosen = chosen[: of_type["count"]] if name != "Audio" else right[::3]
        assert of_type == {"count": 20, "accuracy": pytest.approx(np.mean(chosen))}
    assert sum(one["count"] * one["accuracy"] for one in list(found.values())[:3]) == pytest.approx(
        right.sum()
    )


def test_metrics_of_regression_are_those_of_scipy():
    generator = np.random.default_rng(0)
    truth = generator.uniform(-3, 3, 40).astype(np.float32)
    values = (truth + generator.normal(0, 1, 40)).astype(np.float32)
    values[0], truth[0] = 4.2, 3.0  # beyond the range: counts as 3
    values[1], truth[1] = 2.5, 2.0  # halves go to the even number
    found = REGRESSION.metrics(values[:, None], truth, None)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, values))
    assert found["correlation"] == pytest.approx(stats.pearsonr(values, truth).statistic)
    rounded = [[round(min(3, max(-3, float(number)))) for number in numbers] for numbers in (values, truth)]
    assert found["accuracy_7"] == np.mean([a == b for a, b in zip(*rounded, strict=True)])
    scores, labels = REGRESSION.answers(values[:, None], truth)
    assert (scores.argmax(1) == (values >= 0)).all() and (labels == (truth >= 0)).all()
    assert REGRESSION.metrics(np.zeros((4, 1)), truth[:4], None)["correlation"] is None


def test_a_prediction_of_zero_is_non_negative():
    """By `choose`, by the scores, by these as predictions.arrow keeps them, and in the truth; 1e-9 is lost in the
    logistic function in float32."""
    values = torch.tensor([0.0, -0.0, 1e-30, 1e-9, 1e-7, 1.0, -1e-30, -1e-9, -1e-7, -1.0])
    signs = [1] * 6 + [0] * 4
    scores, truth = REGRESSION.answers(values[:, None].numpy(), values.numpy())
    assert REGRESSION.choose(values[:, None]).tolist() == truth.tolist() == signs
    assert scores.argmax(1).tolist() == scores.astype(np.float32).argmax(1).tolist() == signs
    assert (scores.sum(1) == 1).all() and scores[5, 1] == pytest.approx(1 / (1 + np.exp(-1)))
    assert np.float32(ABOVE_HALF) == np.nextafter(np.float32(0.5), np.float32(1))


# ---- segments ------------------------------------------------------------------------------------------------


def test_segments_are_cut_along_time():
    spectrogram = torch.arange(23.0).expand(2, 1, 5, 23)
    cut = segments(spectrogram, 10, Waveform.time_axis)
    assert cut.shape == (2, 10, 1, 5, 2) and cut[0, 3, 0, 0].tolist() == [6, 7]
    pictures = torch.arange(10.0).view(1, 1, 10, 1, 1).expand(2, 3, 10, 4, 4)
    cut = segments(pictures, 10, Frames.time_axis)
    assert cut.shape == (2, 10, 3, 1, 4, 4) and cut[1, 7].unique().tolist() == [7]
    maps = torch.arange(10.0).view(1, 10, 1, 1).expand(2, 10, 9, 6)
    cut = segments(maps, 10, Features.time_axis)
    assert cut.shape == (2, 10, 1, 9, 6) and cut[1, 7].unique().tolist() == [7]


SHAPES = {
    "audio": SegmentShape(10, SequenceShape(1, width=6)),
    "visual": SegmentShape(10, SequenceShape(1, width=5, positions=4)),
}


@pytest.mark.parametrize("model", ["concat", "sum", "mlp", "film", "gated", "lmf"])
def test_fusions_answer_for_each_segment(model):
    """Each second's logits are those of a clip that shows nothing else."""
    network = build(model, "small", SHAPES, 4, seed=0).eval()
    given = {"audio": torch.randn(2, 10, 1, 6), "visual": torch.randn(2, 10, 1, 4, 5)}
    features = network.encode(given)
    logits, alone = network.classify(features), network.unimodal_logits(features)
    assert logits.shape == alone["audio"].shape == (2, 10, 4)
    third = {name: feature[:, 2] for name, feature in features.items()}
    torch.testing.assert_close(network.classify(third), logits[:, 2])
    torch.testing.assert_close(network.unimodal_logits(third)["visual"], alone["visual"][:, 2])


def test_models_of_a_clip_refuse_segments():
    with pytest.raises(
        UsageError, match="Model centralnet answers for each clip, and the task asks for each"
    ):
        build("centralnet", "small", SHAPES, 4, seed=0)


def test_methods_with_prototypes_of_classes_refuse_segments():
    config = resolve("ave", "concat", "pmr")
    with pytest.raises(UsageError, match="pmr needs one class per sample, and task localisation has none"):
        config.build_methods(["audio", "visual"])


# ---- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["opm+ogm", "unimodal-losses", "agm"])
def test_runs_of_each_task(task, method, tmp_path):
    """Trained, kept, evaluated again, and what is kept says the same as the metrics."""
    prepared = tiny_set(tmp_path / "manifest", task)
    config = resolve("manifest", "concat", method, overrides=[*SMALL, f"task={task}"])
    folder = RunFolder(tmp_path / "runs", config, prepared)
    last = train_run(folder, CPU)["selections"]["last"]
    with pa.memory_map(str(folder.path / "predictions.arrow")) as file:
        table = pa.ipc.open_file(file).read_all().to_pandas()
    table = table[table["selection"] == "last"]
    answers = {"localisation": 120, "multi-label": 36}.get(task, 12)
    assert len(table) == answers and table["id"].nunique() == 12
    predicted = np.stack(table["scores"]).argmax(1)
    assert (predicted == table["label"]).mean() == pytest.approx(last["accuracy"])
    if task == "regression":
        assert last["mae"] == pytest.approx(np.abs(table["value"] - table["truth"]).mean())
    if task == "multi-label":
        decided = np.stack(table["scores"])[:, 1].reshape(12, 3)
        labels = table["label"].to_numpy().reshape(12, 3)
        precisions = [average_precision_score(labels[:, c], decided[:, c]) for c in range(3)]
        assert last["map"] == pytest.approx(np.mean(precisions))
        assert last["macro_f1"] == pytest.approx(f1_score(labels, decided > 0.5, average="macro"))
    if task == "question-answering":
        assert last["by_group"]["Audio"]["count"] == 6
    wanted = Wanted(probe=True, full=True, features=True)
    evaluated, features = evaluate_run(folder.path, tmp_path, CPU, wanted)
    assert evaluated.test.accuracy == last["accuracy"]
    assert (evaluated.calibration is None) == (task == "regression")
    assert sum(one.support for one in evaluated.classes.values()) == answers
    assert features is not None and len(features) == 12


def test_a_data_set_without_the_labels_of_a_task_is_refused(tmp_path):
    prepared = tiny_set(tmp_path / "manifest")
    for task, column in (("localisation", "segments"), ("regression", "regression")):
        config = resolve("manifest", overrides=[*SMALL, f"task={task}"])
        with pytest.raises(
            UsageError, match=f"Task {task} needs the column '{column}', which .*manifest lacks"
        ):
            train_run(RunFolder(tmp_path / "runs", config, prepared), CPU)


def test_unknown_task():
    with pytest.raises(UsageError, match=r"'localization'.*localisation"):
        resolve("ave", overrides=["task=localization"])
