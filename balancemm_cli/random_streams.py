"""Random numbers keyed by (seed, epoch, step, purpose).

No generator is carried from step to step, so a resumed run, a run with other workers and a run on several
processes all see the same augmentations, drops and noise.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStreams:
    """The random numbers of one step. Each purpose ("drop", "noise", …) has a stream of its own."""

    seed: int
    epoch: int = 0
    step: int = 0
    batch: int | None = None  # samples of the whole batch, where this process has but a part of them
    first: int = 0  # the first one of that part

    def samples(self, count: int) -> tuple[int, slice]:
        """How many samples to draw for, and which of them are the `count` that this process has."""
        return (count if self.batch is None else self.batch), slice(self.first, self.first + count)

    def key(self, purpose: str) -> int:
        """A 63-bit seed for this step and purpose."""
        text = f"{self.seed}/{self.epoch}/{self.step}/{purpose}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch generator on `device`, at the start of the stream of `purpose`."""
        return torch.Generator(device).manual_seed(self.key(purpose))

    def chance(self, purpose: str) -> float:
        """One number in [0, 1) on the host, for decisions that Python takes."""
        return (self.key(purpose) >> 10) / 2**53

    def uniform(
        self, shape: tuple[int, ...], purpose: str, device: torch.device | str, axis: int = 0
    ) -> Tensor:
        """Numbers in [0, 1) of `shape`, in the default dtype, drawn on `device`; `axis` is that of the samples.

        They are drawn for the whole batch, so that each sample gets the same ones however it is shared out.
        """
        return self._drawn(torch.rand, shape, purpose, device, axis)

    def normal(self, shape: tuple[int, ...], purpose: str, device: torch.device | str) -> Tensor:
        """The same of the standard normal distribution; the samples are on the first axis."""
        return self._drawn(torch.randn, shape, purpose, device)

    def _drawn(
        self,
        draw: Callable[..., Tensor],
        shape: tuple[int, ...],
        purpose: str,
        device: torch.device | str,
        axis: int = 0,
    ) -> Tensor:
        count, mine = self.samples(shape[axis])
        whole = (*shape[:axis], count, *shape[axis + 1 :])
        drawn = draw(whole, generator=self.generator(purpose, device), device=device)
        return drawn.narrow(axis, mine.start, shape[axis])
