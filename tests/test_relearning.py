"""Re-learning: purity and the way back by hand; a run that goes on after it, and two processes."""

import copy
import itertools
import signal

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_networks import LABELS, made, take_step

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import Interrupted
from balancemm_cli.methods.base import Epoch
from balancemm_cli.methods.relearning import Relearning, features, purity
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.testing.sets import tiny_set


def blobs(shifts, per=8, width=3):
    """Samples in tight clumps, as many each, far from each other."""
    generator = np.random.default_rng(0)
    return np.concatenate([10 * shift + 0.1 * generator.standard_normal((per, width)) for shift in shifts])


def test_purity_is_the_share_of_the_most_frequent_label_of_each_cluster():
    values = blobs([0, 1, 2])
    labels = np.repeat([2, 0, 1], 8)
    assert purity(values, labels, 3, seed=1) == 1
    labels[[0, 1, 8]] = 1  # two of the first clump, one of the second
    assert purity(values, labels, 3, seed=1) == pytest.approx(21 / 24)
    assert purity(values, np.zeros(24, int), 3, seed=1) == 1
    assert purity(values[:2], labels[:2], 3, seed=1) == 1  # fewer samples than classes


def test_features_of_any_scale_count_alike():
    values = blobs([0, 1, 2])
    labels = np.repeat([0, 1, 2], 8)
    noise = 1e6 * np.random.default_rng(1).standard_normal((24, 1))
    values[:, 0] *= 1e-9
    assert purity(values, labels, 3, seed=3) == 1
    assert purity(np.concatenate([values, noise], 1), labels, 3, seed=3) == 1


@pytest.mark.parametrize(
    ("period", "times", "expected"), [(20, 3, [21, 41, 61]), (1, 2, [2, 3]), (3, 1, [4]), (50, 9, [51])]
)
def test_when_encoders_go_back(period, times, expected):
    method = Relearning(Relearning.Settings(period=period, times=times), ["audio", "visual"])
    assert [epoch for epoch in range(100) if method.is_due(epoch)][: len(expected)] == expected
    assert sum(map(method.is_due, range(1000))) == times


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_each_encoder_goes_back_by_its_own_gap(modalities, monkeypatch):
    network, (method,), inputs = made("relearning", modalities, period=1, strength=2.0)
    found = itertools.cycle([0.9, 0.4, 0.3, 0.3, 0.5, 0.6, 0.8, 0.55, 1.0, 0.2][: 2 * modalities])
    seen, gaps = [], [0.5, 0.0, 0.1, 0.25, 0.8][:modalities]

    def measured(values, labels, classes, seed):
        seen.append((values, labels, classes, seed))
        return next(found)

    monkeypatch.setattr("balancemm_cli.methods.relearning.purity", measured)
    train = [(inputs, LABELS), ({name: values + 1 for name, values in inputs.items()}, LABELS)]

    def epoch(number):
        streams = RandomStreams(5, number)
        return Epoch(number, lambda *_: iter(train), lambda: iter(train[:1]), streams=streams)

    start = copy.deepcopy(network)
    for number in (0, 1):
        method.on_epoch_start(network, epoch(number))
        _, step = take_step(network, [method], inputs, lr=0.1)
        assert step.metrics["alpha"].tolist() == [0.0] * modalities
    assert not seen
    before = copy.deepcopy(network)
    method.on_epoch_start(network, epoch(2))
    assert network.training and all(len(of[0]) == len(of[1]) for of in seen)
    assert [len(of[0]) for of in seen] == [12, 6] * modalities and {of[2] for of in seen} == {4}
    assert len({of[3] for of in seen}) == 2 * modalities  # each clustering has its own random numbers
    torch.testing.assert_close(method.alpha, torch.tanh(2 * torch.tensor(gaps)))
    for name, alpha in zip(network.modalities, method.alpha, strict=True):
        parts = [of.encoders[name].parameters() for of in (network, before, start)]
        for new, old, first in zip(*parts, strict=True):
            torch.testing.assert_close(new, alpha * first + (1 - alpha) * old)
    torch.testing.assert_close(network.fusion.state_dict(), before.fusion.state_dict(), rtol=0, atol=0)
    buffers = [dict(of.encoders.named_buffers()) for of in (network, before)]
    torch.testing.assert_close(*buffers, rtol=0, atol=0)


def test_k_means_begins_at_the_run_s_numbers_or_at_a_given_seed(monkeypatch):
    monkeypatch.setattr("balancemm_cli.methods.relearning.purity", lambda *given: given[3])
    epochs = [Epoch(number, lambda *_: iter(()), streams=RandomStreams(5, number)) for number in (1, 2)]
    for seed, different in ((None, 4), (0, 1)):
        method = Relearning(Relearning.Settings(seed=seed), ["audio"])
        found = {
            method._purity(None, None, name, epoch) for epoch in epochs for name in ("0/audio", "1/audio")
        }
        assert len(found) == different
    assert found == {0}


def test_a_network_of_segments_is_clustered_by_its_means():
    network, _, inputs = made("relearning", 2)
    network.encode = lambda inputs: {
        name: torch.arange(2 * 3 * 5 * 4.0).view(2, 3, 5, 4) for name in network.modalities
    }
    epoch = Epoch(2, lambda *_: iter([(inputs, LABELS[:2])]))
    found, labels = features(network, epoch, epoch.batches(1.0, "x"))
    expected = torch.arange(120.0).view(2, 15, 4).mean(1)
    torch.testing.assert_close(torch.from_numpy(found["audio"]), expected)
    assert labels.tolist() == [0, 1]


def test_a_run_that_is_stopped_after_encoders_went_back_ends_as_one_that_never_was(tmp_path):
    prepared = tiny_set(tmp_path / "data")
    small = ["encoder=small", "pretrained=false", "batch_size=8", "epochs=4", "relearning.period=1"]
    config = resolve("manifest", method="relearning", overrides=small)
    whole, stopped = (RunFolder(tmp_path / name, config, prepared) for name in ("whole", "stopped"))
    seen = []

    def interrupt(event):
        seen.append(event)
        if (
            len(seen) == 10
        ):  # two epochs of three steps and their records, and two steps of the third, which went back
            signal.raise_signal(signal.SIGINT)

    train_run(whole, torch.device("cpu"))
    with pytest.raises(Interrupted):
        train_run(stopped, torch.device("cpu"), on_progress=interrupt)
    assert checkpoint.load_last(stopped.checkpoints)["epoch"] == 2
    train_run(stopped, torch.device("cpu"))
    steps = [(folder.path / "steps.arrow").read_bytes() for folder in (whole, stopped)]
    assert steps[0] == steps[1]
    table = pa.ipc.open_file(whole.path / "steps.arrow").read_all().to_pandas()
    assert (table["alpha_audio"] > 0).tolist() == [False] * 6 + [True] * 6
    states = [checkpoint.load_last(folder.checkpoints) for folder in (whole, stopped)]
    for part in ("network", "methods"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)
