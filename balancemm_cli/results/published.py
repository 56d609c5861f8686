"""The numbers that papers printed, from benchmarks/published/*.csv or a file of the user's, and which one a row gets.

A table of the report needs one number for a cell (source, data set, model, method, metric), where a paper may
print several: in two tables, or under other settings that its note names. The rule, so that none are mixed:

1. Where the source's main tables have rows for the cell (MAIN_TABLES, in that order), the first such table
   decides; else all rows of the source do.
2. If exactly one row is left, that is the number. If several are left, the cell is a gap: the papers print
   ablations under one name, and picking among them would be a guess.

A gap stays a gap: no number is ever filled in from another source.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from balancemm_cli.errors import InputError, unknown
from balancemm_cli.resources import LATER_TABLES, benchmarks_folder
from balancemm_cli.results import later_papers
from balancemm_cli.runs.schema import Result

PAPER = "tpami2024"
SOURCES = (PAPER, "cvpr2022", "balancebenchmark2025", "independent")
"""The files with one row per number; the others in that folder are for reading (their README says why)."""

BEST_ON_TEST = (PAPER, "cvpr2022", *LATER_TABLES)
"""The sources whose code keeps the epoch that is best on the test set; which epoch they print, none of them says."""

TIMES = "training_time_ratio"
"""The metric that is not in % but a ratio."""

OWN = "manifest"
"""The reader of a user's CSV."""

MAIN_TABLES = {"tpami2024": ("12", "2"), "cvpr2022": ("1",)}

_PUBLISHED_MODEL = {
    "unimodal-audio": "unimodal-first",
    "unimodal-rgb": "unimodal-first",
    "unimodal-visual": "unimodal-second",
    "unimodal-flow": "unimodal-second",
}


@dataclass(frozen=True)
class Published:
    """One printed number: `value` in `unit` ("%" or "x"), with the source's own table number and our note.

    `split` is the `split_name` of the data that it belongs to, empty where the source does not say; `decimals` are
    those that are printed.
    """

    source: str
    table: str
    dataset: str
    model: str
    method: str
    metric: str
    value: float
    unit: str
    note: str
    split: str
    decimals: int

    @property
    def rounding(self) -> float:
        """How far rounding may have moved the number, in the unit of `fraction`: half a unit of its last digit."""
        return 0.5 * 10.0**-self.decimals / (100 if self.unit == "%" else 1)

    @property
    def fraction(self) -> float:
        """The value in 0–1 where it is a percentage, else as it is."""
        return round(self.value / 100, 6) if self.unit == "%" else self.value


def named(source: str) -> str:
    """`source` as it is, a name of SOURCES or LATER_TABLES or the path of a CSV file. UsageError for another name."""
    if source not in (*SOURCES, *LATER_TABLES) and not source.endswith(".csv"):
        raise unknown("source of published numbers", source, [*SOURCES, *LATER_TABLES, "FILE.csv"])
    return source


@cache
def rows(source: str = PAPER) -> tuple[Published, ...]:
    """All numbers of one source, see `named`, in its order.

    InputError where the file is missing or damaged, lacks a column, or has a number that can't be one in its unit.
    """
    if source in LATER_TABLES:
        return tuple(_of_later(source))
    own = source not in SOURCES
    path = Path(source) if own else benchmarks_folder() / "published" / file_of(source)
    remedy = "its columns must be those of benchmarks/published/tpami2024.csv" if own else "install bmm again"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_number(row) for row in csv.DictReader(file))
    except FileNotFoundError:
        missing = "" if own else f": this installation is incomplete, {remedy}"
        raise InputError(f"{path} is missing{missing}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}.") from None


def _of_later(name: str) -> Iterator[Published]:
    """The numbers of a later paper's table for our names, as if they were of a source of their own."""
    for row in later_papers.printed():
        names, metric, dataset = later_papers.names(row), later_papers.metric(row), row["dataset"]
        if (row["source"], row["table"]) != LATER_TABLES[name] or not (names and metric and covers(dataset)):
            continue
        place = {"source": name, "table": name, "dataset": dataset, "split": later_split(row)}
        content = {"model": names[0], "method": names[1], "metric": metric, "value": row["value"]}
        yield _number({**place, **content, "unit": "%", "note": ""})


def later_split(row: later_papers.Row) -> str:
    """The split that a later paper's number is of; empty where its note contradicts the paper's protocol."""
    if row["same_protocol"] != "yes":
        return ""
    return later_papers.OWN_SPLITS.get((row["source"], row["dataset"])) or official_split(row["dataset"])


