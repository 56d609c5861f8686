"""The interface of methods: the hooks that the engine calls, and the step that they are given."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.discrepancy import Discrepancy
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.settings import Section
from balancemm_cli.tasks import TASKS, Task

Batches = Iterator[tuple[dict[str, Tensor], Tensor]]  # inputs [B, …] by modality, and labels [B]
Losses = tuple[float, float]  # the mean cross-entropy on the training samples and on held-out ones


class Pilot(NamedTuple):
    """A training that came before a run: the losses before and after it, and the network that came of it."""

    before: Losses
    after: Losses
    network: Network


# (modalities, epochs) to what came of training these alone, see engine/pilot_training.py
TrainPilot = Callable[[list[str], int | None], Pilot]


@dataclass
class Step:
    """One training step, as methods see it, and what is recorded of it."""

    epoch: int
    streams: RandomStreams
    labels: Tensor  # [B] int64, or what else the task has for labels
    progress: Tensor | None = None  # 0-dim: the share of all training steps that are done
    task: Task = TASKS["classification"]
    encode: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = (
        None  # as this run computes, uncompiled
    )
    turn: Sequence[str] = ()  # the modalities that learn in this update, see Method.turns
    logits: Tensor | None = None  # [B, …, C]: the prediction that the loss is of
    features: dict[str, Tensor] = field(
        default_factory=dict
    )  # [B, …] a modality, as they were before any drop
    unimodal: dict[str, Tensor] = field(default_factory=dict)  # f^m [B, C] of undropped features
    discrepancy: Discrepancy | None = None  # of those, without gradient; None with one modality
    keep: Tensor | None = None  # [B, M] bool: which sample kept which modality; None: nothing was dropped
    kept: Tensor | None = None  # how many samples of the whole batch kept a modality; None: all
    held: list[tuple[Tensor, nn.Module]] = field(
        default_factory=list
    )  # where the 0-dim bool is true, the optimiser leaves out the module's weights: they have no gradient
    rates: list[tuple[Tensor, nn.Module]] = field(
        default_factory=list
    )  # the factor (0-dim) of the learning rate of the module's weights
    total: Callable[[Tensor], Tensor] = lambda values: (
        values
    )  # adds up over the processes that share the batch
    metrics: dict[str, Tensor] = field(
        default_factory=dict
    )  # [M] each: what methods record, see Method.METRICS

    def losses(self, logits: Tensor) -> Tensor:
        """The loss of each sample [B] under the task, of logits [B, …, C]."""
        return self.task.losses(logits, self.labels)

    def mean(self, losses: Tensor) -> Tensor:
        """This process's part of the mean of `losses` [B] over the samples that kept a modality.

        It serves a method's own objectives, after the loss of the prediction was computed. The loss of a sample that
        lost all modalities is left out even if it is not finite.
        """
        if self.keep is None or self.kept is None:
            return losses.sum() / self.streams.samples(len(losses))[0]
        return torch.where(self.keep.any(1), losses, 0).sum() / self.kept.clamp_min(1)


@dataclass(frozen=True)
class Epoch:
    """An epoch that begins, as methods see it."""

    number: int  # counted from 0
    # (share, name) to random batches of the training part, so many as that share of the epoch has, at least one,
    # augmented as in training; of each batch this process's part
    batches: Callable[[float, str], Batches]
    # the validation part in its order, not augmented; of each batch this process's part
    validation: Callable[[], Batches] = lambda: iter(())
    total: Callable[[Tensor], Tensor] = lambda values: values  # adds up over the processes of the run
    # what each process has of one batch after another, as one list in the order of the samples
    gathered: Callable[[list[Tensor]], list[Tensor]] = lambda parts: parts
    streams: RandomStreams = field(
        default_factory=lambda: RandomStreams(0)
    )  # of the epoch's beginning, by names of the method's own
    # the training part in its order, not augmented; of each batch this process's part
    training: Callable[[], Batches] = lambda: iter(())


def drop(features: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """Features [B, …] with zeros where a sample loses a modality; `keep` is bool [B, M]."""
    return {
        name: feature * kept.view(-1, *[1] * (feature.ndim - 1))
        for (name, feature), kept in zip(features.items(), keep.unbind(1), strict=True)
    }


def one_each(key: str, given: float | tuple[float, ...], modalities: Sequence[str]) -> tuple[float, ...]:
    """The number of each modality that a setting gives, which is one for all of them or has one each.

    UsageError for another count of numbers.
    """
    numbers = given if isinstance(given, tuple) else (given,) * len(modalities)
    if len(numbers) != len(modalities):
        raise UsageError(
            f"{key} has {len(numbers)} numbers, and there are {len(modalities)} modalities ({', '.join(modalities)}). "
            "Give one number for all of them, or one each."
        )
    return numbers


def scale_gradients(weights: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply the gradients of weights, where they have some, by a factor (0-dim), in place."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]


class MethodSettings(Section):
    """Base of a method's settings; a method declares its own in a subclass."""

    IDLE: ClassVar[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {}
    """By a setting that can be without effect: another setting, and with which values of that one it is."""

    def is_idle(self, name: str, changing: Collection[str], epochs: int) -> bool:
        """Whether a setting changes nothing of a run of so many epochs, beside the others as they are but for those
        that are `changing`."""
        other, idle_with = self.IDLE.get(name, ("", bool))
        return bool(other) and other not in changing and idle_with(getattr(self, other))


class EpochRange(MethodSettings):
    """Settings of a method that can be limited to a range of epochs (counted from 0, both ends included)."""

    first_epoch: int = Field(default=0, ge=0)
    last_epoch: int | None = Field(default=None, ge=0)

    def is_idle(self, name: str, changing: Collection[str], epochs: int) -> bool:
        """See the base; all settings of a method that would begin after the last epoch are."""
        never = "first_epoch" not in changing and self.first_epoch >= epochs
        return never or super().is_idle(name, changing, epochs)

    def active(self, epoch: int) -> bool:
        """Whether the method modulates in this epoch."""
        return self.first_epoch <= epoch and (self.last_epoch is None or epoch <= self.last_epoch)


class Method:
    """Joint training without modulation: every hook does nothing (the papers' "concatenation" or "baseline")."""

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    VARIANTS: ClassVar[dict[str, dict]] = {"paper": {}, "official": {}}
    METRICS: ClassVar[
        tuple[str, ...]
    ] = ()  # what every step of it puts into `Step.metrics`; columns of steps.arrow
    SPACE: ClassVar[
        Mapping[str, Mapping[str, Any]]
    ] = {}  # of another package's: what `bmm tune` may search of its settings, as in benchmarks/spaces
    TRIED_ON: ClassVar[tuple[str, tuple[str, ...]]] = (
        "concat",
        (),
    )  # a model that it trains, and settings as with --set: what the contract trains it with
    two_backwards: ClassVar[bool] = (
        False  # whether a step goes backward through encoders twice, or only through some
    )
    by_rho: ClassVar[bool] = False  # whether it goes by who is ahead, as ρ or its scores tell
    needs_classes: ClassVar[bool] = False  # whether a sample must have one class for label
    origin: ClassVar[Origin | None] = Origin(  # of this very class: each subclass has its own, or none
        "Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582", "GeWu-Lab/BML_TPAMI2024", "numbers"
    )
    revision: ClassVar[int] = 1  # raised where a change moves its numbers at the same settings

    def __init__(self, settings: MethodSettings, modalities: list[str]) -> None:
        self.modalities = modalities

    @classmethod
    def needs_validation(cls, settings: Any) -> bool:  # noqa: ANN401 - of its own `Settings`
        """Whether it looks at validation samples under these settings, so that a run without any is refused."""
        return False

    def __init_subclass__(cls) -> None:
        """Refuse, by a TypeError, a hook that no step calls, and one that can't be called as a step calls it."""
        super().__init_subclass__()
        for name, given in vars(cls).items():
            if callable(given) and not name.startswith("_"):
                _check_hook(cls.__name__, name, given)

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Modules of the method's own, which are trained and saved with the network. Called once, before training."""
        return None

    def on_start(self, train_pilot: TrainPilot) -> None:
        """Take what the method needs from other trainings. Called once, before the first step of a run.

        The results belong in `state_dict`, because this is not called again when a run is resumed.
        """

    def measured(self) -> dict[str, float]:
        """What `on_start` found, for result.json."""
        return {}

    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Measure what the method needs on the network as it is. Called before the first step of each epoch.

        The results belong in `state_dict`, because this is not called when a run is resumed within an epoch. The
        network is in training mode, and must be left so.
        """

    def turns(self, step: Step) -> Sequence[Sequence[str]] | None:
        """Updates that this batch is for, each by the modalities that learn in it; None: one, in which all do.

        Called after encoding. To an update the features of all other modalities are constants. A modality may learn in
        one update alone, for the batch is encoded once.
        """
        return None

    def further_samples(self) -> tuple[Tensor, Tensor] | None:
        """What this epoch trains beside each training sample: rows of the training part [K] int64, and which modalities
        each of these samples keeps, bool [K, M]; None for nothing.

        Called after `on_epoch_start`, and when a run is resumed within an epoch. The same in all processes.
        """
        return None

    def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Called before encoding, with inputs [B, …] by modality; returns those that are encoded."""
        return inputs

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Called before fusion, with features [B, …] by modality; returns those that are fused."""
        return features

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """Called after the loss (0-dim) and before backward; returns the loss with the method's objectives added."""
        return loss

    def on_gradients(self, network: Network, step: Step) -> None:
        """Called after backward and before the optimiser; gradients may be changed in place."""

    def on_step_end(self, step: Step) -> None:
        """Called after the optimiser."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a hook passes on to later steps, which a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


def _check_hook(owner: str, name: str, given: Callable[..., object]) -> None:
    hook = getattr(Method, name, None)
    if hook is None and name.startswith("on_"):
        hooks = [known for known in vars(Method) if known.startswith("on_")]
        nearest = difflib.get_close_matches(name, hooks, n=1, cutoff=0)[0]
        raise TypeError(f"{owner} has a hook '{name}', which no step calls. Did you mean '{nearest}'?")
    if not inspect.isfunction(hook):
        return
    arguments = list(inspect.signature(hook).parameters)
    try:
        inspect.signature(given).bind(*arguments)
    except TypeError:
        called = f"{name}({', '.join(arguments)})"
        raise TypeError(
            f"{owner}.{name}{inspect.signature(given)} is called as {called}. Let it take these."
        ) from None
