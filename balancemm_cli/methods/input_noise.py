"""Noise on the inputs of modalities in training (Bishop, "Training with noise is equivalent to Tikhonov
regularization", Neural Computation 1995).

Each input gets Gaussian noise anew each time that it is presented: x + σ s ε with ε ~ N(0, 1), s the standard
deviation of all numbers of the modality in the batch, and σ the setting.

1. σ is in units of s, as that of `bmm eval --noise`; the paper's is in units of the inputs. So s differs a little from
   batch to batch.
2. Steps of a feature sequence that are padding stay zero, as under `bmm eval --noise`. They count in s.
3. Evaluation has no noise.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings, Step, one_each
from balancemm_cli.origin import Origin
from balancemm_cli.random_streams import RandomStreams

Deviation = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class InputNoise(Method):
    """Add Gaussian noise to the inputs of modalities in training.

    UsageError from the constructor for a number of deviations other than that of the modalities, and from the first
    step where text, to which nothing can be added, is to get noise.
    """

    origin: ClassVar = Origin(
        "Bishop, Neural Computation 1995",
        None,
        "equations",
        "the noise is in units of the deviation of the modality's batch, not of the inputs",
    )

    class Settings(MethodSettings):
        """One deviation for all modalities that take noise, or one each."""

        deviation: Deviation | tuple[Deviation, ...] = 1.0

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        given = settings.deviation
        self.deviations = dict(
            zip(modalities, one_each("input-noise.deviation", given, modalities), strict=True)
        )
        self.named = isinstance(given, tuple)  # whether each modality has a number of its own

    def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Inputs [B, …] with noise."""
        wanted = {name: deviation for name, deviation in self.deviations.items() if deviation}
        texts = [name for name in wanted if not inputs[name].is_floating_point()]
        if texts and (self.named or len(texts) == len(inputs)):
            raise UsageError(
                f"Modality '{texts[0]}' is text, to which no noise can be added. Let its number in "
                "input-noise.deviation be 0."
            )
        noisy = {
            name: with_noise(
                inputs[name],
                deviation * batch_deviation(inputs[name], step.total),
                step.streams,
                f"input-noise/{name}",
            )
            for name, deviation in wanted.items()
            if name not in texts
        }
        return inputs | noisy


def with_noise(values: Tensor, size: Tensor, streams: RandomStreams, purpose: str) -> Tensor:
    """Inputs [B, …] with Gaussian noise of the deviation `size` (0-dim), drawn from the stream of `purpose`."""
    noise = streams.normal(tuple(values.shape), purpose, values.device)
    if values.ndim == 3:  # a feature sequence, whose padding stays padding
        noise = noise * (values != 0).any(2, keepdim=True)
    return values + size * noise


def batch_deviation(values: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """The standard deviation (0-dim) of all numbers of inputs [B, …] over the whole batch, of which `total` adds up
    the processes' parts; 0 of a single number."""
    count = total(values.new_full((), values.numel()))
    mean = total(values.sum()) / count
    return (total((values - mean).square().sum()) / (count - 1).clamp_min(1)).sqrt()
