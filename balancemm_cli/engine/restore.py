"""A trained run, restored from its folder for evaluation."""

from pathlib import Path
from typing import Any

import torch

from balancemm_cli import models
from balancemm_cli.data.store import open_set
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.config import RunConfig, read_toml, validate
from balancemm_cli.engine.evaluator import Disturbance, evaluate, linear_probe
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.engine.runs import read_result
from balancemm_cli.errors import InputError, UsageError, unknown


def evaluate_run(
    run: Path, data: Path, device: torch.device, disturbance: Disturbance, probe: bool
) -> dict[str, Any]:
    """Test metrics of a run folder's last checkpoint; with `probe` those of linear probes as well.

    InputError for a folder that is no run, for one without a checkpoint, and for data that has changed since.
    """
    result = read_result(run)
    state = checkpoint.load_last(run / "checkpoints")
    if result is None or state is None:
        raise InputError(f"{run} is no run folder with a checkpoint. Train it with `bmm train` first.")
    config = read_config(run)
    prepared = open_set(data / config.dataset)
    if prepared.content_hash != result["hashes"]["data"]:
        raise InputError(
            f"{prepared.folder} is not the data that {run} was trained on. Name the other with --data."
        )
    modalities = models.modalities_of(config.model, list(prepared.modalities))
    for name in [*disturbance.missing, *disturbance.noise]:
        if name not in modalities:
            raise unknown("modality", name, modalities)
        if name in disturbance.noise and prepared.modalities[name]["kind"] == "tokens":
            raise UsageError(f"Modality '{name}' is text, to which no noise can be added. Use --missing.")
    inputs = Inputs(prepared, modalities, config.settings)
    methods = config.build_methods(modalities)
    network = config.build_network(inputs.shapes, len(prepared.classes), methods).to(device)
    network.load_state_dict(state["network"])
    test = inputs.source(prepared.split("test"))
    metrics = evaluate(network, test, inputs, device, disturbance).metrics
    if probe:
        train = inputs.source(prepared.split("train"))
        metrics["probe"] = linear_probe(network, train, test, inputs, device)
    return metrics


def read_config(run: Path) -> RunConfig:
    """The configuration of a run folder. InputError when config.toml is absent or damaged."""
    path = run / "config.toml"
    content = read_toml(path)
    identity = {key: content.pop(key, None) for key in RunConfig.model_fields if key != "settings"}
    return validate(RunConfig, {**identity, "settings": content}, str(path))
