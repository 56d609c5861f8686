"""A training step never waits for the device."""

import pytest
import torch
from small_training import attach
from torch.utils._python_dispatch import TorchDispatchMode

from balancemm_cli.config.run import OptimizerSettings
from balancemm_cli.data.transforms import LogSpectrogram, Pictures
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods import METHODS, method_names
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

aten = torch.ops.aten
FETCHES = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}


SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3), "question": SequenceShape(4, words=7)}


class NoWaiting(TorchDispatchMode):
    """Fails on what fetches a value: item(), bool(), float(), tolist(), indexing by a mask."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function is aten.index.Tensor and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        assert function not in FETCHES and not by_mask, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def no_waiting(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a tensor is copied to the host")

    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with NoWaiting():
        yield


def methods_of(name, variant):
    given = {"g-blending": {"weights": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    if variant == "official":
        given |= {"opm": {"first_epoch": 0}, "greedy": {"first_epoch": 0}}
    return [
        METHODS[part](
            METHODS[part].Settings(**{**METHODS[part].VARIANTS[variant], **given.get(part, {})}),
            list(SHAPES),
        )
        for part in method_names(name)
    ]


def take_steps(device, model, method, variant, optimizer, steps=3):
    """Three steps from raw media on `device`, augmented, as the trainer takes them."""
    network = build(model, "small", SHAPES, 4, seed=0)
    methods = methods_of(method, variant)
    attach(network, methods, 4)
    network = network.to(device)
    updates = build_optimizer(network, OptimizerSettings(name=optimizer))
    # torchaudio's resampling keeps its target length in a host tensor: no wait on a GPU, but the CPU guard can't know
    rate = 4000 if device == "cuda" else None
    spectrogram = LogSpectrogram(8000, rate, 64, 64, True, 1e-3)
    pictures = Pictures(24, True, True, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    waves = torch.randint(-3000, 3000, (6, 4000), dtype=torch.int16).to(device)
    frames = torch.randint(0, 255, (6, 2, 32, 40, 3), dtype=torch.uint8).to(device)
    sequences = {
        "text": torch.randn(6, 5, 3).to(device),
        "question": torch.tensor([[1, 2, 0, 0], [6, 5, 4, 3]] * 3).to(device),
    }
    labels = torch.tensor([0, 1, 2, 3, 0, 1]).to(device)
    progress = torch.full((), 0.5, device=device)
    yield  # what comes now must not wait
    for index in range(steps):
        epoch, index = divmod(index, 2)  # two steps an epoch
        draws = RandomStreams(0, epoch, index)
        pictured = pictures.batched(frames, draws, "visual")  # as on a GPU
        inputs = {"audio": spectrogram.batched(waves), "visual": pictured, **sequences}
        step = Step(epoch, draws, labels, progress)
        train_step(network, methods, updates, inputs, step, DiscrepancySettings())


CASES = [
    ("concat", "opm+ogm", "paper", "sgd"),
    ("concat", "opm+ogm", "official", "adamw"),
    ("sum", "ogm", "paper", "adamw"),
    ("mlp", "opm", "official", "sgd"),
    ("film", "opm+ogm", "paper", "sgd"),
    ("gated", "opm+ogm", "official", "sgd"),
    ("lmf", "opm+ogm", "paper", "adamw"),
    ("concat", "baseline", "paper", "sgd"),
    ("concat", "ogm-star+moddrop+dropout", "paper", "sgd"),
    ("mlp", "annealed-dropout+evolutional-dropout+curriculum-dropout+unimodal-losses", "paper", "sgd"),
    ("centralnet", "opm+ogm+unimodal-losses", "paper", "sgd"),
    ("mmtm", "opm+ogm", "official", "adamw"),
    ("tsn", "opm+ogm", "paper", "sgd"),
    ("tsm", "opm+ogm", "paper", "sgd"),
    ("x-vector", "opm+ogm", "paper", "sgd"),
    ("i-vector", "opm+ogm", "paper", "sgd"),
    ("mwtsm", "opm+ogm", "paper", "sgd"),
    ("vatt", "opm+ogm", "official", "sgd"),
    ("concat", "g-blending", "paper", "sgd"),
    ("concat", "greedy", "official", "adamw"),
    ("mlp", "agm", "paper", "sgd"),
    ("concat", "pmr", "paper", "sgd"),
    ("sum", "mmpareto", "official", "adamw"),
]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_no_step_waits_on_the_cpu(case, request):
    steps = take_steps("cpu", *case)
    next(steps)
    request.getfixturevalue("no_waiting")
    assert next(steps, "done") == "done"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_no_step_waits_on_a_gpu(case):
    for _ in take_steps("cuda", *case):  # lazy initialisation may wait
        pass
    steps = take_steps("cuda", *case)
    next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert next(steps, "done") == "done"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_guard_catches_what_it_should(no_waiting):
    value = torch.ones(2)
    for wait in (
        lambda: value[0].item(),
        lambda: bool(value[0]),
        value.cpu,
        value.numpy,
        lambda: value[value > 0],
    ):
        with pytest.raises(AssertionError):
            wait()
