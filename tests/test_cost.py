"""Multiply-adds, memory and parameters of a training step against sums written out, and in the files of a run."""

import json

import pytest
import torch
from torch import nn

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.cost import Kept, cost_of_step
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.trainer import Trainer, train_run
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.runs.run import read_run
from balancemm_cli.testing.sets import tiny_set

BATCH, INPUTS, WIDTH, CLASSES, MODALITIES = 16, 5, 7, 3, 2


class Linear(Encoder):
    """One linear layer without a bias."""

    features = WIDTH

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(INPUTS, WIDTH, bias=False)

    def forward(self, values):
        return self.layer(values)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_of_linear_layers_by_hand(momentum):
    torch.manual_seed(0)
    names = ["a", "b"]
    network = Network(
        {name: Linear() for name in names}, Concat(dict.fromkeys(names, WIDTH), CLASSES, ModelSettings())
    )
    settings = resolve("synthetic", overrides=["optimizer.name=sgd", f"optimizer.momentum={momentum}"])
    optimizer = build_optimizer(network, settings.settings.optimizer)
    inputs = {name: torch.randn(BATCH, INPUTS) for name in names}
    labels = torch.randint(CLASSES, (BATCH,))
    step = Step(0, RandomStreams(0, 0, 0, BATCH), labels)
    found = cost_of_step(network, [], optimizer, inputs, step, DiscrepancySettings())

    encoders = MODALITIES * BATCH * INPUTS * WIDTH * 2  # forward, and the gradient of the weights
    head = BATCH * MODALITIES * WIDTH * CLASSES * 3  # forward, gradients of weights and of features
    alone = BATCH * MODALITIES * WIDTH * CLASSES  # what each modality says by itself
    assert found["multiply_adds"] == encoders + head + alone

    weights = MODALITIES * INPUTS * WIDTH + MODALITIES * WIDTH * CLASSES + CLASSES
    copies = 3 if momentum else 2  # the weights, their gradients, the momentum
    kept = BATCH * MODALITIES * WIDTH + BATCH * CLASSES  # the fused feature, and the log-softmax
    expected = 4 * (copies * weights + MODALITIES * BATCH * INPUTS + kept)
    assert expected <= found["memory"] <= expected + 4 * BATCH * MODALITIES * WIDTH + 256


def test_what_two_passes_keep_at_different_times_counts_once():
    """The most at a time, not all that was ever kept."""
    kept = Kept([])
    with kept.counted():
        for _ in range(3):
            values = torch.ones(1000, requires_grad=True)
            values.exp().sum().backward()
            del values
    assert kept.now == 0 and 4000 <= kept.most < 8000


def test_a_run_keeps_its_cost(tmp_path):
    data = tiny_set(tmp_path / "data")
    overrides = ["batch_size=4", "epochs=1", "encoder=small", "pretrained=false"]
    config = resolve("manifest", method="opm", overrides=overrides)
    folder = RunFolder(tmp_path / "runs", config, data)
    train_run(folder, torch.device("cpu"))
    cost = read_run(folder.path).result.cost
    network = Trainer(folder, torch.device("cpu")).state.network
    trained = sum(weight.numel() for weight in network.parameters())
    assert cost.parameters == trained and cost.batch_size == 4
    assert cost.multiply_adds > 0 and cost.memory > 8 * trained
    content = json.loads((folder.path / "result.json").read_text())
    del content["cost"]  # as a former version wrote it
    (folder.path / "result.json").write_text(json.dumps(content))
    assert read_run(folder.path).result.cost.multiply_adds is None
