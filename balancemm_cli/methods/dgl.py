"""DGL, disentangled gradient learning (Wei, Luo, Luo, ICCV 2025; arXiv 2507.10213).

Fusing modalities makes what flows back to an encoder smaller than it would be without the others. So the loss of the
prediction trains the fusion alone, and each encoder is trained by the loss of what the model makes of that modality
without the others, which in turn does not train the fusion:

    L = CE(F(sg[h^1], …, sg[h^M]), y) + α Σ_m CE(F_sg(0, …, h^m, …, 0), y)

with sg what no gradient passes, and F_sg the fusion with fixed weights. Choices, and where the official code
(shicaiwei123/ICCV2025-GDL, main_dgl.py and models/fusion_modules.py) differs:

1. α = 4, the default of the code. Its command lines have 4 and 5 on CREMA-D, 2 and 3 on Kinetics-Sounds.
2. What the model makes of one modality is the head of its own where it has one (sum), else the prediction with the
   others' features at zero: that of the code for sum and concat, the whole bias included. Behind a gate the code lets
   each modality open its own gate, and its FiLM is an outer product, multiplied by itself; here they are as any other.
3. `clip`: the gradients of all weights together are clipped to a norm of 40 (official), or not (paper).
4. The fusion is as it is for one modality in evaluation mode, so that no batch normalisation counts the zeros.
5. M modalities in place of two. Of a network whose encoders see one another, the loss of one modality also reaches the
   encoders that it takes from.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from balancemm_cli.methods.base import Method, MethodSettings, Step
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin


class DGL(Method):
    """Disentangled gradient learning: the prediction trains the fusion alone, each modality's own loss its encoder."""

    origin: ClassVar = Origin(
        "Wei, Luo, Luo, ICCV 2025, arXiv 2507.10213",
        "shicaiwei123/ICCV2025-GDL",
        "numbers",
        "gradients are not clipped; the code's clipping is variant official",
    )

    class Settings(MethodSettings):
        """The paper's settings; `VARIANTS` holds what the official code does instead."""

        alpha: float = Field(default=4.0, ge=0)
        clip: float | None = Field(default=None, gt=0)  # the norm of all gradients together

    VARIANTS: ClassVar = {"paper": {}, "official": {"clip": 40}}

    def __init__(self, settings: Settings, modalities: list[str]) -> None:
        super().__init__(settings, modalities)
        self.settings = settings
        self.network: Network | None = None

    def attach(self, network: Network, classes: int) -> nn.Module | None:
        """Keep the network, for what it makes of each modality; there are no modules to train."""
        self.network = network
        return None

    def on_features(self, features: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The same features, through which no gradient flows."""
        return {name: feature.detach() for name, feature in features.items()}

    def on_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss with those of the modalities alone added."""
        assert self.network is not None
        for logits in self.network.logits_alone(step.features, detached=True).values():
            loss = loss + self.settings.alpha * step.mean(step.losses(logits))
        return loss

    def on_gradients(self, network: Network, step: Step) -> None:
        """Clip the gradients, if so set."""
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip)
