"""The switches of section `speed`. They change how a step is computed, and its result by rounding alone.

bf16 and torch.compile apply to the encoders, which take most of the time; fusion, ρ, the methods' coefficients and the
loss stay in float32.
Evaluation is always float32 and uncompiled, so that `bmm eval` of a checkpoint gives the run's own numbers.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancemm_cli.config.recipe import Recipe, SpeedSettings
from balancemm_cli.engine.profiling import Mark, no_mark
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods.base import Method, Step
from balancemm_cli.models.network import Network

Inputs = Mapping[str, Tensor]


def check_speed(speed: SpeedSettings) -> None:
    """InputError where encoders are to be compiled and there is no compiler."""
    compiler = os.environ.get("CXX", "g++")
    if speed.compile and shutil.which(compiler) is None:
        raise InputError(f"speed.compile needs a C++ compiler, and there is no '{compiler}'. Install one.")


def arrange(network: Network, speed: SpeedSettings) -> Network:
    """The network with its weights in the memory format of `speed`. Call it before the optimiser is built."""
    return network.to(memory_format=torch.channels_last) if speed.channels_last else network  # pyright: ignore[reportCallIssue]


def channels_last(values: Tensor) -> Tensor:
    """`values` [B, C, H, W] or [B, C, T, H, W] with C innermost in memory; other shapes are returned as they are."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return values.contiguous(memory_format=formats[values.ndim]) if values.ndim in formats else values


class Encode:
    """A network's `encode` under the switches. Its features are of the default dtype."""

    def __init__(self, network: Network, speed: SpeedSettings) -> None:
        self.network, self.speed = network, speed
        self._compiled = torch.compile(network.encode, dynamic=False) if speed.compile else network.encode

    def __call__(self, inputs: Inputs, *, compiled: bool = False) -> dict[str, Tensor]:
        """Inputs (see encoders) to features [B, D_m] a modality."""
        if self.speed.channels_last:
            inputs = {name: channels_last(values) for name, values in inputs.items()}
        encode = self._compiled if compiled else self.network.encode
        device = next(iter(inputs.values())).device.type
        with torch.autocast(device, torch.bfloat16) if self.speed.amp else nullcontext():
            features = encode(inputs)
        return {name: feature.to(torch.get_default_dtype()) for name, feature in features.items()}


class Stepper:
    """Takes a run's training steps.

    Only batches of the full size are compiled, because the smaller last batch of an epoch would need a compilation of
    its own. UsageError where a method goes backward twice or through some of them, and these are to be compiled.
    """

    def __init__(
        self,
        network: Network,
        methods: Sequence[Method],
        optimizer: Optimizer,
        settings: Recipe,
        mark: Mark = no_mark,
    ) -> None:
        self.batch_size = settings.batch_size
        if settings.speed.compile and any(method.two_backwards for method in methods):
            raise UsageError(
                "speed.compile makes encoders that go backward once and together, too little for a method of this run. "
                "Leave speed.compile out."
            )
        self._encode = Encode(network, settings.speed)
        self._take = partial(
            train_step, network, methods, optimizer, discrepancy=settings.discrepancy, mark=mark
        )

    def __call__(self, inputs: Inputs, step: Step) -> Tensor:
        """One update. Returns the loss (0-dim); `step` gets what was recorded."""
        step.encode = (
            self._encode
        )  # for methods, which may set the encoders to another mode: they are not compiled
        full = step.streams.samples(len(step.labels))[0] == self.batch_size
        return self._take(inputs, step, encode=partial(self._encode, compiled=full))
