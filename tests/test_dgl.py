"""DGL: the loss, which gradient reaches what, and the update, from gradients that autograd takes apart."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step, take_step_with_drops
from torch.nn.functional import cross_entropy

from balancemm_cli.models.fusion import Sum


def by_hand(network, inputs, alpha):
    """The gradients of the fusion and of the encoders, each from its own loss alone; and the loss."""
    features = network.encode(inputs)
    loss = cross_entropy(network.classify(features), LABELS)
    of_fusion = torch.autograd.grad(loss, list(network.fusion.parameters()), retain_graph=True)
    total, of_encoders = loss, []
    for name, encoder in network.encoders.items():
        if isinstance(network.fusion, Sum):
            logits = network.fusion.heads[name](features[name])
        else:
            zeros = {key: value if key == name else 0 * value for key, value in features.items()}
            logits = network.classify(zeros)
        alone = alpha * cross_entropy(logits, LABELS)
        of_encoders += torch.autograd.grad(alone, list(encoder.parameters()), retain_graph=True)
        total = total + alone
    return total, [*of_encoders, *of_fusion]


@pytest.mark.parametrize("model", ["concat", "sum", "mlp"])
@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_the_prediction_trains_the_fusion_and_each_modality_its_encoder(model, modalities):
    network, methods, inputs = made("dgl", modalities, model, alpha=3.0)
    twin = copy.deepcopy(network)
    loss, gradients = by_hand(twin, inputs, 3.0)
    found, _ = take_step(network, methods, inputs, lr=0.1)
    torch.testing.assert_close(found, loss.detach())
    trained = [*network.encoders.parameters(), *network.fusion.parameters()]
    before = [*twin.encoders.parameters(), *twin.fusion.parameters()]
    assert len(trained) == len(gradients)
    for weight, old, gradient in zip(trained, before, gradients, strict=True):
        torch.testing.assert_close(weight, old - 0.1 * gradient)


def test_the_official_variant_clips_all_gradients_together():
    network, methods, inputs = made("dgl", 3, variant="official", alpha=4.0, clip=0.5)
    twin = copy.deepcopy(network)
    _, gradients = by_hand(twin, inputs, 4.0)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 0.5
    take_step(network, methods, inputs, lr=0.1)
    moved = [
        old - new for new, old in zip(network.encoders.parameters(), twin.encoders.parameters(), strict=True)
    ]
    for step, gradient in zip(moved, gradients, strict=False):
        torch.testing.assert_close(step, 0.1 * gradient * 0.5 / norm, rtol=1e-4, atol=1e-6)


def test_samples_that_lost_everything_count_nowhere_and_drops_reach_the_fusion_alone():
    loss, twin, features, kept, expected = take_step_with_drops("dgl")
    for logits in twin.logits_alone(features).values():
        expected = expected + 4 * cross_entropy(logits[kept], LABELS[kept])
    torch.testing.assert_close(loss, expected.detach())
