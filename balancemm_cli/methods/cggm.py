"""CGGM, classifier-guided gradient modulation (Guo, Jin, Chen, Zhao, NeurIPS 2024; arXiv 2411.01409).

A classifier of each modality's own, on features that it does not train, tells by its accuracy a^m on the batch how fast
the modality is learned. The gradient of an encoder is multiplied by ρ B^m, which is the smaller the more of the gain in
accuracy was its own, and the head is turned towards the classifiers of the modalities that lag:

    B^m_t = Σ_{k≠m} Δ^k / Σ_k Δ^k,   Δ^k = a^k_t − a^k_{t−1}
    L = CE(f, y) + λ (1/M) Σ_m (|B^m| − B^m cos(g^m, g^m_f))

with g^m the gradient of the classifier's loss by its weights, and g^m_f that of L by the head's weights for the same
modality. Choices, and where the official code (zrguo/CGGM, src/msatrain.py and src/eval_metrics.py) differs:

1. The paper's text was not at hand: equations are as others give them. ρ = 1.3, λ = 0.2, the code's of CMU-MOSI and
   IEMOCAP; λ = 0.05 on Food-101.
2. `direction`: the cosine is of gradients, and flows on through the head to the encoders (paper). The code hands over
   the weights themselves where it means their gradients, and minimises what it got a step later: head and
   classifiers of the step before, with B of that step (official).
3. `floor`: where Σ Δ is no more than that, B is 1 − 1/M as if all had gained alike (paper). The code divides by
   Σ Δ + 1e-8, so that B reaches 1e7 where gains cancel out (official).
4. B may be negative, and large where gains nearly cancel out: what bounds the step is that gradients of encoders and
   fusion together are clipped to a norm of 0.8, as in the code. Its classifiers are not clipped, nor are they here.
5. The classifier is a linear head; the code's is a transformer of two layers over tokens with three linear ones after
   it. It trains at half of the run's rate, as there, where the code has an optimiser for it.
6. The head's weights for a modality are those that take its feature: its part of one linear layer, a head of its own,
   or the whole layer where that is as wide as the feature, as in the code. A model without any is refused, unless
   λ is 0.
7. Of regression a^m counts the right signs, with 0 as positive; in the code it is negative.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings, Step, scale_gradients
from balancemm_cli.models.heads import UnimodalHeads
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class CGGM(Method):
    """Classifier-guided gradient modulation: scale gradients by what the other modalities gain, and turn the head.

    UsageError from `attach` for a model without linear heads.
    """

    origin: ClassVar = Origin(
        "Guo, Jin, Chen, Zhao, NeurIPS 2024, arXiv 2411.01409",
        "zrguo/CGGM",
        "numbers",
        "the cosine is of gradients, and B is even where gains cancel out; the code's rules are variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        rho: float = Field(default=1.3, gt=0)
        lam: float = Field(default=0.2, ge=0)  # λ
        direction: Literal["gradients", "weights"] = "gradients"  # of which the cosine is
        floor: float = Field(default=1e-6, ge=0)  # of |Σ Δ|
        clip: float = Field(default=0.8, gt=0)  # the norm of the gradients of encoders and fusion together
        classifier_rate: float = Field(default=0.5, gt=0)  # of the run's learning rate

        IDLE: ClassVar = {"direction": ("lam", lambda lam: lam == 0)}

    VARIANTS: ClassVar = {"paper": {}, "official": {"direction": "weights", "floor": 0.0}}
    METRICS: ClassVar = ("balance",)  # B

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.heads: UnimodalHeads | None = None
        self.network: Network | None = None
        self.accuracies: Tensor | None = None  # a [M] of the step before
        self.pull: list[
            Tensor
        ] = []  # what the weights of the step before add to the gradient of each head weight

    def attach(self, network: Network, classes: int) -> nn.Module:
        """A linear classifier for each modality."""
        self.network = network
        if self.settings.lam and not head_weights(network):
            raise UsageError(
                "Method cggm turns a linear head on each modality's features, and this model has none. "
                "Take concat or sum, or set cggm.lam=0."
            )
        self.heads = UnimodalHeads(network.widths, classes)
        return self.heads

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss, with those of the classifiers and, of gradients, the one of the direction added."""
        assert self.heads is not None
        detached = {name: feature.detach() for name, feature in step.features.items()}
        logits = self.heads(detached, step.task.axes)
        losses = [step.mean(step.losses(one)) for one in logits.values()]
        step.metrics["balance"] = self._coefficients(list(logits.values()), step)
        if self.settings.lam and self.settings.direction == "gradients":
            loss = loss + self.settings.lam * self._of_gradients(loss, losses, step)
        return loss + torch.stack(losses).sum()

    def _coefficients(self, logits: list[Tensor], step: Step) -> Tensor:
        """B [M]."""
        chosen = step.task.choose(torch.stack(logits).detach())
        right = (chosen == step.task.classes_of(step.labels)).flatten(1)
        answers = step.streams.samples(len(step.labels))[0] * step.labels.shape[1:].numel()
        now = step.total(right.sum(1).to(logits[0].dtype)) / answers
        before, self.accuracies = self.accuracies, now
        return coefficients(now if before is None else now - before, self.settings.floor)

    def _of_gradients(self, loss: Tensor, losses: list[Tensor], step: Step) -> Tensor:
        """The loss of the direction: its gradient is this process's part, and its value this process's share."""
        assert self.network is not None and self.heads is not None
        weights = [self.heads[name].get_parameter("weight") for name in self.modalities]
        own = torch.autograd.grad(losses, weights, retain_graph=True)
        fused = torch.autograd.grad(
            loss, head_weights(self.network), create_graph=True, materialize_grads=True
        )
        whole = [step.total(gradient) for gradient in fused]
        turned = misdirection(
            step.metrics["balance"],
            [step.total(gradient) for gradient in own],
            parts(whole, self.network),
        )
        share = len(step.labels) / step.streams.samples(len(step.labels))[0]
        return turned - (1 - share) * turned.detach()

    def on_gradients(self, network: Network, step: Step) -> None:
        """Scale what reached the encoders, turn the head by the weights of before, and clip."""
        assert self.heads is not None
        factors = self.settings.rho * step.metrics["balance"]
        for name, factor in zip(self.modalities, factors, strict=True):
            scale_gradients(network.encoders[name].parameters(), factor)
        if self.settings.lam and self.settings.direction == "weights":
            self._turn(network, step.metrics["balance"])
        weights = [*network.encoders.parameters(), *network.fusion.parameters()]
        nn.utils.clip_grad_norm_(weights, self.settings.clip)
        step.rates += [(factors.new_full((), self.settings.classifier_rate), self.heads)]

    def _turn(self, network: Network, factors: Tensor) -> None:
        assert self.heads is not None
        weights = head_weights(network)
        for weight, pull in zip(weights, self.pull, strict=False):
            if weight.grad is not None:
                weight.grad.add_(pull, alpha=self.settings.lam)
        copies = [weight.detach().clone().requires_grad_() for weight in weights]
        own = [self.heads[name].get_parameter("weight").detach() for name in self.modalities]
        turned = misdirection(factors, own, parts(copies, network))
        self.pull = list(torch.autograd.grad(turned, copies))

    def state_dict(self) -> dict[str, Tensor]:
        """The accuracies of the step before, and what its weights add to gradients."""
        state = {} if self.accuracies is None else {"accuracies": self.accuracies}
        return state | {f"pull/{k}": pull for k, pull in enumerate(self.pull)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.accuracies = state.get("accuracies")
        self.pull = [state[f"pull/{k}"] for k in range(sum(name.startswith("pull/") for name in state))]


def coefficients(gains: Tensor, floor: float) -> Tensor:
    """B [M] of the gains Δ [M], see 3 above."""
    whole = gains.sum() + 1e-8
    even = whole.abs() <= floor
    return torch.where(even, 1 - 1 / len(gains), (whole - gains) / torch.where(even, 1.0, whole))


def misdirection(factors: Tensor, own: list[Tensor], fused: list[Tensor]) -> Tensor:
    """(1/M) Σ (|B| − B cos), 0-dim, of B [M] and of tensors of the same shape in pairs."""
    cosines = [cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(own, fused, strict=True)]
    return (factors.abs() - factors * torch.stack(cosines)).mean()


def head_weights(network: Network) -> list[Tensor]:
    """The weights that take modalities' features to the output: one [C, D], or one [C, D_m] a modality; or none."""
    head, heads = getattr(network.fusion, "head", None), getattr(network.fusion, "heads", {})
    widths = network.widths
    if isinstance(head, nn.Linear):
        fits = head.in_features == sum(widths.values()) or {head.in_features} == {*widths.values()}
        return [head.weight] if fits else []
    found = [heads[name].weight for name in widths if name in heads]
    return found if [weight.shape[-1] for weight in found] == [*widths.values()] else []


def parts(values: list[Tensor], network: Network) -> list[Tensor]:
    """What belongs to each modality, [C, D_m], of tensors like `head_weights`."""
    widths = [*network.widths.values()]
    if len(values) > 1:
        return values
    return list(values[0].split(widths, 1)) if values[0].shape[1] == sum(widths) else values * len(widths)
