"""ModDrop and the dropouts of the fused features: rates and masks by hand, against torch, and in training."""

import math

import pytest
import torch
from small_training import attach
from torch.nn import functional

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.annealed_dropout import AnnealedDropout
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.curriculum_dropout import CurriculumDropout
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.dropout import Dropout
from balancemm_cli.methods.evolutional_dropout import EvolutionalDropout, hits, probabilities
from balancemm_cli.methods.moddrop import ModDrop
from balancemm_cli.methods.opm import OPM
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

DROPS = ["moddrop", "dropout", "annealed-dropout", "evolutional-dropout", "curriculum-dropout"]
SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}


def method(kind, modalities=("audio", "visual"), **given):
    return kind(kind.Settings(**given), list(modalities))


def step_at(index=0, batch=4, progress=0.0):
    return Step(0, RandomStreams(0, 0, index), torch.zeros(batch, dtype=torch.int64), torch.tensor(progress))


def ones(batch=300):
    """Features of two shapes, one of them of tokens."""
    return {"audio": torch.ones(batch, 20), "visual": torch.ones(batch, 5, 7)}


def share_of_zeros(features):
    numbers = torch.cat([feature.flatten() for feature in features.values()])
    return (numbers == 0).double().mean().item()


# ---- Dropout, and what makes its rate change ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_dropout_agrees_with_torchs(rate):
    given = {name: feature.requires_grad_() for name, feature in ones().items()}
    dropped = method(Dropout, rate=rate).on_features(given, step_at(batch=300))
    sum(feature.sum() for feature in dropped.values()).backward()
    expected = functional.dropout(torch.ones(300, 55), rate)
    deviation = math.sqrt(rate * (1 - rate) / expected.numel())
    assert share_of_zeros(dropped) == pytest.approx(share_of_zeros({"all": expected}), abs=6 * deviation)
    for name, feature in dropped.items():
        torch.testing.assert_close(feature.unique(), expected.unique())
        torch.testing.assert_close(given[name].grad, feature)  # of ones: the gradient is the mask
        assert feature.shape == given[name].shape


def test_each_number_is_dropped_alone():
    """Of one modality, of two of the same shape, of two dropouts in one run, and of two steps."""
    given = {name: torch.ones(4000, 8) for name in ("audio", "visual")}
    first, second = step_at(0, batch=4000), step_at(1, batch=4000)
    drawn = [method(Dropout), first], [method(AnnealedDropout), first], [method(Dropout), second]
    found = [feature for drops, step in drawn for feature in drops.on_features(given, step).values()]
    kept = (torch.cat(found, 1) != 0).float()
    correlations = torch.corrcoef(kept.T) - torch.eye(kept.shape[1])
    assert correlations.abs().max() < 5 / math.sqrt(4000)


def test_the_rate_of_annealed_dropout_by_hand():
    for until, rates in ((1.0, [0.4, 0.3, 0.2, 0.0]), (0.5, [0.4, 0.2, 0.0, 0.0])):
        annealed = method(AnnealedDropout, rate=0.4, until=until)
        found = [annealed.rate(step_at(progress=done)).item() for done in (0, 0.25, 0.5, 1)]
        assert found == pytest.approx(rates)
    step = step_at(batch=300, progress=0.5)
    assert all(
        torch.equal(feature, ones()[name]) for name, feature in annealed.on_features(ones(), step).items()
    )


def test_the_rate_of_curriculum_dropout_by_hand():
    curriculum = method(CurriculumDropout, rate=0.25)  # θ̄ = 0.75
    for t in (0, 30, 1000):  # updates of T = 1000
        theta = (1 - 0.75) * math.exp(-10 / 1000 * t) + 0.75
        assert 1 - curriculum.rate(step_at(progress=t / 1000)).item() == pytest.approx(theta)
    first = curriculum.on_features(ones(), step_at(batch=300))
    assert all(torch.equal(feature, ones()[name]) for name, feature in first.items())


@pytest.mark.parametrize("kind", [AnnealedDropout, CurriculumDropout])
def test_a_changing_rate_is_the_share_dropped(kind):
    step = step_at(batch=300, progress=0.1)
    rate = method(kind).rate(step).item()
    dropped = method(kind).on_features(ones(), step)
    assert share_of_zeros(dropped) == pytest.approx(rate, abs=5 * math.sqrt(0.25 / (300 * 55)))
    assert dropped["audio"].max().item() == pytest.approx(1 / (1 - rate))


