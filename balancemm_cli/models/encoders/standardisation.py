"""Numbers brought to mean 0 and deviation 1 over the training inputs."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


class Standardisation(nn.Module):
    """(x − mean) / deviation of each number of a row; 0 for one that is the same in all training rows.

    Mean and deviation (of the population) come from `fit`; before it the numbers stay as they are. `padded`: rows of
    zeros alone are padding, which stays zeros and has no part in mean and deviation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, *, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))  # one over the deviation

    def forward(self, inputs: Tensor) -> Tensor:
        """[…, D] to the same shape."""
        values = (inputs - self.mean) * self.scale
        return values * held(inputs)[..., None] if self.padded else values

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Mean and deviation of the rows of all batches […, D], in float64. Without any row nothing changes."""
        count, first, total = 0, torch.zeros(()), torch.zeros(())
        for rows in map(self._rows, batches()):
            first = first if count or not len(rows) else rows[0]
            total = total + (rows - first).sum(0)  # of a number that never changes exactly 0
            count += len(rows)
        if not count:
            return
        mean = first + total / count
        variance = torch.stack([(self._rows(batch) - mean).square().sum(0) for batch in batches()]).sum(0)
        scale = (variance / count).rsqrt().to(self.scale)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale.isfinite(), scale, 0))

    def _rows(self, batch: Tensor) -> Tensor:
        rows = batch.flatten(0, -2).double()
        return rows[held(rows)] if self.padded else rows


def held(inputs: Tensor) -> Tensor:
    """Which steps hold something: a word, or numbers that are not all zero. Bool [B, T] of words [B, T], and […] of
    numbers […, D]."""
    return inputs != 0 if not inputs.is_floating_point() else (inputs != 0).any(-1)
