"""OPM and OGM: values by hand, timing, noise, and what a step must not do."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine import step as engine_step
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods import METHODS, method_names
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import Discrepancy, DiscrepancySettings, measure
from balancemm_cli.methods.ogm import OGM
from balancemm_cli.methods.opm import OPM
from balancemm_cli.models import build
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.testing.small import Case, trained

PLAIN = DiscrepancySettings()


def method(kind, variant="paper", modalities=("audio", "visual"), **given):
    return kind(kind.Settings(**{**kind.VARIANTS[variant], **given}), list(modalities))


def discrepancy(*rho):
    values = torch.tensor(rho)
    return Discrepancy(PLAIN, torch.ones(len(rho)), values, values > 1, torch.tanh(values - 1))


def step_at(index=0, epoch=0, batch=4, rho=(2.0, 0.5)):
    step = Step(epoch, RandomStreams(0, epoch, index), torch.zeros(batch, dtype=torch.int64))
    step.discrepancy = discrepancy(*rho)
    step.unimodal = {f"m{m}": torch.zeros(batch, 2) for m in range(len(rho))}
    return step


def features(batch=4, modalities=("audio", "visual"), width=3):
    return {name: torch.ones(batch, width) for name in modalities}


def network_and_batch(modalities=("audio", "visual"), batch=6, classes=3, seed=0):
    network = build("concat", "small", dict.fromkeys(modalities, 1), classes, seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(batch, 1, 16, 16, generator=generator) for name in modalities}
    return network, inputs, torch.randint(classes, (batch,), generator=generator)


# ---- OPM --------------------------------------------------------------------------------------------------------


def test_drop_probability_by_hand():
    q = method(OPM, q_base=0.5, lam=0.4).drop_probability(discrepancy(1.5, 0.9, 1.0))
    assert q.tolist() == pytest.approx([0.5 * (1 + 0.4 * math.tanh(0.5)), 0, 0])
    assert method(OPM, q_base=0.9, lam=1.0).drop_probability(discrepancy(9.0, 0.1)).tolist() == [1, 0]


@settings(max_examples=30, deadline=None)
@given(modalities=st.sampled_from([2, 3, 5]), seed=st.integers(0, 1000))
def test_q_and_k_against_a_loop(modalities, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = {f"m{m}": 2 * torch.randn(4, 3, generator=generator) for m in range(modalities)}
    found = measure(logits, torch.tensor([0, 1, 2, 0]), PLAIN)
    q = method(OPM).drop_probability(found).tolist()
    paper, official = (method(OGM, variant).coefficient(found).tolist() for variant in ("paper", "official"))
    for m, rho in enumerate(found.rho.tolist()):
        ahead = rho > 1
        assert q[m] == pytest.approx(min(1, 0.5 * (1 + 0.5 * math.tanh(rho - 1))) if ahead else 0, abs=1e-5)
        assert paper[m] == pytest.approx(max(0, 1 - 0.4 * math.tanh(rho - 1)) if ahead else 1, abs=1e-5)
        assert official[m] == pytest.approx(1 - math.tanh(0.8 * rho) if ahead else 1, abs=1e-5)


def test_paper_uses_the_q_of_the_step_before():
    opm = method(OPM)
    first, second = step_at(0, rho=(3.0, 0.3)), step_at(1, rho=(0.3, 3.0))
    assert opm.on_features(features(), first)["audio"].eq(1).all() and first.keep is None
    opm.on_features(features(), second)
    assert second.metrics["q"].tolist() == pytest.approx([0.5 * (1 + 0.5 * math.tanh(2)), 0])


def test_official_uses_the_q_of_the_step_itself_and_rescales():
    opm = method(OPM, "official", execute_probability=1.0, first_epoch=0, theta_gradient=False)
    step = step_at(rho=(3.0, 0.3), batch=200)
    dropped = opm.on_features(features(200), step)
    q = 0.5 * (1 + 0.5 * math.tanh(2))
    assert step.metrics["q"].tolist() == pytest.approx([q, 0])
    assert dropped["visual"].unique().tolist() == pytest.approx([1 / (1 - q / 2)])
    assert dropped["audio"].unique().tolist() == pytest.approx([0, 1 / (1 - q / 2)])
    assert 1 - step.keep[:, 0].float().mean().item() == pytest.approx(q, abs=0.12)


def test_official_executes_on_seven_batches_in_ten_after_the_warm_up():
    opm = method(OPM, "official")
    executed = []
    for index in range(600):
        step = step_at(index, epoch=6)
        opm.on_features(features(), step)
        executed.append(step.keep is not None)
    assert sum(executed) / 600 == pytest.approx(0.7, abs=0.06)
    warm = step_at(0, epoch=5)
    opm.on_features(features(), warm)
    assert warm.keep is None and warm.metrics["q"].tolist() == [0, 0]


def test_opm_state_is_taken_up_again():
    opm, again = method(OPM), method(OPM)
    opm.on_features(features(), step_at(0))
    again.load_state_dict(opm.state_dict())
    one, two = step_at(1), step_at(1)
    opm.on_features(features(), one)
    again.on_features(features(), two)
    assert torch.equal(one.keep, two.keep)


def test_theta_gradient_changes_gradients_but_not_the_loss():
    losses, grads = [], []
    for stray in (False, True):
        network, inputs, labels = network_and_batch()
        opm = method(OPM, "official", execute_probability=1.0, first_epoch=0, theta_gradient=stray)
        optimizer = build_optimizer(network, OptimizerSettings(lr=1.0, momentum=0, weight_decay=0))
        before = copy.deepcopy(network.state_dict())
        loss = train_step(network, [opm], optimizer, inputs, Step(0, RandomStreams(0), labels), PLAIN)
        losses.append(loss.item())
        grads.append((before["fusion.head.weight"] - network.fusion.head.weight, network.encoders))
    assert losses[0] == losses[1]
    torch.testing.assert_close(grads[0][0], grads[1][0])  # the head sees no difference
    weights = [next(iter(encoders["audio"].parameters())) for _, encoders in grads]
    assert not torch.equal(*weights)


# ---- OGM --------------------------------------------------------------------------------------------------------


def modulate(ogm, rho=(2.0, 0.5), epoch=0):
    """The gradients before and after OGM, and the step."""
    network, inputs, labels = network_and_batch()
    torch.nn.functional.cross_entropy(network(inputs), labels).backward()
    before = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    step = step_at(epoch=epoch, rho=rho)
    ogm.on_gradients(network, step)
    return before, {name: weight.grad for name, weight in network.named_parameters()}, step


def test_gradients_scaled_by_hand():
    before, after, step = modulate(method(OGM, noise="none", alpha=0.5))
    k = 1 - 0.5 * math.tanh(1)
    assert step.metrics["k"].tolist() == pytest.approx([k, 1])
    for name, gradient in after.items():
        scaled = name.startswith("encoders.audio") and gradient.ndim == 4
        torch.testing.assert_close(gradient, before[name] * (k if scaled else 1.0))


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "laplace"])
def test_noise_has_zero_mean_and_the_variance_of_the_gradient(noise):
    before, after, step = modulate(method(OGM, noise=noise, noise_scale=1.5))
    k = dict(zip(("audio", "visual"), step.metrics["k"].tolist(), strict=True))
    large = [name for name, gradient in before.items() if gradient.ndim == 4 and gradient.numel() > 5000]
    assert large
    for name in large:
        added = after[name] - k[name.split(".")[1]] * before[name]
        sigma = 1.5 * before[name].std().item()
        assert added.std().item() == pytest.approx(sigma, rel=0.06)
        assert abs(added.mean().item()) < 5 * sigma / added.numel() ** 0.5
        kurtosis = ((added / sigma) ** 4).mean().item()
        assert kurtosis == pytest.approx({"gaussian": 3, "uniform": 1.8, "laplace": 6}[noise], rel=0.25)


def test_noise_goes_to_all_modalities_or_to_the_dominant_one():
    for target, touched in (("all", {"audio", "visual"}), ("dominant", {"audio"})):
        before, after, _ = modulate(method(OGM, noise_target=target))
        changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
        assert changed == touched
        assert not any("bn" in name and not torch.equal(before[name], after[name]) for name in before)


def test_ogm_keeps_to_its_epochs():
    ogm = method(OGM, "official")
    for epoch, acts in ((0, True), (50, True), (51, False)):
        before, after, _ = modulate(ogm, epoch=epoch)
        assert acts == (
            not torch.equal(before["encoders.audio.stem.0.weight"], after["encoders.audio.stem.0.weight"])
        )


# ---- together ---------------------------------------------------------------------------------------------------


def train(methods, steps=3, epoch=0, modalities=("audio", "visual"), draws=RandomStreams, **optimizer):
    network, inputs, labels = network_and_batch(modalities)
    optimizer = build_optimizer(network, OptimizerSettings(**optimizer))
    seen = []
    for index in range(steps):
        seen.append(Step(epoch, draws(0, epoch, index), labels))
        train_step(network, methods, optimizer, inputs, seen[-1], PLAIN)
    return network, seen


def test_opm_and_ogm_share_one_rho_of_undropped_features():
    network, inputs, labels = network_and_batch()
    optimizer = build_optimizer(network, OptimizerSettings())
    opm, ogm = method(OPM), method(OGM, noise="none")
    for index in range(3):
        twin = copy.deepcopy(network)
        expected = measure(twin.unimodal_logits(twin.encode(inputs)), labels, PLAIN)
        step = Step(0, RandomStreams(0, 0, index), labels)
        train_step(network, [opm, ogm], optimizer, inputs, step, PLAIN)
        assert torch.equal(step.discrepancy.rho, expected.rho)
        assert torch.equal(step.metrics["k"], ogm.coefficient(expected))
        assert torch.equal(opm.q, opm.drop_probability(expected))
    assert step.keep is not None and not step.keep.all()


def test_ogm_goes_on_while_opm_warms_up():
    _, seen = train([method(OPM, "official"), method(OGM, "official")], epoch=2)
    assert all(step.keep is None for step in seen)
    assert all(step.metrics["k"].min() < 1 for step in seen)


class NothingKept(RandomStreams):
    """u = 1 − ε for everything: each modality with q > 0 is dropped."""

    def uniform(self, shape, purpose, device):
        return torch.full(shape, 0.999)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("first", [True, False])
def test_a_batch_that_lost_every_sample_changes_nothing(name, first):
    network, inputs, labels = network_and_batch()
    optimizer = build_optimizer(network, OptimizerSettings(name=name, lr=0.1, weight_decay=0.1))
    if not first:
        train_step(network, [], optimizer, inputs, Step(0, RandomStreams(0), labels), PLAIN)
    opm = method(OPM)
    opm.q = torch.ones(2)
    before = copy.deepcopy((dict(network.named_parameters()), optimizer.state_dict()["state"]))
    step = Step(0, RandomStreams(0, 0, 1), labels)
    train_step(network, [opm, method(OGM)], optimizer, inputs, step, PLAIN)
    assert not step.keep.any()
    for weight_name, weight in network.named_parameters():
        assert torch.equal(weight, before[0][weight_name])
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            old = before[1].get(index, {}).get(key, torch.zeros_like(value))
            assert torch.equal(value, old), key


def test_lost_samples_leave_the_mean():
    """With three modalities some samples lose all; the loss is the mean over the others."""
    network, inputs, labels = network_and_batch(("a", "b", "c"), batch=8)
    opm = method(OPM, modalities="abc")
    opm.q = torch.full((3,), 0.7)
    twin = copy.deepcopy(network)
    step = Step(0, RandomStreams(3), labels)
    loss = train_step(network, [opm], build_optimizer(network, OptimizerSettings()), inputs, step, PLAIN)
    kept = step.keep.any(1)
    assert 0 < kept.sum() < 8
    dropped = {
        name: value * step.keep[:, m, None] for m, (name, value) in enumerate(twin.encode(inputs).items())
    }
    expected = torch.nn.functional.cross_entropy(twin.classify(dropped)[kept], labels[kept])
    torch.testing.assert_close(loss, expected.detach())


def test_a_loss_that_is_not_finite_changes_nothing():
    network, inputs, labels = network_and_batch()
    before = copy.deepcopy(dict(network.named_parameters()))
    inputs["audio"][0, 0, 0, 0] = float("nan")
    optimizer = build_optimizer(network, OptimizerSettings())
    loss = train_step(network, [method(OGM)], optimizer, inputs, Step(0, RandomStreams(0), labels), PLAIN)
    assert loss.isnan()
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())


@pytest.mark.parametrize("modalities", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_any_number_of_modalities(modalities, variant):
    both = [method(kind, variant, modalities) for kind in (OPM, OGM)]
    network, seen = train(both, steps=4, epoch=7, modalities=modalities)
    assert all(step.discrepancy.rho.shape == (len(modalities),) for step in seen)
    assert all(weight.isfinite().all() for weight in network.parameters())


def test_method_names():
    assert method_names("ogm+opm") == ["opm", "ogm"]
    assert method_names("baseline") == ["baseline"]
    with pytest.raises(UsageError, match="Did you mean 'ogm'"):
        method_names("ogn")
    with pytest.raises(UsageError, match="twice"):
        method_names("opm+opm")
    assert all(set(kind.VARIANTS) == {"paper", "official"} for kind in METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_who_goes_by_rho_says_so(name, monkeypatch):
    """What a method does depends on who is taken to be ahead where it says so, and nowhere else."""
    model, settings = METHODS[name].TRIED_ON
    case = Case(model, name, settings=settings)
    _, weights = trained(case, steps=4)
    measured = engine_step.measure

    def the_wrong_way_round(logits, *given):
        return measured(dict(zip(logits, reversed(logits.values()), strict=True)), *given)

    monkeypatch.setattr(engine_step, "measure", the_wrong_way_round)
    _, others = trained(case, steps=4)
    differ = any(not torch.equal(weights[key], others[key]) for key in weights)
    assert differ == METHODS[name].by_rho
