"""The content of result.json: what a run reached, on which data, under which settings."""

from typing import Annotated, Literal, Self, get_args

from pydantic import AliasChoices, BaseModel, Field, FiniteFloat, ValidationError, model_validator

from balancemm_cli.errors import unknown

Fraction = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[FiniteFloat, Field(ge=-1e39, le=1e39)]
"""Whatever float32 can hold: of a network that is about to diverge losses and errors are finite, and as large."""
Discrepancy = Annotated[FiniteFloat, Field(ge=-1e25, le=1e25)]
"""ρ: as large as a batch times 10^19, where the scores of the others vanish (features that are not standardised)."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
# Of one line without control characters: texts go to a terminal, names into those of files and columns too.
Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^/\\\x00-\x1f\x7f-\x9f]*$")]
Selection = Literal["last", "best-test", "best-val"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)
NAMES = (
    "dataset",
    "model",
    "method",
    "variant",
    "recipe",
    "seed",
)  # of a run, in result.json and in config.toml


class OfGroup(BaseModel):
    """The samples of one group of a test split, such as a type of question, and the share that is right."""

    count: Count
    accuracy: Fraction


class Metrics(BaseModel):
    """What a network reaches on a split; fractions in 0–1, but for the metrics of a regression."""

    accuracy: Fraction
    map: Fraction
    macro_f1: Fraction
    unimodal: dict[Name, Fraction] = {}
    map_classes_left_out: Count = 0
    by_group: dict[Name, OfGroup] = {}
    mae: Number | None = None
    correlation: Number | None = None
    accuracy_7: Fraction | None = None


FUSED = ("accuracy", "map", "macro_f1")
"""The metrics that every task has, of the prediction of all modalities."""


class Selected(Metrics):
    """What a run reached at one selected epoch."""

    epoch: Count


class Hashes(BaseModel, frozen=True):
    """The hashes of result.json: of the settings without the seed, with the data; of the data; of the split lists.

    In format 1 `settings` was called `protocol`.
    """

    settings: Text = Field(validation_alias=AliasChoices("settings", "protocol"))
    data: Text
    splits: Text | None = None


class DataIdentity(BaseModel, frozen=True):
    """Which data a run was trained on, as its prepared set says; None where a former version did not record it.

    `reader` is the data set whose class read the media ("manifest" for a CSV of the user's own), never the name of a
    folder; `split_name` names the split, such as "official" or "speaker-independent"; `official_lists` says whether
    its lists are those that the source publishes, by SHA-256 or count.
    """

    reader: Text | None = None
    split_name: Text | None = None
    official_lists: bool | None = None


class Cost(BaseModel):
    """What training needs, whatever the device: the number of trained weights, and of one step with a batch of
    `batch_size` samples the multiply-adds and the bytes of memory; None where they were not counted."""

    parameters: Count | None = None
    batch_size: Count | None = None
    multiply_adds: Count | None = None
    memory: Count | None = None


class Result(BaseModel):
    """A result.json of format 1 or 2; keys that nothing reads are ignored."""

    format: Literal[1, 2]
    status: Literal["finished", "diverged", "running", "interrupted", "failed"]
    dataset: Name
    model: Name
    method: Name
    variant: Name
    recipe: Name
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    epochs: Count | None = None
    tested_on: Literal["test", "val"] = (
        "test"  # val: a trial of a search, no number of which is of test samples
    )
    error: Text | None = None  # of a run that failed
    selections: dict[Selection, Selected] = {}
    rho: dict[Name, Discrepancy | None] = {}
    time: dict[Name, Number | None] = {}  # seconds, samples_per_second
    cost: Cost = Cost()
    split: Text = ""  # whose split it is, in words
    samples: dict[Name, tuple[Count, Count]] = {}
    data: DataIdentity = DataIdentity()
    hashes: Hashes
    config_hash: Text | None = None  # SHA-256 of the file config.toml

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.format == 1:  # which recorded nothing of the data
            self.data = DataIdentity()
        elif self.config_hash is None:
            raise ValueError("a result of format 2 has a config_hash")
        if self.status == "finished" and ("last" not in self.selections or self.epochs is None):
            raise ValueError("a finished run has epochs, and a last one")
        return self


class Environment(BaseModel):
    """What a run was trained with, as environment.json says; None for what a former version did not record."""

    version: Text | None = None  # of bmm
    git: Text | None = None  # its commit
    python: Text | None = None
    torch: Text | None = None
    platform: Text | None = None
    device: Text | None = None
    threads: Count | None = None  # of each process
    processes: Count | None = None
    suite: Text | None = None  # that it was trained for


class Epoch(BaseModel):
    """A line of history.jsonl, as far as figures draw it: fractions, and losses as means of a sample."""

    loss: float
    losses: dict[Name, float] = {}  # by split
    accuracy: dict[Name, Fraction]
    unimodal: dict[Name, dict[Name, Fraction]] = {}


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
