"""G-Blending, the adaptation of Greedy, AGM, PMR and MMPareto against their defining equations, worked out by hand."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.agm import AGM, ratios, shapley, shapley_weights
from balancemm_cli.methods.base import Epoch, Pilot, Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.g_blending import GBlending, blend_weights
from balancemm_cli.methods.greedy_adaptation import GreedyAdaptation, speeds
from balancemm_cli.methods.mmpareto import MMPareto, blend
from balancemm_cli.methods.pmr import PMR, similarities
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.models.heads import UnimodalHeads
from balancemm_cli.random_streams import RandomStreams

TWO, THREE = ("audio", "visual"), ("audio", "visual", "text")
SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}
CLASSES = 3


def method(kind, modalities=TWO, variant="paper", **given):
    return kind(kind.Settings(**{**kind.VARIANTS[variant], **given}), list(modalities))


def set_up(kind, modalities=TWO, model="concat", seed=0, **given):
    """A network, the method with what it attaches, and an optimiser."""
    network = build(model, "small", {name: SHAPES[name] for name in modalities}, CLASSES, seed)
    if kind is GBlending and "weights" not in given:
        given["weights"] = tuple(range(1, len(modalities) + 2))
    of = method(kind, modalities, **given)
    torch.manual_seed(seed)
    extra = of.attach(network, CLASSES)
    if extra is not None:
        network.extras["x"] = extra
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.01, momentum=0, weight_decay=0))
    return network, of, optimizer


def batch(modalities=TWO, count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"audio": (1, 12, 12), "visual": (3, 2, 12, 12), "text": (5, 3)}
    inputs = {name: torch.randn(count, *sizes[name], generator=generator) for name in modalities}
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def take(setup, inputs, labels, epoch=0, index=0):
    network, of, optimizer = setup
    step = Step(epoch, RandomStreams(0, epoch, index), labels)
    loss = train_step(network, [of], optimizer, inputs, step, DiscrepancySettings())
    return loss, step


def cross_entropy(logits, labels):
    return nn.functional.cross_entropy(logits, labels)


# ---- all --------------------------------------------------------------------------------------------------------


# ---- G-Blending -------------------------------------------------------------------------------------------------


def test_blend_weights_by_hand():
    """G = 1.0, 0.5, −0.1; O = 0.5, 0.25, …: w ∝ 1 / 0.25 = 4, 0.5 / 0.0625 = 8, 0, above the least."""
    measured = [
        ((2.0, 2.0), (0.5, 1.0)),
        ((2.0, 2.1), (1.25, 1.6)),
        ((2.0, 2.0), (1.0, 2.1)),
    ]
    shared = 1 - 3 * 0.009
    assert blend_weights(measured) == pytest.approx([0.009 + shared / 3, 0.009 + shared * 2 / 3, 0.009])
    assert blend_weights([((1.0, 1.0), (1.0, 1.0))] * 2) == [0.5, 0.5]


def test_the_blended_loss_is_the_weighted_sum():
    network, of, optimizer = set_up(GBlending, weights=(0.2, 0.3, 0.5))
    inputs, labels = batch()
    twin = copy.deepcopy(network)
    features = twin.encode(inputs)
    heads = twin.extras["x"]
    expected = 0.5 * cross_entropy(twin.classify(features), labels)
    for name, weight in (("audio", 0.2), ("visual", 0.3)):
        expected = expected + weight * cross_entropy(heads[name](features[name]), labels)
    loss, _ = take((network, of, optimizer), inputs, labels)
    torch.testing.assert_close(loss, expected.detach())
    assert of.measured() == pytest.approx({"audio": 0.2, "visual": 0.3, "all": 0.5})


def test_weights_are_measured_on_each_modality_and_on_all():
    asked, network = [], build("concat", "small", {"audio": 1}, 2, seed=0)

    def train_pilot(modalities, epochs):
        asked.append((modalities, epochs))
        return Pilot((1.0, 1.0), (0.0, 1.0 - 0.5 * len(modalities)), network)

    of = method(GBlending, THREE, epochs=7)
    of.on_start(train_pilot)
    assert asked == [(["audio"], 7), (["visual"], 7), (["text"], 7), (["audio", "visual", "text"], 7)]
    # G = 0.5 (1.5 for all), O = 0.5 (−0.5 for all); of what the least weights leave
    shares = [0.009 + (1 - 4 * 0.009) * share for share in (1 / 6, 1 / 6, 1 / 6, 1 / 2)]
    assert list(of.measured().values()) == pytest.approx(shares)
    again = method(GBlending, THREE)
    again.load_state_dict(of.state_dict())
    assert again.measured() == of.measured()


def test_wrong_weights_are_refused():
    with pytest.raises(UsageError, match=r"g-blending\.weights needs 3 numbers"):
        method(GBlending, weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="must not be negative"):
        method(GBlending, weights=(0.5, 0.6, -0.1))


def test_heads_average_tokens():
    heads = UnimodalHeads({"a": 4}, 2)
    tokens = torch.randn(3, 5, 6, 4)
    torch.testing.assert_close(heads({"a": tokens})["a"], heads({"a": tokens.mean((1, 2))})["a"])


# ---- Greedy, adapted --------------------------------------------------------------------------------------------


def test_conditional_learning_speeds_by_hand():
    found = speeds(torch.tensor([4.0, 1.0]))
    assert found.tolist() == pytest.approx([math.log(4), -math.log(4)])
    assert speeds(torch.tensor([6.0, 1.0, 3.0])).tolist() == pytest.approx(
        [math.log(6 / 2), math.log(1 / 4.5), math.log(3 / 3.5)]
    )


def test_speeds_accumulate_the_squared_norms():
    setup = set_up(GreedyAdaptation, tolerance=1e9)
    expected = torch.zeros(2)
    for index in range(2):
        inputs, labels = batch(seed=index)
        twin = copy.deepcopy(setup[0])
        cross_entropy(twin(inputs), labels).backward()
        for m, encoder in enumerate(twin.encoders.values()):
            weights = list(encoder.parameters())
            expected[m] += sum((w.grad**2).sum() for w in weights) / sum((w**2).sum() for w in weights)
        take(setup, inputs, labels, index=index)
    torch.testing.assert_close(setup[1].state["rates"], expected.detach())


def test_the_faster_modality_is_cut_off_for_the_window():
    network, of, optimizer = set_up(GreedyAdaptation, window=2, tolerance=0.01)
    with torch.no_grad():
        network.fusion.head.weight[:, :64] *= 30  # audio's gradients are the larger ones
    features, cuts = [], []
    for index in range(6):
        inputs, labels = batch(seed=index)
        features.append(copy.deepcopy(network).encode(inputs)["audio"].detach())
        before = copy.deepcopy(network.encoders)
        _, step = take((network, of, optimizer), inputs, labels, index=index)
        cut = step.metrics["cut"].tolist()
        cuts.append(cut)
        for name, off in zip(TWO, cut, strict=True):
            weights = zip(network.encoders[name].parameters(), before[name].parameters(), strict=True)
            assert all(torch.equal(new, old) for new, old in weights) == bool(off)
    assert cuts == [[0, 0], [1, 0], [1, 0], [0, 0], [1, 0], [1, 0]]
    torch.testing.assert_close(of.state["mean/audio"], torch.cat(features).mean(0))


def test_a_feature_that_is_cut_off_becomes_its_running_mean():
    of = method(GreedyAdaptation)
    first = {"audio": torch.tensor([[1.0], [3.0]]), "visual": torch.zeros(2, 1)}
    of.on_features(first, Step(0, RandomStreams(0), torch.zeros(2, dtype=torch.int64)))
    of.state |= {"left": torch.tensor(1), "cut": torch.tensor([True, False])}
    second = {"audio": torch.tensor([[5.0], [7.0]]), "visual": torch.ones(2, 1)}
    given = of.on_features(second, Step(0, RandomStreams(0), torch.zeros(2, dtype=torch.int64)))
    assert given["audio"].flatten().tolist() == [4, 4] and given["visual"].flatten().tolist() == [1, 1]


def test_the_adaptation_measures_before_its_first_epoch_but_cuts_nothing_off():
    setup = set_up(GreedyAdaptation, first_epoch=1)
    for index in range(3):
        _, step = take(setup, *batch(seed=index), index=index)
        assert not step.metrics["cut"].any()
    assert setup[1].state["rates"].min() > 0


# ---- AGM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [TWO, THREE], ids=len)
def test_responses_are_shapley_values(modalities):
    """Against the mean over all orders in which modalities may join, Φ(∅) = 0."""
    network = build("mlp", "small", {name: SHAPES[name] for name in modalities}, CLASSES, 0)
    features = {name: torch.randn(4, width) for name, width in network.widths.items()}

    def output(members):
        if not members:
            return torch.zeros(4, CLASSES)
        return network.classify(
            {name: value if name in members else 0 * value for name, value in features.items()}
        )

    full, responses = shapley(network, features)
    torch.testing.assert_close(full, output(modalities))
    torch.testing.assert_close(responses.sum(0), full)
    orders = list(itertools.permutations(modalities))
    for name, response in zip(modalities, responses, strict=True):
        marginal = [
            output(order[: order.index(name) + 1]) - output(order[: order.index(name)]) for order in orders
        ]
        torch.testing.assert_close(response, torch.stack(marginal).mean(0))


def test_shapley_weights_of_two():
    subsets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expected = torch.tensor([[0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    torch.testing.assert_close(shapley_weights(subsets), expected)


def test_coefficients_by_hand():
    of = method(AGM, alpha=0.5)
    first, second = torch.tensor([0.4, 1.0]), torch.tensor([0.3, 0.5])
    kappa = of.coefficient(first)  # no mean yet: τ = 1
    assert kappa.tolist() == pytest.approx([math.exp(0.5 * (1 - math.exp(d))) for d in (0.6, -0.6)])
    kappa = of.coefficient(second)  # the mean is that of the first step alone
    pairs = ((0.6, 0.2), (-0.6, -0.2))
    assert kappa.tolist() == pytest.approx([math.exp(0.5 * (math.exp(t) - math.exp(r))) for t, r in pairs])
    assert of.mean.tolist() == pytest.approx([0.35, 0.75])
    assert ratios(torch.tensor([1.0, 2.0, 6.0])).tolist() == pytest.approx(
        [math.exp(3), math.exp(1.5), math.exp(-4.5)]
    )


def test_agm_scales_what_flows_through_each_response():
    """The update is that of the loss of Σ φ^m with a hook on each φ^m, as the authors' code has it."""
    setup = set_up(AGM, model="mlp")
    inputs, labels = batch()
    take(setup, *batch(seed=1))  # so that the running mean is not the first score
    twin, of = copy.deepcopy(setup[0]), setup[1]
    before = of.state_dict()
    loss, step = take(setup, inputs, labels, index=1)

    features = twin.encode(inputs)
    zeros = {name: torch.zeros_like(value) for name, value in features.items()}
    total = twin.classify(features)
    audio, visual = (twin.classify({**zeros, name: features[name]}) for name in TWO)
    responses = [(total - visual + audio) / 2, (total - audio + visual) / 2]
    scores = torch.stack([cross_entropy(response, labels) for response in responses]).detach()
    kappa = torch.exp(ratios(before["mean"]) - ratios(scores))
    torch.testing.assert_close(step.metrics["kappa"], kappa)
    for response, factor in zip(responses, kappa, strict=True):
        response.register_hook(lambda gradient, factor=factor: gradient * factor)
    expected = cross_entropy(sum(responses), labels)
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    for new, old in zip(setup[0].parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.01 * old.grad)


