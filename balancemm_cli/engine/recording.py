"""What is written of a run: after epochs history.jsonl and steps.arrow, at its end predictions.arrow, and
result.json whenever its status changes."""

import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from balancemm_cli.data.loading import Source
from balancemm_cli.engine import checkpoint, distributed
from balancemm_cli.engine.evaluator import Evaluation
from balancemm_cli.engine.state import RunState
from balancemm_cli.engine.step_metrics import StepMetrics
from balancemm_cli.runs.folder import RunFolder


def epoch_record(
    state: RunState, lr: float, rows: Tensor, evaluations: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """An epoch's line of history.jsonl, from its step metrics [steps, columns] and the evaluations by split.

    The loss is the mean over the samples that kept a modality.
    """
    losses, kept = rows[:, 0], rows[:, 1]
    return {
        "epoch": state.epoch,
        "loss": float((losses * kept).sum() / kept.sum().clamp_min(1)),
        "lr": lr,
        "losses": {name: float(found.losses.mean(dtype=np.float64)) for name, found in evaluations.items()},
        "accuracy": {name: found.metrics["accuracy"] for name, found in evaluations.items()},
        "unimodal": {name: found.metrics["unimodal"] for name, found in evaluations.items()},
        **state.metrics.means(rows),
    }


def _by_the_first(write: Callable[..., None]) -> Callable[..., None]:
    """`write` as a method that does nothing in any process but the first."""

    @wraps(write)
    def guarded(*args: Any, **parts: Any) -> None:  # noqa: ANN401 - those of `write`
        if distributed.rank() == 0:
            write(*args, **parts)

    return guarded


class RunWriter:
    """Writes a run's state into its folder. Of several processes only the first one writes."""

    def __init__(self, folder: RunFolder, state: RunState, test: Source) -> None:
        self.folder, self.state, self.test = folder, state, test
        self.config, self.task = folder.config, folder.config.task

    @_by_the_first
    def environment(self) -> None:
        """Write environment.json, at each start of a run."""
        self.folder.write_environment(self.state.device, distributed.processes())

    @_by_the_first
    def epochs(self) -> None:
        """Write what the epochs so far recorded, if there are any."""
        if self.state.history:
            self.folder.write_history(self.state.history)
            self.folder.write_steps(steps_table(self.state.metrics))

    @_by_the_first
    def snapshot(self) -> None:
        """Keep the weights after this epoch."""
        checkpoint.save_snapshot(self.folder.checkpoints, self.state.epoch, self.state.network.state_dict())

    @_by_the_first
    def checkpoint(self) -> None:
        """Write the state, and delete all checkpoints but the last two."""
        done = sum(map(len, self.state.metrics.past)) + self.state.step
        content = {"run": self.folder.hash, **self.state.state_dict()}
        checkpoint.save(self.folder.checkpoints, done, content)

    @_by_the_first
    def result(self, status: str, **parts: Any) -> None:  # noqa: ANN401 - plain values
        """Write result.json: the status, and what the run has reached."""
        state = self.state
        if state.metrics.past and "rho" in state.metrics.names:
            parts["rho"] = state.metrics.means(torch.cat(state.metrics.past))["rho"]
        measured = {
            name: method.measured() for name, method in zip(self.config.methods, state.methods, strict=True)
        }
        if any(measured.values()):
            parts["measured"] = {name: values for name, values in measured.items() if values}
        if state.cost:
            parts["cost"] = state.cost
        selections = {
            name: {"epoch": found["epoch"], **found["metrics"]} for name, found in state.selections.items()
        }
        rate = state.trained_samples / state.seconds if state.seconds else None
        self.folder.write_result(
            status,
            len(state.history),
            distributed.processes(),
            selections=selections,
            time={"seconds": state.seconds, "samples_per_second": rate},
            **parts,
        )

    @_by_the_first
    def predictions(self) -> None:
        """Write predictions.arrow: the test predictions of each selection, with the names of the classes."""
        tables = [
            self._predictions(name, found["predictions"].numpy())
            for name, found in self.state.selections.items()
        ]
        names = json.dumps(self.task.classes(self.folder.data.classes))
        self.folder.write_predictions(pa.concat_tables(tables).replace_schema_metadata({"classes": names}))

    def _predictions(self, selection: str, predictions: np.ndarray) -> pa.Table:
        """One row per answer; several answers of one sample stand one after another under its id."""
        labels = self.test.labels.numpy()
        scores, of_answers = self.task.answers(predictions, labels)
        return pa.table(
            {
                "selection": [selection] * len(scores),
                "id": np.repeat(self.test.ids, len(scores) // len(self.test)),
                "label": of_answers.astype(np.int32),
                "scores": pa.array(list(scores), pa.list_(pa.float32())),
                **self.task.columns(predictions, labels),
            }
        )


def steps_table(metrics: StepMetrics) -> pa.Table:
    """The content of steps.arrow, one row per step of the epochs that are done."""
    rows = torch.cat(metrics.past).numpy()
    counts = [len(of_epoch) for of_epoch in metrics.past]
    epochs = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    steps = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    named = dict(zip(metrics.columns, rows.T, strict=True))
    return pa.table({"epoch": epochs, "step": steps, **named, "kept": named["kept"].astype(np.int32)})
