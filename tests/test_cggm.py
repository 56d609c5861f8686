"""CGGM: coefficients, scaled gradients and the turned head, with the gradients of heads written out by hand."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step, take_step_with_drops
from torch.nn.functional import cosine_similarity, cross_entropy, one_hot

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.cggm import coefficients

ONE_HOT = one_hot(LABELS, 4)


def of_head(logits, feature):
    """The gradient [C, D] of the mean cross-entropy by the weights that take a feature to the logits."""
    return (logits.softmax(1) - ONE_HOT).T @ feature / len(LABELS)


def by_hand(network, heads, inputs, factors, lam):
    """CE + λ (1/M) Σ (|B| − B cos), and the losses of the classifiers."""
    features = network.encode(inputs)
    logits = network.classify(features)
    loss = cross_entropy(logits, LABELS)
    alone = {name: heads[name](feature.detach()) for name, feature in features.items()}
    for m, (name, feature) in enumerate(features.items()):
        own = of_head(alone[name], feature).detach()
        cosine = cosine_similarity(own.flatten(), of_head(logits, feature).flatten(), 0)
        loss = loss + lam / len(features) * (factors[m].abs() - factors[m] * cosine)
    return loss, sum(cross_entropy(one, LABELS) for one in alone.values())


def accuracies(network, heads, inputs):
    alone = [heads[name](feature) for name, feature in network.encode(inputs).items()]
    return torch.tensor([(one.argmax(1) == LABELS).float().mean() for one in alone])


@pytest.mark.parametrize("model", ["concat", "sum"])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_encoders_and_head_are_trained_by_what_is_written_out(model, modalities):
    network, (method,), inputs = made("cggm", modalities, model, rho=1.7, lam=0.6, clip=100.0)
    heads, twin = method.heads, copy.deepcopy(network)
    own = twin.extras["cggm"]
    gains = torch.tensor([-0.1, 0.2, 0.3, 0.4, 0.5])[:modalities]
    method.accuracies = accuracies(twin, own, inputs) - gains
    factors = (gains.sum() - gains) / gains.sum()
    loss, classifiers = by_hand(twin, own, inputs, factors, 0.6)
    loss.backward()
    classifiers.backward()
    found, step = take_step(network, [method], inputs, lr=0.1)
    torch.testing.assert_close(step.metrics["balance"], factors, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found, (loss + classifiers).detach())
    torch.testing.assert_close(method.accuracies, accuracies(twin, own, inputs))
    for m, name in enumerate(twin.modalities):
        for new, old in pairs(network.encoders[name], twin.encoders[name]):
            torch.testing.assert_close(new, old - 0.1 * 1.7 * factors[m] * old.grad, rtol=1e-4, atol=1e-6)
    for new, old in pairs(network.fusion, twin.fusion):
        torch.testing.assert_close(new, old - 0.1 * old.grad, rtol=1e-4, atol=1e-6)
    for new, old in pairs(heads, own):
        torch.testing.assert_close(new, old - 0.05 * old.grad, rtol=1e-4, atol=1e-6)


def pairs(part, before):
    return zip(part.parameters(), before.parameters(), strict=True)


def test_gradients_of_encoders_and_fusion_are_clipped_together():
    network, (method,), inputs = made("cggm", 2, clip=0.01)
    before = copy.deepcopy(network)
    take_step(network, [method], inputs, lr=1.0)
    moves = [
        (new - old).flatten()
        for part in ("encoders", "fusion")
        for new, old in pairs(getattr(network, part), getattr(before, part))
    ]
    assert torch.cat(moves).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_coefficients_are_the_share_of_the_others():
    gains = torch.tensor([0.5, 0.25, -0.25])
    torch.testing.assert_close(coefficients(gains, 1e-6), torch.tensor([0.0, 0.5, 1.5]))


@pytest.mark.parametrize("gains", [(0.0, 0.0, 0.0), (0.25, 0.25, -0.5)])
def test_where_gains_cancel_out_coefficients_are_even_but_in_the_official_variant(gains):
    torch.testing.assert_close(coefficients(torch.tensor(gains), 1e-6), torch.full((3,), 2 / 3))
    expected = 1 - 1e8 * torch.tensor(gains)
    torch.testing.assert_close(coefficients(torch.tensor(gains), 0.0), expected)


def test_the_official_variant_turns_the_head_a_step_later_towards_the_weights_of_before():
    settings = {"lam": 0.5, "clip": 1000.0, "rho": 1.0}
    network, (method,), inputs = made("cggm", 2, variant="official", **settings)
    method.accuracies = torch.zeros(2)
    first = copy.deepcopy(network)
    _, step = take_step(network, [method], inputs, lr=0.1)
    factors, weight = step.metrics["balance"], first.fusion.head.weight.detach().clone().requires_grad_()
    cosines = [
        cosine_similarity(first.extras["cggm"][name].weight.flatten(), part.flatten(), 0)
        for name, part in zip(first.modalities, weight.split([*first.widths.values()], 1), strict=True)
    ]
    (pull,) = torch.autograd.grad(-0.5 * (factors * torch.stack(cosines)).sum(), weight)
    second = copy.deepcopy(network)
    cross_entropy(second(inputs), LABELS).backward()
    take_step(network, [method], inputs, lr=0.1)
    plain = second.fusion.head.weight
    torch.testing.assert_close(network.fusion.head.weight, plain - 0.1 * (plain.grad + 0.5 * pull))
    assert pull.norm() > 0.01


def test_classifiers_see_undropped_features_and_train_no_encoder():
    loss, twin, features, kept, expected = take_step_with_drops("cggm", lam=0.0)
    for name, feature in features.items():
        expected = expected + cross_entropy(twin.extras["cggm"][name](feature)[kept], LABELS[kept])
    torch.testing.assert_close(loss, expected.detach())


def test_what_it_cannot_train_is_refused():
    with pytest.raises(UsageError, match=r"this model has none\. Take concat or sum, or set cggm\.lam=0\."):
        made("cggm", 2, "mlp")
    network, methods, inputs = made("cggm", 2, "mlp", lam=0.0)
    loss, _ = take_step(network, methods, inputs)
    assert loss.isfinite()
