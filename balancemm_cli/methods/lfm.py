"""LFM, of "Facilitating Multimodal Classification via Dynamically Learning Modality Gap" (Yang, Wan, Jiang, Xu, NeurIPS
2024).

Beside the loss of the prediction, the predictions p^m that the modalities make alone are aligned, for each pair by

    A(p, q) = ½ KL(r ‖ p) + ½ KL(r ‖ q),   r = (p + q) / 2,   L = 2 ((1 − a) CE(f, y) + a A)

with a weight a that begins high and changes from epoch to epoch. The paper learns a on two levels; the official code
(njustkmg/NeurIPS24-LFM) has two scripts, with one rule each:

1. `weight=learned`, Crema_epoch_learnable.py: before each epoch a ← a − rate · g, within 0.05 and 0.95, from a = 0.95.
   g is the mean, over the first weight tensor of the first encoder, of H ∇CE(f, y), with H the second derivatives of
   (1 − a) CE + a A by all weights; the rate is 1e-4 and halves each 20 epochs. With that rate a hardly moves.
2. `weight=fitted`, Crema_epoch.py, the command of its README: a is a polynomial of the epoch that is said to be fitted
   to what was learned on CREMA-D; 0.80 at first, 0.46 in epoch 100, 0.08 in epoch 199, from where it stays here. Runs
   of fewer epochs end sooner on the same curve. It is the variant official.
3. The paper's text was not at hand: `learned` is what the authors published of it, its heuristic weight is left out.
4. g comes from a random batch of the training part, in evaluation mode; in the script from the same eight samples in
   every epoch, which it leaves out of the training, and in the first epoch in training mode.
5. The code's prediction is the mean of two heads, f = ½ (o^1 + o^2): model sum with `sum.average`. On any other model
   p^m is the prediction with the other features at zero.
6. KL is from the mean to the predictions, as the code has it; Jensen and Shannon's is the other way round.
7. Of M modalities A is the mean over all pairs.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import log
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from balancemm_cli.methods.base import Epoch, Method, MethodSettings, Step
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin

FITTED = (2.04623704e-01, 3.35472727e-03, 1.22989557e-04, -2.92947416e-06, 2.23835486e-08, -5.39717505e-11)
LAST = 199  # the epoch up to which it was fitted
ONE_BATCH = 1e-9  # as share of an epoch


class LFM(Method):
    """Align what the modalities predict alone, with a weight that changes from epoch to epoch (modality gap)."""

    origin: ClassVar = Origin(
        "Yang, Wan, Jiang, Xu, NeurIPS 2024",
        "njustkmg/NeurIPS24-LFM",
        "numbers",
        "the weight is learned as in their second script; the polynomial of the first one is variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        weight: Literal["learned", "fitted"] = "learned"
        start: float = Field(default=0.95, ge=0.05, le=0.95)  # of a, where it is learned
        rate: float = Field(default=1e-4, ge=0)  # of learning it

        IDLE: ClassVar = dict.fromkeys(("start", "rate"), ("weight", lambda rule: rule == "fitted"))

    needs_classes: ClassVar[bool] = True  # for their probabilities
    VARIANTS: ClassVar = {"paper": {}, "official": {"weight": "fitted"}}

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.network: Network | None = None
        self.weight: Tensor | None = None  # a, 0-dim

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, for what it makes of each modality; there are no modules to train."""
        self.network = network
        return None

    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Find the weight of the epoch."""
        if self.settings.weight == "fitted":
            self.weight = _trained(network)[0].new_full((), 1 - fitted(epoch.number))
            return
        before = self._weight(_trained(network)[0])
        rate = self.settings.rate * 0.5 ** (epoch.number // 20)
        self.weight = (before - rate * self._slope(network, epoch, before)).clamp(0.05, 0.95)

    def _weight(self, like: Tensor) -> Tensor:
        start = 1 - fitted(0) if self.settings.weight == "fitted" else self.settings.start
        return like.new_full((), start) if self.weight is None else self.weight

    def _slope(self, network: Network, epoch: Epoch, weight: Tensor) -> Tensor:
        """g, 0-dim, see 1 above."""
        inputs, labels = next(iter(epoch.batches(ONE_BATCH, "lfm")))
        count = epoch.total(labels.new_full((), len(labels)))
        weights = _trained(network)
        network.eval()
        # second derivatives, which the fused kernels of attention and of recurrent layers have not
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            features = network.encode(inputs)
            loss = cross_entropy(network.classify(features), labels, reduction="sum") / count
            whole = (1 - weight) * loss + weight * alignment(
                network.logits_alone(features).values()
            ).sum() / count
            slopes = torch.autograd.grad(whole, weights, create_graph=True, materialize_grads=True)
            plain = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
            flat = epoch.total(torch.cat([slope.reshape(-1) for slope in plain]))
            along = flat.split([slope.numel() for slope in plain])
            pairs = [(s, v) for s, v in zip(slopes, along, strict=True) if s.requires_grad]
            turned = torch.stack([(s * v.view_as(s)).sum() for s, v in pairs]).sum()
            (found,) = torch.autograd.grad(turned, weights[:1], materialize_grads=True)
        network.train()
        return epoch.total(found.mean())

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss and the alignment, weighted."""
        assert self.network is not None
        self.weight = self._weight(loss)
        aligned = step.mean(alignment(self.network.logits_alone(step.features).values()))
        return 2 * ((1 - self.weight) * loss + self.weight * aligned)

    def state_dict(self) -> dict[str, Tensor]:
        """The weight of the alignment."""
        return {} if self.weight is None else {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it."""
        self.weight = state.get("weight")


def _trained(network: Network) -> list[nn.Parameter]:
    """The weights of encoders and fusion that are trained, the first encoder's before all others."""
    weights = [*network.encoders.parameters(), *network.fusion.parameters()]
    return [weight for weight in weights if weight.requires_grad]


def alignment(logits: Iterable[Tensor]) -> Tensor:
    """A of each sample [B], the mean over all pairs, from the logits [B, C] of each modality."""
    logs = [one.log_softmax(-1) for one in logits]
    pairs = []
    for p, q in combinations(logs, 2):
        r = torch.logaddexp(p, q) - log(2)
        pairs.append((r.exp() * (r - (p + q) / 2)).sum(-1))
    return torch.stack(pairs).mean(0)


def fitted(epoch: int) -> float:
    """1 − a of an epoch, counted from 0."""
    return sum(factor * min(epoch, LAST) ** power for power, factor in enumerate(FITTED))
