"""The settings of the ablations (Tables 14 and 15, Fig. 9): each reaches the step, and does what it says."""

import math

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings, measure
from balancemm_cli.methods.ogm import OGM
from balancemm_cli.methods.opm import OPM
from balancemm_cli.random_streams import RandomStreams

LN3 = math.log(3)
# Two samples of class 0 and two classes: softmax gives 3/4 (audio) and 1/2 (visual) to the true class.
LOGITS = {"audio": torch.tensor([[LN3, 0.0], [LN3, 0.0]]), "visual": torch.zeros(2, 2)}
RATIO, DIFFERENCE = 1.5, 0.5  # ρ of audio, which is ahead in both forms


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("form", "z", "value"),
    [
        ("ratio", "tanh", math.tanh(RATIO - 1)),
        ("ratio", "sigmoid", sigmoid(RATIO)),
        ("difference", "tanh", math.tanh(DIFFERENCE - 1)),  # z as printed: below zero while ρ < 1
        ("difference", "sigmoid", sigmoid(DIFFERENCE)),
    ],
)
def test_rho_and_z_in_opm_and_ogm_by_hand(form, z, value):
    found = measure(LOGITS, torch.tensor([0, 0]), DiscrepancySettings(form=form, z=z))
    opm = OPM(OPM.Settings(q_base=0.4, lam=0.3), ["audio", "visual"])
    ogm = OGM(OGM.Settings(alpha=0.6), ["audio", "visual"])
    assert opm.drop_probability(found).tolist() == pytest.approx([0.4 * (1 + 0.3 * value), 0])
    assert ogm.coefficient(found).tolist() == pytest.approx([max(0, 1 - 0.6 * value), 1])


@pytest.mark.parametrize("form", ["ratio", "difference"])
def test_even_modalities_are_left_alone_in_either_form(form):
    even = {"audio": LOGITS["audio"], "visual": LOGITS["audio"].clone()}
    for z in ("tanh", "sigmoid"):
        found = measure(even, torch.tensor([0, 0]), DiscrepancySettings(form=form, z=z))
        assert OPM(OPM.Settings(), ["audio", "visual"]).drop_probability(found).tolist() == [0, 0]
        assert OGM(OGM.Settings(), ["audio", "visual"]).coefficient(found).tolist() == [1, 1]


def test_a_bias_split_moves_rho_as_its_logits_say():
    """γ = (1, 0) gives the bias, which favours the true class, to audio alone."""
    network, _, inputs, labels = made("opm")
    with torch.no_grad():
        network.fusion.head.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    labels = torch.zeros_like(labels)
    found = {}
    for split in (None, (1.0, 0.0), (0.0, 1.0)):
        logits = network.unimodal_logits(network.encode(inputs), split)
        found[split] = measure(logits, labels, DiscrepancySettings(bias_split=split)).rho[0].item()
    assert found[(1.0, 0.0)] > found[None] > found[(0.0, 1.0)]


# ---- through the configuration, in training --------------------------------------------------------------------------


def made(method, *overrides):
    config = resolve("crema-d", method=method, overrides=["encoder=small", *overrides])
    methods = config.build_methods(["audio", "visual"])
    network = config.build_network({"audio": 1, "visual": 3}, list("abc"), methods)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (16,), generator=generator)
    inputs = {
        "audio": torch.randn(16, 1, 16, 16, generator=generator) + labels[:, None, None, None],
        "visual": torch.randn(16, 3, 1, 16, 16, generator=generator),
    }
    return network, methods, inputs, labels


def trained(method, *overrides):
    """The weights after four steps, and each step's q or k."""
    network, methods, inputs, labels = made(method, *overrides)
    settings = resolve("crema-d", method=method, overrides=["optimizer.lr=0.05", *overrides]).settings
    optimizer = build_optimizer(network, settings.optimizer)
    figures = []
    for index in range(4):
        step = Step(0, RandomStreams(0, 0, index), labels)
        train_step(network, methods, optimizer, inputs, step, settings.discrepancy)
        figures.append(step.metrics["q" if method == "opm" else "k"])
    return torch.cat([weight.flatten() for weight in network.state_dict().values()]), torch.stack(figures)


