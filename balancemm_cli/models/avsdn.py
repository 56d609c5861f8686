"""AVSDN, the audio-visual sequence-to-sequence dual network (Lin, Li, Wang, "Dual-modality seq2seq network for
audio-visual event localization", ICASSP 2019; arXiv 1902.07473; Table 7 of the paper).

An LSTM a modality reads the segments; what they hold at the end, fused, is the global state from which a further LSTM
sets out. It takes the local features of all modalities, segment by segment, and gives an answer for each.

There is no public code, and the paper's text could not be read here: what follows is after its abstract's scheme
("jointly taking both audio and visual features at each time segment as inputs … learns global and local event
information in a sequence to sequence manner"), not held against code, with these choices:
1. LSTMs of width 128 in one direction, for encoder and decoder; all of it is after the encoders, see avga.py.
2. The global state is fused by ½ Σ, as ECCV 2018's residual fusion does, of a linear layer with a tanh on each
   modality's last state; one such fusion for h and one for c.
3. The decoder's input is the concatenation of the segment's features. It doesn't see its own answers, so that training
   and evaluation run alike.
4. Pictures are averaged over their positions.
Any number of modalities from two on.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from balancemm_cli.models.encoders import Choice, Shape, make_encoders, widths
from balancemm_cli.models.fusion import Features, Fusion, ModelSettings, need_several
from balancemm_cli.models.heads import linear_head
from balancemm_cli.models.network import Network
from balancemm_cli.origin import Origin

HIDDEN = 128


class AVSDN(Network):
    """LSTMs that read the whole clip, and one that answers segment by segment from where they ended."""

    origin: ClassVar = Origin(
        "Lin, Li, Wang, ICASSP 2019, arXiv 1902.07473",
        None,
        "equations",
        "after its abstract alone",
    )

    segmentwise = True

    @classmethod
    def assemble(
        cls, choice: Choice, inputs: Mapping[str, Shape], classes: int, settings: ModelSettings
    ) -> "AVSDN":
        """UsageError for one modality alone."""
        encoders = make_encoders(choice, inputs)
        need_several("avsdn", widths(encoders))
        return cls(encoders, SequenceToSequence(widths(encoders), classes, settings))


class SequenceToSequence(Fusion):
    """Features [B, S, D_m] to logits [B, S, C]."""

    def __init__(self, widths: Mapping[str, int], classes: int, settings: ModelSettings) -> None:
        super().__init__(widths, classes, settings)
        self.readers = nn.ModuleDict(
            {name: nn.LSTM(width, HIDDEN, batch_first=True) for name, width in widths.items()}
        )
        self.to_state, self.to_cell = (
            nn.ModuleDict({name: nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Tanh()) for name in widths})
            for _ in range(2)
        )
        self.decoder = nn.LSTM(sum(widths.values()), HIDDEN, batch_first=True)
        self.head = linear_head(HIDDEN, classes)

    def forward(self, features: Features) -> Tensor:
        """To logits [B, S, C]."""
        answers, _ = self.decoder(torch.cat(list(features.values()), -1), self.whole(features))
        return self.head(answers)

    def whole(self, features: Features) -> tuple[Tensor, Tensor]:
        """The global state (h, c), [1, B, 128] each."""
        last = {name: self.readers[name](feature)[1] for name, feature in features.items()}
        states = torch.stack([self.to_state[name](h) for name, (h, _) in last.items()])
        cells = torch.stack([self.to_cell[name](c) for name, (_, c) in last.items()])
        return states.mean(0), cells.mean(0)
