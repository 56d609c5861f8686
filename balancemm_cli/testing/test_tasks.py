"""What every task keeps."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import Interrupted, UsageError
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.tasks import TASKS
from balancemm_cli.testing import guards, sets
from balancemm_cli.testing.entries import DOCS
from balancemm_cli.testing.small import CLASSES, random_labels

CPU = torch.device("cpu")
of_each_task = pytest.mark.parametrize("task", TASKS)


def logits_and_labels(task: str, count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ones, of the forms that the task has."""
    of, generator = TASKS[task], torch.Generator().manual_seed(0)
    segments = () if of.segments is None else (of.segments,)
    logits = torch.randn(count, *segments, of.outputs(CLASSES), generator=generator)
    return logits, random_labels(of, count, generator)


@of_each_task
def test_losses_are_those_of_the_samples_and_their_sum(task: str) -> None:
    """`losses` gives one a sample, `loss` their sum, with a finite gradient; a sample's loss is its own alone."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task)
    logits.requires_grad_()
    losses = of.losses(logits, labels)
    assert losses.shape == (7,) and (losses >= 0).all()
    torch.testing.assert_close(of.loss(logits, labels), losses.sum())
    torch.testing.assert_close(of.losses(logits[2:4], labels[2:4]), losses[2:4])
    of.loss(logits, labels).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@of_each_task
def test_the_score_of_the_truth_lies_within_0_and_1_and_falls_with_the_loss(task: str) -> None:
    """Of several modalities at once; a step towards a smaller loss raises it (Eq. 6 needs no more)."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task)
    scores = of.scores(torch.stack([logits, -logits]), labels)
    assert scores.shape[:2] == (2, 7) and ((scores >= 0) & (scores <= 1)).all()
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(of.loss(logits, labels), logits)
    better = (logits - 0.01 * gradient).detach()
    assert of.scores(better[None], labels).sum() > of.scores(logits[None], labels).sum()


@of_each_task
def test_what_a_run_keeps_gives_its_predictions_back(task: str) -> None:
    """`kept` undoes `answers` and `columns`, for an ensemble is formed of what runs kept."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task)
    predictions, truth = of.predict(logits).numpy(), labels.numpy()
    scores, answers = of.answers(predictions, truth)
    columns = {"scores": scores, "label": answers, **of.columns(predictions, truth)}
    found, labels_found = of.kept(columns, len(truth))
    np.testing.assert_array_equal(found, predictions)
    np.testing.assert_array_equal(labels_found, truth)


@of_each_task
def test_no_constant_answer_is_right_more_often_than_the_constant_one(task: str) -> None:
    """`constant` gives every sample the same, of the form that `predict` gives."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task, 40)
    truth, width = labels.numpy(), of.predict(logits).shape[-1]
    constant = of.constant(truth, width)
    assert constant.shape == of.predict(logits).shape and (constant == constant[:1]).all()
    scores, answers = of.answers(np.array(constant), truth)
    shares = np.bincount(answers) / len(answers)
    assert (scores.argmax(1) == answers).mean() >= shares.max() - 1e-9


@of_each_task
def test_nothing_of_a_step_waits_for_the_device(task: str) -> None:
    """Losses, scores and what they lead to fetch no value."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task)
    with guards.no_waiting():
        of.loss(logits, labels)
        of.losses(logits, labels)
        of.scores(logits[None], labels)
        of.choose(logits)
        of.classes_of(labels)
        of.predict(logits)


@of_each_task
def test_what_is_kept_says_what_was_chosen(task: str) -> None:
    """The largest score of an answer is that of the class that `choose` gives, and labels are those of `classes_of`;
    metrics are plain numbers, and further columns have one value per answer."""
    of, (logits, labels) = TASKS[task], logits_and_labels(task)
    kept = of.predict(logits).numpy()
    scores, answers = of.answers(kept, labels.numpy())
    assert scores.shape == (len(answers), len(of.classes(CLASSES)))
    assert scores.argmax(1).tolist() == of.choose(logits).flatten().tolist()
    assert answers.tolist() == of.classes_of(labels).flatten().tolist()
    assert ((scores >= 0) & (scores <= 1)).all() and np.allclose(scores.sum(1), 1)
    groups = [sets.GROUPS[index % 2] for index in range(7)] if of.groups else None
    json.dumps(of.metrics(kept, labels.numpy(), groups), allow_nan=False)
    assert all(len(column) == len(answers) for column in of.columns(kept, labels.numpy()).values())


@of_each_task
def test_a_resumed_run_ends_as_one_that_never_stopped(task: str, tmp_path: Path) -> None:
    """To the bit, with its predictions and metrics."""
    prepared = sets.tiny_set(tmp_path / "manifest", task)
    small = ["encoder=small", "pretrained=false", "batch_size=8", "epochs=2", f"task={task}"]
    config = resolve("manifest", "concat", "opm+ogm", overrides=small)
    whole, stopped = (RunFolder(tmp_path / name, config, prepared) for name in ("whole", "stopped"))
    seen = []

    def interrupt(event: object) -> None:
        seen.append(event)
        if len(seen) == 6:  # an epoch of three steps, its record, and two steps of the next one
            signal.raise_signal(signal.SIGINT)

    result = train_run(whole, CPU)
    with pytest.raises(Interrupted):
        train_run(stopped, CPU, on_progress=interrupt)
    state = checkpoint.load_last(stopped.checkpoints)
    assert state is not None and state["step"] == 2
    assert train_run(stopped, CPU)["selections"] == result["selections"]
    for name in ("history.jsonl", "steps.arrow", "predictions.arrow"):
        assert (stopped.path / name).read_bytes() == (whole.path / name).read_bytes(), name


@of_each_task
def test_data_without_its_labels_are_refused_in_a_sentence(task: str, tmp_path: Path) -> None:
    """A task that needs a column of its own names it and the data set that lacks it."""
    of, prepared = TASKS[task], sets.tiny_set(tmp_path / "manifest")
    column = of.column if of.column != "label" else of.groups
    if column is None:
        return
    config = resolve("manifest", overrides=["encoder=small", "pretrained=false", f"task={task}"])
    with pytest.raises(UsageError, match=f"Task {task} needs the column '{column}', which .*manifest lacks"):
        train_run(RunFolder(tmp_path / "runs", config, prepared), CPU)


@pytest.mark.skipif(not DOCS.is_dir(), reason="an installed wheel has no pages")
@of_each_task
def test_it_is_explained(task: str) -> None:
    """docs/tasks.md has a line on it."""
    assert f"| `{task}` |" in (DOCS / "tasks.md").read_text("utf-8")
