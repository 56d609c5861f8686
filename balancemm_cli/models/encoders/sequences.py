"""Encoders of sequences: texts, series of numbers, and vectors, which are sequences of one step."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from balancemm_cli.models.encoders.base import Encoder
from balancemm_cli.models.encoders.standardisation import Standardisation, held
from balancemm_cli.shapes import SequenceShape

KERNEL = 5  # steps of a convolution


class StepEncoder(Encoder):
    """An encoder of sequences that makes something of each step, and averages over the steps that are not padding."""

    def steps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (see encoders) to what is made of each step [B, T, features], zeros for padding; and ones for the
        steps that are no padding, else zeros [B, T, 1]."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D], [B, T, P, D] or [B, T] to [B, features]."""
        values, weights = self.steps(inputs)
        return values.sum(1) / weights.sum(1).clamp_min(1)


class SequenceTransformer(StepEncoder):
    """A transformer encoder for feature sequences and texts, averaged over the steps that are not padding.

    The paper's CMU-MOSI rows use transformer encoders from scratch (Sec. 4.2) and state no size; here two
    pre-norm layers of width 128 with 4 heads, learned positions and no dropout.
    """

    features = 128

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        width = self.features
        if shape.words:
            self.project = nn.Embedding(shape.words, width, padding_idx=0)
        else:
            self.project = nn.Linear(shape.width, width)
        self.positions = nn.Parameter(0.02 * torch.randn(shape.length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)

    def steps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D], [B, T, P, D] (averaged over P) or [B, T], T no more than the shape's length, to what the layers
        make of each step.

        Returns that [B, T, 128], zeros for padding, and ones for the steps that are no padding, else zeros [B, T, 1].
        """
        inputs = _over_positions(inputs)
        if not len(inputs):  # of a process that a small batch left nothing: torch's attention needs a sample
            # joined, not in its place: a network before this one has to take part in the backward
            values, weights = self.steps(torch.cat([inputs, inputs.new_zeros((1, *inputs.shape[1:]))]))
            return values[:0], weights[:0]
        present = held(inputs)
        # A sample of padding alone (a missing modality) keeps its first step: the softmax needs something.
        first = torch.arange(present.shape[1], device=present.device) == 0
        present = present | (first & ~present.any(1, keepdim=True))
        values = self.project(inputs) + self.positions[: inputs.shape[1]]
        values = self.layers(values, src_key_padding_mask=~present)
        weights = present.to(values.dtype)[..., None]
        return values * weights, weights


class SeriesTransformer(SequenceTransformer):
    """The transformer on numbers that are standardised over all training steps, with zeros for padding as before."""

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__(shape)
        self.project = nn.Sequential(Standardisation(shape.width, padded=True), self.project)

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Mean and deviation of the steps that are not padding."""
        _standardisation(self).fit(lambda: map(_over_positions, batches()))


class SeriesConvolution(StepEncoder):
    """Three convolutions over the steps, of standardised numbers; 128 features.

    Widths 64, 128 and 128, kernels of 5 steps, a ReLU after each; the last two take every second step. Padding is set
    to zero again before each, so that what is made of a series does not depend on how far it is filled up.
    """

    features = 128

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.standardise = Standardisation(shape.width, padded=True)
        sizes = [(shape.width, 64, 1), (64, 128, 2), (128, self.features, 2)]
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, outputs, KERNEL, stride, padding=KERNEL // 2)
            for inputs, outputs, stride in sizes
        )

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Mean and deviation of the steps that are not padding."""
        _standardisation(self).fit(lambda: map(_over_positions, batches()))

    def steps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] or [B, T, P, D] (averaged over P) to every fourth step of the last map [B, T / 4, 128], T / 4
        rounded up; see StepEncoder. A sample of padding alone gives zeros and no step."""
        inputs = _over_positions(inputs)
        values = self.standardise(inputs).mT
        weights = held(inputs).to(values.dtype)[:, None]
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            (stride,) = layer.stride
            # a step of the map is none of padding where it stands for a step that is none
            weights = max_pool1d(weights, stride, ceil_mode=True)
            values = layer(values).relu() * weights
        return values.mT, weights.mT


class TextBag(Encoder):
    """The mean of the embeddings of a text's words, which are trained; zeros for a text without words.

    With a linear layer on it, it is the classifier of Joulin et al. (EACL 2017, arXiv 1607.01759).
    """

    features = 128

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.words, self.features, padding_idx=0)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T] to [B, 128]."""
        present = held(inputs)[..., None]
        return (self.words(inputs) * present).sum(1) / present.sum(1).clamp_min(1)


class VectorEncoder(Encoder):
    """One linear layer and a ReLU on a vector, or on the vectors of several positions, over which it averages."""

    features = 128
    project: nn.Sequential

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(shape.width, VectorEncoder.features), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, …, D] to [B, features]."""
        return self.project(inputs.flatten(1, -2)).mean(1)


class VectorMLP(VectorEncoder):
    """Standardised numbers through two linear layers, each with a ReLU, of width 128 and 64; 64 features.

    Zeros are numbers as any other here: a vector is never padding.
    """

    features = 64

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__(shape)
        second = nn.Linear(VectorEncoder.features, self.features)
        self.project = nn.Sequential(
            Standardisation(shape.width, padded=False), *self.project, second, nn.ReLU()
        )

    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Mean and deviation of the training vectors."""
        _standardisation(self).fit(batches)


def _standardisation(encoder: Encoder) -> Standardisation:
    return next(module for module in encoder.modules() if isinstance(module, Standardisation))


def _over_positions(inputs: Tensor) -> Tensor:
    """[B, T, P, D] averaged over P; others as they are."""
    return inputs.mean(2) if inputs.ndim == 4 else inputs