def file_of(source: str) -> str:
    """The name of the file in benchmarks/published that holds the numbers of a source."""
    return "later_papers.csv" if source in LATER_TABLES else f"{source}.csv"


def source_of(table: str) -> str:
    """The source that prints a table: itself for one of LATER_TABLES, else the paper."""
    return table if table in LATER_TABLES else PAPER


def _number(row: dict[str, str]) -> Published:
    """A line of the file. ValueError for a value that is none, or is a fraction where percent is meant."""
    text = row["value"]
    read = {"split": "", **row, "value": float(text), "decimals": len(text.partition(".")[2])}
    number = Published(**read)  # pyright: ignore[reportArgumentType]
    if number.unit not in ("%", "x"):
        raise ValueError(f"unit '{number.unit}' is neither % nor x")
    if (number.unit == "x") != (number.metric == TIMES):
        raise ValueError(f"unit '{number.unit}' is not that of {number.metric}")
    low, high = (1, 100) if number.unit == "%" else (0, float("inf"))
    if not low < number.value <= high:
        hint = ", is it a fraction?" if 0 <= number.value <= 1 else ""
        raise ValueError(
            f"{number.value:g} {number.unit} for {number.dataset} {number.method} {number.metric} can't be{hint}"
        )
    return number


def fills(number: Published, dataset: str, model: str, method: str, note: str | None = None) -> bool:
    """Whether a run of these names gives this number; `note` is the number's, where a table prints several."""
    ours = (dataset, published_model(model), method)
    return (number.dataset, number.model, number.method) == ours and note in (None, number.note)


def published_model(model: str) -> str:
    """The name that the files have for a model of ours."""
    return _PUBLISHED_MODEL.get(model, model)


def lookup(dataset: str, model: str, method: str, metric: str, source: str = PAPER) -> Published | None:
    """The published number beside a row of ours, by the rule above; None where there is a gap.

    `model` is our name; `unimodal-audio` and `unimodal-rgb` are the papers' first modality,
    `unimodal-visual` and `unimodal-flow` their second.
    """
    found = [row for row in rows(source) if row.metric == metric and fills(row, dataset, model, method)]
    for table in MAIN_TABLES.get(source, ()):
        in_table = [row for row in found if row.table == table]
        if in_table:
            found = in_table
            break
    return found[0] if len(found) == 1 else None


def other_data(result: Result, number: Published) -> str:
    """Why the data of a run are not those of a printed number, in a sentence; empty where they are."""
    return wrong_data(result, number.dataset, number.split)


def wrong_data(result: Result, dataset: str, split: str) -> str:
    """Why the data of a run are not this split of a data set, by its official lists; empty where they are.

    `split` is empty where whoever printed a number does not say.
    """
    data = result.data
    if fault := other_reader(result, dataset):
        return fault
    if (
        split == data.split_name and data.reader == OWN
    ):  # numbers on the user's own data, in a file of the user's own
        return ""
    if not split:
        return f"Which split of {dataset} the printed number is of was not published."
    if data.split_name != split:
        return f"The split is '{data.split_name or 'unknown'}', the printed number is of '{split}'."
    if not data.official_lists:
        known = "are not" if data.official_lists is False else "are not known to be"
        return f"The split lists {known} the official ones."
    return ""


def other_reader(result: Result, dataset: str) -> str:
    """Why the data of a run are not of a data set, in a sentence; empty where its reader made them, and for the user's
    own data where that is what the name stands for."""
    from balancemm_cli.data.datasets import DATASETS

    reader = result.data.reader
    if reader == dataset or (reader == OWN and result.dataset == dataset and dataset not in DATASETS):
        return ""
    if reader is None:
        return (
            "The runs were made by a version that did not record which data set and split their data are of: prepare "
            "them and train again."
        )
    made = "a CSV of your own" if reader == OWN else f"the data set '{reader}'"
    return f"The data are {made}, whatever their folder is called, and not {dataset}."


def official_split(dataset: str) -> str:
    """The split on which the paper's numbers of a data set are; empty where it has none or does not say."""
    return next((row.split for row in rows() if row.dataset == dataset), "")


def covers(dataset: str, source: str = PAPER) -> bool:
    """Whether the source prints any number for this data set."""
    return any(row.dataset == dataset for row in rows(source))


def tables(sources: Iterable[str] = (*SOURCES, *LATER_TABLES)) -> list[tuple[str, str, list[str]]]:
    """(source, table, data sets) of each table that has numbers here, in the sources' order."""
    found: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        for row in rows(source):
            datasets = found.setdefault((row.source, row.table), [])
            if row.dataset not in datasets:
                datasets.append(row.dataset)
    return [(source, table, datasets) for (source, table), datasets in found.items()]
