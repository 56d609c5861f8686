"""ReconBoost: its stages, the loss of the modality that learns and the rectification, by hand."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step
from torch.nn.functional import cross_entropy

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.random_streams import RandomStreams

pytestmark = pytest.mark.usefixtures("in_float64")


def boosting(modalities, method="reconboost", **settings):
    return made(method, modalities, "shared-head", **{"shared-head.fusion": "sum", **settings})


def learning(method, epoch):
    return method.turns(Step(epoch, RandomStreams(0), LABELS))


def test_the_stages():
    _, (method,), _ = boosting(3, boosting=2, rectification=1)
    found = [learning(method, epoch) for epoch in range(13)]
    a, v, t = (["audio"], ["visual"], ["text"])
    expected = [a, a, a, v, v, a + v, t, t, a + v + t, a, a, a + v + t, v]
    assert found == [[turn] for turn in expected]


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_what_is_minimised_and_who_learns(modalities):
    """Stages of two epochs, one of each kind; the loss and the weights that move, in each of the first epochs."""
    settings = {"boosting": 1, "rectification": 1, "fit": 3.0, "reconcile": 0.5, "consolidate": 0.7}
    network, (method,), inputs = boosting(modalities, **settings)
    with torch.no_grad():
        network.fusion.rate.mul_(1.5)
    names = network.modalities
    for epoch in range(2 * modalities + 3):
        before = copy.deepcopy(network)
        stage = epoch // 2
        alone = before.fusion.answers(before.encode(inputs))
        own, counted = names[stage % modalities], names[: stage + 1]
        if epoch % 2:
            expected = cross_entropy(before.fusion.rate * sum(alone[name] for name in counted), LABELS)
        else:
            others = [alone[name] for name in names[:stage] if name != own]
            y = torch.nn.functional.one_hot(LABELS, 4)
            q = (before.fusion.rate * sum(others)).softmax(1) if others else torch.ones(6, 4)
            log = alone[own].log_softmax(1)
            expected = (-3 * (y * log).mean(1) + 0.5 * (y * q * log).mean(1)).mean()
            if others:
                former = alone[names[(stage - 1) % modalities]]
                expected = expected + 0.7 * ((alone[own].softmax(1) - former.softmax(1)) ** 2).mean()
        loss, _ = take_step(network, [method], inputs, epoch, lr=0.05)
        torch.testing.assert_close(loss, expected.detach())
        moved = {
            name
            for name, encoder in network.encoders.items()
            if not torch.equal(next(encoder.parameters()), next(before.encoders[name].parameters()))
        }
        assert moved == ({*counted} if epoch % 2 else {own})
        assert torch.equal(network.fusion.rate, before.fusion.rate) == (epoch % 2 == 0)


def test_no_gradient_but_that_of_the_modality_that_learns_reaches_the_head():
    """The head moves as if the others' answers were numbers."""
    network, (method,), inputs = boosting(2, boosting=1, rectification=1, consolidate=0.7)
    before = copy.deepcopy(network)
    take_step(network, [method], inputs, epoch=2, lr=0.1)
    alone = before.fusion.answers(before.encode(inputs))
    own, other = alone["visual"], alone["audio"].detach()
    q = other.softmax(1).gather(1, LABELS[:, None])[:, 0]
    losses = (5 - q) * cross_entropy(own, LABELS, reduction="none") / 4
    (losses.mean() + 0.7 * ((own.softmax(1) - other.softmax(1)) ** 2).mean()).backward()
    head, moved = before.fusion.answers.head, network.fusion.answers.head
    torch.testing.assert_close(moved.weight, head.weight - 0.1 * head.weight.grad)


def test_whoever_is_not_summed_up_is_refused():
    with pytest.raises(UsageError, match=r"take model shared-head with shared-head\.fusion=sum"):
        made("reconboost", 2, "shared-head")
    with pytest.raises(UsageError, match=r"take model shared-head with shared-head\.fusion=sum"):
        made("reconboost", 2)


@pytest.mark.parametrize("others", ["opm+ogm", "unimodal-losses", "mslr"])
def test_other_methods_join_it(others):
    network, methods, inputs = boosting(3, f"reconboost+{others}")
    for epoch in (0, 20, 28):
        loss, _ = take_step(network, methods, inputs, epoch, lr=0.01)
        assert loss.isfinite()
