"""Total variability (Dehak et al. 2011; Kenny et al., IEEE TSAP 2005): the posterior of w, and EM for T; see i_vector.

N are counts [B, C] and F centred first-order sums [B, C, D] of B clips under C Gaussians of D dimensions, with
diagonal covariances Σ [C, D]; T is [C, D, R].
"""

import torch
from torch import Tensor

CLIPS_AT_ONCE = 256  # in the E-step, whose second moments take rank² numbers a clip


def posterior(counts: Tensor, sums: Tensor, variances: Tensor, subspace: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B, R] of w, and L's lower Cholesky factor [B, R, R], from N [B, C], F [B, C, D], Σ [C, D], T [C, D, R]."""
    weighted = subspace / variances[..., None]
    grams = subspace.mT @ weighted
    identity = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    precision = identity + (counts @ grams.flatten(1)).view(-1, *grams.shape[1:])
    projected = sums.flatten(1) @ weighted.flatten(0, 1)
    # it is positive definite, so nothing is checked, for which the host would wait
    factor, _ = torch.linalg.cholesky_ex(precision)
    return torch.cholesky_solve(projected[..., None], factor)[..., 0], factor


def reestimate(counts: Tensor, sums: Tensor, variances: Tensor, subspace: Tensor) -> Tensor:
    """One round of EM: the next T [C, D, R]; arguments as of `posterior`.

    The last step brings the vectors' second moments to those of the prior ("minimum divergence"). Without it the
    scale of T hardly leaves that of its start.
    """
    components, width, rank = subspace.shape
    weighted = subspace.new_zeros((components, rank * rank))
    products = subspace.new_zeros((components * width, rank))
    moments = subspace.new_zeros((rank, rank))
    for n, f in zip(counts.split(CLIPS_AT_ONCE), sums.split(CLIPS_AT_ONCE), strict=True):
        mean, factor = posterior(n, f, variances, subspace)
        second = torch.cholesky_inverse(factor) + mean[:, :, None] * mean[:, None]
        weighted += n.T @ second.flatten(1)
        products += f.flatten(1).T @ mean
        moments += second.sum(0)
    solved = torch.linalg.solve(weighted.view(-1, rank, rank), products.view_as(subspace).mT)
    return solved.mT @ torch.linalg.cholesky(moments / len(counts))
