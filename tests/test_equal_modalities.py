"""ρ of two modalities that tell equally much: where it says who conditions, it says nothing of who is ahead."""

import pytest
import torch

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

SHAPES = {"a": SequenceShape(1, width=16), "b": SequenceShape(1, width=16)}
CLASSES, BATCH, STEPS = 6, 32, 100


def rho(model, seed, **settings):
    """ρ of modality a in each step of a training. Both modalities are the class's own vector and noise of their own."""
    network = build(model, "small", SHAPES, CLASSES, seed, settings, {"vectors": "mlp"})
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.01))
    generator = torch.Generator().manual_seed(seed)
    of_class = torch.randn(CLASSES, 1, 16, generator=generator)
    found = []
    for index in range(STEPS):
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        inputs = {name: of_class[labels] + torch.randn(BATCH, 1, 16, generator=generator) for name in SHAPES}
        step = Step(0, RandomStreams(seed, 0, index), labels)
        train_step(network, [], optimizer, inputs, step, DiscrepancySettings())
        found.append(step.discrepancy.rho[0])
    return torch.stack(found)


def over_seeds(model, seeds, **settings):
    """The geometric mean over the trainings, of each quarter of their steps."""
    logs = torch.stack([rho(model, seed, **settings) for seed in range(seeds)]).log()
    return [quarter.mean().exp().item() for quarter in logs.chunk(4, 1)]


@pytest.mark.parametrize("conditioner", ["a", "b"])
def test_before_fusion_film_is_balanced_whoever_conditions(conditioner):
    assert all(0.8 < part < 1.25 for part in over_seeds("film", 4, conditioner=conditioner))


@pytest.mark.parametrize(("conditioner", "low", "high"), [("a", 1.5, 6), ("b", 1 / 6, 1 / 1.5)])
def test_by_zero_out_rho_of_film_says_who_conditions(conditioner, low, high):
    found = over_seeds("film", 1, conditioner=conditioner, unimodal="zero-out")
    assert all(low < part < high for part in found)


def test_a_gated_multimodal_unit_is_balanced():
    """Each modality has a gate there. Where one alone is the gate, no estimate is (docs/models/gated.md)."""
    assert all(0.8 < part < 1.25 for part in over_seeds("gated", 2, gate="each"))