# ---- evolutional dropout ---------------------------------------------------------------------------------------------


def test_a_multinomial_draw_by_hand():
    x = torch.tensor([[3.0, 0.0, 1.0], [4.0, 0.0, -2.0]])
    p = probabilities((x**2).sum(0))
    root = math.sqrt(5)
    assert p.tolist() == pytest.approx([5 / (5 + root), 0, root / (5 + root)])  # 0.69, 0, 0.31
    u = torch.tensor([[0.0, 0.68, 0.70, 0.99], [0.1, 0.2, 0.3, 0.4]])
    assert hits(p, u).tolist() == [[2, 0, 2], [4, 0, 0]]


def test_evolutional_dropout_multiplies_by_hits_over_k_p():
    x = torch.tensor([[3.0, 0.0, 1.0, 2.0], [4.0, 0.0, -2.0, 2.0]])
    features = {"audio": x[:, :1], "visual": x[:, 1:].reshape(2, 3, 1).clone().requires_grad_()}
    step = step_at(batch=2)
    found = method(EvolutionalDropout, share=0.75).on_features(features, step)
    p = probabilities((x**2).sum(0))
    mask = hits(p, step.streams.uniform((2, 3), "evolutional", "cpu")) / (3 * p)  # k = 0.75 · 4
    mask[:, 1] = 0  # 0 / 0
    torch.testing.assert_close(torch.cat([found["audio"], found["visual"].flatten(1)], 1), x * mask)
    found["visual"].sum().backward()
    torch.testing.assert_close(features["visual"].grad.flatten(1), mask[:, 1:])  # no gradient through p


def test_hits_have_mean_and_variance_of_the_multinomial_distribution():
    p = torch.tensor([0.5, 0.3, 0.0, 0.15, 0.05])
    u = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    found = hits(p, u)
    assert (found.sum(1) == 4).all()
    torch.testing.assert_close(found.mean(0), 4 * p, rtol=0, atol=0.03)
    covariance = 4 * (torch.diag(p) - torch.outer(p, p))
    torch.testing.assert_close(torch.cov(found.T), covariance, rtol=0, atol=0.03)


def test_evolutional_dropout_has_the_features_as_its_mean_and_drops_the_small_ones():
    x = torch.tensor([[8.0, 1.0, -2.0, 0.5]] * 5000)
    found = method(EvolutionalDropout).on_features(
        {"audio": x[:, :3], "visual": x[:, 3:]}, step_at(batch=5000)
    )
    found = torch.cat(list(found.values()), 1)
    torch.testing.assert_close(found.mean(0), x[0], rtol=0, atol=0.2)
    dropped = (found == 0).double().mean(0)
    assert dropped[0] < dropped[2] < dropped[1] < dropped[3]


def test_features_that_are_all_zero_stay_so():
    zeros = {name: feature * 0 for name, feature in ones(4).items()}
    found = method(EvolutionalDropout).on_features(zeros, step_at())
    assert all(torch.equal(feature, zeros[name]) for name, feature in found.items())


# ---- ModDrop ---------------------------------------------------------------------------------------------------------


def test_each_modality_is_dropped_with_its_own_probability():
    names = ("audio", "visual", "text")
    step = step_at(batch=3000)
    features = {name: torch.ones(3000, 2, 3) for name in names}
    found = method(ModDrop, names, probability=[0.3, 0, 0.8]).on_features(features, step)
    assert step.metrics["p"].tolist() == pytest.approx([0.3, 0, 0.8])
    for (name, feature), kept, q in zip(found.items(), step.keep.unbind(1), (0.3, 0, 0.8), strict=True):
        assert torch.equal(feature, features[name] * kept[:, None, None])
        assert 1 - kept.float().mean().item() == pytest.approx(q, abs=5 * math.sqrt(q * (1 - q) / 3000))
    together = (step.keep[:, 0] & step.keep[:, 2]).float().mean().item()
    assert together == pytest.approx(0.7 * 0.2, abs=0.035)  # independent


