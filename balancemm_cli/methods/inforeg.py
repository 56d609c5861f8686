"""InfoReg, information acquisition regulation (Huang, Wei, Yang, Hu, CVPR 2025; arXiv 2503.18595).

Early in training a network takes in most of what it ever will, and the modality that does so fastest holds the others
up. While that window is open, the modality that is ahead is slowed down: its encoder is pulled to where it was at the
beginning of the epoch,

    ∇θ^m ← ∇θ^m + β^m (θ^m − θ^m_0),   β^m = β exp(tanh(Δ^m)) where Δ^m > 0 and k^m > K, else 0

with Δ^m = s^m − mean_{k≠m} s^k the lead of its score, the sum over the batch of the true answer's softmax. The window
is open as long as the trace of the Fisher information tr(F^m), of squared gradients over an epoch, still grows:

    k^m = (T_e − T_{e−1}) / T_e,   T_e the mean of tr(F^m) of the last N epochs, of which those before the first have 0

and L = CE(f, y) + Σ_m CE(f^m, y) is what is minimised, f^m what the modality gives alone. Choices, and where the
official code (GeWu-Lab/InfoReg_CVPR2025, main.py) differs:

1. The paper's text was not at hand: equations are after the code. β = 0.95, N = 10, K = 0.05 are its of CREMA-D.
2. `window`: each modality has its own (paper); in the code that of the sound counts for both, which here is the first
   modality (official).
3. `others`: β of the modalities but the first, as that one's (paper), or 0.1 (official).
4. tr(F^m) is the sum over the encoder's layers of the mean of the squared gradient, after the pull, as in the code; of
   all weights with two or more axes, there of convolutions and linear layers.
5. Behind a concatenation f^m has its share 1/M of the bias, as in the code; of any other model it is what that gives
   with the others' features at zero, or the modality's own head. The code squares gradients which two heads of its own
   do not have, and stops with an error; without these it runs.
6. M modalities in place of two, with the lead over the others' mean.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import Epoch, Method, MethodSettings, Step
from balancemm_cli.models.fusion import Concat
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class InfoReg(Method):
    """Information acquisition regulation: pull the encoder that is ahead back to older weights, early in training."""

    origin: ClassVar = Origin(
        "Huang, Wei, Yang, Hu, CVPR 2025, arXiv 2503.18595",
        "GeWu-Lab/InfoReg_CVPR2025",
        "numbers",
        "each modality has its own window and the same β; the code's rules are variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        strength: float = Field(default=0.95, ge=0)  # β
        others: float | None = Field(default=None, ge=0)  # β of the modalities but the first; None: the same
        epochs: int = Field(default=10, ge=1)  # N
        threshold: float = 0.05  # K
        window: Literal["own", "first"] = "own"  # whose growth counts

    VARIANTS: ClassVar = {"paper": {}, "official": {"others": 0.1, "window": "first"}}
    by_rho: ClassVar = True
    METRICS: ClassVar = ("pull",)  # β in force

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        others = settings.strength if settings.others is None else settings.others
        self.strengths = [settings.strength, *[others] * (len(modalities) - 1)]
        self.network: Network | None = None
        self.start: dict[str, Tensor] = {}  # the encoders' weights at the beginning of the epoch
        self.traces: Tensor | None = None  # [E, M] of the last N + 1 epochs, then that of this one so far
        self.open: Tensor | None = None  # [M] bool: whether the window is open

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, for what it makes of each modality; there are no modules to train."""
        self.network = network
        return None

    @torch.no_grad()
    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Keep the weights, and find whose window is open."""
        self.start = {name: weight.clone() for name, weight in network.encoders.named_parameters()}
        none = next(iter(self.start.values())).new_zeros(1, len(self.modalities))
        done = none[:0] if self.traces is None else self.traces
        growth = growths(done, self.settings.epochs)
        self.open = growth > self.settings.threshold
        if self.settings.window == "first":
            self.open = self.open[:1].expand_as(self.open).clone()
        self.traces = torch.cat([done[-self.settings.epochs :], none])

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with those of the modalities alone added."""
        assert self.network is not None
        fusion = self.network.fusion
        for logits in self.network.logits_alone(step.features).values():
            if isinstance(fusion, Concat):
                logits = logits - (1 - 1 / len(step.features)) * fusion.head.bias
            loss = loss + step.mean(step.losses(logits))
        return loss

    def on_gradients(self, network: Network, step: Step) -> None:
        """Pull those back that are ahead, and add up the Fisher information."""
        assert step.discrepancy is not None and self.open is not None and self.traces is not None
        betas = self._betas(step.discrepancy.scores)
        step.metrics["pull"] = betas
        found = []
        for name, beta in zip(self.modalities, betas, strict=True):
            trace = betas.new_zeros(())
            for key, weight in network.encoders[name].named_parameters(prefix=name):
                if weight.grad is not None:
                    weight.grad.add_(beta * (weight.detach() - self.start[key]))
                    trace = trace + weight.grad.square().mean() * (weight.ndim > 1)
            found.append(trace)
        self.traces = torch.cat([self.traces[:-1], self.traces[-1:] + torch.stack(found)])

    def _betas(self, scores: Tensor) -> Tensor:
        """β [M] in force, of the scores [M]."""
        assert self.open is not None
        count = len(self.strengths)
        lead = (count * scores - scores.sum()) / (count - 1)
        strengths = torch.stack([scores.new_full((), strength) for strength in self.strengths])
        return torch.where((lead > 0) & self.open, strengths * lead.tanh().exp(), 0)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights at the beginning of the epoch, the traces, and whose window is open."""
        state = {"traces": self.traces, "open": self.open}
        kept = {name: values for name, values in state.items() if values is not None}
        return kept | {f"start/{name}": weight for name, weight in self.start.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.traces, self.open = state.get("traces"), state.get("open")
        begins = "start/"
        self.start = {
            name.removeprefix(begins): weight for name, weight in state.items() if name.startswith(begins)
        }


def growths(traces: Tensor, epochs: int) -> Tensor:
    """k [M] of the traces [E, M] of the epochs that are done; 1 where there are none."""
    last = traces[-epochs:].sum(0)
    before = traces[:-1][-epochs:].sum(0)
    return torch.where(last > 0, (last - before) / torch.where(last > 0, last, 1), 1)
