"""How the built-in synthetic data set of many modalities is drawn, and what can be known of it.

Four classes. Each modality m1 … mM is a sequence of 8 steps of 16 numbers of white noise (standard deviation: the
noise). Where it is informative in a sample, as in 60 % of them, one step at random also holds the cue: a pattern of
the class, of the modality's own, and of a length that is its strength; the patterns of a modality are orthogonal.
What decides how easy a modality is to learn is its strength over the noise. A share of the samples (the redundancy)
is shared: all modalities hold the cue or none does; in the others each has a chance of its own.

So the chance that some modality is informative, and with it the accuracy that none can exceed in expectation, is a
formula (`ceiling`), and the best possible classifier, which knows how the data were made, can be run (`posterior`).
The column `informative` of a prepared set says for each sample which modalities hold the cue.

There are no files: a clip draws its numbers when it is read, with a generator keyed by split, number and modality.
The same sample of two designs has the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from balancemm_cli.data.datasets.base import Dataset
from balancemm_cli.data.datasets.lists import no_lists
from balancemm_cli.data.datasets.plan import Clip, Plan, Sample, Spec, features
from balancemm_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

CLASSES = [f"class-{index}" for index in range(4)]
COUNTS = {"train": 800, "test": 1200}
STEPS, WIDTH = 8, 16
MOST = 8  # modalities
EASY, HARD = 8.0, 4.0  # strengths
VERSION = 1  # raised when a line below changes what is drawn

OPTIONS = {
    "modalities": ("3", "2", *map(str, range(4, MOST + 1))),
    "ease": ("graded", "equal", "single"),
    "noise": ("moderate", "quiet", "loud"),
    "redundancy": ("mixed", "independent", "shared"),
}
NOISES = {"quiet": 0.5, "moderate": 1.0, "loud": 1.5}
REDUNDANCIES = {"independent": 0.0, "mixed": 0.5, "shared": 1.0}


@dataclass(frozen=True)
class Design:
    """What the data are drawn by: a strength a modality (2 to 8), and the numbers described above.

    UsageError for numbers that are out of range.
    """

    strengths: tuple[float, ...]
    noise: float = 1.0
    redundancy: float = 0.5
    informative: float = 0.6  # share of the samples in which a modality holds the cue
    counts: Mapping[str, int] = field(default_factory=lambda: COUNTS)

    def __post_init__(self) -> None:
        shares = 0 <= self.redundancy <= 1 and 0 < self.informative < 1
        if not (2 <= len(self.strengths) <= MOST and min(self.strengths) >= 0 < self.noise and shares):
            raise UsageError(
                f"A design needs 2 to {MOST} strengths of at least 0, noise above 0, redundancy from 0 to 1 and a "
                f"share of informative samples between 0 and 1, not {self}."
            )

    @property
    def modalities(self) -> list[str]:
        """The names m1 … mM."""
        return [f"m{index + 1}" for index in range(len(self.strengths))]


def design(
    modalities: str = "3", ease: str = "graded", noise: str = "moderate", redundancy: str = "mixed"
) -> Design:
    """The design that the values of the options stand for."""
    count = int(modalities)
    strengths = {
        "graded": [EASY + (HARD - EASY) * index / (count - 1) for index in range(count)],
        "equal": count * [(EASY + HARD) / 2],
        "single": [EASY, *(count - 1) * [HARD]],
    }
    return Design(tuple(strengths[ease]), NOISES[noise], REDUNDANCIES[redundancy])


class SyntheticModalities(Dataset):
    """A built-in synthetic data set of 2 to 8 modalities of chosen ease, noise and redundancy, with known attainable
    accuracy."""

    name = "synthetic-modalities"
    HOW_TO_GET = "These data are built in: `bmm prepare synthetic-modalities` draws them."
    OPTIONS = OPTIONS
    SPLIT_NAMES = ("made",)
    EMBEDDED = True
    PUBLISHED = False

    def plan(self, source: Path, splits: Path | None, allow_missing: bool, **options: str) -> Plan:
        """The samples of the design that the options stand for; nothing is read from `source`."""
        no_lists(self.name, splits)
        return plan_of(design(**options), source)


def plan_of(design: Design, source: Path = Path()) -> Plan:
    """The samples of a design, in order of their numbers; their class is the number modulo 4."""
    samples = [
        _sample(design, source, split, number)
        for split, count in design.counts.items()
        for number in range(count)
    ]
    return Plan(
        SyntheticModalities.name,
        samples,
        CLASSES,
        {name: features(STEPS, WIDTH) for name in design.modalities},
        notes=[
            f"No classifier exceeds {ceiling(design):.1%} in expectation, none of one modality "
            f"{alone(design):.1%}: the other samples hold no cue."
        ],
        extras={"informative": "integers"},
        split_name="made",
    )


@dataclass(frozen=True, slots=True)
class Drawn(Clip):
    """One modality of one sample, drawn when it is read; `strength` is 0 where it is not informative."""

    has_file: ClassVar[bool] = False

    split: str = ""
    number: int = 0
    modality: int = 0
    strength: float = 0.0
    noise: float = 1.0

    def size(self) -> int:
        """The bytes of the numbers as float32."""
        return 4 * STEPS * WIDTH

    def describe(self) -> list[Any]:
        """All that decides what is drawn."""
        return [VERSION, self.split, self.number, self.modality, self.strength, self.noise]

    def read(self, spec: Spec, waived: frozenset[str]) -> np.ndarray:
        """float32 [STEPS, WIDTH]."""
        import numpy as np

        generator = _generator(self.split, self.number, 1 + self.modality)
        values = self.noise * generator.standard_normal((STEPS, WIDTH))
        values[generator.integers(STEPS)] += self.strength * patterns(self.modality)[self.number % 4]
        return values.astype(np.float32)


def informative(design: Design, split: str, number: int) -> list[bool]:
    """Which modalities hold the cue in a sample."""
    generator = _generator(split, number, 0)
    shared, common = generator.random(2)
    own = generator.random(MOST)
    chances = MOST * [common] if shared < design.redundancy else own
    return [bool(chance < design.informative) for chance in chances[: len(design.strengths)]]


def patterns(modality: int) -> np.ndarray:
    """The cues of a modality [4, WIDTH]: orthogonal rows of length 1, all of whose numbers are ±1/4."""
    import numpy as np
    from scipy.linalg import hadamard

    generator = np.random.default_rng([VERSION, modality])
    rows, signs = generator.permutation(WIDTH)[: len(CLASSES)], generator.choice([-1, 1], WIDTH)
    return hadamard(WIDTH)[rows] * signs / WIDTH**0.5


def ceiling(design: Design) -> float:
    """The accuracy of a classifier that misses no cue and guesses where there is none."""
    share = design.informative
    either = 1 - (1 - share) ** len(design.strengths)
    return _with_guesses(design.redundancy * share + (1 - design.redundancy) * either)


def alone(design: Design) -> float:
    """The same of a classifier that sees one modality."""
    return _with_guesses(design.informative)


def posterior(design: Design, sequences: Mapping[str, np.ndarray]) -> np.ndarray:
    """The probability of each class [N, 4] given sequences [N, STEPS, WIDTH] a modality, by Bayes' rule.

    With Λ^m the likelihood ratio of a cue of class c in m against none, the mean over the steps that may hold it,
    and s the share that is informative: p(c) ∝ r (s Π_m Λ^m + 1 − s) + (1 − r) Π_m (s Λ^m + 1 − s).
    """
    import numpy as np
    from scipy.special import log_softmax, logsumexp

    ratios = []
    for index, values in enumerate(sequences[name] for name in design.modalities):
        strength = design.strengths[index] / design.noise
        found = strength / design.noise * values.astype(np.float64) @ patterns(index).T - strength**2 / 2
        ratios.append(logsumexp(found, 1) - np.log(STEPS))
    cue, none = np.log(design.informative), np.log1p(-design.informative)
    shared = np.logaddexp(cue + sum(ratios), none)
    independent = sum(np.logaddexp(cue + ratio, none) for ratio in ratios)
    with np.errstate(divide="ignore"):
        of_shared, of_others = np.log(design.redundancy), np.log1p(-design.redundancy)
    return np.exp(log_softmax(np.logaddexp(of_shared + shared, of_others + independent), 1))


def _sample(design: Design, source: Path, split: str, number: int) -> Sample:
    name, holds = f"{split}-{number:05d}", informative(design, split, number)
    clips: dict[str, Clip] = {
        modality: Drawn(
            source,
            f"{name}-{modality}",
            split=split,
            number=number,
            modality=index,
            strength=holds[index] * design.strengths[index],
            noise=design.noise,
        )
        for index, modality in enumerate(design.modalities)
    }
    extras = {"informative": [int(one) for one in holds]}
    return Sample(name, split, CLASSES[number % 4], clips, extras=extras)


def _with_guesses(share: float) -> float:
    return share + (1 - share) / len(CLASSES)


def _generator(split: str, number: int, stream: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([VERSION, *split.encode(), number, stream])
