"""A few samples on trial, before a run begins: what its settings and its data do not allow is said at once, not after
an epoch."""

import copy
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.config.run import RunConfig
from balancemm_cli.data.loading import Source
from balancemm_cli.engine import distributed
from balancemm_cli.engine.batches import training_batches
from balancemm_cli.engine.failure import lacks_memory
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.errors import UsageError, said_by, sentence
from balancemm_cli.extensions import raised_in
from balancemm_cli.models.network import Network
from balancemm_cli.random_streams import RandomStreams

ONE_SAMPLE = "Expected more than 1 value per channel"
"""What torch says of batch normalisation over one value."""


def try_batch(
    network: Network, source: Source, inputs: Inputs, config: RunConfig, device: torch.device
) -> None:
    """Send a batch as small as the last of an epoch, of two samples a process at most, through a copy of the network.

    UsageError where its inputs do not fit the network, or where it is too small for batch normalisation. Errors in the
    code of another package, and lack of memory, pass.
    """
    last = len(source) % config.settings.batch_size or config.settings.batch_size
    count = min(last, len(source), 2 * distributed.processes())
    tried: Mapping[str, Tensor] = {}
    try:
        batches = training_batches(
            source, np.arange(count), inputs, count, RandomStreams(config.seed, 0), device
        )
        for tried, labels, _ in batches:
            if len(labels):
                _forward(network, tried, device)
    except (RuntimeError, ValueError, IndexError) as error:
        if raised_in(error) or lacks_memory(error) or distributed.lost_others(error):
            raise
        _refuse(error, tried)


def _forward(network: Network, inputs: Mapping[str, Tensor], device: torch.device) -> None:
    """Nothing stays of it: neither statistics of a normalisation nor a draw."""
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        copy.deepcopy(network).train()(inputs)


def _refuse(error: Exception, inputs: Mapping[str, Tensor]) -> NoReturn:
    text = said_by(error)
    if ONE_SAMPLE in text:
        raise UsageError(
            "The last batch of an epoch leaves a process one sample, on which batch normalisation cannot work. Take "
            "another batch_size."
        ) from error
    sizes = ", ".join(f"{name} {list(values.shape[1:])}" for name, values in inputs.items())
    of = f" ({sizes})" if sizes else ""
    does_not = f"The inputs that these settings make of the data{of} do not fit the network: {text}"
    raise UsageError(
        f"{sentence(does_not)} Change the settings of the inputs, or take another encoder or model."
    ) from error
