"""What uni-modal logits cost: one more forward of fusion and head for all modalities, and none of the encoders."""

from collections import Counter

import pytest
import torch
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import MODELS, build
from balancemm_cli.models.encoders import SegmentShape
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

SHAPES = {"audio": 1, "visual": 3}
BATCH = 4
FORWARDS = {"concat": 1, "sum": 1, "mlp": 2}  # of fusion and head a step; the first two have an exact split


def count(network):
    """The calls of each module without modules of its own, by name, and the batch sizes the fusion gets."""
    calls, batches = Counter(), []
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))

    def remember(_, given):
        batches.append(len(next(iter(given[0].values()))))

    network.fusion.register_forward_pre_hook(remember)
    return calls, batches


@pytest.mark.parametrize("methods", [(), ("opm", "ogm")])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_runs_the_encoders_once_and_the_rest_at_most_twice(model, methods):
    shapes, labels, task = SHAPES, torch.arange(BATCH), TASKS["classification"]
    inputs = {"audio": torch.randn(BATCH, 1, 65, 48), "visual": torch.randn(BATCH, 3, 2, 48, 48)}
    if getattr(MODELS[model], "segmentwise", False):
        shapes = {name: SegmentShape(10, channels) for name, channels in SHAPES.items()}
        labels, task = labels[:, None].expand(-1, 10), TASKS["localisation"]
        inputs = {"audio": torch.randn(BATCH, 10, 1, 17, 8), "visual": torch.randn(BATCH, 10, 3, 1, 16, 16)}
    network = build(model, "small", shapes, 4, seed=0)
    calls, batches = count(network)
    features = network.encode(inputs)
    encoding = Counter(calls)
    network.classify(features)
    network.objective(torch.zeros(()), features, Step(0, RandomStreams(0), labels, task=task))
    predicting = calls - encoding
    calls.clear()
    batches.clear()

    taken = [METHODS[name](METHODS[name].Settings(), list(SHAPES)) for name in methods]
    optimizer = build_optimizer(network, OptimizerSettings())
    step = Step(0, RandomStreams(0), labels, task=task)
    train_step(network, taken, optimizer, inputs, step, DiscrepancySettings())

    assert list(step.unimodal) == list(SHAPES)
    for name, found in calls.items():
        assert found <= encoding[name] + 2 * predicting[name], name
    assert not any(found > encoding[name] for name, found in calls.items() if name.startswith("encoders."))
    if model in FORWARDS:
        assert len(batches) == FORWARDS[model]
        assert calls == encoding + Counter({name: FORWARDS[model] * n for name, n in predicting.items()})
    if len(batches) == 2:  # zero-out estimation: of all modalities at once
        assert sorted(batches) == [BATCH, BATCH * len(SHAPES)]


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_zero_out_is_one_forward_for_any_number_of_modalities(modalities):
    network = build("mlp", "small", {f"m{m}": 1 for m in range(modalities)}, 4, seed=0)
    features = {name: torch.randn(BATCH, 64) for name in network.modalities}
    calls, batches = count(network)
    network.unimodal_logits(features)
    linear = [name for name, module in network.fusion.named_modules() if isinstance(module, nn.Linear)]
    assert batches == [BATCH * modalities]
    assert all(calls[f"fusion.{name}"] == 1 for name in linear) and len(linear) == 2
