"""Evaluation of a network on a split: scores, uni-modal accuracies, missing or noisy modalities, linear probes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
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
            shape = (len(values),) + (1,) * (values.ndim - 1)
            present = draws.uniform(shape, f"missing/{name}", values.device) >= probability
            values = values * present
        return values


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split."""

    scores: np.ndarray  # float32 [N, C], softmax
    metrics: dict[str, Any]  # accuracy, map, macro_f1, unimodal: {modality: accuracy}, in 0–1


@torch.no_grad()
def evaluate(
    network: Network,
    source: Source,
    inputs: Inputs,
    device: torch.device,
    disturbance: Disturbance | None = None,
) -> Evaluation:
    """Run `network` over a split, in its order and in evaluation mode; processes of one run share the batches.

    FloatingPointError where the scores are not finite: the network has diverged.
    """
    network.eval()
    batches = _batches(source)
    mine = range(distributed.rank(), len(batches), distributed.processes())
    scores, hits = [], []
    served = source.batches([batches[index] for index in mine], [None] * len(mine), device)
    for index, (raw, labels) in zip(mine, served, strict=True):
        values = inputs(raw)
        if disturbance is not None:
            values = disturbance(values, Draws(0, step=index))
        features = network.encode(values)
        scores.append(network.classify(features).softmax(-1))
        alone = torch.stack(list(network.unimodal_logits(features).values()))
        hits.append((alone.argmax(-1) == labels).sum(1))
    network.train()
    fetched = torch.cat(distributed.interleaved([batch.float().cpu() for batch in scores])).numpy()
    if not np.isfinite(fetched).all():
        raise FloatingPointError("The scores are not finite.")
    accuracies = [
        count / len(source)
        for count in torch.stack(distributed.interleaved([batch.cpu() for batch in hits])).sum(0).tolist()
    ]
    unimodal = dict(zip(network.modalities, accuracies, strict=True))
    return Evaluation(fetched, {**evaluate_scores(fetched, source.labels.numpy()), "unimodal": unimodal})


def linear_probe(
    network: Network, train: Source, test: Source, inputs: Inputs, device: torch.device
) -> dict[str, float]:
    """Test accuracy of a new linear classifier on each frozen encoder's features (footnote 1, Fig. 1).

    scikit-learn's logistic regression on standardised features; the training pictures are not augmented.
    """
    train_features, test_features = (encode(network, source, inputs, device) for source in (train, test))
    accuracies = {}
    for name in network.modalities:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        probe.fit(train_features[name], train.labels.numpy())
        accuracies[name] = float(probe.score(test_features[name], test.labels.numpy()))
    return accuracies


@torch.no_grad()
def encode(network: Network, source: Source, inputs: Inputs, device: torch.device) -> dict[str, np.ndarray]:
    """Features [N, D] of each modality of a split, in evaluation mode."""
    network.eval()
    batches = [network.encode(values) for values in in_order(source, inputs, device)]
    network.train()
    return {
        name: torch.cat([batch[name].flatten(1) for batch in batches]).cpu().numpy()
        for name in network.modalities
    }


def in_order(source: Source, inputs: Inputs, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Network inputs of a split, batch by batch in its order, not augmented."""
    rows = _batches(source)
    for raw, _ in source.batches(rows, [None] * len(rows), device):
        yield inputs(raw)


def _batches(source: Source) -> list[np.ndarray]:
    return [np.arange(start, min(start + BATCH, len(source))) for start in range(0, len(source), BATCH)]
