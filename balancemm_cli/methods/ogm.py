"""OGM, On-the-fly Gradient Modulation with Gaussian noise (Sec. 3.4, Eq. 11 to 17, Algorithm 2).

g ← k^m · g + h for each modulated weight of modality m's encoder; k^m = 1 unless m is ahead; h has zero mean and
the standard deviation σ of that weight's un-modulated gradient, plus 1e-8, and goes to all modalities. Paper and
official code (OGM-GE_CVPR2022, BML_TPAMI2024) differ in:

1. Ahead, k^m = max(0, 1 − α · z(ρ^m)) with z = tanh(ρ − 1) (paper) or 1 − tanh(α · ρ^m) (official).
2. All epochs (paper) or epochs 0 to 50 (official; the TPAMI script says 60).
3. The TPAMI script's OPM warm-up (epochs 0 to 5) switches OGM off too; here each method has a range of its own.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.methods.discrepancy import Discrepancy
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin
from balancemm_cli.random_streams import RandomStreams

PIECE = 2**20  # numbers drawn by one thread at a time


class GradientModulation(Method):
    """What OGM and OGM* share: g ← k^m · g + h. A subclass says what k is, and under which name it is recorded."""

    by_rho: ClassVar = True

    class Settings(EpochRange):
        """The settings of the noise h."""

        noise: Literal["gaussian", "uniform", "laplace", "none"] = "gaussian"
        noise_scale: float = Field(default=1.0, ge=0)  # in units of σ
        noise_target: Literal["all", "dominant"] = "all"

        IDLE: ClassVar = dict.fromkeys(
            ("noise_scale", "noise_target"), ("noise", lambda noise: noise == "none")
        )

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self._buffers: dict[str, Tensor] = {}  # noise of each modality, overwritten at each step

    def on_gradients(self, network: Network, step: Step) -> None:
        """Scale the gradients by k, then add the noise."""
        assert step.discrepancy is not None
        (name,) = self.METRICS
        if not self.settings.active(step.epoch):
            step.metrics[name] = torch.ones_like(step.discrepancy.rho)
            return
        k = step.metrics[name] = self.coefficient(step.discrepancy)
        gradients = {
            name: grads
            for name, weights in network.modulated().items()
            if (grads := [weight.grad for weight in weights if weight.grad is not None])
        }
        deviations = {name: self._noise_deviations(grads) for name, grads in gradients.items()}
        factors = dict(zip(self.modalities, k.unbind(), strict=True))
        for name, grads in gradients.items():
            torch._foreach_mul_(grads, factors[name])  # pyright: ignore[reportPrivateImportUsage]
        if self.settings.noise == "none":
            return
        noise = self._noise(gradients, step.streams)
        ahead = dict(zip(self.modalities, step.discrepancy.ahead, strict=True))
        for name, grads in gradients.items():
            sigmas = deviations[name]
            if self.settings.noise_target == "dominant":
                sigmas = [sigma * ahead[name] for sigma in sigmas]
            torch._foreach_addcmul_(grads, noise[name], sigmas)  # pyright: ignore[reportPrivateImportUsage]

    def coefficient(self, discrepancy: Discrepancy) -> Tensor:
        """k [M], by which the gradients of each modality's encoder are multiplied."""
        raise NotImplementedError

    def _noise_deviations(self, grads: list[Tensor]) -> list[Tensor]:
        sigmas = torch._foreach_add(deviations(grads), 1e-8)  # pyright: ignore[reportPrivateImportUsage]
        return list(torch._foreach_mul(sigmas, self.settings.noise_scale))  # pyright: ignore[reportPrivateImportUsage]

    def _noise(self, gradients: dict[str, list[Tensor]], streams: RandomStreams) -> dict[str, list[Tensor]]:
        """Independent random numbers of zero mean and unit variance, shaped like the gradients of each modality.

        torch draws on a single core, which is most of what OGM costs on a CPU. So the numbers are drawn there in
        pieces, by all threads. The buffers are kept, because new memory costs half as much as the drawing.
        """
        for name, grads in gradients.items():
            if name not in self._buffers:
                self._buffers[name] = grads[0].new_empty(sum(grad.numel() for grad in grads))

        on_cpu = all(buffer.device.type == "cpu" for buffer in self._buffers.values())
        pieces = [
            (piece, f"noise/{name}/{index}")
            for name in gradients
            for index, piece in enumerate(self._buffers[name].split(PIECE if on_cpu else sys.maxsize))
        ]

        def draw(piece: tuple[Tensor, str]) -> None:
            self._fill(piece[0], streams.generator(piece[1], piece[0].device))

        if on_cpu:
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:
                list(threads.map(draw, pieces))
        else:
            for piece in pieces:
                draw(piece)
        return {name: _shaped_like(grads, self._buffers[name]) for name, grads in gradients.items()}

    def _fill(self, flat: Tensor, generator: torch.Generator) -> None:
        match self.settings.noise:
            case "gaussian":
                flat.normal_(generator=generator)
            case "uniform":
                flat.uniform_(-(3**0.5), 3**0.5, generator=generator)
            case "laplace":
                other = torch.empty_like(flat).exponential_(generator=generator)
                flat.exponential_(generator=generator).sub_(other).mul_(0.5**0.5)


class OGM(GradientModulation):
    """On-the-fly Gradient Modulation: weaken the gradient of the modality that is ahead, and add noise."""

    origin: ClassVar = Origin(
        "Peng, Wei, Deng, Wang, Hu, CVPR 2022, arXiv 2203.15332; Wei, Hu, Du, Wen, TPAMI 2024, arXiv 2410.11582",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "numbers",
        "the journal's tanh(ρ − 1) in all epochs; the code's coefficient and epochs are variant official",
    )

    class Settings(GradientModulation.Settings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=0.4, ge=0)  # the paper sweeps 0.2 to 0.6 (Fig. 9) and states no choice
        coefficient: Literal["1-alpha*z(rho)", "1-tanh(alpha*rho)"] = "1-alpha*z(rho)"

    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"coefficient": "1-tanh(alpha*rho)", "alpha": 0.8, "last_epoch": 50},
    }
    METRICS: ClassVar = ("k",)  # 1 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.alpha, self.form = settings.alpha, settings.coefficient

    def coefficient(self, discrepancy: Discrepancy) -> Tensor:
        """k [M]: 1 where a modality is not ahead."""
        if self.form == "1-tanh(alpha*rho)":
            k = 1 - torch.tanh(self.alpha * discrepancy.rho)
        else:
            k = (1 - self.alpha * discrepancy.z).clamp_min(0)
        return torch.where(discrepancy.ahead, k, 1.0)


def deviations(tensors: list[Tensor]) -> list[Tensor]:
    """The standard deviation of each tensor (0-dim, as by `torch.std`; 0 of a single number).

    Computed from sums and sums of squares, in half the time of `torch.std` on a CPU. It is exact as long as the mean is
    not many times the deviation, as is the case for gradients.
    """
    counts = [tensor.numel() for tensor in tensors]
    means = [tensor.mean() for tensor in tensors]
    squares = torch._foreach_pow(torch._foreach_norm(tensors), 2)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_addcmul_(squares, means, means, [-float(n) for n in counts])  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_clamp_min_(squares, 0)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_div_(squares, [max(n - 1, 1) for n in counts])  # pyright: ignore[reportPrivateImportUsage]
    return list(torch._foreach_sqrt(squares))  # pyright: ignore[reportPrivateImportUsage]


def _shaped_like(tensors: list[Tensor], flat: Tensor) -> list[Tensor]:
    """Consecutive parts of `flat` as views of the tensors' shapes."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
