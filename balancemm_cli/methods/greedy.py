"""Balanced learning against greed (Wu, Jastrzębski, Cho, Geras, ICML 2022; arXiv 2202.05306, Sec. 4, Algorithm 1).

Two branches, each with a prediction of its own, joined by MMTM's gates: what brings the other modality into branch m is
the gates of m. How fast the weights θ_m of the branch (encoder and head) and γ_m of its gates (their excitations, and
all squeezes, which serve every branch) are learned compared to their size is summed up over the regular steps,

    s_m = log10(Σ_t μ(γ_m; t) / Σ_t μ(θ_m; t)),   μ(θ; t) = ‖∂L/∂θ‖² / ‖θ‖² at step t.

Where s_m is greater than the other's by more than a tolerance, branch m takes from the other modality faster than it
learns its own, and Q re-balancing steps follow: in every module the gates of m are replaced by their running mean, a
constant. The other branch's gates work as ever, both losses are minimised and both encoders are trained. Then comes a
regular step again. In the paper's words s_0 is s(m1 | m0), the conditional learning speed.

It is defined on MMTM with branches alone (`mmtm.heads=branches`); greedy_adaptation.py is what is done elsewhere. Where
paper and code (nyukat/greedy_multimodal_learning: src/callbacks.py, src/balanced_mmtm.py) and this file differ:

1. The code feeds the running means of both branches with the gates of the first, by a slip (`greedy.second_mean=
   official`); of `own`, each branch has its own. So the official one needs gates of one width.
2. The code measures for an epoch before it begins to re-balance (its epochs count from 1, and `starting_epoch` is 2).
3. Running means take up every forward in training, re-balancing ones too, before they are used, as in the code; there
   the evaluations after each epoch move them as well, which here they don't.
4. M modalities: the official slip gives all the first one's; the greatest s_m less the smallest is held against the
   tolerance, and the greatest is re-balanced. With two that is the published form. A modality's gates are those of all
   modules that it takes part in, and the squeezes of those count for it.
5. Tolerance 0.01 and Q = 5 are the code's (configs/training_guided.gin). The paper's text was not at hand.
6. A weight that has no gradient in a step, as the excitations of m while its gates are replaced, is left out by torch's
   optimiser, with its momentum and its decay. Here the device decides, by `Step.held`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.mmtm import MMTM, Branches, Transfer
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class Schedule(EpochRange):
    """When re-balancing begins, and for how long."""

    tolerance: float = Field(default=0.01, ge=0)  # α, of speeds
    window: int = Field(default=5, gt=0)  # Q, in steps


class Greedy(Method):
    """For some steps, replace what brings the others into the branch that takes from them fastest by its mean."""

    origin: ClassVar = Origin(
        "Wu, Jastrzębski, Cho, Geras, ICML 2022, arXiv 2202.05306",
        "nyukat/greedy_multimodal_learning",
        "numbers",
        "each branch has its own running means, and no epoch only measures; the code's rules are variant official",
    )

    revision = 2  # the first was what greedy_adaptation.py is

    class Settings(Schedule):
        """The paper's settings, the tolerance in decimal logarithms; `VARIANTS` holds what the official code does
        instead."""

        second_mean: Literal["own", "official"] = "own"

    VARIANTS: ClassVar = {"paper": {}, "official": {"first_epoch": 1, "second_mean": "official"}}
    METRICS: ClassVar = ("replaced",)  # 1 for the branch whose gates are replaced
    TRIED_ON: ClassVar = ("mmtm", ("mmtm.heads=branches",))

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.state: dict[str, Tensor] = {}
        self.step: Step | None = None  # the one that is being trained, for the gates

    def attach(self, network: Network, classes: int) -> None:
        """Watch the gates of each module, and replace them in training. UsageError where there are no such gates."""
        if not isinstance(network, MMTM) or not isinstance(network.fusion, Branches):
            raise UsageError(
                "Method greedy needs branches that gate each other: take model mmtm with mmtm.heads=branches, or "
                "greedy-adaptation, which adapts it to any network."
            )
        for level, module in network.transfers.items():
            assert isinstance(module, Transfer)
            widths = {layer.out_features for layer in module.excite.values()}
            if self.settings.second_mean == "official" and len(widths) > 1:
                raise UsageError(
                    "greedy.second_mean=official takes the first modality's gates for the others', and they are of "
                    "different widths here. Use own."
                )
            module.register_forward_hook(partial(self._gate, level))

    def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Inputs as they are; from here on the gates are those of this step."""
        self.step = step
        if not self.state:
            zeros = torch.zeros(len(self.modalities), device=step.labels.device)
            self.state = {
                "own": zeros,  # Σ μ of each branch
                "gates": zeros,  # and of its gates
                "left": zeros[0].long(),  # re-balancing steps
                "fastest": zeros.bool(),
            }
        step.metrics["replaced"] = self._replaced.to(self.state["own"].dtype)
        return inputs

    @property
    def _replaced(self) -> Tensor:
        """Of which branches the gates are replaced [M]."""
        return self.state["fastest"] & (self.state["left"] > 0)

    def _gate(
        self, level: str, module: nn.Module, _: object, gates: dict[str, Tensor]
    ) -> dict[str, Tensor] | None:
        """The gates [B, C_m] of a module with those of the fastest branch replaced, in a step of training."""
        if self.step is None or not module.training:
            return None
        replaced = dict(zip(self.modalities, self._replaced, strict=True))
        first = next(iter(gates))
        count = self.state.get(f"{level}/forwards", self.state["own"].new_zeros(()))
        self.state[f"{level}/forwards"] = count + 1
        given = {}
        for name, gate in gates.items():
            fed = gates[first] if self.settings.second_mean == "official" else gate
            samples, _ = self.step.streams.samples(len(fed))
            mean = self.step.total(fed.detach().to(self.state["own"].dtype).sum(0)) / samples
            before = self.state.get(f"{level}/{name}", torch.zeros_like(mean))
            mean = self.state[f"{level}/{name}"] = (mean + before * count) / (count + 1)
            given[name] = torch.where(replaced[name], mean.to(gate.dtype), gate)
        return given

    def on_gradients(self, network: Network, step: Step) -> None:
        """Measure the speeds, after a regular step; begin to re-balance where they differ."""
        assert isinstance(network, MMTM)
        regular, replaced = self.state["left"] == 0, self._replaced
        for name, weights in (("own", _of_branch), ("gates", _of_gates)):
            rates = torch.stack([rate(weights(network, modality)) for modality in self.modalities])
            self.state[name] = self.state[name] + torch.where(regular, rates, 0)
        for modality, held in zip(self.modalities, replaced, strict=True):
            step.held += [(held, module.excite[modality]) for module in _modules(network, modality)]
        found = speeds(self.state["gates"], self.state["own"])
        left, fastest = self.state["left"], self.state["fastest"]
        self.state["left"], self.state["fastest"] = after_step(self.settings, step, found, left, fastest)

    def on_step_end(self, step: Step) -> None:
        """Forwards that come before the next step are none of its."""
        self.step = None

    def state_dict(self) -> dict[str, Tensor]:
        """The speeds, the running means, and how many re-balancing steps are left."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.state = dict(state)


def speeds(gates: Tensor, own: Tensor) -> Tensor:
    """s [M] from Σ μ of the gates and of the branches [M]."""
    tiny = torch.finfo(gates.dtype).tiny
    return gates.clamp_min(tiny).log10() - own.clamp_min(tiny).log10()


def _modules(network: MMTM, modality: str) -> list[Transfer]:
    """Those that the modality takes part in."""
    return [
        module
        for module in network.transfers.values()
        if isinstance(module, Transfer) and modality in module.excite
    ]


def _of_gates(network: MMTM, modality: str) -> list[nn.Parameter]:
    modules = _modules(network, modality)
    layers = [layer for module in modules for layer in (module.squeeze, module.excite[modality])]
    return [weight for layer in layers for weight in layer.parameters()]


def _of_branch(network: MMTM, modality: str) -> list[nn.Parameter]:
    assert isinstance(network.fusion, Branches)
    return [*network.encoders[modality].parameters(), *network.fusion.heads[modality].parameters()]


def after_step(
    schedule: Schedule, step: Step, speeds: Tensor, left: Tensor, fastest: Tensor
) -> tuple[Tensor, Tensor]:
    """How many re-balancing steps follow (0-dim), and which modality is the fastest [M]: where the speeds [M] differ
    after a regular step, with `left` at 0, a window begins."""
    begins = (left == 0) & (speeds.max() - speeds.min() > schedule.tolerance)
    if not schedule.active(step.epoch):
        begins = torch.zeros_like(begins)
    fastest = torch.where(begins, speeds == speeds.max(), fastest)
    return torch.where(begins, schedule.window, (left - 1).clamp_min(0)), fastest


def rate(weights: Iterable[nn.Parameter]) -> Tensor:
    """μ = ‖gradient‖² / ‖weights‖² (0-dim), over all weights that have a gradient."""
    trained = [(weight.grad, weight.detach()) for weight in weights if weight.grad is not None]
    gradients, values = (
        torch.stack(torch._foreach_norm(tensors)).square().sum()  # pyright: ignore[reportPrivateImportUsage]
        for tensors in map(list, zip(*trained, strict=True))
    )
    return gradients / values
