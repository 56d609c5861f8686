"""A search for settings: which trials there are, how far each is to be trained, and which one is chosen.

A trial is a run that is tested on validation samples. Everything is decided from the files of the trials alone, so that
a search that was killed goes on where it was, and ends with the choice of one that was not.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, ValidationError

from balancemm_cli.config.recipe import describe
from balancemm_cli.config.run import RunConfig, read_config, resolve
from balancemm_cli.config.spaces import Dimension, Space, draws
from balancemm_cli.data.store import digest, write_json
from balancemm_cli.errors import BmmError, InputError, UsageError
from balancemm_cli.runs.folder import read_result
from balancemm_cli.runs.places import Places
from balancemm_cli.runs.reading import read_bytes, read_history
from balancemm_cli.runs.schema import NAMES, Count, Fraction, Name, Number, Text, first_fault

FORMAT = 1
RECORD = "search.json"
RUNGS = (1 / 4, 1 / 2, 1.0)  # of successive halving: after these shares of a training the better half goes on
STOPPED = ("interrupted", "diverged")  # with all files written
MOST_TRIALS = 10_000

Kind = Literal["quasi-random", "halving"]


@dataclass(frozen=True)
class Budget:
    """How much a search may train: so many whole trainings, or until the trials took so many seconds."""

    trainings: int | None = None
    seconds: float | None = None

    @property
    def limit(self) -> float:
        """The seconds, of a budget of such."""
        assert self.seconds is not None
        return self.seconds

    def __str__(self) -> str:
        if self.trainings is not None:
            return f"{self.trainings} training{'s' * (self.trainings != 1)}"
        return f"{self.seconds:g} s"


def parse_budget(text: str) -> Budget:
    """A budget from "20", or from "600s". UsageError for another text, and for none and too much."""
    number = re.fullmatch(r"([0-9]{1,9})(s?)", text)
    if not number or not int(number[1]):
        raise UsageError(f"--budget takes a number of trainings or of seconds, as 20 or 600s, not '{text}'.")
    if number[2]:
        return Budget(seconds=float(number[1]))
    if int(number[1]) > MOST_TRIALS:
        raise UsageError(f"--budget {text} is more than {MOST_TRIALS:,} trainings. Take fewer.")
    return Budget(trainings=int(number[1]))


@dataclass(frozen=True)
class Question:
    """Whose settings are sought: what `bmm train` takes for a run, without its seed."""

    dataset: str
    model: str
    method: str
    variant: str
    recipe: str | None
    changes: tuple[tuple[str, Any], ...] = ()  # settings in the place of the recipe's, by dotted keys
    weights: str | None = None  # SHA-256

    def config(self, seed: int, settings: Mapping[str, Any], tested_on: str = "test") -> RunConfig:
        """The run of a seed with settings in the place of the recipe's."""
        overrides = [*self.changes, *settings.items(), ("tested_on", tested_on)]
        found = resolve(self.dataset, self.model, self.method, self.variant, self.recipe, seed, overrides)
        return found.starting_from(self.weights) if self.weights else found


@dataclass(frozen=True)
class Value:
    """What a trial reached on validation samples: accuracy in 0–1 and mean loss; the lowest where it diverged."""

    accuracy: float = -math.inf
    loss: float = math.inf


@dataclass(frozen=True)
class Trial:
    """The run of one point of the space."""

    number: int
    settings: dict[str, Any]  # that are not the recipe's
    config: RunConfig
    folder: Path

    def epochs(self, share: float = 1.0) -> int:
        """Epochs of a share of its training."""
        return math.ceil(share * self.config.settings.epochs)

    def value(self, share: float = 1.0) -> Value | None:
        """What it reached after a share of its training; None where it is not there yet, or was killed since.

        InputError where its files are damaged.
        """
        status = (read_result(self.folder) or {}).get("status")
        history = read_history(self.folder) if (self.folder / "history.jsonl").exists() else []
        epochs = self.epochs(share)
        if len(history) >= epochs and (status == "finished" or (share < 1 and status in STOPPED)):
            reached = history[epochs - 1]
            return Value(reached.accuracy["test"], reached.losses["test"])
        return Value() if status == "diverged" else None

    @property
    def seconds(self) -> float:
        """What its training took so far."""
        result = read_result(self.folder) or {}
        return result.get("time", {}).get("seconds") or 0.0


