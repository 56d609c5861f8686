"""MSLR, modality-specific learning rates (Yao, Mihalcea, Findings of ACL 2022).

The best learning rates of two modalities alone may be far apart, and one rate for both leaves one of them untrained. So
each modality m is trained at a rate of its own, η^m = λ^m s^m η, with η the run's rate, λ^m `rates`, and s^m by the
`strategy`:

    keep       s^m = 1: λ^m η is what is best for the modality alone
    dynamic    s^m = a^m_t / mean(a^m_{t−N}, …, a^m_{t−1}), once N accuracies are known, until then 1

a^m_t is the accuracy of what modality m gives alone, on the validation samples, before epoch t = 1, 2, …; N `window`.
No code of the authors was found. Choices, and where that of others who compare with it differs (kkontras/MLB,
agents/general_agent/helpers/Bias_Infusion.py):

1. The paper's text was not at hand: equations are after that code and what others say of it. A third strategy of
   the paper, `smooth`, is left out.
2. `scaled`: a learning rate of its own, with its momentum and its decay (paper); the code multiplies gradients in its
   place (official), which is the same for plain SGD alone: AdamW divides the factor out again.
3. The rate is that of the encoder and, of a model with a head for each modality (sum), of that head: a late fusion
   is uni-modal models, trained together. Scaled gradients are those of the encoder alone, as in the code.
4. λ = 1, N = 5. The code's files have N = 5 and λ = 0.9 for audio, 1.1 for video, a note 0.7, 1.3 and N = 10 for AVE.
5. Where a modality had no sample right in N epochs, s^m is 1; the code divides by zero.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Epoch, EpochRange, Method, Step, scale_gradients
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class MSLR(Method):
    """Modality-specific learning rates: each modality is trained at its own, which follows its validation accuracy.

    UsageError from the constructor for a number of rates other than that of the modalities.
    """

    origin: ClassVar = Origin(
        "Yao, Mihalcea, Findings of ACL 2022",
        None,
        "others",
        "the code is kkontras/MLB, which is not its authors': it scales gradients in place of rates, variant official",
    )

    class Settings(EpochRange):
        """The paper's settings; `VARIANTS` holds what the code does instead."""

        strategy: Literal["keep", "dynamic"] = "dynamic"
        rates: tuple[PositiveFloat, ...] | None = None  # λ of each modality; None: 1 each
        window: int = Field(default=5, ge=1)  # N
        scaled: Literal["rates", "gradients"] = "rates"

        IDLE: ClassVar = {"window": ("strategy", lambda strategy: strategy == "keep")}

    needs_classes: ClassVar[bool] = True  # for their accuracies
    VARIANTS: ClassVar = {"paper": {}, "official": {"scaled": "gradients"}}
    METRICS: ClassVar = ("rate",)  # λ s in force; 1 where a step is not modulated

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.given = settings.rates or (1.0,) * len(modalities)
        if len(self.given) != len(modalities):
            raise UsageError(f"mslr.rates needs {len(modalities)} numbers, one a modality.")
        self.accuracies: Tensor | None = None  # [k, M] of the last k ≤ N epochs
        self.ratios: Tensor | None = None  # s [M] of the epoch

    @classmethod
    def needs_validation(cls, settings: Settings) -> bool:
        """See the base."""
        return settings.strategy == "dynamic"

    def on_epoch_start(self, network: Network, epoch: Epoch) -> None:
        """Find s of the epoch."""
        if not self.needs_validation(self.settings) or epoch.number == 0:
            return
        now, before = accuracies(network, epoch), self.accuracies
        if before is None:
            before = now[None, :][:0]
        self.ratios = ratios(now, before) if len(before) == self.settings.window else torch.ones_like(now)
        self.accuracies = torch.cat([before, now[None, :]])[-self.settings.window :]

    def on_gradients(self, network: Network, step: Step) -> None:
        """Give each modality its learning rate, or scale its gradients."""
        like = next(network.parameters())
        factors = torch.stack([like.new_full((), rate) for rate in self.given])
        if self.ratios is not None:
            factors = factors * self.ratios
        if not self.settings.active(step.epoch):
            factors = torch.ones_like(factors)
        step.metrics["rate"] = factors
        heads = getattr(network.fusion, "heads", {})
        for name, factor in zip(self.modalities, factors, strict=True):
            encoder = network.encoders[name]
            if self.settings.scaled == "rates":
                parts = [encoder, heads[name]] if name in heads else [encoder]
                step.rates += [(factor, part) for part in parts]
            else:
                scale_gradients(encoder.parameters(), factor)

    def state_dict(self) -> dict[str, Tensor]:
        """The last accuracies, and s of the epoch."""
        state = {"accuracies": self.accuracies, "ratios": self.ratios}
        return {name: values for name, values in state.items() if values is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self.accuracies, self.ratios = state.get("accuracies"), state.get("ratios")


@torch.no_grad()
def accuracies(network: Network, epoch: Epoch) -> Tensor:
    """The accuracy [M] of what each modality gives alone, on the validation samples, in evaluation mode."""
    network.eval()
    counted = next(network.parameters()).new_zeros(len(network.modalities) + 1)
    for inputs, labels in epoch.validation():
        alone = torch.stack(list(network.unimodal_logits(network.encode(inputs)).values()))
        right = (alone.argmax(-1) == labels).sum(1)
        counted = counted + torch.cat([right, right.new_full((1,), len(labels))])
    network.train()
    counted = epoch.total(counted)
    return counted[:-1] / counted[-1].clamp_min(1)


def ratios(now: Tensor, before: Tensor) -> Tensor:
    """s [M] from the accuracies [M] and those of the epochs before [N, M]."""
    mean = before.mean(0)
    return torch.where(mean > 0, now / mean, 1)
