"""Pilot trainings: plain trainings before a run, on which a method measures what it needs (`Method.on_start`)."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.loading import Source
from balancemm_cli.engine import distributed
from balancemm_cli.engine.acceleration import Stepper
from balancemm_cli.engine.batches import training_batches
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.optimizer import build_optimizer, learning_rate, set_learning_rate
from balancemm_cli.engine.state import build_network, fit_encoders
from balancemm_cli.methods.base import Losses, Pilot, Step
from balancemm_cli.models import UNIMODAL
from balancemm_cli.models.encoders import Shape
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams

BATCH = 128  # of an evaluation
HELD_OUT = 0.2  # of the training samples, where there is no val split


class PilotTraining:
    """Trains fresh networks without methods under a run's settings. The test split is not used.

    Held out is the val split, or, where there is none, a fifth of the training samples, drawn by the run's seed.
    """

    def __init__(
        self,
        config: RunConfig,
        inputs: Inputs,
        sources: Mapping[str, Source],
        classes: Sequence[str],
        device: torch.device,
        on_message: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config, self.inputs, self.classes = config, inputs, classes
        self.device, self.on_message = device, on_message
        self.samples = 0  # trained on, by all processes
        self.train = sources["train"]
        rows = np.arange(len(self.train))
        if "val" in sources:
            self.rows, self.held_out, self.held_rows = rows, sources["val"], np.arange(len(sources["val"]))
        else:
            shuffled = np.random.default_rng(RandomStreams(config.seed).key("held-out")).permutation(rows)
            count = math.ceil(HELD_OUT * len(rows))
            self.rows, self.held_out, self.held_rows = shuffled[count:], self.train, shuffled[:count]

    def __call__(self, modalities: list[str], epochs: int | None = None) -> Pilot:
        """Train the run's model, or one modality alone, in training mode when it is done.

        `epochs` is that of the run where it is None. FloatingPointError with the modalities' names when the training
        diverges.
        """
        shapes = {name: self.inputs.shapes[name] for name in modalities}
        network = pilot_network(self.config, shapes, self.classes, self.device)
        name = " and ".join(modalities)
        epochs = self.config.settings.epochs if epochs is None else epochs
        fit_encoders(network, self.train, self.inputs, self.device)
        before = self._losses(network)
        self._train(network, epochs)
        after = self._losses(network)
        if not all(map(math.isfinite, before + after)):
            raise FloatingPointError(name)
        self.on_message(
            f"Before the run, {name} for {epochs} epochs: loss {before[0]:.3f} to {after[0]:.3f} in training, "
            f"{before[1]:.3f} to {after[1]:.3f} on held-out samples."
        )
        return Pilot(before, after, network)

    def _train(self, network: Network, epochs: int) -> None:
        settings = self.config.settings
        optimizer = build_optimizer(network, settings.optimizer)
        stepper = Stepper(network, [], optimizer, settings)
        source = self.train.only(*network.modalities)
        for epoch in range(epochs):
            set_learning_rate(optimizer, learning_rate(settings.optimizer, epoch))
            streams = RandomStreams(self.config.seed, epoch)
            batches = training_batches(
                source, self.rows, self.inputs, settings.batch_size, streams, self.device
            )
            for inputs, labels, drawn, _ in batches:
                stepper(inputs, Step(epoch, drawn, labels, task=self.config.task, total=distributed.total))
            self.samples += len(self.rows)

    def _losses(self, network: Network) -> Losses:
        return (
            self._loss(network, self.train, self.rows),
            self._loss(network, self.held_out, self.held_rows),
        )

    @torch.no_grad()
    def _loss(self, network: Network, source: Source, rows: np.ndarray) -> float:
        """The mean loss over `rows` of a source, in evaluation mode; processes share the batches."""
        batches = np.split(rows, range(BATCH, len(rows), BATCH))[
            distributed.rank() :: distributed.processes()
        ]
        network.eval()
        total = torch.zeros((), device=self.device)
        served = source.only(*network.modalities).batches(batches, [None] * len(batches), self.device)
        for raw, labels in served:
            logits = network(self.inputs(raw))
            total = total + self.config.task.loss(logits, labels)
        network.train()
        return distributed.total(total).item() / len(rows)


def pilot_network(
    config: RunConfig, shapes: Mapping[str, Shape], classes: Sequence[str], device: torch.device
) -> Network:
    """A run's network without methods, or where one modality is left, that of this one alone."""
    changed: dict[str, object] = {"methods": {}}
    if len(shapes) == 1:
        changed |= {"model": UNIMODAL + next(iter(shapes)), "model_settings": {}}
    return build_network(config.model_copy(update=changed), shapes, classes, [], device)
