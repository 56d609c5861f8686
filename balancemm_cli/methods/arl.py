"""ARL, asymmetric representation learning (Wei, Luo, Luo, ICCV 2025; arXiv 2507.10203).

Balance is not the aim: by the bias and the variance of a sum of predictions, the error is least where the model depends
on each modality in inverse proportion to the variance of that modality's prediction. With f^m what the model makes of
modality m without the others, through its shared weights, the loss is

    L = CE(f, y) + γ Σ_m CE(f^m, y)

and the gradient of each encoder is multiplied by 1 + k^m, where

    k = softmax_m(T · d^m · v^m),   v^m ∝ 1 / max(H^m / Σ_j H^j, 0.3),   Σ_m v^m = 1

H^m is the mean entropy of softmax(f^m), which stands for the variance, and d^m the share that the other modality has of
Σ_j |f^j|: k is large for a modality that is sure of itself and on which the model does not yet depend. No gradient
passes k. Choices, and where the official code (shicaiwei123/ICCV2025-ARL, main_arl_variance.py, models/backbone.py and
models/fusion_modules.py) differs:

1. `coefficient`: k of this step (paper); the code computes it, prints it, and never hands it to its encoders, for which
   k stays 0.5 (official). As published it ends with an error where the factor is first used: it multiplies a gradient
   by a tuple. The numbers of the tests are those of the code with the tensor in it in place of the tuple.
2. γ = 4 and T = 8, its command line for CREMA-D; it has 3 and 4 for Kinetics-Sounds, 5 and 4 for AVE, 1 and 4 for
   VGGSound.
3. Before `first_epoch`, 6 (official), γ is 1 and no gradient is multiplied. Paper: from the start.
4. `clip`: the gradients of all weights together are clipped to a norm of 40 (official), or not (paper).
5. f^m is the head of its own where the model has one (sum), else the prediction with the others' features at zero: that
   of the code for sum and concat, the whole bias included. Its gate and FiLM are others than here, see dgl.py.
6. M modalities in place of two: d^m is the mean share of the others, and 0.3 becomes `least` / M with `least` 0.6; the
   constant coefficient is 1 / M.
7. The code scales what flows back from the features, here are scaled the gradients of all weights of an encoder. It is
   the same unless encoders see one another.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import EpochRange, Method, Step, scale_gradients
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class ARL(Method):
    """Asymmetric representation learning: more gradient to modalities that are surer than the model depends on them."""

    origin: ClassVar = Origin(
        "Wei, Luo, Luo, ICCV 2025, arXiv 2507.10203",
        "shicaiwei123/ICCV2025-ARL",
        "numbers",
        "the coefficients are used, from the first epoch on; the code's constant is variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        gamma: float = Field(default=4.0, ge=0)
        temperature: float = Field(default=8.0, ge=0)  # T
        least: float = Field(default=0.6, gt=0, le=1)  # of an even share of the entropies
        coefficient: Literal["variance", "constant"] = "variance"
        clip: float | None = Field(default=None, gt=0)  # the norm of all gradients together

        IDLE: ClassVar = dict.fromkeys(
            ("temperature", "least"), ("coefficient", lambda rule: rule == "constant")
        )

    needs_classes: ClassVar[bool] = True  # for the entropy of their probabilities
    VARIANTS: ClassVar = {
        "paper": {},
        "official": {"coefficient": "constant", "first_epoch": 6, "clip": 40},
    }
    METRICS: ClassVar = ("coefficient",)  # k in force; 0 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.network: Network | None = None

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, for what it makes of each modality; there are no modules to train."""
        self.network = network
        return None

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with those of the modalities alone added; their coefficients are found on the way."""
        assert self.network is not None
        active, count = self.settings.active(step.epoch), len(self.modalities)
        alone = self.network.logits_alone(step.features)
        for logits in alone.values():
            loss = loss + (self.settings.gamma if active else 1) * step.mean(step.losses(logits))
        if not active:
            step.metrics["coefficient"] = loss.new_zeros(count)
        elif self.settings.coefficient == "constant":
            step.metrics["coefficient"] = loss.new_full((count,), 1 / count)
        else:
            step.metrics["coefficient"] = self.coefficients(torch.stack(list(alone.values())).detach(), step)
        return loss

    def coefficients(self, logits: Tensor, step: Step) -> Tensor:
        """k [M] from what the model makes of each modality [M, B, C]."""
        entropies = torch.special.entr(logits.softmax(-1))
        sums = step.total(torch.stack([logits.abs(), entropies]).sum((2, 3)))  # [2, M]
        sizes, shares = sums / sums.sum(1, keepdim=True).clamp_min(torch.finfo(sums.dtype).tiny)
        count = len(sizes)
        inverse = 1 / shares.clamp_min(self.settings.least / count)
        others = (1 - sizes) / (count - 1)
        return torch.softmax(self.settings.temperature * others * inverse / inverse.sum(), 0)

    def on_gradients(self, network: Network, step: Step) -> None:
        """Scale the gradients of the encoders, then clip all, if so set."""
        factors = 1 + step.metrics["coefficient"]
        for encoder, factor in zip(network.encoders.values(), factors, strict=True):
            scale_gradients(encoder.parameters(), factor)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip)
