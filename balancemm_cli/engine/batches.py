"""The batches of a training epoch and of the validation part: their samples, their order, and this process's part of
each batch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from balancemm_cli.data.loading import Source
from balancemm_cli.engine import distributed
from balancemm_cli.engine.evaluator import batch_rows
from balancemm_cli.engine.inputs import Inputs
from balancemm_cli.random_streams import RandomStreams


def training_batches(
    source: Source,
    rows: np.ndarray,
    inputs: Inputs,
    batch_size: int,
    streams: RandomStreams,
    device: torch.device,
    first: int = 0,
    end: int | None = None,
    keep: Tensor | None = None,
) -> Iterator[tuple[dict[str, Tensor], Tensor, RandomStreams, Tensor | None]]:
    """Inputs, labels and streams of the steps from `first` to `end` of an epoch: `rows` of `source`, shuffled; and
    which modalities their samples keep, bool [B, M], where `keep` [N, M] says it of all.

    Seed and epoch are those of `streams`. The last batch may be smaller.
    """
    order = np.random.default_rng(streams.key("shuffle")).permutation(len(rows))
    shuffled, kept = rows[order], None if keep is None else keep[torch.from_numpy(order)].to(device)
    batches = np.split(shuffled, range(batch_size, len(rows), batch_size))
    parts = [distributed.part(len(batch)) for batch in batches]
    of_steps = [
        RandomStreams(streams.seed, streams.epoch, index, len(batch), part.start)
        for index, (batch, part) in enumerate(zip(batches, parts, strict=True))
    ]
    left = slice(first, end)
    served = _parts(source, batches[left], of_steps[left], inputs, device)
    for drawn, (ready, labels) in zip(of_steps[left], served, strict=True):
        at = drawn.step * batch_size + drawn.first
        yield ready, labels, drawn, None if kept is None else kept[at : at + len(labels)]


def validation_batches(
    source: Source, inputs: Inputs, device: torch.device
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Inputs and labels of the whole of `source` in its order, not augmented."""
    batches = batch_rows(source)
    return _parts(source, batches, [None] * len(batches), inputs, device)


def _parts(
    source: Source,
    batches: Sequence[np.ndarray],
    streams: Sequence[RandomStreams | None],
    inputs: Inputs,
    device: torch.device,
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Inputs and labels of this process's part of each batch, augmented by its streams where it has some."""
    parts = [distributed.part(len(batch)) for batch in batches]
    # A process without samples of a small batch still reads one, because not every transform accepts an empty batch.
    rows = [
        batch[part] if part.stop > part.start else batch[:1]
        for batch, part in zip(batches, parts, strict=True)
    ]
    served = source.batches(rows, streams, device)
    for part, drawn, (raw, labels) in zip(parts, streams, served, strict=True):
        ready = inputs(raw, drawn)
        if part.stop == part.start:
            ready, labels = {name: values[:0] for name, values in ready.items()}, labels[:0]
        yield ready, labels
