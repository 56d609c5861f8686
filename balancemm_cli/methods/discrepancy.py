"""The discriminative discrepancy between modalities (Sec. 3.2, Eq. 6 and 7; ablations: Tables 14 and 15)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from balancemm_cli.settings import Section
from balancemm_cli.tasks import TASKS, Task


class DiscrepancySettings(Section):
    """How the discrepancy is measured. The defaults are the paper's choice."""

    form: Literal["ratio", "difference"] = "ratio"
    z: Literal["tanh", "sigmoid"] = "tanh"
    bias_split: tuple[float, ...] | None = None  # γ_m of Table 14; None: 1 / M each


@dataclass(frozen=True)
class Discrepancy:
    """How far each modality is ahead of the others; tensors of shape [M]."""

    settings: DiscrepancySettings
    scores: Tensor  # S^m: sum over the batch of the scores of the true answers
    rho: Tensor  # ρ^m
    ahead: Tensor  # bool: ρ^m > 1 (ratio) or > 0 (difference)
    z: Tensor  # z(ρ^m): tanh(ρ^m − 1) or sigmoid(ρ^m)


def measure(
    logits: Mapping[str, Tensor],
    labels: Tensor,
    settings: DiscrepancySettings,
    total: Callable[[Tensor], Tensor] = lambda scores: scores,
    task: Task = TASKS["classification"],
) -> Discrepancy:
    """Eq. 6 and 7 from the uni-modal logits [B, C] of two modalities or more, and labels [B], or of the task's shape.

    S^m is the sum over all answers in a task that has several of them a sample.
    ρ^m = (1 / (M − 1)) Σ_{j≠m} S^m / S^j, or the mean of S^m − S^j for the form "difference".
    `total` adds up the scores over the processes that share the batch.
    """
    stacked = torch.stack(list(logits.values()))  # [M, B, C]
    scores = total(task.scores(stacked, labels).flatten(1).sum(1))
    others = len(scores) - 1
    if settings.form == "ratio":
        positive = scores.clamp_min(torch.finfo(scores.dtype).tiny ** 0.5)
        rho = ((positive[:, None] / positive).sum(1) - 1) / others
        ahead = rho > 1
    else:
        rho = (scores[:, None] - scores).sum(1) / others
        ahead = rho > 0
    z = torch.tanh(rho - 1) if settings.z == "tanh" else torch.sigmoid(rho)
    return Discrepancy(settings, scores, rho, ahead, z)
