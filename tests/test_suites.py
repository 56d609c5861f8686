"""The suites of the paper's tables: every published cell has a run, and every row a small form that trains."""

import csv
import json
from functools import cache

import pytest
import torch
from run_folders import write_run
from small_sets import COUNTS

from balancemm_cli.config.suites import MADE, MINI, load_suite
from balancemm_cli.data.datasets import DATASETS
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.models import MODELS, UNIMODAL
from balancemm_cli.resources import LATER_TABLES, benchmarks_folder, suites_of_the_paper
from balancemm_cli.results import published
from balancemm_cli.results.verdicts import planned, suite_of
from balancemm_cli.runs.folder import RunFolder

UNPRINTED = {("mmtm", "baseline"), ("concat", "greedy-adaptation")}  # rows of Tables 4 and 5 of ours alone
TABLES = [*sorted({number.table for number in published.rows()}, key=int), *LATER_TABLES]


def cells(suite):
    """(data set, model, method, note) of what the suite trains, by the model under which it is printed."""
    return [
        (dataset, group.printed_as or model, method, group.note)
        for group in suite.runs
        for dataset in group.datasets
        for model in group.models
        for method in group.methods
    ]


def printed(table):
    return [one for one in published.rows(published.source_of(table)) if one.table == table]


@pytest.mark.parametrize("table", TABLES)
def test_every_published_cell_has_a_run_and_only_one(table):
    suite = suite_of(table)
    assert suite.table == table
    trained = cells(suite)
    for number in printed(table):
        runs = sum(published.fills(number, *cell) for cell in trained)
        assert runs == (not lacks_validation(number)), number
    for cell in trained:
        filled = {number for number in printed(table) if published.fills(number, *cell)}
        unprinted = table in ("4", "5") and cell[1:3] in UNPRINTED
        assert bool(filled) != unprinted, f"{cell} is in no cell of table {table}"


@pytest.mark.parametrize("table", ["4", "5"])
def test_greedy_is_that_of_its_authors_and_its_adaptation_stands_beside_no_number(table):
    printed = [one for one in published.rows() if one.table == table and one.method == "greedy"]
    assert printed
    for number in printed:
        config = planned(number)
        assert (number.model, config.model, config.model_settings["heads"]) == ("concat", "mmtm", "branches")
    trained = [config.method for config in load_suite(f"table-{table}")[1].configs()]
    assert "greedy-adaptation" in trained
    for source in published.SOURCES:
        assert not [one for one in published.rows(source) if one.method == "greedy-adaptation"]


def lacks_validation(number):
    """D&R looks at validation samples, which of these splits that of its own authors on CREMA-D alone has."""
    return number.method == "relearning" and number.split != "relearn"


def test_a_number_of_a_later_paper_has_its_verdict(tmp_path, bmm):
    for seed, accuracy in enumerate((0.64, 0.643, 0.646)):  # ARL prints 64.34 for OGM-GE
        names = {"dataset": "crema-d", "recipe": "arl", "variant": "official"}
        write_run(tmp_path / "runs", "ogm", seed, accuracy=accuracy, **names)
    status, out, _ = bmm("report", "--table", "arl-2025", tmp_path / "runs", "--format", "json")
    cells = json.loads(out)
    run, other = [cell for cell in cells if cell["n"]]
    assert status == 0 and [run["metric"], other["metric"]] == ["accuracy", "macro_f1"]
    assert run["published"] == 0.6434
    assert run["verdict"]["word"] == "reproduced" and run["source"] == "arl-2025"
    status, out, _ = bmm("report", "--suite", "arl-2025", tmp_path / "runs", "--format", "json")
    (row,) = [row for row in json.loads(out) if row["method"] == "ogm"]
    assert row["published"]["accuracy"] == 0.6434 and row["verdict"]["word"] == "reproduced"
    status, out, _ = bmm("report", "--suite", "arl-2025", tmp_path / "runs", "--check")
    assert status == 4 and "reproduced     crema-d concat ogm accuracy" in out


def test_every_point_of_figure_9_has_a_run():
    _, suite = load_suite("figure-9")
    planned = {(dataset, note) for dataset, _, _, note in cells(suite)}
    with (benchmarks_folder() / "published" / "tpami2024_figure9.csv").open() as file:
        assert {(row["dataset"], row["method"]) for row in csv.DictReader(file)} == planned


@pytest.mark.parametrize("name", suites_of_the_paper())
def test_a_suite_resolves_and_its_small_form_has_every_row(name):
    _, suite = load_suite(name)
    _, mini = load_suite(name + MINI)
    assert len(suite.listing()) == len(suite.configs())
    assert all(model in MODELS or model.startswith(UNIMODAL) for _, model, _, _ in cells(suite))
    small = mini.configs()
    made = {one for group in suite.runs for one in group.datasets} <= MADE.keys()  # what synthetic has not
    assert all(config.dataset.startswith("synthetic-") == made for config in small)
    assert {config.seed for config in small} == ({0, 1, 2} if made else {0})
    rows = {
        (model, method, note) for _, model, method, note in cells(suite) if not model.startswith(UNIMODAL)
    }
    assert {
        (model, method, note) for _, model, method, note in cells(mini) if not model.startswith(UNIMODAL)
    } == rows


def test_two_groups_that_come_to_one_run_train_it_once():
    """λ = 0.5 and q_base = 0.5 are the defaults, and so are both the same point of Figure 9."""
    _, suite = load_suite("figure-9")
    assert len(suite.configs()) == len(cells(suite)) * 3 - 2 * 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The built-in synthetic data sets by name, with few samples where they are written."""
    folder = tmp_path_factory.mktemp("embedded")

    @cache
    def of(name):
        source = folder / f"{name}-raw"
        if name in COUNTS:
            DATASETS[name].make(source, 1, counts=COUNTS[name])
        return prepare_dataset(name, source, out=folder / name, workers=1)

    return of


def rows_of_all_suites():
    """A run of each kind in all small forms: of those that differ in the values of the same settings, as the points of
    a sweep, the first."""
    runs = {}
    for name in suites_of_the_paper():
        for config in load_suite(name + MINI)[1].configs(["epochs=1", "frames.size=16", "waveform.n_fft=32"]):
            changed = {
                key: [*settings] if isinstance(settings, dict) else settings
                for key, settings in config.computed["settings"].items()
            }
            methods = {name: [*settings] for name, settings in config.computed["methods"].items()}
            runs.setdefault(str((config.dataset, config.model, methods, changed)), config)
    return list(runs.values())


@pytest.mark.long
@pytest.mark.parametrize(
    "config", rows_of_all_suites(), ids=lambda one: f"{one.model}-{one.method}-{one.hash('')[:4]}"
)
def test_every_row_trains(config, prepared, tmp_path):
    result = train_run(RunFolder(tmp_path, config, prepared(config.dataset)), torch.device("cpu"))
    assert result["status"] == "finished" and 0 <= result["selections"]["last"]["accuracy"] <= 1