# ---- PMR --------------------------------------------------------------------------------------------------------


def test_coefficients_of_pmr_by_hand():
    of = method(PMR)
    assert of.weights(torch.tensor([3.0, 2.0])).tolist() == pytest.approx([0, 0.5])
    assert of.weights(torch.tensor([1.0, 9.0])).tolist() == [1, 0]
    assert of.weights(torch.tensor([4.0, 5.0, 2.0])).tolist() == pytest.approx([0.25, 0, 1])
    assert method(PMR, variant="official").weights(torch.tensor([3.0, 2.9])).tolist() == [0, 1]


def step_of(labels, epoch, index=0):
    return Step(epoch, RandomStreams(0, epoch, index), torch.tensor(labels))


def test_prototypes_are_class_means_with_momentum():
    of = method(PMR, momentum=0.25)
    of.attach(None, 3)
    epochs = [
        [([0, 1], [[1.0], [4.0]]), ([1, 1], [[6.0], [8.0]])],
        [([0, 1], [[5.0], [2.0]])],
        [([0, 1], [[0.0], [0.0]])],
    ]
    for epoch, steps in enumerate(epochs):
        of.on_epoch_start(None, Epoch(epoch, None))
        for index, (labels, values) in enumerate(steps):
            features = {"audio": torch.tensor(values), "visual": -torch.tensor(values)}
            assert of.on_features(features, step_of(labels, epoch, index)) is features
        if epoch == 0:
            assert not of.prototypes
        if epoch == 1:
            assert of.prototypes[0].flatten().tolist() == [1, 6, 0]
    # the second epoch's means are 5 and 2, and a quarter of the old ones is kept
    assert of.prototypes[0].flatten().tolist() == pytest.approx([0.75 * 5 + 0.25, 0.75 * 2 + 0.25 * 6, 0])
    assert of.prototypes[1].flatten().tolist() == pytest.approx([-4, -3, 0])


