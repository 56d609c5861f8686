"""What one training step costs, counted once at the start of a run on a copy of all that a step changes.

It is a step as most of a training's are: an earlier one and the hooks before an epoch have made what methods need, as
prototypes, and what a method does by chance in some steps it does in this one.

Multiply-adds are half the floating-point operations that torch's own counter finds (torch.utils.flop_counter: matrix
products, convolutions and attention, forward and backward; what goes number by number is not counted). Memory is what a
step must hold at least, whatever the device: weights and buffers, gradients, the optimiser's state, the inputs, and the
most that automatic differentiation keeps at a time between forward and backward.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.loading import Source
from balancemm_cli.engine.batches import training_batches
from balancemm_cli.engine.failure import lacks_memory
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Batches, Epoch, Method, Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams


class Kept:
    """The bytes of the tensors that automatic differentiation keeps, now and at most; a storage counts once."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.times: Counter[int] = Counter({_place(tensor): 1 for tensor in known})  # these count elsewhere
        self.now = self.most = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is kept within the block."""
        with saved_tensors_hooks(lambda tensor: _Held(tensor, self), lambda held: held.tensor):
            yield

    def add(self, tensor: Tensor, times: int) -> None:
        """One more (`times` = 1) or one less (−1) that keeps this tensor's storage."""
        place, before = _place(tensor), self.times[_place(tensor)]
        self.times[place] += times
        if before == 0 or self.times[place] == 0:
            self.now += times * tensor.untyped_storage().nbytes()
            self.most = max(self.most, self.now)


class _Held:
    """A tensor for as long as the graph needs it."""

    def __init__(self, tensor: Tensor, kept: Kept) -> None:
        self.tensor, self.kept = tensor, kept
        kept.add(tensor, 1)

    def __del__(self) -> None:
        self.kept.add(self.tensor, -1)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({_place(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@dataclass(frozen=True)
class _Certain(RandomStreams):
    """Random numbers with which every decision that Python takes is for what happens by chance."""

    def chance(self, purpose: str) -> float:
        """The lowest number that can be drawn."""
        return 0.0


def cost_of_step(
    network: Network,
    methods: Sequence[Method],
    optimizer: Optimizer,
    inputs: Mapping[str, Tensor],
    step: Step,
    discrepancy: DiscrepancySettings,
    epochs: int = 2,
) -> dict[str, int]:
    """Multiply-adds and bytes of one training step on this batch, which changes none of the arguments but `step`.

    It follows a step that is not counted, in a training of so many epochs as the first of another epoch. It is that of
    float32 without the switches of `speed`.
    """
    network, methods, optimizer = copy.deepcopy((network, methods, optimizer))
    streams = {of.name: getattr(step.streams, of.name) for of in fields(step.streams)}
    batch = dict(inputs), step.labels
    step.streams = _Certain(**streams)

    def looked_at(*_: object) -> Batches:
        return iter([batch])

    begins = Epoch(step.epoch, looked_at, looked_at, training=looked_at)
    before = replace(step, features={}, unimodal={}, held=[], rates=[], metrics={})
    _begin(network, methods, begins)
    train_step(network, methods, optimizer, inputs, before, discrepancy)
    if epochs > 1:
        _begin(network, methods, begins)
    del before
    weights = [*network.parameters(), *network.buffers()]
    kept = Kept([*weights, *inputs.values(), step.labels])
    counter = FlopCounterMode(display=False)
    with counter, kept.counted():
        train_step(network, methods, optimizer, inputs, step, discrepancy)
    gradients = _bytes(network.parameters())  # each has its own, cleared by now
    state = [value for of in optimizer.state.values() for value in of.values() if isinstance(value, Tensor)]
    memory = _bytes([*weights, *state, *inputs.values()]) + gradients + kept.most
    return {"multiply_adds": counter.get_total_flops() // 2, "memory": memory}


def _begin(network: Network, methods: Sequence[Method], epoch: Epoch) -> None:
    for method in methods:
        method.on_epoch_start(network, epoch)


def measure_cost(
    network: Network,
    methods: Sequence[Method],
    optimizer: Optimizer,
    train: Source,
    inputs: Inputs,
    config: RunConfig,
    device: torch.device,
) -> dict[str, int]:
    """The content of `cost` in result.json: `parameters` that are trained, `batch_size` in samples, and where memory
    sufficed `multiply_adds` and `memory` (bytes) of one step with so many training samples, in the first epoch in which
    all methods are active.

    Nothing stays of it: neither a weight nor a draw. For a run of one process: of several each takes part of a step.
    """
    count = min(config.settings.batch_size, len(train))
    active = max(int(settings.get("first_epoch", 0)) for settings in config.methods.values())
    epoch = min(active, config.settings.epochs - 1)
    parameters = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    found = {"parameters": parameters, "batch_size": count}
    batches = training_batches(
        train, np.arange(count), inputs, count, RandomStreams(config.seed, epoch), device
    )
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for values, labels, drawn, _ in batches:
            step = Step(epoch, drawn, labels, torch.zeros((), device=device), config.task)
            try:
                found |= cost_of_step(
                    network,
                    methods,
                    optimizer,
                    values,
                    step,
                    config.settings.discrepancy,
                    config.settings.epochs,
                )
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
    return found
