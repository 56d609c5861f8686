"""A network: an encoder a modality, a fusion with its head, and the logits of each modality alone."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Encoder, Shape
from balancemm_cli.models.fusion import Fusion, ModelSettings, Step
from balancemm_cli.origin import Origin


class Network(nn.Module):
    """Encoders and a fusion over an ordered mapping of modalities (any number, any names).

    A model that is more than a fusion of the usual encoders' features is a subclass with an `assemble` of its own.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    origin: ClassVar[Origin | None] = None  # its paper and code, and what it was held against
    revision: ClassVar[int] = 1  # raised where a change moves its numbers at the same settings
    segmentwise: ClassVar[bool] = (
        False  # whether the model answers for each segment of a clip, not for a clip
    )

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.extras = nn.ModuleDict()  # what methods train with the network, by the method's name

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "Network":
        """The model for these inputs, with the run's encoders. UsageError for inputs that it can't take."""
        raise NotImplementedError

    @property
    def modalities(self) -> list[str]:
        """The modalities' names, in the order of all tensors with a modality axis."""
        return list(self.encoders)

    @property
    def widths(self) -> dict[str, int]:
        """The length D of each modality's feature [B, …, D]: what a method's own head on it takes."""
        encoders = {name: module for name, module in self.encoders.items() if isinstance(module, Encoder)}
        return {name: encoder.features for name, encoder in encoders.items()}

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to features [B, D_m] a modality; of some models and of segments [B, …]."""
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def classify(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features [B, D_m] a modality to logits [B, C], or [B, S, C] of a task with segments."""
        return self.fusion(features)

    def objective(self, loss: Tensor, features: Mapping[str, Tensor], step: Step) -> Tensor:
        """The loss that training minimises (0-dim), from that of `classify`, as the model's own paper has it."""
        return self.fusion.objective(loss, features, step)

    def unimodal_logits(
        self, features: Mapping[str, Tensor], bias_split: Sequence[float] | None = None
    ) -> dict[str, Tensor]:
        """f^m [B, C] a modality: the linear split where it is exact, zero-out else.

        The weights are detached, so a gradient can reach the features alone.
        `bias_split` gives γ of Table 14 (concat with a linear head only); UsageError where it can't apply.
        """
        return self.fusion.unimodal_logits(features, bias_split)

    def logits_alone(self, features: Mapping[str, Tensor], detached: bool = False) -> dict[str, Tensor]:
        """What each modality gives [B, C] without the others, a gradient reaching the weights too unless `detached`."""
        return self.fusion.logits_alone(features, detached)

    def modulated(self) -> dict[str, list[nn.Parameter]]:
        """The encoder weights of each modality whose gradients a method may modulate."""
        encoders = {name: module for name, module in self.encoders.items() if isinstance(module, Encoder)}
        return {name: encoder.modulated() for name, encoder in encoders.items()}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs to logits [B, C]."""
        return self.classify(self.encode(inputs))