class Search:
    """The search of one method's settings for one seed, of which its trials are."""

    def __init__(
        self,
        question: Question,
        seed: int,
        space: Space,
        budget: Budget,
        kind: Kind,
        places: Places,
        data_hash: str,
    ) -> None:
        self.question, self.seed, self.space = question, seed, space
        self.budget, self.kind, self.places, self.data_hash = budget, kind, places, data_hash
        self.base = question.config(seed, {}, "val")
        self._trials: list[Trial] = []
        self._draws = draws(space, self.base, seed)
        if kind == "halving" and budget.trainings is None:
            raise UsageError(
                "--search halving plans its trials beforehand. Give --budget as a number of trainings."
            )
        self.ends = [self.base, *self._at_ends()]

    def _at_ends(self) -> Iterator[RunConfig]:
        """The runs at the ends of the space, and of each of its values one. UsageError where they are none that a run
        takes."""
        count = max(len(one.values or ()) for one in self.space.values())
        for share in (0.0, *((place + 0.5) / count for place in range(count)), math.nextafter(1, 0)):
            ends = {key: one.at(share, self.base.by_key.get(key)) for key, one in self.space.items()}
            try:
                yield self.question.config(self.seed, ends, "val")
            except UsageError as error:
                raise UsageError(f"The search space reaches too far. {error}") from None

    def trial(self, number: int) -> Trial:
        """A trial by its number. That of 0 has the recipe's settings."""
        while len(self._trials) <= number:
            settings = next(self._draws)
            config = self.question.config(self.seed, settings, "val")
            place = self.places.of(config, self.data_hash)
            self._trials.append(Trial(len(self._trials), settings, config, place))
        return self._trials[number]

    def pending(self, at_once: int = 1) -> list[tuple[Trial, int]]:
        """The trials to be trained next, each with the epochs to train it for in all; none once the search is over.

        Under a budget in seconds these are `at_once`, else all that do not wait for the outcome of others.
        """
        if self.budget.trainings is None:
            return self._pending_by_time(at_once)
        for trials, share in self._rungs():
            if waiting := [(one, one.epochs(share)) for one in trials if one.value(share) is None]:
                return _each_run_once(waiting)
        return []

    def _pending_by_time(self, at_once: int) -> list[tuple[Trial, int]]:
        counted, taken = self._in_time()
        if taken >= self.budget.limit:
            return []
        following = (self.trial(len(counted) + further) for further in range(at_once))
        return _each_run_once([(one, one.epochs()) for one in following if one.value() is None])

    def _in_time(self) -> tuple[list[Trial], float]:
        """The finished trials, in order, that began before those ahead of them had taken the seconds; and the seconds
        that they took, each read once."""
        counted: list[Trial] = []
        taken = 0.0
        while taken < self.budget.limit and self.trial(len(counted)).value() is not None:
            counted.append(self.trial(len(counted)))
            taken += counted[-1].seconds
        return counted, taken

    def _rungs(self) -> Iterator[tuple[list[Trial], float]]:
        """The trials of each rung and the share of a training that they are trained for; the next rung is known once
        those of the one before have been trained."""
        if self.budget.trainings is None:
            yield self._in_time()[0], 1.0
        elif self.kind == "quasi-random":
            yield [self.trial(number) for number in range(self.budget.trainings)], 1.0
        else:
            count = candidates(self.budget.trainings, self.base.settings.epochs)
            trials = [self.trial(number) for number in range(count)]
            for share in RUNGS:
                yield trials, share
                trials = best_first(trials, share)[: half(len(trials))]

    @property
    def trials(self) -> list[Trial]:
        """The trials in their order, as far as they are known."""
        return next(self._rungs())[0]

    @cached_property
    def chosen(self) -> Trial:
        """The best of those trained to their end: of the highest validation accuracy after its last epoch, then of the
        lowest loss, then the first. The search is over. InputError where each one diverged."""
        *_, (finalists, _) = self._rungs()
        best = best_first(finalists)[0]
        if best.value() == Value():
            raise InputError(
                f"Every trial of {self.base.name} diverged. Give a space with lower learning rates: --space FILE."
            )
        return best

    # ---- the record ---------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the record lies: a place of its own for each question, space, budget and kind of search."""
        asked = digest([self.base.hash(self.data_hash), *self._asked().values()])
        of, name = self.base, f"search-{self.base.method}-{self.base.variant}-s{self.seed}-{asked[:8]}"
        return self.places.root / of.dataset / of.model / name

    def _asked(self) -> dict[str, Any]:
        space = {key: one.model_dump(exclude_defaults=True, mode="json") for key, one in self.space.items()}
        return {
            "space": space,
            "budget": {"trainings": self.budget.trainings, "seconds": self.budget.seconds},
            "search": self.kind,
        }

    def record(self) -> "SearchRecord":
        """What the search asked, tried and chose. It is over."""
        final = self.question.config(self.seed, self.chosen.settings)
        content = {
            "format": FORMAT,
            **{name: getattr(self.base, name) for name in NAMES},
            "data": self.data_hash,
            **self._asked(),
            "trials": self._tried(),
            "chosen": self.chosen.number,
            "settings_hash": final.hash(self.data_hash, with_seed=False),
        }
        unsigned = SearchRecord.model_validate(content)
        return unsigned.model_copy(update={"fingerprint": unsigned.computed_fingerprint})

    def _tried(self) -> list[dict[str, Any]]:
        """All trials, each with what it had reached where the search looked at it last."""
        reached = {one.number: share for trials, share in self._rungs() for one in trials}
        return [self._of_trial(self.trial(number), reached[number]) for number in sorted(reached)]

    def _of_trial(self, trial: Trial, share: float) -> dict[str, Any]:
        value = trial.value(share)
        diverged = value == Value()
        assert value is not None
        return {
            "settings": trial.settings,
            "epochs": trial.epochs(share),
            "diverged": diverged,
            "accuracy": None if diverged else value.accuracy,
            "loss": None if diverged else value.loss,
            "seconds": trial.seconds,
            "run": trial.folder.relative_to(self.places.root).as_posix(),
        }

    def write(self) -> "SearchRecord":
        """Write the record into its folder, whole or not at all."""
        record = self.record()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RECORD, record.model_dump(mode="json"))
        return record


