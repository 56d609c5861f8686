"""InfoReg: the losses, the pull and the Fisher information by hand, and whose window is open after which epochs."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step
from torch.nn.functional import cross_entropy

from balancemm_cli.methods.base import Epoch
from balancemm_cli.methods.inforeg import growths


def begin(methods, network, number=0):
    for method in methods:
        method.on_epoch_start(network, Epoch(number, lambda *_: iter(())))


def moved(network, inputs):
    """Take a step without method, so that the weights are no longer those of the epoch's beginning."""
    take_step(network, [], inputs, lr=0.05)


def losses_alone(network, features):
    """The loss of each modality alone: of concat with its share of the bias."""
    found = []
    for name, feature in features.items():
        if hasattr(network.fusion, "heads"):
            logits = network.fusion.heads[name](feature)
        else:
            zeros = {key: value if key == name else 0 * value for key, value in features.items()}
            logits = network.classify(zeros)
        if isinstance(getattr(network.fusion, "head", None), torch.nn.Linear):
            logits = logits - network.fusion.head.bias * (1 - 1 / len(features))
        found.append(cross_entropy(logits, LABELS))
    return found


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("model", ["concat", "sum", "mlp"])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_who_is_ahead_is_pulled_to_the_weights_of_the_epochs_beginning(model, modalities, variant):
    network, methods, inputs = made("inforeg", modalities, model, variant)
    begin(methods, network)
    start = copy.deepcopy(network)
    moved(network, inputs)
    twin = copy.deepcopy(network)
    features = twin.encode(inputs)
    loss = cross_entropy(twin.classify(features), LABELS) + sum(losses_alone(twin, features))
    loss.backward()
    found, step = take_step(network, methods, inputs, lr=0.1)
    torch.testing.assert_close(found, loss.detach())
    scores = step.discrepancy.scores
    lead = scores - (scores.sum() - scores) / (modalities - 1)
    strengths = torch.tensor([0.95, *[0.95 if variant == "paper" else 0.1] * (modalities - 1)])
    betas = torch.where(lead > 0, strengths * torch.exp(torch.tanh(lead)), 0)
    torch.testing.assert_close(step.metrics["pull"], betas)
    assert 0 < (betas > 0).sum() < modalities
    for m, name in enumerate(network.modalities):
        trace = 0
        for key, new in network.encoders[name].named_parameters():
            old, begun = (one.encoders[name].get_parameter(key) for one in (twin, start))
            gradient = old.grad + betas[m] * (old - begun)
            torch.testing.assert_close(new, old - 0.1 * gradient, rtol=1e-4, atol=1e-6)
            trace = trace + (gradient**2).mean() * (old.ndim > 1)
        torch.testing.assert_close(methods[0].traces[-1, m], trace.detach(), rtol=1e-4, atol=1e-6)
    for new, old in zip(network.fusion.parameters(), twin.fusion.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * old.grad, rtol=1e-4, atol=1e-6)


def test_growth_is_of_the_means_of_the_last_epochs():
    traces = torch.tensor([[1.0, 0.0], [3.0, 0.0], [6.0, 2.0], [1.0, 1.0]])
    assert growths(traces[:0], 2).tolist() == [1, 1]
    assert growths(traces[:1], 2).tolist() == [1, 1]
    torch.testing.assert_close(growths(traces[:2], 2), torch.tensor([3 / 4, 1]))
    torch.testing.assert_close(growths(traces[:3], 2), torch.tensor([5 / 9, 1]))
    torch.testing.assert_close(growths(traces, 2), torch.tensor([-2 / 7, 1 / 3]))


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_window_closes_when_the_information_no_longer_grows(variant):
    network, methods, inputs = made("inforeg", 3, variant=variant, epochs=2, threshold=0.2)
    method = methods[0]
    traces = [torch.tensor(one) for one in ([1.0, 1.0, 1.0], [1.0, 0.1, 2.0], [0.5, 3.0, 3.0])]
    method.traces = torch.stack(traces)
    begin(methods, network, 3)
    # (T3 - T2) / T3 of means of two: -0.5 / 1.5, 2 / 3.1, 2 / 5
    own = [False, True, True]
    assert method.open.tolist() == (own if variant == "paper" else [False] * 3)
    assert method.traces.tolist() == [traces[1].tolist(), traces[2].tolist(), [0, 0, 0]]
    moved(network, inputs)
    _, step = take_step(network, methods, inputs)
    ahead = 2 * step.discrepancy.scores > step.discrepancy.scores.sum() - step.discrepancy.scores
    assert (step.metrics["pull"] > 0).tolist() == (ahead & method.open).tolist()
    method.open = ~method.open
    _, step = take_step(network, methods, inputs)
    assert (step.metrics["pull"] > 0).tolist() == (ahead & method.open).tolist()
