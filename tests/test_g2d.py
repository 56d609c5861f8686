"""G²D: the terms of the teachers and who waits by hand, what teaches, and that a checkpoint holds the teachers."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step, take_step_with_drops
from torch.nn.functional import cross_entropy, log_softmax, softmax

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.errors import UsageError


def taught(method, inputs):
    """Of each modality the teacher's feature and answer, in evaluation mode."""
    found = {}
    for name, teacher in method.teachers.items():
        feature = teacher.encoders[name].eval()(inputs[name])
        found[name] = feature.detach(), teacher.fusion.head(feature).detach()
    return found


def terms(method, inputs, features, logits, kept=slice(None), heat=1.0, weights=(1.0, 1.0)):
    """What the teachers add to the loss."""
    total = 0
    for name, (feature, answer) in taught(method, inputs).items():
        p = softmax(answer[kept] / heat, 1)
        apart = (p * (p.log() - log_softmax(logits[kept] / heat, 1))).sum(1).mean()
        off = ((features[name][kept] - feature[kept]) ** 2).mean()
        total = total + weights[0] * heat**2 * apart + weights[1] * off
    return total


def learn(methods, number=0):
    """Give the teachers other weights than those of the network's beginning, as a training would."""
    torch.manual_seed(number)
    for teacher in methods[-1].teachers.values():
        for weight in teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))


@pytest.mark.parametrize("model", ["concat", "sum", "mlp", "film"])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_the_surest_teachers_modality_waits_and_all_learn_from_the_teachers(model, modalities):
    given = {"temperature": 2.0, "logits": 0.5, "features": 3.0, "until": 0.6}
    network, methods, inputs = made("g2d", modalities, model, **given)
    learn(methods)
    twin = copy.deepcopy(network)
    features = twin.encode(inputs)
    logits = twin.classify(features)
    loss = cross_entropy(logits, LABELS) + terms(
        methods[0], inputs, features, logits, heat=2.0, weights=(0.5, 3.0)
    )
    loss.backward()
    found, step = take_step(network, methods, inputs, lr=0.1)  # of a training half of which is done
    torch.testing.assert_close(found, loss.detach())
    scores = [softmax(answer, 1)[range(6), LABELS].sum() for _, answer in taught(methods[0], inputs).values()]
    torch.testing.assert_close(step.metrics["teacher"], torch.stack(scores))
    first = torch.stack(scores).argmax()
    assert step.metrics["waits"].tolist() == [float(m == first) for m in range(modalities)]
    for m, (name, weights) in enumerate(twin.modulated().items()):
        waits = {id(weight) for weight in weights if m == first}
        old = dict(twin.encoders[name].named_parameters())
        for key, new in network.encoders[name].named_parameters():
            moved = 0 if id(old[key]) in waits else 0.1 * old[key].grad
            torch.testing.assert_close(new, old[key] - moved, rtol=1e-4, atol=1e-6)
    for new, old in zip(network.fusion.parameters(), twin.fusion.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * old.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("until", [0.0, 0.5])  # the step is taken where half of the training is done
def test_nobody_waits_after_its_part_of_the_training(until):
    network, methods, inputs = made("g2d", 3, until=until)
    learn(methods)
    _, step = take_step(network, methods, inputs)
    assert step.metrics["waits"].tolist() == [0, 0, 0]


def test_nobody_waits_where_two_teachers_are_equally_sure():
    network, methods, inputs = made("g2d", 3, until=1.0)
    for teacher in methods[0].teachers.values():
        for weight in teacher.fusion.parameters():
            weight.zero_()
    _, step = take_step(network, methods, inputs)
    assert step.metrics["waits"].tolist() == [0, 0, 0]
    torch.testing.assert_close(step.metrics["teacher"], torch.full((3,), 6 / 4))


def test_samples_that_lost_all_modalities_count_nowhere():
    loss, _, features, kept, prediction = take_step_with_drops("g2d", logits=0.0)
    methods, inputs = made("moddrop+g2d", 3)[1:]  # teachers of the same beginning
    expected = prediction + terms(methods[1], inputs, features, torch.zeros(6, 4), kept, weights=(0.0, 1.0))
    torch.testing.assert_close(loss, expected.detach())


def test_what_it_cannot_train_is_refused():
    with pytest.raises(
        UsageError, match=r"a teacher for each encoder, and this model has more .* such as concat\."
    ):
        made("g2d", 2, "mmtm")


def test_the_teachers_are_the_modalities_trained_alone(prepared, tmp_path):
    """Those of a run are, to the bit, the networks of runs of one modality each under the same recipe."""

    def last(model, method):
        few = ["epochs=2", "batch_size=32", "frames.size=24"]
        config = resolve("synthetic", model, method, overrides=few)
        job = Job(config, prepared / "synthetic", tmp_path, device="cpu", threads=1)
        run_job(job, lambda *_: None, lambda sentence: None)
        return checkpoint.load_last(job.folder().checkpoints)

    (teachers,) = last("concat", "g2d")["methods"]
    for name in ("audio", "visual"):
        alone = last(f"unimodal-{name}", "baseline")["network"]
        own = {
            key.removeprefix(f"{name}/"): value
            for key, value in teachers.items()
            if key.startswith(f"{name}/")
        }
        torch.testing.assert_close(own, dict(alone), rtol=0, atol=0)
