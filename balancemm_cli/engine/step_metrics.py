"""What is recorded of each training step: the columns of steps.arrow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, Step

FORMER_NAMES = {"kappa": "k", "k_star": "k", "cut": "q", "p": "q"}
"""Where former versions kept what a method records now under a name of its own."""


class StepMetrics:
    """The metrics of a run's steps: loss, samples kept, ρ, and what its methods record, one column per modality.

    They gather on the device and are fetched once an epoch. UsageError where two methods record one name.
    """

    def __init__(self, modalities: Sequence[str], methods: Sequence[Method], device: torch.device) -> None:
        self.modalities, self.device = modalities, device
        self.names = [name for method in methods for name in method.METRICS]
        if len(modalities) > 1:
            self.names.insert(0, "rho")
        for name in self.names:
            if self.names.count(name) > 1:
                raise UsageError(f"Two methods of this run record '{name}' of each step. Use one of them.")
        self.columns = ["loss", "kept"] + [f"{name}_{of}" for name in self.names for of in modalities]
        self.past: list[Tensor] = []  # [steps, columns] an epoch, on the CPU
        self.begin_epoch(0)

    def begin_epoch(self, steps: int) -> None:
        """Make room for the metrics of an epoch of so many steps."""
        # [steps, columns], of the epoch that is being trained
        self.current = torch.zeros(steps, len(self.columns), dtype=torch.float64, device=self.device)

    @property
    def steps(self) -> int:
        """How many steps the epoch has that is being trained."""
        return len(self.current)

    def record(self, index: int, loss: Tensor, step: Step) -> None:
        """Take the metrics of step `index` of the current epoch."""
        samples, _ = step.streams.samples(len(step.labels))
        kept = loss.new_full((), samples) if step.kept is None else step.kept
        metrics = {"rho": step.discrepancy.rho, **step.metrics} if step.discrepancy else step.metrics
        row = [loss[None], kept[None], *(metrics[name] for name in self.names)]
        self.current[index] = torch.cat([values.to(torch.float64) for values in row])

    def fetch(self) -> Tensor:
        """The current epoch's metrics [steps, columns], on the CPU; this waits for the device."""
        return self.current.cpu()

    def close_epoch(self, fetched: Tensor) -> None:
        """Put what was fetched of the current epoch to the past ones."""
        self.past.append(fetched)
        self.begin_epoch(0)

    def means(self, rows: Tensor) -> dict[str, dict[str, float | None]]:
        """The means over steps [S, columns] by metric and modality; None where steps recorded nothing."""
        found = [mean if math.isfinite(mean) else None for mean in rows.mean(0).tolist()]
        named = dict(zip(self.columns, found, strict=True))
        return {name: {of: named[f"{name}_{of}"] for of in self.modalities} for name in self.names}

    def state_dict(self) -> dict[str, Any]:
        """The metrics of all steps so far."""
        return {"current": self.current, "past": self.past}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.current, self.past = state["current"].to(self.device), state["past"]

    def load_former(self, current: Tensor, past: Sequence[Tensor]) -> None:
        """Take up the metrics from a checkpoint of a former version, which kept ρ, q and k for every method.

        A metric that it did not record is NaN in those steps.
        """
        kept = ["loss", "kept"] + [f"{name}_{of}" for name in ("rho", "q", "k") for of in self.modalities]
        wanted = ["loss", "kept"] + [
            f"{FORMER_NAMES.get(name, name)}_{of}" for name in self.names for of in self.modalities
        ]

        def renamed(rows: Tensor) -> Tensor:
            columns = dict(zip(kept, rows.unbind(1), strict=False))  # with one modality loss and kept alone
            nothing = rows.new_full((len(rows),), math.nan)
            return torch.stack([columns.get(name, nothing) for name in wanted], 1)

        self.current, self.past = renamed(current).to(self.device), [renamed(rows) for rows in past]
