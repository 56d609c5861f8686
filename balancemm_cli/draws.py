"""Random numbers keyed by (seed, epoch, step, purpose).

No generator is carried from step to step, so a resumed run, a run with other workers and a run on several
processes all see the same augmentations, drops and noise.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step. Each purpose ("drop", "noise", …) has a stream of its own."""

    seed: int
    epoch: int = 0
    step: int = 0

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

    def uniform(self, shape: tuple[int, ...], purpose: str, device: torch.device | str) -> Tensor:
        """Numbers in [0, 1) of `shape`, in the default dtype, drawn on `device`."""
        return torch.rand(shape, generator=self.generator(purpose, device), device=device)