@pytest.mark.parametrize("entropy_epochs", [0, 5])
def test_the_objective_of_pmr_by_hand(entropy_epochs):
    of = method(PMR, alpha=2.0, mu=0.3, entropy_epochs=entropy_epochs)
    of.attach(None, 2)
    labels = [0, 1]
    prototypes = {"audio": [[0.0, 0.0], [3.0, 4.0]], "visual": [[0.0, 0.0], [1.0, 0.0]]}
    of.load_state_dict({f"prototype/{name}": torch.tensor(value) for name, value in prototypes.items()})
    points = {"audio": [[0.0, 0.1], [3.0, 4.0]], "visual": [[0.2, 0.0], [0.9, 0.0]]}
    step = step_of(labels, 1, 1)
    of.on_features({name: torch.tensor(value) for name, value in points.items()}, step)
    loss = of.on_loss(torch.tensor(1.0), step)

    p, entropy = {}, {}
    for name in TWO:
        rows = []
        for point in points[name]:
            powers = [math.exp(-math.dist(point, prototype)) for prototype in prototypes[name]]
            rows.append([power / sum(powers) for power in powers])
        p[name] = [row[label] for row, label in zip(rows, labels, strict=True)]
        entropy[name] = -sum(q * math.log(q) for row in rows for q in row) / 2
    rho = sum(p["audio"]) / sum(p["visual"])
    assert rho > 1  # audio is ahead
    gamma = min(1, rho - 1)
    expected = 1 + 2 * gamma * -sum(map(math.log, p["visual"])) / 2
    expected -= 0.3 * gamma * entropy["audio"] if entropy_epochs else 0
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_similarities_have_a_gradient_at_a_prototype():
    features = torch.zeros(1, 2, requires_grad=True)
    similarities(features, torch.zeros(2, 2)).sum().backward()
    assert features.grad.isfinite().all()


