"""A trained run, restored from its folder for evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from balancemm_cli.config.run import read_config
from balancemm_cli.data.loading import Source, make_resident
from balancemm_cli.data.store import PreparedSet, file_hash, open_set
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.errors import InputError
from balancemm_cli.models.network import Network
from balancemm_cli.runs.folder import read_result
from balancemm_cli.tasks import Task


@dataclass(frozen=True)
class Restored:
    """The last checkpoint of a run, with the data that it was trained on."""

    folder: Path
    prepared: PreparedSet
    inputs: Inputs
    network: Network
    task: Task
    checkpoint: str  # SHA-256 of its file
    epochs: int  # whole ones that it was trained for
    status: str  # of the run: finished, interrupted, running, …
    device: torch.device

    @cached_property
    def test(self) -> Source:
        """The test split, decoded once where memory allows."""
        return self._source("test")

    @cached_property
    def train(self) -> Source:
        """The training split, decoded once where memory allows."""
        return self._source("train")

    def _source(self, split: str) -> Source:
        source = self.inputs.source(self.prepared.split(split))
        make_resident([source], "auto", self.device)
        return source

    def snapshots(self) -> Iterator[int]:
        """Load the weights of each kept epoch in turn; gives the epochs that they were trained for."""
        for epochs, path in checkpoint.snapshots(self.folder / "checkpoints").items():
            self.network.load_state_dict(checkpoint.load_snapshot(path))
            yield epochs


def restore(run: Path, data: Path, device: torch.device) -> Restored:
    """The run of a folder, its data under `data`.

    InputError for a folder that is no run, for one without a checkpoint, and where the data, or what a method or model
    computes, has changed since.
    """
    result = read_result(run)
    state = checkpoint.load_last(run / "checkpoints")
    if result is None or state is None:
        raise InputError(f"{run} is no run folder with a checkpoint. Train it with `bmm train` first.")
    config = read_config(run / "config.toml")
    if config.settings.tested_on != "test":
        raise InputError(
            f"{run} is a trial of a search, which is not tested. Name a run with the chosen settings."
        )
    config.check_sources(f"was trained ({run})", "Install that version again, or train the run anew.")
    prepared = open_set(data / config.dataset).for_run(config.seed)
    if prepared.content_hash != result["hashes"]["data"]:
        raise InputError(
            f"{prepared.folder} is not the data that {run} was trained on. Name the other with --data."
        )
    modalities = config.modalities(list(prepared.modalities))
    inputs = Inputs(prepared, modalities, config.settings)
    methods = config.build_methods(modalities)
    network = config.build_network(inputs.shapes, prepared.classes, methods).to(device)
    network.load_state_dict(state["network"])
    digest = file_hash(checkpoint.checkpoints(run / "checkpoints")[-1])
    return Restored(
        run, prepared, inputs, network, config.task, digest, state["epoch"], result["status"], device
    )
