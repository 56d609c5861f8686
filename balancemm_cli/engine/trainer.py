"""Training one run: the epochs, their evaluation, and how a run starts, stops and resumes."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.loading import Loading, Room, make_resident
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.engine import checkpoint, distributed
from balancemm_cli.engine.acceleration import Stepper, check_speed
from balancemm_cli.engine.batches import training_batches, validation_batches
from balancemm_cli.engine.cost import measure_cost
from balancemm_cli.engine.evaluator import Evaluation, evaluate
from balancemm_cli.engine.failure import failures_kept
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.optimizer import learning_rate, set_learning_rate
from balancemm_cli.engine.pilot_training import PilotTraining
from balancemm_cli.engine.profiling import Mark, Profile, no_mark
from balancemm_cli.engine.recording import RunWriter, epoch_record
from balancemm_cli.engine.state import RunState, fit_encoders
from balancemm_cli.engine.trial import try_batch
from balancemm_cli.errors import InputError, Interrupted
from balancemm_cli.methods import METHODS
from balancemm_cli.methods.base import Batches, Epoch, Step
from balancemm_cli.models.weights import start
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.runs.folder import RunFolder

SAVING = 0.05  # of a run's time, that may go into writing its state


class Trainer:
    """Trains the run of a folder, from the start or from its last checkpoint.

    `on_progress` is called with a dict: {"samples": n} after a step, an epoch's history record after an epoch, and
    {"warning": sentence} where something is not as it should be.
    """

    def __init__(
        self,
        folder: RunFolder,
        device: torch.device,
        loading: Loading = "auto",
        on_progress: Callable[[dict[str, Any]], None] = lambda _: None,
        on_message: Callable[[str], None] = lambda _: None,
        mark: Mark = no_mark,
        weights: Path | None = None,
        room: Room | None = None,
        until: int | None = None,
    ) -> None:
        self.mark, self.on_message, self.weights = mark, on_message, weights
        self.folder, self.device, self.on_progress = folder, device, on_progress
        self.config, self.settings, self.data = folder.config, folder.config.settings, folder.data
        self.until = min(until or self.settings.epochs, self.settings.epochs)
        check_speed(self.settings.speed)
        self.config.check_weights()
        if not self.data.counts.get("test"):
            raise InputError(
                f"{self.data.folder} has no test split to evaluate on. Add one and prepare it again."
            )
        modalities = self.config.modalities(list(self.data.modalities))
        self.inputs = Inputs(self.data, modalities, self.settings)
        splits = [name for name in ("train", "val", "test") if self.data.counts.get(name)]
        self.sources = {name: self.inputs.source(self.data.split(name)) for name in splits}
        on_message(make_resident(self.sources.values(), loading, device, room))
        self.steps_per_epoch = -(-len(self.sources["train"]) // self.settings.batch_size)
        self.state = RunState(self.config, self.inputs.shapes, self.data.classes, device)
        check_validation(self.config, self.data)
        self.writer = RunWriter(folder, self.state, self.sources["test"])
        of = self.state
        self.stepper = Stepper(of.network, of.methods, of.optimizer, self.settings, mark)
        self.started = time.monotonic()  # when the time began that is not yet counted in state.seconds
        self.saved, self.saving = -math.inf, 0.0  # when the state was last written, and how long that took

    def run(self) -> None:
        """Train to the end, or for `until` epochs, after which the run can be resumed like one that was interrupted.

        Raises InputError when the run diverges, and Interrupted when it is asked to stop.
        """
        resumed = self.resume()
        distributed.check_same((self.folder.hash, self.state.epoch, self.state.step), self.folder.path)
        if not resumed:
            if distributed.processes() == 1:
                try_batch(self.state.network, self.sources["train"], self.inputs, self.config, self.device)
            self._start_from_weights()
            fit_encoders(self.state.network, self.sources["train"], self.inputs, self.device)
        self.writer.environment()
        self.writer.result("running")
        if not resumed:
            self._train_pilots()
            self._measure_cost()
        with _stop_requests() as asked:
            stopped = distributed.agreed(asked, self.device)
            self.started = time.monotonic()
            while self.state.epoch < self.until:
                for done in self._steps():
                    self.state.step = done
                    if stopped() and done < self.state.metrics.steps:
                        self._stop()
                self._finish_epoch()
                if stopped() and self.state.epoch < self.until:
                    self._stop()
        if self.state.epoch < self.settings.epochs:
            self.writer.result("interrupted")
            return
        self.writer.predictions()
        self.writer.result("finished")

    # ---- starting and resuming ------------------------------------------------------------------------------

    def resume(self) -> bool:
        """Take up the last checkpoint; False where there is none. InputError for the checkpoint of another run."""
        state = checkpoint.load_last(
            self.folder.checkpoints, lambda sentence: self.on_progress({"warning": sentence})
        )
        if state is None:
            return False
        if not self.folder.is_own(state["run"]):
            raise InputError(
                f"The checkpoints in {self.folder.checkpoints} are of another run. "
                "Delete the run folder to start again."
            )
        self.state.load_state_dict(state)
        return True

    def _start_from_weights(self) -> None:
        expected = self.config.weights
        if expected is None:
            return
        if self.weights is None:
            raise distributed.said_once(
                InputError(
                    f"{self.folder.path} has no checkpoint yet, so the file of its weights is needed: --weights FILE."
                )
            )
        self.on_message(start(self.state.network, self.weights, expected))

    def _train_pilots(self) -> None:
        """Let the methods measure what they need on other trainings; a resumed run has it from its checkpoint."""
        self.started = time.monotonic()
        pilot = PilotTraining(
            self.config, self.inputs, self.sources, self.data.classes, self.device, self.on_message
        )
        for method in self.state.methods:
            try:
                method.on_start(pilot)
            except FloatingPointError as error:
                self._diverged(before=str(error))
            self.state.load_method(method, method.state_dict())
        if pilot.samples:
            self.state.trained_samples += pilot.samples
            self._save()
            self.mark("pilot")

    def _measure_cost(self) -> None:
        """Count what a step costs; several processes have but a part of one each."""
        of = self.state
        if distributed.processes() == 1:
            train = self.sources["train"]
            of.cost = measure_cost(
                of.network, of.methods, of.optimizer, train, self.inputs, self.config, self.device
            )

    # ---- one epoch ------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[int]:
        """Train the remaining steps of the epoch; gives after each one how many of the epoch are done."""
        state, train = self.state, self.sources["train"]
        if state.step == 0:
            self._begin_epoch()
        rows, keep = self._samples()
        if state.step == 0:
            state.metrics.begin_epoch(-(-len(rows) // self.settings.batch_size))
        set_learning_rate(state.optimizer, self._learning_rate)
        batches = training_batches(
            train,
            rows,
            self.inputs,
            self.settings.batch_size,
            RandomStreams(self.config.seed, state.epoch),
            self.device,
            state.step,
            keep=keep,
        )
        for inputs, labels, drawn, kept in batches:
            self.mark("input")
            progress = (state.epoch + drawn.step / state.metrics.steps) / self.settings.epochs
            step = Step(
                state.epoch,
                drawn,
                labels,
                torch.full((), progress, device=self.device),
                self.config.task,
                keep=kept,
                total=distributed.total,
            )
            loss = self.stepper(inputs, step)
            samples, _ = drawn.samples(len(labels))
            state.trained_samples += samples
            self.on_progress({"samples": samples})
            state.metrics.record(drawn.step, loss, step)
            yield drawn.step + 1
            self.mark("metrics")

    def _begin_epoch(self) -> None:
        number = self.state.epoch
        epoch = Epoch(
            number,
            self._random_batches,
            self._validation_batches,
            distributed.total,
            distributed.interleaved,
            RandomStreams(RandomStreams(self.config.seed).key("epoch"), number),
            lambda: validation_batches(self.sources["train"], self.inputs, self.device),
        )
        for method in self.state.methods:
            method.on_epoch_start(self.state.network, epoch)
        self.mark("modulation")

    def _samples(self) -> tuple[np.ndarray, Tensor | None]:
        """The rows of the epoch's samples, each one of the training part and those that methods add; and which
        modalities each keeps, bool [N, M], or None for all.

        A last batch of one added sample, on which batch normalisation could not work, is left out.
        """
        every = torch.arange(len(self.sources["train"]))
        added = [found for method in self.state.methods if (found := method.further_samples()) is not None]
        if not added:
            return every.numpy(), None
        rows = torch.cat([every, *(of.cpu() for of, _ in added)])
        kept = torch.ones(len(every), len(self.inputs.shapes), dtype=torch.bool)
        count = len(rows) - (len(rows) % self.settings.batch_size == 1 and len(rows) > len(every))
        return rows[:count].numpy(), torch.cat([kept, *(keep.cpu() for _, keep in added)])[:count]

    def _random_batches(self, share: float, name: str) -> Batches:
        """See `Epoch.batches`. Their random numbers are not those of the epoch's own steps."""
        streams = RandomStreams(RandomStreams(self.config.seed).key(f"epoch/{name}"), self.state.epoch)
        train, count = self.sources["train"], max(1, int(share * self.steps_per_epoch))
        batches = training_batches(
            train,
            np.arange(len(train)),
            self.inputs,
            self.settings.batch_size,
            streams,
            self.device,
            end=count,
        )
        for inputs, labels, *_ in batches:
            yield inputs, labels

    def _validation_batches(self) -> Batches:
        """See `Epoch.validation`."""
        return validation_batches(self.sources["val"], self.inputs, self.device)

    @property
    def _learning_rate(self) -> float:
        return learning_rate(self.settings.optimizer, self.state.epoch)

    def _finish_epoch(self) -> None:
        state = self.state
        rows = state.metrics.fetch()
        finite = rows[:, 0].isfinite()
        if not finite.all():
            self._diverged(epoch=self.state.epoch, step=int((~finite).nonzero()[0]))
        evaluations = self._evaluate()
        self.mark("evaluation")
        state.history.append(epoch_record(state, self._learning_rate, rows, evaluations))
        state.select(evaluations)
        state.metrics.close_epoch(rows)
        state.epoch, state.step = state.epoch + 1, 0
        if self.settings.snapshots and state.epoch % self.settings.snapshots == 0:
            self.writer.snapshot()
        if self._is_due():
            self._save()
        self.on_progress(state.history[-1])
        self.mark("writing")

    def _evaluate(self) -> dict[str, Evaluation]:
        """The evaluations of all splits but the training one."""
        network, task = self.state.network, self.config.task
        try:
            return {
                name: evaluate(network, source, self.inputs, self.device, task)
                for name, source in self.sources.items()
                if name != "train"
            }
        except FloatingPointError:
            self._diverged(epoch=self.state.epoch, step=self.state.metrics.steps - 1)

    # ---- stopping -------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        """Whether the state is written after this epoch. That takes no more than SAVING of the time, so that of small
        epochs not each one is; the last one is always."""
        last = self.state.epoch == self.until
        return last or time.monotonic() - self.saved >= self.saving / SAVING

    def _save(self) -> None:
        """Write what the epochs recorded, and the state; in this order, so that a run that is killed in between loses
        nothing."""
        self._count_time()
        self.writer.epochs()
        self.writer.checkpoint()
        self.saved = time.monotonic()
        self.saving = self.saved - self.started

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.started
        self.started = now

    def _stop(self) -> NoReturn:
        self._save()
        self.writer.result("interrupted")
        raise distributed.said_once(
            Interrupted(
                f"Interrupted in epoch {self.state.epoch} at step {self.state.step}. The state is kept in "
                f"{self.folder.path}; run the same command to go on."
            )
        )

    def _diverged(self, **where: Any) -> NoReturn:  # noqa: ANN401 - of diverged_message
        self._count_time()
        self.writer.epochs()
        self.writer.result("diverged", diverged=where)
        raise distributed.said_once(InputError(diverged_message(self.folder, **where)))


def check_validation(config: RunConfig, data: PreparedSet) -> None:
    """InputError for a method that looks at validation samples where the data set has none."""
    for name, settings in config.methods.items():
        kind = METHODS[name]
        if kind.needs_validation(kind.Settings.model_validate(settings)) and not data.counts.get("val"):
            raise InputError(
                f"Method {name} looks at validation samples, and {data.folder} has none. Prepare the data with some, "
                "or take another method."
            )


def diverged_message(folder: RunFolder, epoch: int = 0, step: int = 0, before: str = "") -> str:
    """What to tell about a run whose loss is not finite; `before`: the modalities of a training before it."""
    if before:
        return f"The training of {before} that comes before the run {folder.path} diverged. Try a lower optimizer.lr."
    return (
        f"The loss is not finite in epoch {epoch} at step {step} of {folder.path}; the last good checkpoint is kept "
        "there. Try a lower optimizer.lr."
    )


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a request that is honoured at the next step boundary."""
    requested: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: requested.append(number)) for number in signals]
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def train_run(
    folder: RunFolder,
    device: torch.device,
    loading: Loading = "auto",
    on_progress: Callable[[dict[str, Any]], None] = lambda _: None,
    on_message: Callable[[str], None] = lambda _: None,
    profile: bool = False,
    weights: Path | None = None,
    room: Room | None = None,
    until: int | None = None,
) -> dict[str, Any]:
    """Train the run of a folder unless it has finished; returns its result. `profile`: say where the time went.
    `weights`: the file from which the encoders start, where the configuration names one; without need once there is
    a checkpoint. `room`: the memory that it may take, where other runs are trained beside it. `until`: train it
    for so many epochs in all, and keep the state.

    InputError when it diverges, or diverged before: then nothing is trained again. InputError also
    when an error ends it, as one in the method of another package: then its status is "failed", and it goes on from its
    last checkpoint. Where several processes train it, the first one keeps the folder for all of them and writes it.
    """
    with ExitStack() as held:
        with distributed.first_before_others():
            if distributed.rank() == 0:
                held.enter_context(folder.open())
                folder.record_data()
            result = folder.result()
        if result and result["status"] == "diverged":
            raise distributed.said_once(InputError(diverged_message(folder, **result["diverged"])))
        if not result or not _is_done(result, until):
            profiled = Profile(device) if profile else None
            mark = profiled.mark if profiled else no_mark
            try:
                with failures_kept(folder):
                    Trainer(
                        folder, device, loading, on_progress, on_message, mark, weights, room, until
                    ).run()
            finally:
                if profiled:
                    on_message(profiled.report())
            with distributed.first_before_others():
                result = folder.result()
        elif profile:
            on_message("Nothing to profile: the run has finished before. Try it with another --runs folder.")
    assert result is not None
    return result


def _is_done(result: dict[str, Any], until: int | None) -> bool:
    """Whether a run has finished, or stands where it was to be trained to."""
    kept = result["status"] == "interrupted" and until is not None and result["epochs"] >= until
    return result["status"] == "finished" or kept
