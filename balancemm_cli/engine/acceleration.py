"""The switches of section `speed`. They change how a step is computed, and its result by rounding alone.

bf16 and torch.compile apply to the encoders, which take most of the time; fusion, ρ, the methods' coefficients and the
loss stay in float32.
Evaluation is always float32 and uncompiled, so that `bmm eval` of a checkpoint gives the run's own numbers.
"""

import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancemm_cli.config.recipe import Recipe, SpeedSettings
from balancemm_cli.engine import distributed
from balancemm_cli.engine.profiling import Mark, no_mark
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.methods.base import Method, Step
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams

Inputs = Mapping[str, Tensor]


def check_speed(speed: SpeedSettings, device: torch.device) -> None:
    """Check that the switches work on `device`. UsageError where they need a GPU, InputError without a compiler."""
    if speed.cuda_graphs and device.type != "cuda":
        raise UsageError("speed.cuda_graphs needs a GPU, and this run is on the CPU. Leave it out.")
    if speed.cuda_graphs and distributed.processes() > 1:
        raise UsageError(
            "speed.cuda_graphs captures a step of one process, not one that torchrun shares out."
        )
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

    def __call__(self, inputs: Inputs, *, compiled: bool = True) -> dict[str, Tensor]:
        """Inputs (see encoders) to features [B, D_m] a modality."""
        if self.speed.channels_last:
            inputs = {name: channels_last(values) for name, values in inputs.items()}
        encode = self._compiled if compiled else self.network.encode
        device = next(iter(inputs.values())).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.speed.amp):
            features = encode(inputs)
        return {name: feature.to(torch.get_default_dtype()) for name, feature in features.items()}


class Stepper:
    """Takes a run's training steps. They are captured as CUDA graphs where the switches ask for it.

    Only batches of the full size are compiled or captured, because the smaller last batch of an epoch would need a
    compilation of its own. UsageError where a method goes backward twice and the encoders are to be compiled.
    """

    def __init__(
        self,
        network: Network,
        methods: Sequence[Method],
        optimizer: Optimizer,
        settings: Recipe,
        mark: Mark = no_mark,
    ) -> None:
        self.batch_size, self.mark = settings.batch_size, mark
        if settings.speed.compile and any(method.two_backwards for method in methods):
            raise UsageError(
                "speed.compile makes encoders that go backward once, and a method of this run needs it twice. "
                "Leave speed.compile out."
            )
        self._encode = Encode(network, settings.speed)
        self._take = partial(train_step, network, methods, optimizer, discrepancy=settings.discrepancy)
        self._graphs = None
        if settings.speed.cuda_graphs:
            self._graphs = Graphs(partial(self._take, encode=self._encode), methods, optimizer)

    def __call__(self, inputs: Inputs, step: Step) -> tuple[Tensor, Step]:
        """One update. Returns the loss (0-dim) and the step with what was recorded; read both before the next call."""
        full = step.streams.samples(len(step.labels))[0] == self.batch_size
        if self._graphs is None or not full:
            encode = partial(self._encode, compiled=full)
            return self._take(inputs, step, encode=encode, mark=self.mark), step
        taken = self._graphs(inputs, step)
        self.mark("whole step")
        return taken


# ---- CUDA graphs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LastingStreams(RandomStreams):
    """The numbers of `RandomStreams` from generators that outlive the step, since a graph reads their seeds at each
    replay."""

    generators: dict[str, torch.Generator] = field(default_factory=dict)
    seeded: bool = False  # already; while a step is captured, its generators must not be seeded

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of `purpose`, at the start of this step's stream."""
        if self.seeded:
            return self.generators[purpose]
        found = self.generators.get(purpose)
        if found is None:
            found = self.generators[purpose] = torch.Generator(device)
        return found.manual_seed(self.key(purpose))

    def seed_all(self) -> None:
        """Put every generator at the start of this step's stream."""
        for purpose, generator in self.generators.items():
            generator.manual_seed(self.key(purpose))


@dataclass
class Captured:
    """A step whose kernels can be launched again, and the tensors that they read and write."""

    inputs: dict[str, Tensor]
    step: Step
    states: list[dict[str, Tensor]]  # of the methods
    loss: Tensor
    replay: Callable[[], None]


