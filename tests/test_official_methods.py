"""Step for step, the official variants compute what the authors' code of each method computed (float64).

Weights, batches and figures are those of golden.py; the encoders are those of the figures, all else is the program's.
"""

import pytest
import torch
from golden import cases, fill_encoder, fill_linear, make_batch
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.agm import ratios
from balancemm_cli.methods.base import Epoch, Method, MethodSettings, Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.mmpareto import share
from balancemm_cli.methods.pmr import similarities
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.fusion import Concat, ModelSettings
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams

CASES = cases("methods_official.json", "BMM_GOLDEN_METHODS")
MODALITIES = ["audio", "visual"]
PLAIN = DiscrepancySettings()


pytestmark = pytest.mark.usefixtures("in_float64")


def of(method):
    return pytest.mark.parametrize("case", [name for name in CASES if CASES[name]["method"] == method])


def close(value):
    return pytest.approx(value, rel=1e-7, abs=1e-9)


class Small(Encoder):
    """Two convolutions with batch normalisation; frames are folded into the batch."""

    def __init__(self, channels, widths):
        super().__init__()
        first, self.features = widths
        self.conv1 = nn.Conv2d(channels, first, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, self.features, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(self.features)

    def forward(self, inputs):
        frames = inputs.transpose(1, 2).flatten(0, 1) if inputs.ndim == 5 else inputs
        maps = self.bn1(self.conv1(frames)).relu()
        maps = self.bn2(self.conv2(maps)).relu()
        return maps.mean((2, 3)).unflatten(0, (len(inputs), -1)).mean(1)


class Training:
    """A case's network, method and optimiser; `step` takes the next training step."""

    def __init__(self, case, method, **settings):
        kind = METHODS[method]
        self.case, self.epoch, self.done = case, 0, 0
        self.method = kind(kind.Settings(**{**kind.VARIANTS["official"], **settings}), MODALITIES)
        encoders = {
            name: Small(channels, case["widths"][name]) for name, channels in (("audio", 1), ("visual", 3))
        }
        widths = {name: encoder.features for name, encoder in encoders.items()}
        self.network = Network(encoders, Concat(widths, case["classes"], ModelSettings()))
        for name, encoder in encoders.items():
            fill_encoder(encoder, case["phases"][name])
            nn.init.constant_(encoder.bn2.weight, case.get("norm_gain", {}).get(name, 1.0))
        fill_linear(self.network.fusion.head, case["phases"]["head"], case["head_gain"])
        self.heads = self.method.attach(self.network, case["classes"])
        if self.heads is not None:
            self.network.extras[method] = self.heads
            for name in MODALITIES:
                fill_linear(self.heads[name], case["phases"][f"head_{name}"], case["head_gain"])
        self.optimizer = build_optimizer(self.network, OptimizerSettings(**case["optimizer"]))
        self.seen, self.after = (Seen(self.method, self.heads) for _ in range(2))

    def step(self):
        inputs, labels = make_batch(self.done, self.case)
        step = Step(self.epoch, RandomStreams(0, self.epoch, self.done), labels)
        loss = train_step(
            self.network, [self.seen, self.method, self.after], self.optimizer, inputs, step, PLAIN
        )
        self.done += 1
        return loss.item(), step

    def assert_weights(self):
        found = {"head": self.network.fusion.head, **self.network.encoders}
        if self.heads is not None:
            found |= {f"head_{name}": self.heads[name] for name in MODALITIES}
        state = nn.ModuleDict(found).state_dict()
        for name, expected in self.case["weights"].items():
            assert checked(state[name]) == close(expected), name


def checked(values):
    """[sum, sum of squares, first entry, entry numel // 2, last entry]."""
    flat = values.detach().flatten()
    return [flat.sum().item(), (flat**2).sum().item(), *flat[[0, len(flat) // 2, -1]].tolist()]


def pair(case, name, index):
    return [case[f"{name}_{modality}"][index] for modality in MODALITIES]


class Seen(Method):
    """Keeps what a method finds, if it comes before that, and what it leaves: losses of its heads, and gradients."""

    def __init__(self, method, heads):
        super().__init__(MethodSettings(), MODALITIES)
        self.method, self.heads = method, heads

    def on_loss(self, loss, step):
        logits = self.heads(step.features).values() if self.heads else []
        self.of_heads = [step.losses(one).mean().item() for one in logits]
        return loss

    def on_gradients(self, network, step):
        self.of_head = network.fusion.head.weight.grad.clone()
        self.norm = torch.cat([weight.grad.flatten() for weight in network.parameters()]).norm().item()
        self.multimodal = getattr(self.method, "_multimodal", [])
        self.of_encoders = [
            torch.cat([weight.grad.flatten() for weight in encoder.parameters()])
            for encoder in network.encoders.values()
        ]


@of("agm")
def test_agm(case):
    case = CASES[case]
    # the authors count epochs from 1
    first, last = max(case["modulation_starts"] - 1, 0), case["modulation_ends"] - 1
    training = Training(case, "agm", alpha=case["alpha"], first_epoch=first, last_epoch=last)
    of, seen, mean = training.method, training.seen, torch.zeros(2)
    for index in range(case["epochs"] * case["steps_per_epoch"]):
        training.epoch = index // case["steps_per_epoch"]
        loss, step = training.step()
        assert loss == close(case["loss"][index]), f"loss at step {index}"
        scores = (index + 1) * of.mean - index * mean
        assert scores.tolist() == close(pair(case, "score", index))
        assert ratios(scores).tolist() == close(pair(case, "ratio", index))
        assert ratios(mean).tolist() == close(pair(case, "tau", index))
        assert step.metrics["kappa"].tolist() == close(pair(case, "hook", index))
        if of.settings.active(training.epoch):
            assert step.metrics["kappa"].tolist() == close(pair(case, "kappa", index))
        assert seen.of_head.max().item() == close(case["grad_max"][index])
        assert seen.of_head.min().item() == close(case["grad_min"][index])
        assert seen.norm == close(case["grad_norm"][index])
        clipped = min(1, 1 / (seen.norm + 1e-6)) if case["clipped"][index] else 1
        assert training.after.norm == close(clipped * seen.norm)
        mean = of.mean
        if (index + 1) % case["steps_per_epoch"] == 0:
            assert mean.tolist() == close(pair(case, "running", training.epoch))
    training.assert_weights()


@of("pmr")
def test_pmr(case):
    case = CASES[case]
    settings = {"alpha": case["alpha"], "momentum": case["momentum"]}
    settings |= {"first_epoch": case["modulation_starts"], "last_epoch": case["modulation_ends"]}
    training = Training(case, "pmr", **settings)
    of = training.method
    for number, looked_at in enumerate(case["prototype_batches"]):
        batches = [make_batch(index, case) for index in looked_at]
        of.on_epoch_start(training.network, Epoch(number, lambda *_, batches=batches: iter(batches)))
        for name, found in zip(MODALITIES, of.prototypes, strict=True):
            expected = case["prototypes"][number][name]
            assert checked(found) == close(expected["check"])
            assert found[number % case["classes"]].tolist() == close(expected["row"])
        training.epoch, steps = number, case["steps_per_epoch"] * (number < case["epochs"])
        for index in range(training.done, training.done + steps):
            loss, step = training.step()
            assert loss == close(case["loss"][index]), f"loss at step {index}"
            unimodal = [step.losses(logits).mean().item() for logits in step.unimodal.values()]
            assert unimodal == close(pair(case, "loss", index))
            logits = [similarities(*both) for both in zip(step.features.values(), of.prototypes, strict=True)]
            assert [step.losses(one).mean().item() for one in logits] == close(
                pair(case, "loss_prototype", index)
            )
            scores = [(-step.losses(one)).exp().sum().item() for one in logits]
            assert scores == close(pair(case, "score", index))
            assert (case["alpha"] * step.metrics["beta"]).tolist() == close(pair(case, "beta", index))
    training.assert_weights()


@of("mmpareto")
def test_mmpareto(case):
    case = CASES[case]
    training = Training(case, "mmpareto")
    seen = training.seen
    for index in range(case["steps"]):
        loss, step = training.step()
        assert loss == close(case["loss"][index]), f"loss at step {index}"
        assert step.losses(step.logits).mean().item() == close(case["loss_multimodal"][index])
        assert seen.of_heads == close(pair(case, "loss", index))
        gradients = [(g, both - g) for g, both in zip(seen.multimodal, seen.of_encoders, strict=True)]
        cosines = [torch.cosine_similarity(g, u, 0).item() for g, u in gradients]
        assert cosines == close(pair(case, "cosine", index))
        assert [share(g, u).item() for g, u in gradients] == close(pair(case, "weight", index))
    training.assert_weights()


@of("uniform_baseline")
def test_uniform_baseline(case):
    case = CASES[case]
    training = Training(case, "unimodal-losses")
    for index in range(case["steps"]):
        loss, step = training.step()
        assert loss == close(case["loss"][index]), f"loss at step {index}"
        assert step.losses(step.logits).mean().item() == close(case["loss_multimodal"][index])
        assert training.seen.of_heads == close(pair(case, "loss", index))
    training.assert_weights()
