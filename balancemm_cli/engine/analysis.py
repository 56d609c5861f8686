"""Analyses of a trained network: missing modalities, the contribution of each, and linear probes of its encoders."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from balancemm_cli.data.loading import Source
from balancemm_cli.engine.evaluator import Corruption, Evaluation, batch_rows, evaluate, in_order, lacking
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.errors import InputError
from balancemm_cli.metrics.contribution import shapley, subsets
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import Task


def missing_curve(
    network: Network,
    source: Source,
    inputs: Inputs,
    device: torch.device,
    whole: Evaluation,
    modality: str,
    amounts: Sequence[float],
    draws: int,
) -> list[list[Evaluation]]:
    """For each amount, the evaluations of so many draws of the samples that lack a modality (Fig. 6).

    In evaluation mode a sample's scores do not depend on other samples. So two evaluations, with the modality (`whole`)
    and without it, serve all amounts and draws. Each result is what `evaluate` gives under that corruption and draw.
    """
    without = evaluate(network, source, inputs, device, whole.task, Corruption({modality: 1}, {}))
    sizes = [len(rows) for rows in batch_rows(source)]

    def lacks(amount: float, draw: int) -> np.ndarray:
        parts = [
            lacking(modality, size, amount, RandomStreams(draw, step=index), device)
            for index, size in enumerate(sizes)
        ]
        return torch.cat(parts).cpu().numpy()

    return [[whole.where(lacks(amount, draw), without) for draw in range(draws)] for amount in amounts]


def linear_probe(
    network: Network, train: Source, test: Source, inputs: Inputs, device: torch.device, task: Task
) -> dict[str, float]:
    """Test accuracy of a new linear classifier on each frozen encoder's features (footnote 1, Fig. 1).

    The classifier is scikit-learn's logistic regression on standardised features of inputs that are not augmented. In a
    task with segments, each answer is predicted from its part of the features; in one with several labels a sample,
    each label from all features by a classifier of its own, and the accuracy is over all of these.
    """
    train_features, test_features = (encode(network, source, inputs, device) for source in (train, test))
    train_labels, test_labels = (
        task.classes_of(source.labels).numpy().reshape(len(source) * (task.segments or 1), -1)
        for source in (train, test)
    )
    told_apart = [place for place, column in enumerate(train_labels.T) if len(np.unique(column)) > 1]
    if not told_apart:
        raise InputError(
            "A linear probe tells classes apart, and the training samples are all of one. Leave out --probe."
        )
    accuracies = {}
    for name in network.modalities:
        trained = train_features[name].reshape(len(train_labels), -1)
        tested = test_features[name].reshape(len(test_labels), -1)
        predicted = np.repeat(train_labels[:1], len(test_labels), 0)  # of a label that all have, or none
        for place in told_apart:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            predicted[:, place] = probe.fit(trained, train_labels[:, place]).predict(tested)
        accuracies[name] = float((predicted == test_labels).mean())
    return accuracies


@torch.no_grad()
def contribution(
    network: Network, source: Source, inputs: Inputs, device: torch.device, task: Task
) -> tuple[dict[str, float], dict[frozenset[str], float]]:
    """Each modality's Shapley value, and the accuracy of each subset of modalities that they come from, in 0–1.

    The features of absent modalities are set to zero, as in zero-out estimation (Sec. 4.3.7). SHAPE (Hu, Li, Zhou,
    IJCAI 2022) sets the inputs to zero, whose features need not be zero.
    """
    network.eval()
    predicted = {present: [] for present in subsets(network.modalities)}
    for values in in_order(source, inputs, device):
        features = network.encode(values)
        for present, batches in predicted.items():
            shown = {name: f if name in present else torch.zeros_like(f) for name, f in features.items()}
            batches.append(task.choose(network.classify(shown)))
    network.train()
    labels = task.classes_of(source.labels)
    accuracies = {
        present: int((torch.cat(batches).cpu() == labels).sum()) / labels.numel()
        for present, batches in predicted.items()
    }
    return shapley(accuracies), accuracies


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
