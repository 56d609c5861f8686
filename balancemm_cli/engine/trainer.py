"""Training one run: the step, the epochs, and a resume that is exact to the bit."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.optim import Optimizer

from balancemm_cli import models
from balancemm_cli.data.loading import Loading, make_resident
from balancemm_cli.engine import checkpoint, distributed
from balancemm_cli.engine.acceleration import Stepper, arrange, check_speed
from balancemm_cli.engine.batches import training_batches
from balancemm_cli.engine.evaluator import Evaluation, evaluate, in_order
from balancemm_cli.engine.failure import failures_kept
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.optimizer import build_optimizer, learning_rate, set_learning_rate, update
from balancemm_cli.engine.pilot_training import PilotTraining
from balancemm_cli.engine.profiling import Mark, Profile, no_mark
from balancemm_cli.errors import InputError
from balancemm_cli.methods.base import Method, Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings, measure
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.network import Network
from balancemm_cli.models.weights import start
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.runs.folder import RunFolder


def train_step(
    network: Network,
    methods: Sequence[Method],
    optimizer: Optimizer,
    inputs: Mapping[str, Tensor],
    step: Step,
    discrepancy: DiscrepancySettings,
    encode: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None,
    mark: Mark = no_mark,
) -> Tensor:
    """One update. Returns the loss, a 0-dim tensor on the device; nothing here waits for the device.

    Where processes share the batch, each brings its part and all get the loss of the whole. `encode` stands in for
    the network's own, see acceleration; `mark` is called where a part ends.

    The discrepancy is measured once, on undropped features, and serves every method. A batch that lost all its
    samples, or whose loss is not finite, changes neither weights nor optimiser.
    """
    features = step.features = (encode or network.encode)(inputs)
    mark("forward")
    if len(features) > 1:
        step.unimodal = network.unimodal_logits(features, discrepancy.bias_split)
        with torch.no_grad():
            step.discrepancy = measure(step.unimodal, step.labels, discrepancy, step.total, step.task)
    for method in methods:
        features = method.on_features(features, step)
    mark("modulation")
    loss, skip = _loss(network.classify(features), step)
    for logits in network.auxiliary_logits(features):
        loss = loss + step.mean(step.losses(logits))
    mark("forward")
    for method in methods:
        loss = method.on_loss(loss, step)
    mark("modulation")
    loss.backward()
    loss = distributed.sum_gradients(network, loss.detach())
    mark("backward")
    for method in methods:
        method.on_gradients(network, step)
    mark("modulation")
    update(optimizer, skip | ~loss.isfinite())
    mark("optimiser")
    for method in methods:
        method.on_step_end(step)
    return loss


def _loss(logits: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """This process's part of the mean loss over the samples that kept a modality, and whether none did."""
    if step.keep is None:
        count, _ = step.streams.samples(len(step.labels))
        return step.task.loss(logits, step.labels) / count, logits.new_zeros((), dtype=torch.bool)
    step.kept = step.total(step.keep.any(1).sum())
    return step.mean(step.losses(logits)), step.kept == 0


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; its state is kept."""


class Trainer:
    """Trains the run of a folder, from the start or from its last checkpoint.

    `on_progress` is called with a dict: {"samples": n} after a step, an epoch's history record after an epoch,
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
    ) -> None:
        self.mark, self.on_message, self.weights = mark, on_message, weights
        self.folder, self.device, self.on_progress = folder, device, on_progress
        self.config, self.recipe, self.data = folder.config, folder.config.settings, folder.data
        check_speed(self.recipe.speed, device)
        self.config.check_weights()
        self.task, self.classes = self.config.task, self.config.task.classes(self.data.classes)
        self.modalities = models.modalities_of(self.config.model, list(self.data.modalities))
        if not self.data.counts.get("test"):
            raise InputError(
                f"{self.data.folder} has no test split to evaluate on. Add one and prepare it again."
            )
        self.inputs = Inputs(self.data, self.modalities, self.recipe)
        splits = [name for name in ("train", "val", "test") if self.data.counts.get(name)]
        self.sources = {name: self.inputs.source(self.data.split(name)) for name in splits}
        on_message(make_resident(self.sources.values(), loading, device))
        self._start()

    def _start(self) -> None:
        """Everything as it is before the first step."""
        self.methods = self.config.build_methods(self.modalities)
        network = self.config.build_network(self.inputs.shapes, self.data.classes, self.methods)
        self.network = arrange(network.to(self.device), self.recipe.speed)
        distributed.synchronise_batch_norm(self.network)
        self.optimizer = build_optimizer(self.network, self.recipe.optimizer, self.recipe.speed)
        self.stepper = Stepper(train_step, self.network, self.methods, self.optimizer, self.recipe, self.mark)
        self.epoch = self.step = 0  # the next step to train, counted within its epoch
        self.figures = self._empty_figures()
        self.history: list[dict[str, Any]] = []
        self.past_figures: list[Tensor] = []
        self.selections: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0
        self.trained_samples = 0

    # ---- one epoch ------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        return -(-len(self.sources["train"]) // self.recipe.batch_size)

    @property
    def columns(self) -> list[str]:
        """The figures of a step, as in steps.arrow."""
        if len(self.modalities) < 2:
            return ["loss", "kept"]
        return ["loss", "kept"] + [
            f"{figure}_{name}" for figure in ("rho", "q", "k") for name in self.modalities
        ]

    def _empty_figures(self) -> Tensor:
        return torch.zeros(self.steps_per_epoch, len(self.columns), dtype=torch.float64, device=self.device)

    def _fit(self) -> None:
        """What encoders learn from the training inputs before the first step; most do nothing."""
        for name, encoder in self.network.encoders.items():
            if isinstance(encoder, Encoder):
                encoder.fit(partial(self._training_inputs, name))
                distributed.of_first(encoder.buffers())

    def _training_inputs(self, modality: str) -> Iterator[Tensor]:
        alone = self.sources["train"].only(modality)
        return (values[modality] for values in in_order(alone, self.inputs, self.device))

    def run(self) -> None:
        """Train to the end. Raises InputError when the run diverges and Interrupted when asked to stop."""
        resumed = self._resume()
        distributed.check_same((self.folder.hash, self.epoch, self.step), self.folder.path)
        if not resumed:
            self._fit()
        if distributed.rank() == 0:
            self.folder.write_environment(self.device, distributed.processes())
        self._write_result("running")
        if not resumed:
            self._train_pilots()
        with _stop_requests() as asked:
            stopped = distributed.agreed(asked, self.device)
            while self.epoch < self.recipe.epochs:
                started = time.monotonic()
                for index, loss_figures in self._steps():
                    self.figures[index] = loss_figures
                    self.step = index + 1
                    if stopped() and self.step < self.steps_per_epoch:
                        self._stop(started)
                self._finish_epoch(started)
                if stopped() and self.epoch < self.recipe.epochs:
                    self._stop(time.monotonic())
        self._write_predictions()
        self._write_result("finished")

    def _train_pilots(self) -> None:
        """Let the methods measure what they need on other trainings; a resumed run has it from its checkpoint."""
        started = time.monotonic()
        pilot = PilotTraining(
            train_step,
            self.config,
            self.inputs,
            self.sources,
            self.data.classes,
            self.device,
            self.on_message,
        )
        for method in self.methods:
            method.on_start(pilot)
            self._load(method, method.state_dict())
        if pilot.samples:
            self.trained_samples += pilot.samples
            self._save(started)
            self.mark("pilot")

    def _load(self, method: Method, state: Mapping[str, Tensor]) -> None:
        method.load_state_dict({name: value.to(self.device) for name, value in state.items()})

    def _steps(self) -> Iterator[tuple[int, Tensor]]:
        """Train the epoch's remaining steps; each gives its index and its figures on the device."""
        set_learning_rate(self.optimizer, learning_rate(self.recipe.optimizer, self.epoch))
        train, streams = self.sources["train"], RandomStreams(self.config.seed, self.epoch)
        batches = training_batches(
            train, np.arange(len(train)), self.inputs, self.recipe.batch_size, streams, self.device, self.step
        )
        for inputs, labels, drawn in batches:
            self.mark("input")
            step = Step(
                self.epoch, drawn, labels, self._progress(drawn.step), self.task, total=distributed.total
            )
            loss, step = self.stepper(inputs, step)
            samples, _ = drawn.samples(len(labels))
            self.trained_samples += samples
            self.on_progress({"samples": samples})
            yield drawn.step, self._figures_of(loss, step)
            self.mark("figures")

    def _progress(self, index: int) -> Tensor:
        done = (self.epoch + index / self.steps_per_epoch) / self.recipe.epochs
        return torch.full((), done, device=self.device)

    def _figures_of(self, loss: Tensor, step: Step) -> Tensor:
        samples, _ = step.streams.samples(len(step.labels))
        kept = loss.new_full((), samples) if step.kept is None else step.kept
        figures = [loss[None], kept[None]]
        if step.discrepancy is not None:
            rho = step.discrepancy.rho
            q = step.figures.get("q", torch.zeros_like(rho))
            k = step.figures.get("k", torch.ones_like(rho))
            figures += [rho, q, k]
        return torch.cat([figure.to(torch.float64) for figure in figures])

    def _finish_epoch(self, started: float) -> None:
        figures = self.figures.cpu()
        finite = figures[:, 0].isfinite()
        if not finite.all():
            self._diverged(int((~finite).nonzero()[0]))
        try:
            evaluations = {
                name: evaluate(self.network, source, self.inputs, self.device, self.task)
                for name, source in self.sources.items()
                if name != "train"
            }
        except FloatingPointError:
            self._diverged(self.steps_per_epoch - 1)
        self.mark("evaluation")
        self.past_figures.append(figures)
        self.history.append(self._record(figures, evaluations))
        self._select(evaluations)
        self.epoch, self.step, self.figures = self.epoch + 1, 0, self._empty_figures()
        if distributed.rank() == 0:
            self.folder.write_history(self.history)
            self.folder.write_steps(self._steps_table())
            # before the checkpoint, so that a kill between them loses none
            if self.recipe.snapshots and self.epoch % self.recipe.snapshots == 0:
                checkpoint.save_snapshot(self.folder.checkpoints, self.epoch, self.network.state_dict())
        self._save(started)
        self.on_progress(self.history[-1])
        self.mark("writing")

    def _record(self, figures: Tensor, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
        """An epoch's line of history.jsonl. The loss is the mean over the samples that were kept."""
        means = dict(zip(self.columns, figures.mean(0).tolist(), strict=True))
        kept = figures[:, 1]
        record: dict[str, Any] = {
            "epoch": self.epoch,
            "loss": float((figures[:, 0] * kept).sum() / kept.sum().clamp_min(1)),
            "lr": learning_rate(self.recipe.optimizer, self.epoch),
            "losses": {
                name: float(found.losses.mean(dtype=np.float64)) for name, found in evaluations.items()
            },
            "accuracy": {name: found.metrics["accuracy"] for name, found in evaluations.items()},
            "unimodal": {name: found.metrics["unimodal"] for name, found in evaluations.items()},
        }
        if len(self.modalities) > 1:
            for figure in ("rho", "q", "k"):
                record[figure] = {name: means[f"{figure}_{name}"] for name in self.modalities}
        return record

    def _select(self, evaluations: Mapping[str, Evaluation]) -> None:
        """Keep the test results of the last epoch, and of the epochs that are best on test and on val."""
        test = evaluations["test"]
        found = {
            "epoch": self.epoch,
            "metrics": test.metrics,
            "predictions": torch.from_numpy(test.predictions),
        }
        self.selections["last"] = found
        for split in evaluations:
            accuracy = evaluations[split].metrics["accuracy"]
            best = self.selections.get(f"best-{split}")
            if best is None or accuracy > best["criterion"]:
                self.selections[f"best-{split}"] = {**found, "criterion": accuracy}

    # ---- stopping, resuming, writing ------------------------------------------------------------------------

    def _stop(self, started: float) -> None:
        self._save(started)
        self._write_result("interrupted")
        raise distributed.said_once(
            Interrupted(
                f"Interrupted in epoch {self.epoch} at step {self.step}. The state is kept in "
                f"{self.folder.path}; run the same command to go on."
            )
        )

    def _diverged(self, step: int) -> NoReturn:
        self._write_result("diverged", diverged={"epoch": self.epoch, "step": step})
        raise distributed.said_once(InputError(diverged_message(self.folder, self.epoch, step)))

    def _save(self, started: float) -> None:
        self.seconds += time.monotonic() - started
        if distributed.rank():
            return
        state = {
            "run": self.folder.hash,
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "methods": [method.state_dict() for method in self.methods],
            "figures": self.figures,
            "past_figures": self.past_figures,
            "history": self.history,
            "selections": self.selections,
            "seconds": self.seconds,
            "trained_samples": self.trained_samples,
        }
        checkpoint.save(self.folder.checkpoints, self.epoch * self.steps_per_epoch + self.step, state)

    def _resume(self) -> bool:
        """Take up the last checkpoint; False when there is none."""
        state = checkpoint.load_last(
            self.folder.checkpoints, lambda sentence: self.on_progress({"warning": sentence})
        )
        if state is None:
            self._start_from_weights()
            return False
        if state["run"] != self.folder.hash:
            raise InputError(
                f"The checkpoints in {self.folder.checkpoints} are of another run. "
                "Delete the run folder to start again."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for method, of_method in zip(self.methods, state["methods"], strict=True):
            self._load(method, of_method)
        self.figures = state["figures"].to(self.device)
        for name in ("epoch", "step", "past_figures", "history", "selections", "seconds", "trained_samples"):
            setattr(self, name, state[name])
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
        self.on_message(start(self.network, self.weights, expected))

    def _steps_table(self) -> pa.Table:
        figures = torch.cat(self.past_figures).numpy()
        epochs = np.repeat(np.arange(len(self.past_figures), dtype=np.int32), self.steps_per_epoch)
        steps = np.tile(np.arange(self.steps_per_epoch, dtype=np.int32), len(self.past_figures))
        named = dict(zip(self.columns, figures.T, strict=True))
        return pa.table({"epoch": epochs, "step": steps, **named, "kept": named["kept"].astype(np.int32)})

    def _write_predictions(self) -> None:
        if distributed.rank():
            return
        tables = [
            self._predictions(name, found["predictions"].numpy()) for name, found in self.selections.items()
        ]
        names = json.dumps(self.task.classes(self.data.classes))
        self.folder.write_predictions(pa.concat_tables(tables).replace_schema_metadata({"classes": names}))

    def _predictions(self, selection: str, predictions: np.ndarray) -> pa.Table:
        """A row an answer; several answers of one sample stand one after another under its id."""
        test = self.sources["test"]
        labels = test.labels.numpy()
        scores, of_answers = self.task.answers(predictions, labels)
        return pa.table(
            {
                "selection": [selection] * len(scores),
                "id": np.repeat(test.ids, len(scores) // len(test)),
                "label": of_answers.astype(np.int32),
                "scores": pa.array(list(scores), pa.list_(pa.float32())),
                **self.task.columns(predictions, labels),
            }
        )

    def _write_result(self, status: str, **parts: Any) -> None:  # noqa: ANN401 - plain values
        if distributed.rank():
            return
        if self.past_figures and len(self.modalities) > 1:
            means = dict(zip(self.columns, torch.cat(self.past_figures).mean(0).tolist(), strict=True))
            parts["rho"] = {name: means[f"rho_{name}"] for name in self.modalities}
        found = {
            name: method.measured() for name, method in zip(self.config.methods, self.methods, strict=True)
        }
        if any(found.values()):
            parts["measured"] = {name: values for name, values in found.items() if values}
        selections = {
            name: {"epoch": found["epoch"], **found["metrics"]} for name, found in self.selections.items()
        }
        rate = self.trained_samples / self.seconds if self.seconds else None
        self.folder.write_result(
            status,
            len(self.history),
            distributed.processes(),
            selections=selections,
            time={"seconds": self.seconds, "samples_per_second": rate},
            **parts,
        )


def diverged_message(folder: RunFolder, epoch: int, step: int) -> str:
    """What to tell about a run whose loss is not finite."""
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
) -> dict[str, Any]:
    """Train the run of a folder unless it has finished; returns its result. `profile`: say where the time went.
    `weights`: the file from which the encoders start, where the configuration names one; without need once there is
    a checkpoint.

    InputError when it diverges, or diverged before: then nothing is trained again. InputError also
    when an error ends it, as one in the method of another package: then its status is "failed", and it goes on from its
    last checkpoint. Where several processes train it, the first one keeps the folder for all of them and writes it.
    """
    with ExitStack() as held:
        with distributed.first_before_others():
            if distributed.rank() == 0:
                held.enter_context(folder.open())
            result = folder.result()
        if result and result["status"] == "diverged":
            raise distributed.said_once(InputError(diverged_message(folder, **result["diverged"])))
        if not result or result["status"] != "finished":
            profiled = Profile(device) if profile else None
            mark = profiled.mark if profiled else no_mark
            try:
                with failures_kept(folder):
                    Trainer(folder, device, loading, on_progress, on_message, mark, weights).run()
            finally:
                if profiled:
                    on_message(profiled.report())
            with distributed.first_before_others():
                result = folder.result()
        elif profile:
            on_message("Nothing to profile: the run has finished before. Try it with another --runs folder.")
    assert result is not None
    return result
