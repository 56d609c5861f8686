"""Step for step, the official variants compute what the authors' two code bases computed (float64).

Weights and batches are filled as golden.py says. Of the eight steps the first three are compared; all of those of a
file of the same form that BMM_GOLDEN names, which may be that one.
"""

import os

import pytest
import torch
from golden import cases, fill_encoder, fill_linear, make_batch, wave

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS, method_names
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.random_streams import RandomStreams

CASES = cases("official_trajectories.json", "BMM_GOLDEN")
STEPS = None if "BMM_GOLDEN" in os.environ else 3


pytestmark = pytest.mark.usefixtures("in_float64")


def make_network(case):
    network = build(case.get("fusion", "concat"), "resnet18", {"audio": 1, "visual": 3}, case["classes"], 0)
    fill_encoder(network.encoders["audio"], 0.3)
    fill_encoder(network.encoders["visual"], 0.6)
    if case.get("fusion") == "sum":
        fill_linear(network.fusion.heads["audio"], 0.2)
        fill_linear(network.fusion.heads["visual"], 0.4)
    else:
        fill_linear(network.fusion.head, 0.2)
    return network


def make_methods(case):
    """The methods in variant official, without noise, modulated in all epochs, the drop always executed."""
    kind = case.get("kind") or {"Normal": "baseline"}.get(case["modulation"], "ogm")
    given = {
        "opm": {
            "q_base": case.get("q_base", 0.5),
            "lam": case.get("lam", 0.5),
            "execute_probability": 1.0,
            "first_epoch": 0,
        },
        "ogm": {"alpha": case["alpha"], "noise": "none"},
        "baseline": {},
    }
    methods = []
    for name in method_names(kind):
        method = METHODS[name]
        settings = method.Settings(**{**method.VARIANTS["official"], **given[name]})
        methods.append(method(settings, ["audio", "visual"]))
    return methods


class GoldenDraws(RandomStreams):
    """The uniform numbers that the recorded keep masks were drawn with."""

    def uniform(self, shape, purpose, device):
        return (wave(shape, 0.17 + self.step) + 1) / 2


def train(case):
    network, methods = make_network(case), make_methods(case)
    optimizer = build_optimizer(network, OptimizerSettings(**case["optimizer"]))
    for index in range(len(case["loss"][:STEPS])):
        inputs, labels = make_batch(index, case)
        step = Step(0, GoldenDraws(0, 0, index), labels)
        loss = train_step(network, methods, optimizer, inputs, step, DiscrepancySettings())
        losses = {
            name: torch.nn.functional.cross_entropy(logits, labels).item()
            for name, logits in step.unimodal.items()
        }
        yield float(loss), losses, step


@pytest.mark.parametrize("name", CASES)
def test_trajectory(name):
    case = CASES[name]
    close = lambda value: pytest.approx(value, rel=1e-6)  # noqa: E731
    for index, (loss, unimodal, step) in enumerate(train(case)):
        assert loss == close(case["loss"][index]), f"loss at step {index}"
        assert unimodal["audio"] == close(case["loss_audio"][index])
        assert unimodal["visual"] == close(case["loss_visual"][index])
        scores, rho = step.discrepancy.scores.tolist(), step.discrepancy.rho.tolist()
        if "score_audio" in case:
            assert scores == close([case["score_audio"][index], case["score_visual"][index]])
        if "ratio_visual_over_audio" in case:
            assert rho[1] == close(case["ratio_visual_over_audio"][index])
            assert step.metrics["k"].tolist() == close([case["k_audio"][index], case["k_visual"][index]])
        if "q" in case:
            assert step.metrics["q"].tolist() == close(case["q"][index])
            assert step.keep.int().tolist() == case["keep"][index]
        if "kept" in case:
            kept = len(step.labels) if step.keep is None else int(step.keep.any(1).sum())
            assert kept == case["kept"][index]
