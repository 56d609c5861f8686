"""What a run is at a step boundary. A checkpoint holds all of it, so a resumed run is exact to the bit."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.loading import Source
from balancemm_cli.engine import distributed
from balancemm_cli.engine.acceleration import arrange
from balancemm_cli.engine.evaluator import Evaluation, in_order
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step_metrics import StepMetrics
from balancemm_cli.methods.base import Method
from balancemm_cli.models.encoders import Encoder, Shape
from balancemm_cli.models.network import Network


class RunState:
    """A run's network, optimiser and methods, how far it is, and what was recorded of it so far."""

    def __init__(
        self,
        config: RunConfig,
        shapes: Mapping[str, Shape],
        classes: Sequence[str],
        device: torch.device,
    ) -> None:
        self.device = device
        self.methods = config.build_methods(list(shapes))
        self.network = build_network(config, shapes, classes, self.methods, device)
        self.optimizer = build_optimizer(self.network, config.settings.optimizer)
        self.epoch = self.step = 0  # the next step to train; the step is counted within its epoch
        self.metrics = StepMetrics(list(shapes), self.methods, device)
        self.history: list[dict[str, Any]] = []  # one record per epoch
        self.selections: dict[
            str, dict[str, Any]
        ] = {}  # by name: the epoch, its test metrics and predictions
        self.seconds = 0.0  # that training took
        self.trained_samples = 0
        self.cost: dict[str, int] = {}  # of a training step, see cost.py

    def select(self, evaluations: Mapping[str, Evaluation]) -> None:
        """Keep the test results of the last epoch, and of the epochs that are best on the test and val splits."""
        test = evaluations["test"]
        found = {
            "epoch": self.epoch,
            "metrics": test.metrics,
            "predictions": torch.from_numpy(test.predictions),
        }
        self.selections["last"] = found
        for split in evaluations:
            accuracy = evaluations[split].metrics["accuracy"]
            best = self.selections.get(f"best-{split}")
            if best is None or accuracy > best["criterion"]:
                self.selections[f"best-{split}"] = {**found, "criterion": accuracy}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "methods": [method.state_dict() for method in self.methods],
            "step_metrics": self.metrics.state_dict(),
            "history": self.history,
            "selections": self.selections,
            "seconds": self.seconds,
            "trained_samples": self.trained_samples,
            "cost": self.cost,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, of this version or a former one."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for method, of_method in zip(self.methods, state["methods"], strict=True):
            self.load_method(method, of_method)
        if "step_metrics" in state:
            self.metrics.load_state_dict(state["step_metrics"])
        else:
            self.metrics.load_former(state["figures"], state["past_figures"])
        for name in ("epoch", "step", "history", "selections", "seconds", "trained_samples"):
            setattr(self, name, state[name])
        self.cost = state.get("cost", {})  # a former version counted none

    def load_method(self, method: Method, state: Mapping[str, Tensor]) -> None:
        """Give a method its state, on the run's device."""
        method.load_state_dict({name: value.to(self.device) for name, value in state.items()})


def build_network(
    config: RunConfig,
    shapes: Mapping[str, Shape],
    classes: Sequence[str],
    methods: Sequence[Method],
    device: torch.device,
) -> Network:
    """The network of a run on `device`, ready to be trained by all its processes."""
    network = arrange(config.build_network(shapes, classes, methods).to(device), config.settings.speed)
    distributed.synchronise_batch_norm(network)
    return network


def fit_encoders(network: Network, train: Source, inputs: Inputs, device: torch.device) -> None:
    """Let encoders learn from the training inputs before the first step; most of them learn nothing."""

    def batches(modality: str) -> Iterator[Tensor]:
        return (values[modality] for values in in_order(train.only(modality), inputs, device))

    for name, encoder in network.encoders.items():
        if isinstance(encoder, Encoder):
            encoder.fit(partial(batches, name))
            distributed.of_first(encoder.buffers())