class Graphs:
    """Training steps as CUDA graphs: forward, modulation, backward and optimiser in one launch.

    A graph repeats what Python decided once. So there is one for each case, which is a learning rate, what the
    methods decide on the host (`Method.branch`), and the shapes. The first step of a case runs eagerly, to allocate
    and tune what a capture cannot; the second one is captured. What a method carries from step to step (its
    `state_dict`) is kept in tensors that the graph reads and overwrites.
    """

    def __init__(
        self, take: Callable[[Inputs, Step], Tensor], methods: Sequence[Method], optimizer: Optimizer
    ) -> None:
        self.take, self.methods, self.optimizer = take, methods, optimizer
        self._generators: dict[str, torch.Generator] = {}
        self._rates: list[float] = []
        self._cases: dict[Hashable, Captured | None] = {}  # None: ran eagerly once
        self._recorder = Recorder()

    def __call__(self, inputs: Inputs, step: Step) -> tuple[Tensor, Step]:
        """One update; see Stepper."""
        of = step.streams
        streams = LastingStreams(of.seed, of.epoch, of.step, of.batch, of.first, self._generators)
        step.streams = streams
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if rates != self._rates:  # a learning rate that is over does not come back
            self._rates, self._cases = rates, {}
        case = self._case(inputs, step)
        if case not in self._cases:
            self._cases[case] = None
            return self._recorder.run(lambda: self.take(inputs, step)), step
        captured = self._cases[case]
        if captured is None:
            streams.seed_all()
            captured = self._cases[case] = self._capture(inputs, step)
        return self._replay(captured, inputs, step)

    def _case(self, inputs: Inputs, step: Step) -> Hashable:
        shapes = tuple((name, values.shape, values.dtype) for name, values in inputs.items())
        methods = tuple((method.branch(step), *method.state_dict()) for method in self.methods)
        return shapes, methods

    def _capture(self, inputs: Inputs, step: Step) -> Captured:
        assert isinstance(step.streams, LastingStreams)
        fixed = {name: values.clone() for name, values in inputs.items()}
        progress = None if step.progress is None else step.progress.clone()
        own = replace(
            step, streams=replace(step.streams, seeded=True), labels=step.labels.clone(), progress=progress
        )
        states = [_cloned(method.state_dict()) for method in self.methods]
        before = [_cloned(method.state_dict()) for method in self.methods]

        def take() -> Tensor:
            _load(self.methods, [_cloned(state) for state in states])  # copies, for the step may keep them
            loss = self.take(fixed, own)
            for method, state in zip(self.methods, states, strict=True):
                for name, value in method.state_dict().items():
                    state[name].copy_(value)
            return loss

        loss, replay = self._recorder.record(take, self._generators.values())
        _load(self.methods, before)  # a capture computes nothing
        return Captured(fixed, own, states, loss, replay)

    def _replay(self, captured: Captured, inputs: Inputs, step: Step) -> tuple[Tensor, Step]:
        assert isinstance(step.streams, LastingStreams)
        for name, values in inputs.items():
            captured.inputs[name].copy_(values)
        captured.step.labels.copy_(step.labels)
        if captured.step.progress is not None and step.progress is not None:
            captured.step.progress.copy_(step.progress)
        for method, state in zip(self.methods, captured.states, strict=True):
            for name, value in method.state_dict().items():
                state[name].copy_(value)
        step.streams.seed_all()
        captured.replay()
        _load(self.methods, captured.states)
        return captured.loss, captured.step


class Recorder:
    """Captures on a stream of its own. All graphs share one memory pool, because they run one at a time."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Call `function` on the stream that captures use, because autograd ties gradients to the stream."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = function()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(
        self, function: Callable[[], Tensor], generators: Iterable[torch.Generator]
    ) -> tuple[Tensor, Callable[[], None]]:
        """Capture `function`: what it returns, filled at each call of the second result."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            result = function()
        return result, graph.replay


def _cloned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _load(methods: Sequence[Method], states: Sequence[Mapping[str, Tensor]]) -> None:
    for method, state in zip(methods, states, strict=True):
        method.load_state_dict(state)
