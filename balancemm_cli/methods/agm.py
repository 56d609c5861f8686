"""AGM, Adaptive Gradient Modulation (Li, Li, Hu, Lei, Li, Zhou, ICCV 2023; arXiv 2308.07686, Sec. 3).

The mono-modal response φ^m of the output Φ is its Shapley value, Φ(S) being the output with the modalities outside S
set to zero: φ^m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · (Φ(S ∪ m) − Φ(S)), Φ(∅) = 0. Then Φ = Σ_m φ^m. With
s^m the mean cross-entropy of softmax(φ^m) over the batch and ŝ^m its running mean over all steps before,

    r^m = exp(mean_{j≠m} (s^j − s^m)),   τ^m = exp(mean_{j≠m} (ŝ^j − ŝ^m)),   κ^m = exp(α (τ^m − r^m))

and what flows back through φ^m is multiplied by κ^m. Choices, and where the official code (lihong2303/AGM_ICCV2023,
run/CREMAD_main.py and model/CREMAD_net.py) differs:

1. Zero are the features, so that no encoder runs twice (paper's default here), or the inputs: the subsets go through
   the encoders once more, in evaluation mode and with gradients through them (official). A batch normalisation makes
   features of zeros that are not zero.
2. The official code scales by backward hooks and takes Σ_m φ^m as the output. Here the loss keeps its value, and its
   gradient is that of the modulated sum: Φ and κ^m (φ^m − its own value) add up to the logits.
3. The fusion runs on the subsets in evaluation mode (both); on the whole set as the step did, in training mode
   (official), or in evaluation mode too. It matters only to a fusion with batch normalisation or dropout.
4. A sample's cross-entropy counts up to −log 1e-8, in both variants: the official bound, where the paper has none.
5. `cap` bounds τ − r: 10 (official, CREMA-D; 7 on UR-FUNNY, none on their other data sets), none (paper).
6. `clip`: if an entry of the gradient of the fusion's weight is beyond ±`clip`, the gradients of all weights together
   are clipped to that norm: 1 (official, CREMA-D; 5 on UR-FUNNY, none on AVE), never (paper). Of a fusion of several
   layers every weight matrix is looked at; the official code looks at its last one.
7. `stays`: in epochs that are not modulated κ is that of the last step that was (official), or 1.
8. Epochs 0 to 19 (official: 1 to 20, counted from 1), all (paper).
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class AGM(Method):
    """Adaptive Gradient Modulation: scale what flows back through each modality's share of the output."""

    origin: ClassVar = Origin(
        "Li, Li, Hu, Lei, Li, Zhou, ICCV 2023, arXiv 2308.07686",
        "lihong2303/AGM_ICCV2023",
        "numbers",
        "features are zeroed, not inputs; no cap, no clipping, all epochs; the code's rules are variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=1.0, ge=0)
        zeroed: Literal["features", "inputs"] = "features"
        cap: float | None = Field(default=None, gt=0)  # of τ − r
        clip: float | None = Field(
            default=None, gt=0
        )  # of gradients: their norm, and the entry from which on
        stays: bool = False  # whether κ stays in force in epochs that are not modulated

    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"zeroed": "inputs", "cap": 10, "clip": 1, "stays": True, "last_epoch": 19},
    }
    METRICS: ClassVar = ("kappa",)  # κ in force; 1 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.network: Network | None = None
        self.mean: Tensor | None = None  # ŝ [M]
        self.steps: Tensor | None = None  # 0-dim: over which the mean goes
        self.kappa: Tensor | None = None  # [M], in force
        self._inputs: Mapping[str, Tensor] = {}  # of this step

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, to compute its outputs for subsets of the modalities; there are no modules to train."""
        self.network = network
        return None

    def on_inputs(self, inputs: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Keep the inputs, from which those of the subsets are made."""
        self._inputs = inputs
        return inputs

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with the same value and the modulated gradient."""
        inputs, self._inputs = self._inputs, {}
        active = self.settings.active(step.epoch)
        if not active and not self.settings.stays:
            step.metrics["kappa"] = loss.new_ones(len(self.modalities))
            return loss
        assert self.network is not None
        if self.settings.zeroed == "inputs":
            output, responses = shapley_of_inputs(self.network, inputs, step)
        else:
            output, responses = shapley(self.network, step.features)
        found = self.coefficient(self._scores(responses.detach(), step))
        if active or self.kappa is None:
            self.kappa = found if active else torch.ones_like(found)
        step.metrics["kappa"] = self.kappa
        scales = self.kappa.view(-1, *[1] * (responses.ndim - 1))
        modulated = output.detach() + (scales * (responses - responses.detach())).sum(0)
        plain, scaled = (step.mean(step.losses(logits)) for logits in (output, modulated))
        return loss + (scaled - plain)

    def on_gradients(self, network: Network, step: Step) -> None:
        """Clip the gradients of all weights together where one of the fusion's is large."""
        of_fusion = [weight.grad for weight in network.fusion.parameters() if weight.ndim > 1]
        watched = [gradient for gradient in of_fusion if gradient is not None]
        if self.settings.clip is None or not watched:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        largest, norms = torch._foreach_norm(watched, math.inf), torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
        factor = (self.settings.clip / (torch.stack(norms).norm() + 1e-6)).clamp_max(1)
        factor = torch.where(torch.stack(largest).max() > self.settings.clip, factor, 1)
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]

    def coefficient(self, scores: Tensor) -> Tensor:
        """κ [M] from this step's scores s [M]. Afterwards the scores are added to the running mean."""
        if self.mean is None or self.steps is None:
            self.mean, self.steps = torch.zeros_like(scores), scores.new_zeros(())
        excess = (ratios(self.mean) - ratios(scores)).clamp_max(self.settings.cap or math.inf)
        kappa = torch.exp(self.settings.alpha * excess)
        self.steps = self.steps + 1
        self.mean = self.mean + (scores - self.mean) / self.steps
        return kappa

    def _scores(self, responses: Tensor, step: Step) -> Tensor:
        losses = torch.stack([step.losses(logits) for logits in responses])  # [M, B]
        count, _ = step.streams.samples(len(step.labels))
        return step.total(losses.clamp_max(-math.log(1e-8)).sum(1)) / count

    def state_dict(self) -> dict[str, Tensor]:
        """The running mean of the scores, over how many steps it goes, and κ."""
        state = {"mean": self.mean, "steps": self.steps, "kappa": self.kappa}
        return {name: value for name, value in state.items() if value is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.mean, self.steps, self.kappa = (state.get(name) for name in ("mean", "steps", "kappa"))


def ratios(scores: Tensor) -> Tensor:
    """exp of the mean over the others of s^j − s^m, [M]."""
    count = len(scores)
    return torch.exp((scores.sum() - count * scores) / (count - 1))


def shapley(network: Network, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The output Φ [B, C] and the responses φ [M, B, C], with gradients to features and weights.

    One forward of fusion and head, over all 2^M − 1 subsets stacked on the batch axis, in evaluation mode.
    """
    subsets = all_subsets(features)
    training = network.fusion.training
    network.fusion.eval()
    outputs = torch.stack(network.classify(stacked(features, subsets)).chunk(len(subsets)))  # [S, B, C]
    network.fusion.train(training)
    return outputs[-1], _responses(outputs, subsets)


def shapley_of_inputs(network: Network, inputs: Mapping[str, Tensor], step: Step) -> tuple[Tensor, Tensor]:
    """As `shapley`, of inputs [B, …]: the output is the step's own, and one forward of the whole network in evaluation
    mode is over all other subsets. Gradients reach the encoders by both."""
    assert step.encode is not None and step.logits is not None
    subsets = all_subsets(inputs)
    training = network.training
    network.eval()
    features = step.encode(stacked(inputs, subsets[:-1]))
    outputs = network.classify(features).chunk(len(subsets) - 1)
    network.train(training)
    return step.logits, _responses(torch.stack([*outputs, step.logits]), subsets)


def all_subsets(values: Mapping[str, Tensor]) -> Tensor:
    """All subsets of the modalities but the empty one, [S, M], 1 for a member; the last one is all."""
    count, device = len(values), next(iter(values.values())).device
    places = torch.arange(count, device=device)
    return (torch.arange(1, 2**count, device=device)[:, None] >> places) & 1


def stacked(values: Mapping[str, Tensor], subsets: Tensor) -> dict[str, Tensor]:
    """Values [B, …] to [S · B, …] a modality, with zeros in the subsets [S, M] that it is no member of."""
    return {
        name: (member.view(-1, *[1] * value.ndim) * value).flatten(0, 1)
        for (name, value), member in zip(values.items(), subsets.unbind(1), strict=True)
    }


def _responses(outputs: Tensor, subsets: Tensor) -> Tensor:
    return torch.einsum("sm,s...->m...", shapley_weights(subsets.to(outputs.dtype)), outputs)


def shapley_weights(subsets: Tensor) -> Tensor:
    """The weight of each Φ(S) in each φ^m, [S, M]; `subsets` is [S, M], 1 where a modality is in the subset."""
    count = subsets.shape[1]
    size = subsets.sum(1, keepdim=True)

    def weight(others: Tensor) -> Tensor:  # |S|! (M − |S| − 1)! / M!, |S| = others < M
        logs = torch.lgamma(others + 1) + torch.lgamma(count - others) - math.lgamma(count + 1)
        return logs.exp()

    return torch.where(subsets == 1, weight(size - 1), -weight(size.clamp_max(count - 1)))