def test_one_probability_is_that_of_all_modalities():
    assert method(ModDrop, probability=0.4).probabilities == (0.4, 0.4)
    assert resolve("synthetic", method="moddrop").methods == {"moddrop": {"probability": 0.2}}
    with pytest.raises(UsageError, match=r"has 3 numbers, and there are 2 modalities \(audio, visual\)"):
        method(ModDrop, probability=(0.1, 0.2, 0.3))
    with pytest.raises(UsageError, match=r"moddrop\.probability"):
        resolve("synthetic", method="moddrop", overrides=["moddrop.probability=1.5"])


def test_what_opm_dropped_stays_dropped():
    step = step_at(batch=200)
    features = {"audio": torch.ones(200, 2), "visual": torch.ones(200, 2)}
    opm = method(OPM)
    by_opm = opm._drop(features, torch.tensor([0.5, 0.0]), step)
    before = step.keep
    found = method(ModDrop, probability=0.3).on_features(by_opm, step)
    assert torch.equal(found["audio"][:, 0] > 0, step.keep[:, 0])
    assert (step.keep <= before).all() and not torch.equal(step.keep, before)


# ---- all of them -----------------------------------------------------------------------------------------------------


def network_and_batch(name, batch=6, **given):
    network = build("concat", "small", SHAPES, 4, seed=0)
    methods = [method(METHODS[name], SHAPES, **given)]
    attach(network, methods, 4)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "audio": torch.randn(batch, 1, 16, 16, generator=generator),
        "visual": torch.randn(batch, 3, 2, 16, 16, generator=generator),
        "text": torch.randn(batch, 5, 3, generator=generator),
    }
    return network, methods, inputs, torch.arange(batch) % 4


@pytest.mark.parametrize("name", DROPS)
def test_a_step_trains_and_measures_undropped_features(name):
    network, methods, inputs, labels = network_and_batch(name)
    optimizer = build_optimizer(network, OptimizerSettings())
    before = {key: weight.clone() for key, weight in network.named_parameters()}
    step = Step(0, RandomStreams(0), labels, torch.tensor(0.3))
    loss = train_step(network, methods, optimizer, inputs, step, DiscrepancySettings())
    plain = build("concat", "small", SHAPES, 4, seed=0)
    expected = plain.unimodal_logits(plain.encode(inputs))
    for modality, logits in step.unimodal.items():
        torch.testing.assert_close(logits, expected[modality])
    undropped = functional.cross_entropy(sum(expected.values()), labels)
    assert loss.isfinite() and not torch.isclose(loss, undropped)
    assert any(not torch.equal(weight, before[key]) for key, weight in network.named_parameters())


@pytest.mark.parametrize("name", DROPS)
def test_a_part_of_a_batch_is_dropped_as_in_the_whole(name):
    whole = {"audio": torch.randn(6, 8), "visual": torch.randn(6, 3, 5)}
    squares = (torch.cat([feature.flatten(1) for feature in whole.values()], 1) ** 2).sum(0)
    expected = method(METHODS[name]).on_features(whole, step_at(batch=6, progress=0.3))
    for first, count in ((0, 4), (4, 2), (6, 0)):
        part = {key: feature[first : first + count] for key, feature in whole.items()}
        step = step_at(batch=count, progress=0.3)
        step.streams, step.total = RandomStreams(0, 0, 0, 6, first), lambda _: squares
        found = method(METHODS[name]).on_features(part, step)
        for key, feature in found.items():
            torch.testing.assert_close(feature, expected[key][first : first + count])


def test_rates_follow_the_progress_of_a_run(prepared, tmp_path, monkeypatch):
    """As the trainer counts it: a step of three in the second epoch of two has done half and so many sixths."""
    seen = []
    original = AnnealedDropout.rate
    monkeypatch.setattr(
        AnnealedDropout, "rate", lambda self, step: seen.append(original(self, step)) or seen[-1]
    )
    overrides = ["epochs=2", "batch_size=32"]
    config = resolve("synthetic", method="annealed-dropout", overrides=overrides)
    run_job(Job(config, prepared / "synthetic", tmp_path, device="cpu", threads=1), lambda *_: None, print)
    _, _, *seen = seen  # the first ones are of the steps that are counted on a copy
    steps = len(seen)
    assert steps > 2
    assert torch.stack(seen).tolist() == pytest.approx([0.5 * (1 - t / steps) for t in range(steps)])
