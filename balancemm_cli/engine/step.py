"""One training step: forward, modulation, backward and update. Nothing in it waits for the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancemm_cli.engine import distributed
from balancemm_cli.engine.optimizer import update
from balancemm_cli.engine.profiling import Mark, no_mark
from balancemm_cli.methods.base import Method, Step, drop
from balancemm_cli.methods.discrepancy import DiscrepancySettings, measure
from balancemm_cli.models.network import Network


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
    """One update, or several where a method lets modalities learn in turn. Returns the mean loss of them, a 0-dim
    tensor on the device.

    Where several processes share the batch, each one brings its part, and all of them get the loss of the whole
    batch. `encode` replaces the network's own (see acceleration); `mark` is called at the end of each part.

    The discrepancy is measured once, on undropped features, and serves every method. A batch that lost all its
    samples, or whose loss is not finite, changes neither the weights nor the optimiser.
    """
    step.encode = step.encode or network.encode
    inputs = dict(inputs)
    for method in methods:
        inputs = method.on_inputs(inputs, step)
    features = step.features = (encode or step.encode)(inputs)
    mark("forward")
    if len(features) > 1:
        step.unimodal = network.unimodal_logits(features, discrepancy.bias_split)
        with torch.no_grad():
            step.discrepancy = measure(step.unimodal, step.labels, discrepancy, step.total, step.task)
    if step.keep is not None:  # samples that a method draws again without some modalities
        features = drop(features, step.keep)
    for method in methods:
        features = method.on_features(features, step)
    mark("modulation")
    losses = [
        _take_turn(network, methods, optimizer, fused, step, mark)
        for fused in _turns(features, methods, step)
    ]
    for method in methods:
        method.on_step_end(step)
    return torch.stack(losses).mean()


def _turns(features: dict[str, Tensor], methods: Sequence[Method], step: Step) -> Iterator[dict[str, Tensor]]:
    """The features that are fused in each update; `step` gets whose turn it is, and no gradient of another's."""
    encoded, unimodal = step.features, step.unimodal
    given = (method.turns(step) for method in methods)
    for turn in next((turns for turns in given if turns is not None), [list(features)]):
        step.turn, step.held, step.rates = turn, [], []
        step.features, step.unimodal = _learning(encoded, turn), _learning(unimodal, turn)
        yield _learning(features, turn)


def _learning(values: dict[str, Tensor], turn: Sequence[str]) -> dict[str, Tensor]:
    """Tensors by modality, through which gradients flow to the modalities whose turn it is alone."""
    return {name: value if name in turn else value.detach() for name, value in values.items()}


def _take_turn(
    network: Network,
    methods: Sequence[Method],
    optimizer: Optimizer,
    features: dict[str, Tensor],
    step: Step,
    mark: Mark,
) -> Tensor:
    """One update by the fused features [B, …]; returns its loss."""
    step.logits = network.classify(features)
    loss, skip = _loss(step.logits, step)
    loss = network.objective(loss, features, step)
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
    update(optimizer, skip | ~loss.isfinite(), step.held, step.rates)
    mark("optimiser")
    return loss


def _loss(logits: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """This process's part of the mean loss over the samples that kept a modality, and whether none did."""
    if step.keep is None:
        count, _ = step.streams.samples(len(step.labels))
        return step.task.loss(logits, step.labels) / count, logits.new_zeros((), dtype=torch.bool)
    step.kept = step.total(step.keep.any(1).sum())
    return step.mean(step.losses(logits)), step.kept == 0
