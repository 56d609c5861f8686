"""A training step never waits for the device; of methods and models balancemm_cli/testing holds it."""

import pytest
import torch

from balancemm_cli.data.transforms import LogSpectrogram, Pictures
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.testing.guards import no_waiting
from balancemm_cli.testing.small import Case, Training


def media_of(device):
    """What makes random recordings on `device` into inputs, augmented as in training."""
    # torchaudio's resampling keeps its target length in a host tensor: no wait on a GPU, but the CPU guard can't know
    rate = 4000 if device == "cuda" else None
    spectrogram = LogSpectrogram(8000, rate, 64, 64, True, 1e-3)
    pictures = Pictures(24, True, True, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    waves = torch.randint(-3000, 3000, (6, 8000), dtype=torch.int16).to(device)
    frames = torch.randint(0, 255, (6, 2, 32, 40, 3), dtype=torch.uint8).to(device)
    return lambda streams: {
        "audio": spectrogram.batched(waves),
        "visual": pictures.batched(frames, streams, "visual"),  # as on a GPU
    }


def take_steps(device, optimizer):
    """Three steps from raw media, each under no guard until the first `yield`."""
    training = Training(Case(method="opm+ogm"), f"optimizer.name={optimizer}", device=device)
    inputs, labels = media_of(device), torch.tensor([0, 1, 2, 3, 0, 1]).to(device)
    yield
    for index in range(3):
        training.train(index, inputs(RandomStreams(0, 0, index)), labels)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_from_raw_media_waits_on_the_cpu(optimizer):
    steps = take_steps("cpu", optimizer)
    next(steps)
    with no_waiting():
        assert next(steps, "done") == "done"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_from_raw_media_waits_on_a_gpu(optimizer):
    for _ in take_steps("cuda", optimizer):  # lazy initialisation may wait
        pass
    steps = take_steps("cuda", optimizer)
    next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert next(steps, "done") == "done"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_guard_catches_what_it_should():
    value = torch.ones(2)
    waits = (lambda: value[0].item(), lambda: bool(value[0]), lambda: value.cpu(), lambda: value.numpy(),
             lambda: value[value > 0])  # fmt: skip
    with no_waiting():
        for wait in waits:
            with pytest.raises(AssertionError):
                wait()
