"""Where a method or a model comes from, what the one here was held against, and where its ρ misleads: what a reader of
its row relies on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal


@dataclass(frozen=True)
class Origin:
    """The source of a method or model, which the class names as `origin`; docs/origins.md is the table of all.

    `held` is "numbers" where the tests hold it against numbers that its authors' code computed, "others" where other
    people's code did, else "equations".
    """

    paper: str  # authors, venue and year, arXiv where there is one
    code: str | None  # the authors' public repository as owner/name; None where there is none
    held: Literal["numbers", "others", "equations"]
    differs: str = ""  # a sentence on what differs from the authors' by default

    @property
    def mark(self) -> str:
        """What `bmm list` says of one that was never held against its authors' code; else nothing."""
        return {
            "numbers": "",
            "others": "Held against other people's code alone.",
            "equations": "After the equation, not held against code.",
        }[self.held]


@cache
def origins() -> dict[str, Origin]:
    """Of the methods and models of this package, by name; those of other packages may have none."""
    from balancemm_cli.methods import METHODS
    from balancemm_cli.models import MODELS

    kinds = (*METHODS.items(), *MODELS.items())
    return {name: origin for name, kind in kinds if (origin := vars(kind).get("origin"))}


def not_held(names: Iterable[tuple[str, str]]) -> list[str]:
    """The methods and models, of pairs (model, method) such as ("film", "opm+ogm"), that have a mark; each once."""
    parts = [part for model, method in names for part in (model, *method.split("+"))]
    return [name for name in dict.fromkeys(parts) if (known := origins().get(name)) and known.mark]


def misread(uses: Iterable[tuple[str, Mapping[str, object], int]]) -> list[str]:
    """A sentence on each model, of names with settings and numbers of modalities, in which ρ does not tell which of
    these is ahead."""
    from balancemm_cli.models import MODELS
    from balancemm_cli.models.fusion import Fusion

    clauses = {
        (name, clause): None
        for name, settings, modalities in uses
        if issubclass(model := MODELS.get(name, Fusion), Fusion)
        and (clause := model.misnames(settings, modalities))
    }
    return [
        f"ρ of model {name} does not tell which modality is ahead: {clause} (docs/findings/estimate.md)."
        for name, clause in clauses
    ]
