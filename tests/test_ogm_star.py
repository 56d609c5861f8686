"""OGM*: k by hand, the gradients of a network, and the official epochs."""

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import Discrepancy, DiscrepancySettings, measure
from balancemm_cli.methods.ogm_star import OGMStar
from balancemm_cli.models import build
from balancemm_cli.random_streams import RandomStreams


def method(variant="paper", **given):
    return OGMStar(OGMStar.Settings(**{**OGMStar.VARIANTS[variant], **given}), ["audio", "visual"])


def discrepancy(*rho):
    values = torch.tensor(rho)
    return Discrepancy(
        DiscrepancySettings(), torch.ones(len(rho)), values, values > 1, torch.tanh(values - 1)
    )


@pytest.mark.parametrize(
    ("rho", "k"),
    [
        ((2.0, 0.5), [1, 4]),
        ((0.8, 1.25), [4, 1]),
        ((1.0, 1.0), [1, 1]),  # even: none lags
        ((2.25, 1.08, 0.42), [1, 1, 4]),
        ((0.7, 0.6, 2.9), [4, 4, 1]),
    ],
)
def test_k_by_hand(rho, k):
    assert method().coefficient(discrepancy(*rho)).tolist() == k
    raised = [2.5 if value == 4 else 1 for value in k]
    assert method(factor=2.5).coefficient(discrepancy(*rho)).tolist() == raised


def test_k_for_a_difference():
    logits = {"audio": torch.tensor([[3.0, 0.0]]), "visual": torch.tensor([[0.0, 0.0]])}
    found = measure(logits, torch.tensor([0]), DiscrepancySettings(form="difference"))
    assert method().coefficient(found).tolist() == [1, 4]


def modulate(ogm, epoch=0):
    network = build("concat", "small", {"audio": 1, "visual": 1}, 3, seed=0)
    inputs = {name: torch.randn(6, 1, 16, 16) for name in ("audio", "visual")}
    torch.nn.functional.cross_entropy(network(inputs), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    before = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    step = Step(epoch, RandomStreams(0), torch.zeros(6), discrepancy=discrepancy(2.0, 0.5))
    ogm.on_gradients(network, step)
    return before, {name: weight.grad for name, weight in network.named_parameters()}, step


def test_the_weaker_modalitys_gradient_is_raised():
    before, after, step = modulate(method(noise="none"))
    assert step.metrics["k_star"].tolist() == [1, 4]
    for name, gradient in after.items():
        raised = name.startswith("encoders.visual") and gradient.ndim == 4
        torch.testing.assert_close(gradient, before[name] * (4 if raised else 1))


def test_noise_is_that_of_ogm():
    before, after, _ = modulate(method())
    for modality, k in (("audio", 1), ("visual", 4)):
        name = f"encoders.{modality}.blocks.2.conv2.weight"
        added = after[name] - k * before[name]
        assert added.std().item() == pytest.approx(before[name].std().item(), rel=0.05)


def test_the_official_epochs():
    for epoch, acts in ((5, False), (6, True), (60, True), (61, False)):
        before, after, _ = modulate(method("official"), epoch)
        name = "encoders.audio.blocks.0.conv1.weight"
        assert acts == (not torch.equal(before[name], after[name]))
        assert method("official").settings.active(epoch) == acts


def test_settings_are_those_that_act():
    assert resolve("synthetic", method="ogm-star").methods["ogm-star"] == {
        "first_epoch": 0,
        "noise": "gaussian",
        "noise_scale": 1.0,
        "noise_target": "all",
        "factor": 4.0,
    }
