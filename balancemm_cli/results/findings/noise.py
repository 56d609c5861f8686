"""Finding 3: what noise on one modality does, in training, in test, or in both, with OPM and without."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from balancemm_cli.results.findings.finding import ACCURACY, Finding, Measure, Place, share
from balancemm_cli.results.groups import Group
from balancemm_cli.results.statistics import format_summary, summarize
from balancemm_cli.runs.evaluation import of_run
from balancemm_cli.runs.run import Run

DEVIATION = "input-noise.deviation"
RANKS = ("the stronger", "the weaker")  # of two modalities, by their accuracy alone
AMOUNTS = (1, 2)  # standard deviations of a modality's batch, added to test samples


def by_rank(place: Place) -> dict[str, str]:
    """The modalities by RANKS; none where these are not known."""
    return dict(zip(RANKS, place.order, strict=True)) if len(place.order) == len(RANKS) else {}


@dataclass(frozen=True)
class NoisyPlace(Place):
    """Rows say on which of RANKS they have noise, so that they have the same names on all data sets."""

    def setting(self, group: Group, key: str, value: object) -> str:
        """Of the noise in training what is not zero, as in "2 on the weaker"."""
        if key != DEVIATION or not isinstance(value, list | tuple):
            return super().setting(group, key, value)
        rank = {name: rank for rank, name in by_rank(self).items()}
        each = zip(group.first.rho, value, strict=True)
        return ", ".join(f"{amount:g} on {rank.get(name, name)}" for name, amount in each if amount)


def _under_noise(rank: str, amount: float, run: Run, group: Group, place: Place) -> float | None:
    """The accuracy with noise on one modality of the test samples; None of a run that was not evaluated so."""
    evaluation, name = of_run(run), by_rank(place).get(rank, "")
    points = evaluation.noise.get(name, []) if evaluation else []
    return next((point.accuracy for point in points if point.amount == amount), None)


def _rho(run: Run, group: Group, place: Place) -> float | None:
    """ρ of the stronger modality, the mean over all steps."""
    return run.result.rho.get(by_rank(place).get(RANKS[0], ""))


@dataclass(frozen=True)
class Noise(Finding):
    """OPM is held against the same training without it, and noise in training alone against joint training."""

    TITLE: ClassVar[str] = "Noise on one modality"
    PLACE: ClassVar[type[Place]] = NoisyPlace
    MEASURES: ClassVar[tuple[Measure, ...]] = (
        ACCURACY,
        *(
            share(f"Noise {amount} on {rank}", partial(_under_noise, rank, amount))
            for rank in RANKS
            for amount in AMOUNTS
        ),
        Measure(f"ρ of {RANKS[0]}", _rho),
    )

    def reference(self, group: Group, place: Place) -> Group | None:
        """With OPM the same without it, else joint training without noise."""
        methods = group.first.method.split("+")
        kept = [name for name in methods if name != "opm"] if "opm" in methods else []
        wanted = "+".join(kept) or "baseline"
        for other in place.groups:
            same_noise = not kept or other.settings.get(DEVIATION) == group.settings.get(DEVIATION)
            same_model = other.first.model == group.first.model
            if other is not group and other.first.method == wanted and same_model and same_noise:
                return other
        return None

    def notes(self, place: Place) -> list[str]:
        """Which modality is which, and what noise is."""
        names = by_rank(place)
        if not names:
            return [
                "Which modality is the stronger is not known, so what depends on it is left out: it takes runs of each "
                "of two modalities alone (unimodal-…)."
            ]
        alone = {rank: ACCURACY.by_seed(place.alone[name], place).values() for rank, name in names.items()}
        means = {rank: format_summary(summarize([*values]), 100, 1) for rank, values in alone.items()}
        options = " ".join(f"--noise {name}=0,{','.join(map(str, AMOUNTS))}" for name in names.values())
        return [
            f"Trained alone, {' and '.join(f'{rank} is {names[rank]}, {means[rank]}' for rank in names)}. Noise, in "
            "training as in test, is Gaussian, in standard deviations of the modality's batch. Columns of noise: the "
            "accuracy with it added in test, of the last epoch, of the runs on which "
            f"`bmm eval {options}` was run."
        ]
