"""Evaluation of a network on a split: scores and uni-modal accuracies, also with missing or noisy modalities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.data.loading import Source
from balancemm_cli.engine import distributed
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.methods.input_noise import with_noise
from balancemm_cli.metrics.classification import evaluate_scores
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import Task

BATCH = 128


@dataclass(frozen=True)
class Corruption:
    """How inputs are corrupted at test time. Both fields map a modality to an amount."""

    missing: Mapping[str, float]  # the probability that a sample lacks it: its input is set to 0 (Fig. 6)
    noise: Mapping[str, float]  # Gaussian noise, its deviation in units of that of the modality's batch

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "noise": self.noise}
        return ", ".join(
            f"{kind} {name}={amount:g}" for kind, amounts in kinds.items() for name, amount in amounts.items()
        )

    def __call__(self, inputs: dict[str, Tensor], streams: RandomStreams) -> dict[str, Tensor]:
        """The corrupted inputs, of the same shapes."""
        return {name: self._corrupt(name, values, streams) for name, values in inputs.items()}

    def _corrupt(self, name: str, values: Tensor, streams: RandomStreams) -> Tensor:
        if scale := self.noise.get(name, 0):
            values = with_noise(values, scale * values.std(), streams, f"test-noise/{name}")
        if probability := self.missing.get(name, 0):
            present = ~lacking(name, len(values), probability, streams, values.device)
            values = values * present.view(-1, *(1,) * (values.ndim - 1))
        return values


def lacking(
    name: str, count: int, probability: float, streams: RandomStreams, device: torch.device
) -> Tensor:
    """Which of `count` samples lack a modality, bool [B]. One that lacks it also does at any higher probability."""
    return streams.uniform((count,), f"missing/{name}", device) < probability


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a network on a split, and the metrics that follow from them."""

    task: Task
    predictions: np.ndarray  # float32 [N, …], as the task keeps them
    losses: np.ndarray  # float32 [N], of the samples
    chosen: dict[str, np.ndarray]  # int64 [N, …] a modality: the answers that its own logits give
    targets: np.ndarray  # [N, …], the labels of the split
    groups: list[str] | None = None  # [N], of a task that has them

    @cached_property
    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [A, C] and labels int64 [A] of all answers, see Task."""
        return self.task.answers(self.predictions, self.targets)

    @property
    def alone(self) -> dict[str, np.ndarray]:
        """The answers int64 [A] that each modality's own logits give."""
        return {name: chosen.reshape(-1) for name, chosen in self.chosen.items()}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """accuracy, map, macro_f1, unimodal: {modality: accuracy}, in 0–1, and what the task adds."""
        scores, labels = self.answers
        unimodal = {name: float((classes == labels).mean()) for name, classes in self.alone.items()}
        further = self.task.metrics(self.predictions, self.targets, self.groups)
        return {**evaluate_scores(scores, labels), "unimodal": unimodal, **further}

    def where(self, lacks: np.ndarray, other: "Evaluation") -> "Evaluation":
        """This one, but for the samples that `lacks` [N] names what `other` makes of them."""

        def mixed(own: np.ndarray, others: np.ndarray) -> np.ndarray:
            return np.where(lacks.reshape(-1, *[1] * (own.ndim - 1)), others, own)

        chosen = {name: mixed(classes, other.chosen[name]) for name, classes in self.chosen.items()}
        losses = mixed(self.losses, other.losses)
        return replace(
            self, predictions=mixed(self.predictions, other.predictions), losses=losses, chosen=chosen
        )


@torch.no_grad()
def evaluate(
    network: Network,
    source: Source,
    inputs: Inputs,
    device: torch.device,
    task: Task,
    corruption: Corruption | None = None,
    draw: int = 0,
) -> Evaluation:
    """Run `network` over a split, in its order and in evaluation mode; processes of one run share the batches.

    A corruption draws the same random numbers for every network; another `draw` gives other numbers.
    FloatingPointError where the scores are not finite, that is, where the network has diverged.
    """
    network.eval()
    batches = batch_rows(source)
    mine = range(distributed.rank(), len(batches), distributed.processes())
    kept, losses, chosen = [], [], []
    served = source.batches([batches[index] for index in mine], [None] * len(mine), device)
    for index, (raw, labels) in zip(mine, served, strict=True):
        values = inputs(raw)
        if corruption is not None:
            values = corruption(values, RandomStreams(draw, step=index))
        features = network.encode(values)
        logits = network.classify(features)
        kept.append(task.predict(logits))
        losses.append(task.losses(logits, labels))
        chosen.append(task.choose(torch.stack(list(network.unimodal_logits(features).values()), 1)))
    network.train()
    fetched = torch.cat(distributed.interleaved([batch.float().cpu() for batch in kept])).numpy()
    if not np.isfinite(fetched).all():
        raise FloatingPointError("The scores are not finite.")
    lost = torch.cat(distributed.interleaved([batch.float().cpu() for batch in losses])).numpy()
    alone = torch.cat(distributed.interleaved([batch.cpu() for batch in chosen])).unbind(1)
    by_modality = {name: values.numpy() for name, values in zip(network.modalities, alone, strict=True)}
    return Evaluation(task, fetched, lost, by_modality, source.labels.numpy(), source.groups)


def in_order(source: Source, inputs: Inputs, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The network inputs of a split, not augmented, batch by batch in the order of its samples."""
    rows = batch_rows(source)
    for raw, _ in source.batches(rows, [None] * len(rows), device):
        yield inputs(raw)


def batch_rows(source: Source) -> list[np.ndarray]:
    """The row numbers of a split's samples, batch by batch."""
    return [np.arange(start, min(start + BATCH, len(source))) for start in range(0, len(source), BATCH)]
