"""The shared head by hand: how its answers are fused, and features of several widths."""

import math

import pytest
import torch

from balancemm_cli.errors import UsageError
from balancemm_cli.models.shared_head import SharedHead, certainty

WIDTHS = {"a": 3, "b": 2, "c": 3, "d": 2, "e": 1}


def made(modalities, **settings):
    widths = dict(list(WIDTHS.items())[:modalities])
    torch.manual_seed(modalities)
    fusion = SharedHead(widths, 7, SharedHead.Settings(**settings))
    return fusion, {name: torch.randn(6, width) for name, width in widths.items()}


def test_certainty_by_hand():
    sure = torch.tensor([[math.log(3.0), 0.0]])  # p = ¾, ¼
    unsure = torch.zeros(1, 2)
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    share = math.exp(-entropy) / (math.exp(-entropy) + 0.5)
    found = certainty(torch.stack([sure, unsure]))
    torch.testing.assert_close(found, torch.tensor([share, 1 - share]).view(2, 1, 1))
    assert share > 0.5
    torch.testing.assert_close(certainty(torch.randn(4, 1, 1)), torch.full((4, 1, 1), 0.25))


def test_a_sample_s_prediction_depends_on_no_other():
    fusion, features = made(3)
    first = {name: feature[:1] for name, feature in features.items()}
    torch.testing.assert_close(fusion(first), fusion(features)[:1])


@pytest.mark.parametrize("hidden", [None, 4])
@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_one_head_answers_to_all(modalities, hidden):
    fusion, features = made(modalities, fusion="mean", hidden=hidden)
    head = fusion.answers.head
    assert {*fusion.answers.widen} == {
        name for name, width in WIDTHS.items() if width < 3 and name in features
    }
    alone = {name: head(fusion.answers.wide(name, one)) for name, one in features.items()}
    for detached in (False, True):
        found = fusion.logits_alone(features, detached)
        torch.testing.assert_close(found, alone)
        assert all(logits.requires_grad == (not detached) for logits in found.values())
    torch.testing.assert_close(fusion.unimodal_logits(features, None), alone)
    torch.testing.assert_close(fusion(features), sum(alone.values()) / modalities)
    with pytest.raises(UsageError, match="bias_split"):
        fusion.unimodal_logits(features, [1 / modalities] * modalities)


def test_the_sum_is_scaled_by_a_number_that_is_trained():
    fusion, features = made(2, fusion="sum")
    alone = sum(fusion.logits_alone(features).values())
    torch.testing.assert_close(fusion(features), alone)
    with torch.no_grad():
        fusion.rate.mul_(3)
    torch.testing.assert_close(fusion(features), 3 * alone)
    fusion(features).sum().backward()
    torch.testing.assert_close(fusion.rate.grad, alone.sum().detach())


def test_no_gradient_flows_through_how_sure_they_are():
    fusion, features = made(2)
    features["a"].requires_grad_()
    logits = fusion.logits_alone(features)
    weights = certainty(torch.stack([*logits.values()]).detach())
    (expected,) = torch.autograd.grad((weights[0] * logits["a"]).square().sum(), features["a"])
    other = weights[1] * logits["b"].detach()
    shown = {"a": features["a"], "b": features["b"]}
    ((found,)) = torch.autograd.grad((fusion(shown) - other).square().sum(), features["a"])
    torch.testing.assert_close(found, expected)


def test_answers_of_segments():
    fusion, features = made(2)
    segments = {name: feature.view(2, 3, -1) for name, feature in features.items()}
    torch.testing.assert_close(fusion(segments), fusion(features).view(2, 3, 7))
