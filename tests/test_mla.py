"""MLA: its turns, the matrix by which the head's gradient is turned, and coasting, by hand."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step
from torch.nn.functional import cross_entropy

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.mla import mean, turned
from balancemm_cli.random_streams import RandomStreams


def descend(network, rate):
    with torch.no_grad():
        for weight in network.parameters():
            if weight.grad is not None:
                weight -= rate * weight.grad
            weight.grad = None


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_each_modality_learns_from_what_the_former_made_of_the_head(modalities, projection, in_float64):
    """Two steps, by plain gradient descent; modalities of 64 and of 128 numbers, the former widened."""
    network, (method,), inputs = made("mla", modalities, "shared-head", projection=projection)
    plain = copy.deepcopy(network)
    answers, away = plain.fusion.answers, None
    for _ in range(2):
        loss, _ = take_step(network, [method], inputs, lr=0.1)
        features, losses = plain.encode(inputs), []
        for name, feature in features.items():
            wide = answers.widen[name](feature) if name in answers.widen else feature
            losses.append(cross_entropy(answers.head(wide), LABELS))
            losses[-1].backward()
            if projection and away is not None:
                h = wide.detach().mean(0)
                k = away @ h
                away = away - k[:, None] * k[None] / (0.1**1.5 + (h * k).sum())
                away = away / (away**2).sum().sqrt()
                answers.head.weight.grad = answers.head.weight.grad @ away.T
            away = torch.eye(answers.head.in_features) if away is None else away
            descend(plain, 0.1)
        torch.testing.assert_close(loss, torch.stack(losses).mean().detach())
        torch.testing.assert_close(network.state_dict(), plain.state_dict())
    if projection:
        torch.testing.assert_close(method.state_dict()["away"], away)
    else:
        assert method.state_dict() == {}


def test_the_matrix_by_hand():
    found = turned(torch.eye(2), torch.tensor([2.0, 0.0]), 1.0)  # k = (2, 0), 4 / (1 + 4)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.0], [0.0, 1.0]]) / 1.04**0.5)
    later = turned(found, torch.tensor([0.0, 3.0]), 1.0)
    k = 3 / 1.04**0.5
    expected = torch.diag(torch.tensor([0.2 / 1.04**0.5, 1 / 1.04**0.5 - k * k / (1 + 3 * k)]))
    torch.testing.assert_close(later, expected / expected.norm())


def test_the_mean_is_over_samples_and_what_is_between_of_all_processes():
    feature = torch.arange(24.0).view(2, 3, 4)
    step = Step(0, RandomStreams(0, batch=4), LABELS, total=lambda values: 3 * values)
    torch.testing.assert_close(mean(feature, step), 3 * feature.view(6, 4).sum(0) / 12)
    torch.testing.assert_close(mean(feature[:0], step), torch.zeros(4))


@pytest.mark.parametrize("coasting", [True, False])
def test_encoders_of_former_turns_rest_or_move_on_by_momentum_and_decay(coasting):
    network, methods, inputs = made("mla", 3, "shared-head", projection=False, coasting=coasting)
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.1, momentum=0.5, weight_decay=0.1))
    before = copy.deepcopy(network)
    wide = before.fusion.answers.wide(
        "audio", before.encode(inputs)["audio"]
    )  # in whose turn the head is as it was
    cross_entropy(before.fusion.answers.head(wide), LABELS).backward()
    step = Step(0, RandomStreams(0), LABELS)
    train_step(network, methods, optimizer, inputs, step, DiscrepancySettings())
    for weight, old in zip(
        network.encoders["audio"].parameters(), before.encoders["audio"].parameters(), strict=True
    ):
        expected, velocity = old.detach().clone(), torch.zeros_like(old)
        for gradient in (old.grad, 0, 0) if coasting else (old.grad,):
            velocity = 0.5 * velocity + gradient + 0.1 * expected
            expected = expected - 0.1 * velocity
        torch.testing.assert_close(weight.detach(), expected)
    other = made(
        "mla", 3, "shared-head", projection=False, coasting=not coasting
    )  # whose last one does the same
    optimizer = build_optimizer(other[0], OptimizerSettings(lr=0.1, momentum=0.5, weight_decay=0.1))
    train_step(*other[:2], optimizer, inputs, Step(0, RandomStreams(0), LABELS), DiscrepancySettings())
    ends = [of.encoders["text"].state_dict() for of in (network, other[0])]
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(("model", "hidden"), [("concat", None), ("shared-head", 8)])
def test_a_network_without_one_linear_head_for_all_is_refused(model, hidden):
    given = {} if hidden is None else {"shared-head.hidden": hidden}
    with pytest.raises(UsageError, match="take model shared-head, without"):
        made("mla", 2, model, **given)


@pytest.mark.parametrize("others", ["opm+ogm", "unimodal-losses", "mslr", "dropout", "arl"])
def test_other_methods_join_its_turns(others):
    network, methods, inputs = made(f"mla+{others}", 3, "shared-head")
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        loss, _ = take_step(network, methods, inputs, lr=0.01)
        assert loss.isfinite()
    for name, weight in network.named_parameters():
        assert weight.isfinite().all() and not torch.equal(weight, before[name]), name