# ---- MMPareto ---------------------------------------------------------------------------------------------------


def test_blend_by_hand():
    g, u = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])
    assert blend(g, u).tolist() == [2, 2]  # they agree: the sum
    u = torch.tensor([-1.0, 1.0])  # opposed: a = (u − g)·u / ‖u − g‖² = 3 / 5
    assert blend(g, u).tolist() == pytest.approx([2 * 0.6 - 2 * 0.4, 2 * 0.4])
    assert blend(g, torch.tensor([-9.0, 0.0])).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_blend_of_opposed_gradients_is_of_least_norm_and_helps_both():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        g, u = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        u = u if g @ u < 0 else -u
        h = blend(g, u)
        norms = [(a * g + (1 - a) * u).norm() for a in torch.linspace(0, 1, 501, dtype=torch.float64)]
        assert h.norm() / 2 <= min(norms) + 1e-12
        assert h @ g >= -1e-9 and h @ u >= -1e-9


@pytest.mark.parametrize("opposed", [False, True])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_mmpareto_updates_by_the_rescaled_blend(variant, opposed):
    network, of, optimizer = set_up(MMPareto, **MMPareto.VARIANTS[variant])
    inputs, labels = batch()
    with torch.no_grad():  # the own heads as the fused one, or against it
        for name, part in zip(TWO, network.fusion.head.weight.split(64, 1), strict=True):
            of.heads[name].weight.copy_(-part if opposed else part)
    twin = copy.deepcopy(network)
    loss, _ = take((network, of, optimizer), inputs, labels)

    features = twin.encode(inputs)
    multimodal = cross_entropy(twin.classify(features), labels)
    heads = twin.extras["x"]
    alone = {name: cross_entropy(heads[name](features[name]), labels) for name in TWO}
    torch.testing.assert_close(loss, (multimodal + sum(alone.values())).detach())
    for name in TWO:
        weights = list(twin.encoders[name].parameters())
        g = torch.autograd.grad(multimodal, weights, retain_graph=True)
        u = torch.autograd.grad(alone[name], weights, retain_graph=True)
        dots = [sum((x * y).sum() for x, y in zip(a, b, strict=True)) for a, b in ((g, g), (g, u), (u, u))]
        gg, gu, uu = dots
        assert (gu < 0) == opposed
        a = 0.5 if gu > 0 else ((uu - gu) / (gg - 2 * gu + uu)).clamp(0, 1)
        h = [2 * a * x + 2 * (1 - a) * y for x, y in zip(g, u, strict=True)]
        sums = [x + y for x, y in zip(g, u, strict=True)]

        def length(tensors):
            return sum((tensor**2).sum() for tensor in tensors) ** 0.5

        for number, (new, old) in enumerate(zip(network.encoders[name].parameters(), weights, strict=True)):
            chosen = slice(number, number + 1) if variant == "official" else slice(None)
            factor = 1.5 * max(1, length(sums[chosen]) / length(h[chosen]))
            torch.testing.assert_close(new, old - 0.01 * factor * h[number], rtol=1e-4, atol=1e-6)
    head = torch.autograd.grad(multimodal, twin.fusion.head.weight)[0]
    torch.testing.assert_close(network.fusion.head.weight, twin.fusion.head.weight - 0.01 * head)
