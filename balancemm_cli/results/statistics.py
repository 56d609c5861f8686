"""Mean and spread over seeds, and the one way in which they are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GAP = "—"


@dataclass(frozen=True)
class Summary:
    """What `n` runs say: their mean and sample standard deviation (n − 1), None for a single run."""

    mean: float
    std: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary | None:
    """The Summary of `values`, in their unit; None where there are none."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(float(np.mean(values)), std, len(values))


def format_summary(summary: Summary | None, scale: float = 1.0, decimals: int = 1) -> str:
    """Write mean ± standard deviation (n), as in "95.1 ± 0.4 (3)"; "95.1 (1)" for one run, "—" for none.

    `scale` is 100 for fractions that are shown in %.
    """
    if summary is None:
        return GAP
    mean = f"{summary.mean * scale:.{decimals}f}"
    spread = "" if summary.std is None else f" ± {summary.std * scale:.{decimals}f}"
    return f"{mean}{spread} ({summary.n})"
