"""The content of result.json: what a run reached, on which data, under which settings."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from balancemm_cli.errors import unknown

Fraction = Annotated[float, Field(ge=0, le=1)]
Selection = Literal["last", "best-test", "best-val"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)


class OfGroup(BaseModel):
    """The samples of one group of a test split, such as a type of question, and the share that is right."""

    count: int
    accuracy: Fraction


class Metrics(BaseModel):
    """What a network reaches on a split; fractions in 0–1, but for the metrics of a regression."""

    accuracy: Fraction
    map: Fraction
    macro_f1: Fraction
    unimodal: dict[str, Fraction] = {}
    map_classes_left_out: int = 0
    by_group: dict[str, OfGroup] = {}
    mae: FiniteFloat | None = None
    correlation: FiniteFloat | None = None
    accuracy_7: Fraction | None = None


class Selected(Metrics):
    """What a run reached at one selected epoch."""

    epoch: int


class Hashes(BaseModel, frozen=True):
    """The hashes of result.json. `protocol` is of the settings without the seed, and of the data."""

    protocol: str
    data: str
    splits: str | None = None


class DataIdentity(BaseModel, frozen=True):
    """Which data a run was trained on, as its prepared set says; None where a former version did not record it.

    `reader` is the data set whose class read the media ("manifest" for a CSV of the user's own), never the name of a
    folder; `split_name` names the split, such as "official" or "speaker-independent"; `official_lists` says whether
    its lists are those that the source publishes, by SHA-256 or count.
    """

    reader: str | None = None
    split_name: str | None = None
    official_lists: bool | None = None


class Result(BaseModel):
    """A result.json of format 1; keys that the tables do not use are ignored."""

    format: Literal[1]
    status: Literal["finished", "diverged", "running", "interrupted", "failed"]
    dataset: str
    model: str
    method: str
    variant: str
    recipe: str
    seed: int
    epochs: int | None = None
    error: str | None = None  # of a run that failed
    selections: dict[Selection, Selected] = {}
    rho: dict[str, FiniteFloat | None] = {}
    time: dict[str, FiniteFloat | None] = {}  # seconds, samples_per_second
    split: str = ""  # whose split it is, in words
    samples: dict[str, tuple[int, int]] = {}
    data: DataIdentity = DataIdentity()
    hashes: Hashes


def selection_named(name: str) -> Selection:
    """`name` as a Selection; UsageError where there is none of that name."""
    for selection in SELECTIONS:
        if selection == name:
            return selection
    raise unknown("selection", name, SELECTIONS)


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a file, and where in it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"'{where}': {first['msg']}" if where else first["msg"]