@pytest.fixture(scope="module")
def defaults():
    return {method: trained(method) for method in ("opm", "ogm")}


@pytest.mark.parametrize("method", ["opm", "ogm"])
@pytest.mark.parametrize(
    "override",
    [
        "discrepancy.form=difference",
        "discrepancy.z=sigmoid",
        "discrepancy.bias_split=[0.9, 0.1]",
        "opm.q_base=0.2",
        "opm.lam=0.1",
        "ogm.alpha=0.6",
    ],
)
def test_each_setting_of_the_strength_changes_q_or_k(defaults, method, override):
    """A smaller q need not drop another sample of so few; a smaller k moves the weights."""
    weights, figures = trained(method, override)
    concerned = override.startswith((method, "discrepancy"))
    assert concerned == (not torch.equal(figures, defaults[method][1]))
    assert weights.isfinite().all()
    if method == "ogm":
        assert concerned == (not torch.equal(weights, defaults[method][0]))


@pytest.mark.parametrize(
    "override", ["noise_scale=2.0", "noise=uniform", "noise=laplace", "noise=none", "noise_target=dominant"]
)
def test_each_setting_of_the_noise_changes_the_weights(defaults, override):
    weights, figures = trained("ogm", f"ogm.{override}")
    assert weights.isfinite().all() and not torch.equal(weights, defaults["ogm"][0])
    assert torch.equal(figures[0], defaults["ogm"][1][0])  # the first ρ was measured before any noise


def test_a_run_with_its_defaults_repeats_itself(defaults):
    for method, (weights, figures) in defaults.items():
        again = trained(method)
        assert torch.equal(weights, again[0]) and torch.equal(figures, again[1])


def steps_of(opm, rhos):
    """Take a step of OPM for each lead of audio over visual in turn; gives the q by which each step drops."""
    found = []
    for index, rho in enumerate(rhos):
        logits = {"audio": torch.tensor([[math.log(rho), 0.0]]), "visual": torch.zeros(1, 2)}
        labels = torch.tensor([0])
        step = Step(
            0, RandomStreams(0, 0, index), labels, discrepancy=measure(logits, labels, DiscrepancySettings())
        )
        opm.on_features({name: torch.ones(1, 3) for name in logits}, step)
        found.append(step.metrics["q"].tolist())
    return found


def test_the_rates_of_another_modality():
    settings = {"previous_step": False}
    own = steps_of(OPM(OPM.Settings(**settings), ["audio", "visual"]), [3.0, 0.2])
    other = steps_of(OPM(OPM.Settings(**settings, q_of="former-modality"), ["audio", "visual"]), [3.0, 0.2])
    assert own[0][0] > 0 and own[1][1] > 0
    assert other == [[visual, audio] for audio, visual in own]


def test_the_rates_of_a_past_step():
    """Each is one of those that the steps so far computed, whichever; and a run that is resumed draws the same."""
    rhos = [1.5 + index / 10 for index in range(40)]
    computed = steps_of(OPM(OPM.Settings(previous_step=False), ["audio", "visual"]), rhos)
    opm = OPM(OPM.Settings(previous_step=False, q_of="past-step"), ["audio", "visual"])
    drawn = steps_of(opm, rhos)
    places = [computed.index(q) for q in drawn]
    assert all(place <= step for step, place in enumerate(places))
    assert len(set(places)) > 10 and places != sorted(places)
    resumed = OPM(OPM.Settings(previous_step=False, q_of="past-step"), ["audio", "visual"])
    resumed.load_state_dict(opm.state_dict())
    assert steps_of(resumed, rhos[:5]) == steps_of(opm, rhos[:5])