def candidates(trainings: int, epochs: int) -> int:
    """How many trials successive halving begins with, so that all their rungs are so many whole trainings at most, each
    of so many epochs, of which every rung takes whole ones."""
    ends = [math.ceil(share * epochs) for share in RUNGS]

    def cost(count: int) -> int:
        total = before = 0
        for end in ends:
            total += count * (end - before)
            count, before = half(count), end
        return total

    count = trainings
    while cost(count + 1) <= trainings * epochs:
        count += 1
    return count


def half(count: int) -> int:
    """How many of so many trials go on to the next rung."""
    return math.ceil(count / 2)


def _each_run_once(waiting: Iterable[tuple[Trial, int]]) -> list[tuple[Trial, int]]:
    """Without the trials whose settings are those of one before, as few whole numbers may come to: they are one run."""
    by_folder = {trial.folder: (trial, epochs) for trial, epochs in reversed(list(waiting))}
    return list(reversed(by_folder.values()))


def best_first(trials: Sequence[Trial], share: float = 1.0) -> list[Trial]:
    """Trials in the order of what they reached after a share of their training; each is there."""

    def rank(trial: Trial) -> tuple[float, float, int]:
        value = trial.value(share)
        assert value is not None
        return -value.accuracy, value.loss, trial.number

    return sorted(trials, key=rank)


# ---- reading records ------------------------------------------------------------------------------------------------


