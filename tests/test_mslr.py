"""MSLR: the rates of each modality's weights by hand, from accuracies that are counted one by one."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.launch import Job
from balancemm_cli.engine.trainer import Trainer
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods.base import Epoch
from balancemm_cli.methods.mslr import ratios
from balancemm_cli.testing.sets import tiny_set

RATES = (0.5, 2.0, 1.5, 0.25, 3.0)


def moves(network, before):
    """How far each weight went."""
    return [
        new.detach() - old.detach()
        for new, old in zip(network.parameters(), before.parameters(), strict=True)
    ]


def plain_moves(modalities, model):
    network, methods, inputs = made("baseline", modalities, model)
    before = copy.deepcopy(network)
    take_step(network, methods, inputs, lr=0.1)
    return dict(zip([name for name, _ in network.named_parameters()], moves(network, before), strict=True))


@pytest.mark.parametrize("model", ["concat", "sum", "mlp"])
@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_each_modality_moves_at_its_own_rate(model, modalities):
    network, methods, inputs = made("mslr", modalities, model, strategy="keep", rates=RATES[:modalities])
    rates = dict(zip(network.modalities, RATES, strict=False))
    before, plain = copy.deepcopy(network), plain_moves(modalities, model)
    _, step = take_step(network, methods, inputs, lr=0.1)
    torch.testing.assert_close(step.metrics["rate"], torch.tensor(RATES[:modalities]))
    changed = set()
    for (name, _), move in zip(network.named_parameters(), moves(network, before), strict=True):
        kind, *parts = name.split(".")
        of = parts[0] if kind == "encoders" else parts[1] if model == "sum" else None
        torch.testing.assert_close(move, rates.get(of, 1.0) * plain[name], rtol=1e-4, atol=1e-6)
        if plain[name].any():
            changed.add(of)
    assert changed == {*rates, *([] if model == "sum" else [None])}


def test_the_official_variant_scales_the_gradients_of_encoders():
    network, methods, inputs = made("mslr", 2, "sum", "official", strategy="keep", rates=(0.5, 2.0))
    before, plain = copy.deepcopy(network), plain_moves(2, "sum")
    _, step = take_step(network, methods, inputs, lr=0.1)
    assert step.rates == []
    factors = {"encoders.audio": 0.5, "encoders.visual": 2.0}
    for (name, _), move in zip(network.named_parameters(), moves(network, before), strict=True):
        factor = next((f for part, f in factors.items() if name.startswith(part)), 1.0)
        torch.testing.assert_close(move, factor * plain[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_the_rate_follows_the_accuracy_over_that_of_the_last_epochs(modalities):
    network, (method,), inputs = made("mslr", modalities, window=2, rates=RATES[:modalities])
    seen = []
    for number in range(5):
        validation = [(inputs, (LABELS + shift) % 4) for shift in (number, number + 1)]
        method.on_epoch_start(network, Epoch(number, lambda *_: iter(()), lambda v=validation: iter(v)))
        assert network.training
        if number:
            seen.append(by_hand(network, validation))
        expected = torch.ones(modalities)
        if len(seen) > 2:
            mean = torch.stack(seen[-3:-1]).mean(0)
            expected = torch.where(mean > 0, seen[-1] / mean, 1)
        _, step = take_step(network, [method], inputs, epoch=number, lr=0.01)
        torch.testing.assert_close(step.metrics["rate"], torch.tensor(RATES[:modalities]) * expected)
    assert len({tuple(one.tolist()) for one in seen}) > 1


def by_hand(network, batches):
    """The share of samples that each modality gets right alone, one sample at a time."""
    network.eval()
    right, count = torch.zeros(len(network.modalities)), 0
    for inputs, labels in batches:
        for m, logits in enumerate(network.unimodal_logits(network.encode(inputs)).values()):
            right[m] += sum(
                int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True)
            )
        count += len(labels)
    network.train()
    return right / count


def test_ratios_where_nothing_was_right_are_one():
    before = torch.tensor([[0.2, 0.0, 0.5], [0.4, 0.0, 0.7]])
    torch.testing.assert_close(ratios(torch.tensor([0.6, 0.3, 0.3]), before), torch.tensor([2.0, 1.0, 0.5]))


def test_outside_its_epochs_every_rate_is_one():
    network, methods, inputs = made("mslr", 2, rates=(0.5, 2.0), first_epoch=3)
    _, step = take_step(network, methods, inputs, epoch=2)
    assert step.metrics["rate"].tolist() == [1, 1]
    _, step = take_step(network, methods, inputs, epoch=3)
    assert step.metrics["rate"].tolist() == [0.5, 2]


def test_a_wrong_number_of_rates_is_refused():
    with pytest.raises(UsageError, match=r"mslr\.rates needs 3 numbers"):
        made("mslr", 3, rates=(0.5, 2.0))


@pytest.mark.parametrize("strategy", ["keep", "dynamic"])
def test_a_set_without_validation_samples_is_refused_where_they_are_needed(strategy, tmp_path, monkeypatch):
    monkeypatch.setattr("balancemm_cli.testing.sets.COUNTS", {"train": 24, "test": 12})
    tiny_set(tmp_path / "data")
    overrides = ["encoder=small", "pretrained=false", f"mslr.strategy={strategy}"]
    config = resolve("manifest", method="mslr", overrides=overrides)
    folder = Job(config, tmp_path / "data", tmp_path / "runs", device="cpu", threads=1).folder()
    if strategy == "keep":
        Trainer(folder, torch.device("cpu"))
        return
    with pytest.raises(InputError, match=r"mslr looks at validation samples, and .* has none"):
        Trainer(folder, torch.device("cpu"))
