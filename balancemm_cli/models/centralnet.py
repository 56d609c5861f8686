"""CentralNet (Vielzeuf et al., ECCV workshops 2018, arXiv 1808.07275; Table 3).

A central stream beside the encoders. At level i, with v_i^m the i-th stage of modality m and c_i the central one,

    s_i = α_i^c c_i + Σ_m α_i^m v_i^m,   c_{i+1} = φ(W_i s_i + b_i),   no c at the first level,

and at last the weighted sum of the central prediction and of each modality's own, U^m v_S^m + d^m, is f. All α are
learned. The loss is CE(f, y) + Σ_m CE(U^m v_S^m + d^m, y). Left open by the sources, or different here:

1. Spectrograms and pictures have maps of different sizes: v_i^m is the stage's map averaged over positions and frames,
   and the central layers are linear (with a ReLU, the last one without) of the stages' widths, not convolutions.
2. A modality's feature is its v_1 … v_S side by side. To drop or to zero it takes the modality out of every level, and
   zero-out runs the central stream again, never an encoder. Alone, a modality keeps its α and the others' biases d.
3. α starts uniform in [0, 1), as in MFAS's code of this model (Pérez-Rúa et al., CVPR 2019), but with no sigmoid on it.
4. That code puts another linear layer on the last sum and trains with the encoders frozen. Here the sum is the
   prediction, and all is trained together from the start, with weight 1 for each loss.
5. A modality that is dropped from a sample shows its own head zeros: there, only its bias d learns.
6. A sequence's transformer is one stage, at the last level, brought to the width there by a linear layer without bias.
7. MFAS's code has a batch normalisation in each central layer, before the ReLU (models/central/ntu.py);
   `centralnet.batch_norm` puts it there. By default there is none, as in the equations: that code is not the authors',
   of which none was found.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Encoder, Shape, make_encoders
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, Step, need_several
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network
from balancemm_cli.models.stages import Course, levels, stage_widths
from balancemm_cli.origin import Origin


class CentralNetSettings(ModelSettings):
    """Whether central layers are normalised."""

    batch_norm: bool = False


class Central(Fusion):
    """The central stream and the modalities' own heads. Features are [B, Σ_i w_i^m]: the stages side by side."""

    def __init__(self, encoders: Mapping[str, Encoder], classes: int, settings: CentralNetSettings) -> None:
        widths = {name: encoder.features for name, encoder in encoders.items()}
        super().__init__(widths, classes, settings)
        need_several("centralnet", widths)
        self.stages = {name: stage_widths(encoder) for name, encoder in encoders.items()}
        self.levels = [list(level) for level in levels(encoders)]
        central = max(self.stages.values(), key=len)
        others = {name: width for name, width in widths.items() if width != central[-1]}
        self.adapt = nn.ModuleDict(
            {name: nn.Linear(width, central[-1], bias=False) for name, width in others.items()}
        )
        hidden = [_layer(width, above, settings.batch_norm) for width, above in pairwise(central)]
        self.layers = nn.ModuleList([*hidden, linear_head(central[-1], classes)])
        self.heads = nn.ModuleDict({name: linear_head(width, classes) for name, width in widths.items()})
        summands = [len(names) + (level > 0) for level, names in enumerate([*self.levels, list(widths)])]
        self.alphas = nn.ParameterList([nn.Parameter(torch.rand(count)) for count in summands])

    def forward(self, features: Features) -> Tensor:
        """Features to logits [B, C]."""
        stages = self._stages(features)
        central = []
        for level, (names, layer) in enumerate(zip(self.levels, self.layers, strict=True)):
            back = level - len(self.levels)
            values = [self._adapted(name, stages[name][back], back) for name in names]
            central = [layer(_weighted(self.alphas[level], values + central))]
        return _weighted(self.alphas[-1], self._predictions(stages) + central)

    def objective(self, loss: Tensor, features: Features, step: Step) -> Tensor:
        """The loss with those of each modality's own prediction added."""
        for logits in self._predictions(self._stages(features)):
            loss = loss + step.mean(step.losses(logits))
        return loss

    def _stages(self, features: Features) -> dict[str, tuple[Tensor, ...]]:
        return {name: feature.split(self.stages[name], 1) for name, feature in features.items()}

    def _predictions(self, stages: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        return [self.heads[name](values[-1]) for name, values in stages.items()]

    def _adapted(self, name: str, values: Tensor, back: int) -> Tensor:
        return self.adapt[name](values) if back == -1 and name in self.adapt else values


def _layer(width: int, above: int, batch_norm: bool) -> nn.Sequential:
    return nn.Sequential(
        linear_head(width, above), *([nn.BatchNorm1d(above)] if batch_norm else []), nn.ReLU()
    )


def _weighted(alphas: Tensor, values: Sequence[Tensor]) -> Tensor:
    return torch.stack([alpha * value for alpha, value in zip(alphas.unbind(), values, strict=True)]).sum(0)


class CentralNet(Network):
    """A central stream that learns how much of each modality to take at each stage."""

    origin: ClassVar = Origin(
        "Vielzeuf, Lechervy, Pateux, Jurie, ECCV workshops 2018, arXiv 1808.07275",
        None,
        "equations",
        "linear central layers on averaged maps, without batch normalisation",
    )

    Settings = CentralNetSettings

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion) -> None:
        super().__init__(encoders, fusion)
        self.stages = {name: stage_widths(encoder) for name, encoder in encoders.items()}

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "CentralNet":
        """The model for these inputs. UsageError for a single one, and for an unknown encoder."""
        assert isinstance(settings, CentralNetSettings)
        encoders = make_encoders(choice, inputs)
        return cls(encoders, Central(encoders, classes, settings))

    @property
    def widths(self) -> dict[str, int]:
        """The length of each modality's feature: of all its stages together."""
        return {name: sum(stages) for name, stages in self.stages.items()}

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs (see encoders) to features [B, Σ_i w_i] a modality: its stages' averages, side by side."""
        return {name: self._pooled(name, inputs[name]) for name in self.modalities}

    def _pooled(self, name: str, inputs: Tensor) -> Tensor:
        course, pooled = Course(self.encoders[name], inputs), []
        for _ in self.stages[name]:
            course.advance()
            pooled.append(course.pooled())
        return torch.cat(pooled, 1)