def _below(path: str) -> str:
    """A path that leads to no place but below the one that it begins at."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("it is no folder of a run")
    return path


class TrialRecord(BaseModel):
    """A trial: the settings that were not the recipe's, and what it reached on validation samples after so many epochs,
    or that it diverged within them."""

    settings: dict[Name, Any]
    epochs: Count
    diverged: bool
    accuracy: Fraction | None
    loss: Number | None
    seconds: Annotated[float, Field(ge=0)]
    run: Annotated[Text, AfterValidator(_below)]  # its folder, from that of the runs


class SearchRecord(BaseModel):
    """A search.json. `settings_hash` is that of the runs with the chosen settings, as in their result.json."""

    format: Literal[1]
    dataset: Name
    model: Name
    method: Name
    variant: Name
    recipe: Name
    seed: int
    data: Text
    space: dict[Name, dict[Name, Any]]
    budget: dict[Literal["trainings", "seconds"], Count | Number | None]
    search: Kind
    trials: list[TrialRecord] = Field(min_length=1)
    chosen: Count
    settings_hash: Text
    fingerprint: Text = ""
    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """Where it was read; None of one that was made."""
        return self._folder

    @property
    def computed_fingerprint(self) -> str:
        """SHA-256 of all but the fingerprint and the seconds that the trials took."""
        kept = self.model_dump(mode="json", exclude={"fingerprint": True, "trials": {"__all__": {"seconds"}}})
        return digest(kept)

    @property
    def best(self) -> TrialRecord:
        """The chosen trial."""
        return self.trials[self.chosen]

    @property
    def allowed(self) -> Budget:
        """The budget."""
        return Budget(self.budget.get("trainings"), self.budget.get("seconds"))  # pyright: ignore[reportArgumentType]

    def in_words(self) -> str:
        """The budget and the choice in a few words, for a note under a table."""
        chosen = describe(self.best.settings) or f"those of recipe {self.recipe}"
        return f"{self.search} search of {len(self.trials)} settings, {self.allowed}; chosen: {chosen}"


def read_search(folder: Path) -> SearchRecord:
    """The record in a folder. InputError where it is absent, damaged, or not what was written."""
    path = folder / RECORD
    try:
        record = SearchRecord.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({first_fault(error)}). Run the same search again.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None
    if record.computed_fingerprint != record.fingerprint or record.chosen >= len(record.trials):
        raise InputError(f"{path} is not what a search wrote. Run the same search again.")
    record._folder = folder
    if fault := _fault(record, folder.parents[2]):
        raise InputError(f"{path} does not agree with its trials: {fault} Run the same search again.")
    return record


def _fault(record: SearchRecord, root: Path) -> str:
    """What the trials of a record do not bear out, as far as their runs are there; empty where nothing is."""
    if record.best not in (whole := _whole(record)):
        return "the chosen one was not trained to its end."
    reached = [one.accuracy for one in whole if one.accuracy is not None]
    if record.best.accuracy != max(reached, default=None):
        return "another one was better than the chosen one."
    for one in record.trials:
        run = root / one.run
        if one.accuracy is None or not (run / "history.jsonl").is_file():
            continue
        history = read_history(run)
        if len(history) < one.epochs or history[one.epochs - 1].accuracy.get("test") != one.accuracy:
            return f"{run} did not reach {100 * one.accuracy:.2f} % after {one.epochs} epochs."
    return _not_drawn(record, root)


def _not_drawn(record: SearchRecord, root: Path) -> str:
    """What the space does not bear out: trials of other settings than it gives, and runs that are no trials; as far as
    their runs are there and can be read by this version."""
    try:
        first = read_config(root / record.trials[0].run / "config.toml")
    except BmmError:
        return ""
    if any(getattr(first, name) != getattr(record, name) for name in NAMES):
        return "its first trial is of another run."
    space = {key: Dimension.model_validate(one) for key, one in record.space.items()}
    for number, (one, drawn) in enumerate(zip(record.trials, draws(space, first, record.seed), strict=False)):
        if one.settings != json.loads(json.dumps(drawn)):
            return f"its trial {number} has other settings than its space gives."
        config = root / one.run / "config.toml"
        if config.is_file() and b'tested_on = "val"' not in read_bytes(config):
            return f"{config.parent} is no trial."
    if record.chosen == 0 and record.best.epochs != first.settings.epochs:
        return "the chosen one was not trained to its end."
    return ""


def _whole(record: SearchRecord) -> list[TrialRecord]:
    """The trials that were trained to their end, as far as the record says which these are: where epochs were searched
    by halving, trial 0 tells by being chosen alone, and those of one epoch, which may have ended early, are left out.
    """
    if record.search != "halving":
        return record.trials
    if "epochs" not in record.space:
        longest = max(one.epochs for one in record.trials)
        return [one for one in record.trials if one.epochs == longest]
    return [
        one
        for one in record.trials
        if (one is record.best and "epochs" not in one.settings)
        or (one.settings.get("epochs") == one.epochs and (one.epochs > 1 or one is record.best))
    ]


def read_searches(folders: Iterable[Path]) -> tuple[dict[str, list[SearchRecord]], list[str]]:
    """The records under folders of runs, by the settings hash of the runs that they chose; and a line for each one
    that can't be read."""
    found: dict[str, list[SearchRecord]] = {}
    lines: list[str] = []
    for path in sorted({path for folder in folders for path in folder.rglob(f"search-*/{RECORD}")}):
        try:
            record = read_search(path.parent)
            found.setdefault(record.settings_hash, []).append(record)
        except InputError as error:
            lines.append(str(error))
    return found, lines
