"""Evaluation of a network on a split: scores and uni-modal accuracies, also of missing or noisy modalities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.data.loading import Source
from balancemm_cli.draws import Draws
from balancemm_cli.engine import distributed
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.models.network import Network
from balancemm_cli.results.metrics import evaluate_scores

BATCH = 128


@dataclass(frozen=True)
class Disturbance:
    """What is done to the inputs at test time. Both map a modality to a number."""

    missing: Mapping[str, float]  # the probability that a sample lacks it: its input is set to 0 (Fig. 6)
    noise: Mapping[str, float]  # Gaussian noise, its deviation in units of that of the modality's batch

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "noise": self.noise}
        return ", ".join(
            f"{kind} {name}={amount:g}" for kind, amounts in kinds.items() for name, amount in amounts.items()
        )

    def __call__(self, inputs: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        """The disturbed inputs."""
        return {name: self._disturb(name, values, draws) for name, values in inputs.items()}

    def _disturb(self, name: str, values: Tensor, draws: Draws) -> Tensor:
        if scale := self.noise.get(name, 0):
            generator = draws.generator(f"test-noise/{name}", values.device)
            noise = torch.empty_like(values).normal_(generator=generator)
            if values.ndim == 3:  # a feature sequence, whose padding stays padding
                noise = noise * (values != 0).any(2, keepdim=True)
            values = values + scale * values.std() * noise
        if probability := self.missing.get(name, 0):
            present = ~lacking(name, len(values), probability, draws, values.device)
            values = values * present.view(-1, *(1,) * (values.ndim - 1))
        return values


def lacking(name: str, count: int, probability: float, draws: Draws, device: torch.device) -> Tensor:
    """Which of `count` samples lack a modality, bool [B]. Whoever lacks it at one probability does at a higher one."""
    return draws.uniform((count,), f"missing/{name}", device) < probability


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split."""

    scores: np.ndarray  # float32 [N, C], softmax
    alone: dict[str, np.ndarray]  # int64 [N] a modality: the class that its own logits give
    labels: np.ndarray  # int64 [N]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """accuracy, map, macro_f1, unimodal: {modality: accuracy}, in 0–1."""
        unimodal = {name: float((classes == self.labels).mean()) for name, classes in self.alone.items()}
        return {**evaluate_scores(self.scores, self.labels), "unimodal": unimodal}

    def where(self, lacks: np.ndarray, other: "Evaluation") -> "Evaluation":
        """This one, but for the samples that `lacks` [N] names what `other` makes of them."""
        alone = {name: np.where(lacks, other.alone[name], classes) for name, classes in self.alone.items()}
        return Evaluation(np.where(lacks[:, None], other.scores, self.scores), alone, self.labels)


@torch.no_grad()
def evaluate(
    network: Network,
    source: Source,
    inputs: Inputs,
    device: torch.device,
    disturbance: Disturbance | None = None,
    draw: int = 0,
) -> Evaluation:
    """Run `network` over a split, in its order and in evaluation mode; processes of one run share the batches.

    A disturbance draws the same random numbers for every network; another `draw` gives others.
    FloatingPointError where the scores are not finite: the network has diverged.
    """
    network.eval()
    batches = batch_rows(source)
    mine = range(distributed.rank(), len(batches), distributed.processes())
    scores, alone = [], []
    served = source.batches([batches[index] for index in mine], [None] * len(mine), device)
    for index, (raw, _) in zip(mine, served, strict=True):
        values = inputs(raw)
        if disturbance is not None:
            values = disturbance(values, Draws(draw, step=index))
        features = network.encode(values)
        scores.append(network.classify(features).softmax(-1))
        alone.append(torch.stack(list(network.unimodal_logits(features).values()), 1).argmax(-1))
    network.train()
    fetched = torch.cat(distributed.interleaved([batch.float().cpu() for batch in scores])).numpy()
    if not np.isfinite(fetched).all():
        raise FloatingPointError("The scores are not finite.")
    predicted = torch.cat(distributed.interleaved([batch.cpu() for batch in alone])).numpy().T
    by_modality = dict(zip(network.modalities, predicted, strict=True))
    return Evaluation(fetched, by_modality, source.labels.numpy())


def in_order(source: Source, inputs: Inputs, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Network inputs of a split, batch by batch in its order, not augmented."""
    rows = batch_rows(source)
    for raw, _ in source.batches(rows, [None] * len(rows), device):
        yield inputs(raw)


def batch_rows(source: Source) -> list[np.ndarray]:
    """The places of a split's samples, batch by batch."""
    return [np.arange(start, min(start + BATCH, len(source))) for start in range(0, len(source), BATCH)]
