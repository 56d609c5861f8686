"""i-vector (Dehak et al., IEEE TASLP 2011, Sec. III) as the encoder of sound (Table 8).

A Gaussian mixture (UBM: weights w_c, means μ_c, diagonal covariances Σ_c) is fitted on the frames of the training
sound, before training. A clip's sound shifts all means together, by T w with w ~ N(0, I) of low dimension. With
the frames' posteriors γ_t(c), N_c = Σ_t γ_t(c) and F_c = Σ_t γ_t(c) (x_t − μ_c), the posterior of w has

    precision   L = I + Σ_c N_c T_cᵀ Σ_c⁻¹ T_c        mean (the i-vector)   L⁻¹ Σ_c T_cᵀ Σ_c⁻¹ F_c

T comes by EM (Kenny et al., IEEE TSAP 2005): E[w] and E[w wᵀ] = L⁻¹ + E[w] E[w]ᵀ of each clip; then
T_c = (Σ F_c E[w]ᵀ) (Σ N_c E[w wᵀ])⁻¹, times the Cholesky factor of the mean E[w wᵀ], that w stay N(0, I). What is
fitted lies in buffers, in every checkpoint; a small network on the i-vector is trained with the task.

1. Frames: 20 cepstra (orthonormal DCT-II of 40 equal bands of the recipe's log spectrogram, with the 0th, which
   is the energy), Δ and ΔΔ over two frames each way: 60 numbers, as in the original, whose bands are mel filters
   (a recipe's mel bank gives these).
2. They are scaled by mean and deviation of all training frames. The original warps each 3 s to a normal
   distribution; clips of 3 s would lose their loudness, which tells emotions apart.
3. 64 Gaussians and 100 dimensions, not 2,048 and 400, for CREMA-D has some five hours of sound. Ten rounds of EM
   for T; μ and Σ stay those of the UBM.
4. On the i-vector: two layers of width 256 with ReLU, for the paper names no classifier; the original has LDA, WCCN
   and cosine scoring, for speakers.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import Encoder
from balancemm_cli.models.fusion import ModelSettings
from balancemm_cli.models.sound import SoundNetwork, bands
from balancemm_cli.models.total_variability import posterior, reestimate
from balancemm_cli.origin import Origin

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

BANDS, CEPSTRA = 40, 20
UBM_FRAMES = 100_000  # with so many or up to twice as many the mixture is fitted, evenly out of all


class IVectorSettings(ModelSettings):
    """The sizes of mixture and subspace, and how often the subspace is re-estimated."""

    components: int = Field(default=64, gt=0)
    rank: int = Field(default=100, gt=0)
    iterations: int = Field(default=10, gt=0)


class IVector(Encoder):
    """Spectrograms [B, 1, F, T] to [B, 256], by way of the i-vector. Before `fit` mixture and subspace are random."""

    features = 256
    cosines: Tensor
    centre: Tensor
    scale: Tensor
    weights: Tensor
    means: Tensor
    variances: Tensor
    subspace: Tensor

    def __init__(self, settings: IVectorSettings) -> None:
        super().__init__()
        self.settings = settings
        count, width, rank = settings.components, 3 * CEPSTRA, settings.rank
        self.register_buffer("cosines", _cosines(), persistent=False)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.register_buffer("means", torch.randn(count, width))
        self.register_buffer("variances", torch.ones(count, width))
        self.register_buffer("subspace", 0.1 * torch.randn(count, width, rank))
        self.seed = int(torch.randint(2**31 - 1, ()))  # of the mixture: by the run's seed, as the weights are
        self.network = nn.Sequential(
            nn.Linear(rank, self.features), nn.ReLU(), nn.Linear(self.features, self.features), nn.ReLU()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The network on the i-vectors, which carry no gradient."""
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            counts, sums = self.statistics(self._frames(inputs))
            vectors, _ = posterior(counts, sums, self.variances, self.subspace)
        return self.network(vectors)

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterator[Tensor]]) -> None:
        """Fit mixture and subspace on the training sound, the same way each time; their EM is in float64.

        UsageError where there are fewer frames than Gaussians.
        """
        frames = _evenly(cepstra(inputs, self.cosines).flatten(0, 1) for inputs in batches())
        if len(frames) < self.settings.components:
            raise UsageError(
                f"i-vector.components is {self.settings.components}, and the training sound has {len(frames)} "
                "frames. Make it smaller."
            )
        self.centre.copy_(frames.mean(0))
        self.scale.copy_(frames.std(0) + 1e-6)
        mixture = self._mixture((frames - self.centre) / self.scale)
        self.weights.copy_(torch.from_numpy(mixture.weights_))
        self.means.copy_(torch.from_numpy(mixture.means_))
        self.variances.copy_(torch.from_numpy(mixture.covariances_))
        found = [self.statistics(self._frames(inputs)) for inputs in batches()]
        counts, sums = (torch.cat(parts).double() for parts in zip(*found, strict=True))
        subspace, variances = self.subspace.double(), self.variances.double()
        for _ in range(self.settings.iterations):
            subspace = reestimate(counts, sums, variances, subspace)
        self.subspace.copy_(subspace)

    def _mixture(self, frames: Tensor) -> "GaussianMixture":
        from sklearn.exceptions import ConvergenceWarning  # here, for it takes long to import
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(
            self.settings.components,
            covariance_type="diag",
            init_params="k-means++",
            random_state=self.seed,
            reg_covar=1e-3,
        )
        with warnings.catch_warnings():  # 100 rounds suffice, converged or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            return mixture.fit(frames.double().cpu().numpy())

    def _frames(self, inputs: Tensor) -> Tensor:
        return (cepstra(inputs, self.cosines) - self.centre) / self.scale

    def statistics(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """N [B, C] and F [B, C, D] of frames [B, T, D]."""
        precisions = 1 / self.variances
        constant = self.weights.log() + precisions.log().sum(1) / 2 - (self.means**2 * precisions).sum(1) / 2
        densities = frames @ (self.means * precisions).T - frames**2 @ precisions.T / 2 + constant
        posteriors = densities.softmax(2)
        counts = posteriors.sum(1)
        return counts, posteriors.mT @ frames - counts[..., None] * self.means


def _cosines() -> Tensor:
    """The orthonormal DCT-II [BANDS, CEPSTRA]."""
    angles = math.pi / BANDS * torch.outer(torch.arange(BANDS) + 0.5, torch.arange(CEPSTRA))
    cosines = math.sqrt(2 / BANDS) * angles.cos()
    cosines[:, 0] /= math.sqrt(2)
    return cosines


def cepstra(spectrograms: Tensor, cosines: Tensor) -> Tensor:
    """Log spectrograms [B, 1, F, T] to cepstra, their first and their second differences [B, T, 60]."""
    plain = cosines.T @ bands(spectrograms, BANDS)
    first = differences(plain)
    return torch.cat([plain, first, differences(first)], 1).mT


def differences(values: Tensor) -> Tensor:
    """Slopes over two frames each way, [B, D, T] to the same shape; the ends are repeated."""
    padded = pad(values, (2, 2), mode="replicate")
    near, far = padded[..., 3:-1] - padded[..., 1:-3], padded[..., 4:] - padded[..., :-4]
    return (near + 2 * far) / 10


def _evenly(parts: Iterator[Tensor]) -> Tensor:
    """All rows of all parts, or evenly spread ones: no more than twice UBM_FRAMES."""
    kept: list[Tensor] = []
    step = 1
    for part in parts:
        kept.append(part[::step])
        if sum(map(len, kept)) > 2 * UBM_FRAMES:
            kept, step = [torch.cat(kept)[::2]], 2 * step
    return torch.cat(kept)


class IVectorNetwork(SoundNetwork):
    """i-vector for sound, the recipe's encoder for pictures, concatenated."""

    origin: ClassVar = Origin(
        "Dehak, Kenny, Dehak, Dumouchel, Ouellet, IEEE TASLP 2011",
        None,
        "equations",
        "64 Gaussians and 100 dimensions, for little sound; a small network in the place of scoring",
    )

    Settings = IVectorSettings
    name = "i-vector"
    sound = IVector
