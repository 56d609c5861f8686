"""`bmm report --leaderboard`: the tables, the records, the page and the figures, on runs written for it."""

import csv
import io
import json
import re
import shutil

import pytest
from run_folders import write_demo, write_run, write_search
from test_formats import CHROMIUM, shown
from test_report import bmm

from balancemm_cli.results.board import Board
from balancemm_cli.results.collection import collect
from balancemm_cli.results.leaderboard import Leaderboard, by_dataset, costs, over_datasets
from balancemm_cli.results.ranking import critical_difference
from balancemm_cli.results.references import with_references

METHODS = {"baseline": 0.80, "opm": 0.90, "ogm": 0.84, "opm+ogm": 0.88}
DATASETS = [f"set-{number}" for number in range(6)]


def write_sets(root, datasets, seeds=3):
    """Methods on several data sets; the baseline is the worst, opm the best, everywhere."""
    for place, dataset in enumerate(datasets):
        for seed in range(seeds):
            for method, accuracy in METHODS.items():
                reached = accuracy + 0.01 * ((seed + place) % 3)
                write_run(
                    root / dataset, method, seed, dataset=dataset, accuracy=reached, data=f"{place}" * 64
                )
    return root


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("six"), DATASETS)


def board_of(root):
    return Board(with_references(collect([root], "last").groups)[0], "last")


def test_the_best_comes_first_and_the_tests_say_what_differs(six):
    board = board_of(six)
    table = over_datasets(board)
    methods = [cells[table.header.index("Method")] for cells in table.cells]
    assert methods == ["opm", "opm+ogm", "ogm", "baseline", "—"]  # the last one is the majority class
    assert board.tests.friedman.p < 0.001
    assert board.tests.difference == critical_difference(5, 6)
    labels = [entry.label for entry in board.compared]
    differing = {frozenset((labels[a], labels[b])) for a, b in board.tests.differing}
    assert frozenset(("opm", "majority")) in differing and frozenset(("opm", "opm+ogm")) not in differing
    assert any("opm better than majority" in note for note in table.notes)


def test_no_number_over_data_sets_is_without_its_uncertainty(six):
    table = over_datasets(board_of(six))
    for head in ("Rank", "Win rate", "P(better)"):
        texts = [cells[table.header.index(head)] for cells in table.cells]
        assert all(text == "—" or re.search(r" \[.+, .+\]$", text) for text in texts), texts
    assert [cells[table.header.index("P(better)")] for cells in table.cells].count("—") == 1  # the baseline


def test_with_fewer_than_five_data_sets_nothing_is_tested(tmp_path):
    board = board_of(write_sets(tmp_path, DATASETS[:3], 2))
    assert board.tests.friedman is None and not board.tests.differing
    assert "with fewer than 5 none may be used" in over_datasets(board).notes[0]
    done = bmm(str(tmp_path), "--leaderboard", "--out", "out", cwd=tmp_path)
    assert "Figure leaderboard-ranks was not drawn: No test over data sets" in done.stderr
    assert (tmp_path / "out" / "figures" / "leaderboard-cost.png").is_file()


def test_a_method_without_all_runs_is_named_and_not_compared(tmp_path):
    write_sets(tmp_path, DATASETS[:5], 2)
    write_run(tmp_path / "set-0", "pmr", 0, dataset="set-0", accuracy=0.99, data="0" * 64)
    write_run(tmp_path / "set-1", "opm", 9, dataset="set-1", accuracy=0.9, data="1" * 64)  # one more seed
    board = board_of(tmp_path)
    assert {entry.names[1] for entry in board.compared} == {*METHODS, "—"}
    (lacks,) = board.lacking.values()
    assert "no finished run of seed 1 on set-0" in lacks and "no runs on set-1" in lacks
    assert any(note.startswith("Not compared: concat pmr") for note in over_datasets(board).notes)
    table = by_dataset(board)
    (line,) = [cells for cells in table.cells if "pmr" in cells]
    assert line[-5:] == [line[-5], "—", "—", "—", "—"] and line[-5].endswith("#1")


def test_the_best_modality_is_that_of_the_best_mean(tmp_path):
    write_demo(tmp_path, 3)
    board = board_of(tmp_path)
    best = next(entry for entry in board.entries if entry.names[0] == "best modality")
    assert best.rows["synthetic"].group.first.model == "unimodal-visual"
    assert any("synthetic visual" in note for note in by_dataset(board).notes)
    ensemble = next(entry for entry in board.entries if entry.names[0] == "ensemble")
    assert ensemble.cost("synthetic")["seconds"].mean == pytest.approx(60)  # two networks of 30 s
    majority = next(entry for entry in board.entries if entry.names[0] == "majority")
    assert not any(majority.cost("synthetic").values())


def test_cost_is_that_of_the_runs(six):
    folder = next((six / "set-0").rglob("opm-paper-s0-*"))
    content = json.loads((folder / "result.json").read_text())
    counted = {"parameters": 2_000_000, "batch_size": 64, "multiply_adds": 3 * 10**9, "memory": 5 * 2**20}
    (folder / "result.json").write_text(json.dumps({**content, "cost": counted}))
    table = costs(board_of(six))
    (line,) = [cells for cells in table.cells if cells[0] == "set-0" and "opm" in cells]
    assert line[-4:] == ["30.0 ± 0.0 (3)", "3.000", "5.0", "2.000"]
    (line,) = [cells for cells in table.cells if cells[0] == "set-1" and "opm" in cells]
    assert line[-3:] == ["—", "—", "—"]


def test_every_format_says_the_same(six, tmp_path):
    records = json.loads(bmm(str(six), "--leaderboard", "--format", "json", cwd=tmp_path).stdout)
    board = board_of(six)
    opm = next(one for one in records if one["method"] == "opm")
    place = [entry.names[1] for entry in board.compared].index("opm")
    assert opm["rank"]["value"] == board.standings[place].rank.value
    assert tuple(opm["rank"]["interval"]) == board.standings[place].rank.interval
    assert opm["friedman_p"] == board.tests.friedman.p and opm["reference"] == "concat baseline"
    assert set(opm["datasets"]) == set(DATASETS)
    rows = list(
        csv.DictReader(io.StringIO(bmm(str(six), "--leaderboard", "--format", "csv", cwd=tmp_path).stdout))
    )
    assert [row["method"] for row in rows] == [one["method"] for one in records]
    assert float(next(row for row in rows if row["method"] == "opm")["rank_value"]) == opm["rank"]["value"]
    for form in ("markdown", "latex"):
        shown = bmm(str(six), "--leaderboard", "--format", form, cwd=tmp_path).stdout
        assert "Over 6 data sets" in shown and "Cost by data set" in shown


def test_the_page_needs_no_network_and_has_both_figures(six, tmp_path):
    page = bmm(str(six), "--leaderboard", "--format", "html", cwd=tmp_path).stdout
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 2
    assert 'name="viewport"' in page and 'class="filters"' in page
    assert all(name in page for name in DATASETS)
    if CHROMIUM:
        measure = "[document.documentElement.scrollWidth <= innerWidth, innerWidth, document.images.length]"
        assert shown(page, tmp_path, 390, measure) == "true,390,2"


def test_it_can_be_drawn_and_written(six, tmp_path):
    groups, _ = with_references(collect([six], "last").groups)
    written, left_out = Leaderboard(groups, "last").draw(tmp_path)
    assert [path.name for path in written] == [
        "leaderboard-ranks.png",
        "leaderboard-cost.png",
    ] and not left_out
    assert "opm+ogm" in (tmp_path / "leaderboard-ranks.svg").read_text()


@pytest.mark.parametrize(
    "other", [["--columns", "gain"], ["--selection", "all"], ["--table", "12"], ["--bundle", "b"]]
)
def test_it_is_a_report_of_its_own(six, tmp_path, other):
    assert "--leaderboard" in bmm(str(six), "--leaderboard", *other, cwd=tmp_path, status=2).stderr


def test_methods_that_differ_in_their_variant_or_settings_have_names_of_their_own(tmp_path):
    """By model and method alone two of them would be one key of a record, and one name in a note."""
    write_sets(tmp_path, DATASETS[:5], 2)
    for place, dataset in enumerate(DATASETS[:5]):
        for seed in range(2):
            write_run(
                tmp_path / dataset,
                "opm",
                seed,
                dataset=dataset,
                variant="official",
                accuracy=0.7,
                data=f"{place}" * 64,
            )
    write_run(tmp_path / "set-0", "pmr", 0, dataset="set-0", accuracy=0.9, data="0" * 64)
    write_run(tmp_path / "set-0", "pmr", 0, dataset="set-0", variant="official", accuracy=0.9, data="0" * 64)
    groups = with_references(collect([tmp_path], "last").groups)[0]
    contents = Leaderboard(groups, "last", [])
    assert len({*contents.board.labels.values()}) == len(contents.board.entries)
    opm = next(one for one in contents.records if (one["method"], one["variant"]) == ("opm", "paper"))
    others = {"concat opm · official", "concat baseline", "concat ogm", "concat opm+ogm", "majority"}
    assert {*opm["wilcoxon_holm"]} == others
    lacking = [note for note in over_datasets(contents.board).notes if note.startswith("Not compared")]
    assert sorted(note[:32] for note in lacking) == [
        "Not compared: concat pmr · offic",
        "Not compared: concat pmr · paper",
    ]


def test_a_tuned_method_over_folds_is_one_row(tmp_path):
    """Each seed has its own fold, its own search and so its own settings."""
    for seed, (lr, accuracy) in enumerate(((0.1, 0.7), (0.2, 0.8), (0.3, 0.9))):
        run = write_run(tmp_path, "opm", seed, accuracy=accuracy, overrides=(f"optimizer.lr={lr}",))
        write_search(tmp_path, run, seed=seed)
    write_run(tmp_path, "opm", 3, accuracy=0.1)  # untuned
    entries = [entry for entry in board_of(tmp_path).entries if entry.names[1] == "opm"]
    tuned, plain = sorted(entries, key=lambda entry: -len(entry.seeds("synthetic")))
    assert tuned.seeds("synthetic") == {0, 1, 2} and plain.seeds("synthetic") == {3}
    assert tuned.rows["synthetic"].accuracy.mean == pytest.approx(0.8)


def write_alone(root, model, seed, accuracy, validated=None):
    run = write_run(root, model=model, seed=seed, accuracy=accuracy)
    if validated is not None:
        path = run / "history.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[-1]["accuracy"]["val"] = validated
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def best_of(root):
    board = board_of(root)
    (best,) = (entry for entry in board.entries if entry.names[0] == "best modality")
    (note,) = (note for note in by_dataset(board).notes if note.startswith("best modality"))
    return best.rows["synthetic"].group.first.model.removeprefix("unimodal-"), note


def test_the_best_modality_is_chosen_by_the_seeds_that_all_have(tmp_path):
    for seed, accuracy in enumerate((0.9, 0.6, 0.6)):
        write_alone(tmp_path, "unimodal-audio", seed, accuracy)
    write_alone(tmp_path, "unimodal-visual", 0, 0.8)  # more than the 0.7 of all seeds of the other
    assert best_of(tmp_path)[0] == "audio"


def test_without_a_common_seed_one_lucky_run_is_not_the_best_modality(tmp_path):
    for seed in range(3):
        write_alone(tmp_path, "unimodal-audio", seed, 0.7)
    write_alone(tmp_path, "unimodal-visual", 9, 0.8)
    assert best_of(tmp_path)[0] == "audio"


def test_validation_samples_choose_the_best_modality_where_every_run_has_them(tmp_path):
    for seed in range(2):
        write_alone(tmp_path, "unimodal-audio", seed, 0.7, validated=0.9)
        write_alone(tmp_path, "unimodal-visual", seed, 0.8, validated=0.6)
    name, note = best_of(tmp_path)
    assert name == "audio" and "(synthetic audio)" in note and "optimistic" not in note
    shutil.rmtree(tmp_path)
    for seed in range(2):
        write_alone(tmp_path, "unimodal-audio", seed, 0.7, validated=0.9)
        write_alone(tmp_path, "unimodal-visual", seed, 0.8)
    name, note = best_of(tmp_path)
    assert name == "visual" and "(synthetic visual *)" in note and "optimistic" in note


def test_the_best_modality_is_of_one_recipe(tmp_path):
    for recipe, accuracy in (("default", 0.6), ("other", 0.9)):
        (tmp_path / f"{recipe}.toml").write_text(f"epochs = {int(100 * accuracy)}\n")
        for dataset, data in (("set-0", "0" * 64), ("set-1", "1" * 64)):
            for model in ("unimodal-audio", "unimodal-visual"):
                kept = {"dataset": dataset, "data": data, "model": model}
                write_run(tmp_path, accuracy=accuracy, recipe=str(tmp_path / f"{recipe}.toml"), **kept)
    best = [entry for entry in board_of(tmp_path).entries if entry.names[0] == "best modality"]
    reached = {entry.names[3]: {one.accuracy.mean for one in entry.rows.values()} for entry in best}
    assert reached == {"default": {0.6}, "other": {0.9}}


def test_the_majority_class_has_no_say_in_which_seeds_count(tmp_path):
    """It is there for each seed that any run has: with one of two methods it would be more than half of three."""
    for dataset, data in (("set-0", "0" * 64), ("set-1", "1" * 64)):
        for seed in range(3):
            write_run(tmp_path, "baseline", seed, dataset=dataset, data=data)
        write_run(tmp_path, "opm", 0, dataset=dataset, data=data)
    board = board_of(tmp_path)
    assert board.seeds == {"set-0": [0], "set-1": [0]} and len(board.compared) == 3


def test_one_data_set_is_said_to_be_one(tmp_path):
    table = over_datasets(board_of(write_sets(tmp_path, DATASETS[:1], 2)))
    assert table.title == "Over 1 data set" and "there is 1, and" in table.notes[0]


def test_what_was_tuned_is_one_method_over_all_data_sets(tmp_path):
    for place, dataset in enumerate(DATASETS[:2]):
        for method, accuracy in {"baseline": 0.8, "opm": 0.9}.items():
            given = {"dataset": dataset, "data": f"{place}" * 64}
            for seed in range(3):
                write_run(tmp_path, method, seed, accuracy=accuracy, **given)
                chosen = write_run(
                    tmp_path,
                    method,
                    seed,
                    accuracy=accuracy + 0.02,
                    overrides=(f"optimizer.lr=0.0{place + 2}",),
                    **given,
                )
            write_search(tmp_path / dataset, chosen)
    board = Board(collect([tmp_path], "last").groups, "last")
    assert not board.lacking
    assert sorted((entry.names[1], entry.names[4]) for entry in board.compared) == [
        (method, settings)
        for method in ("baseline", "opm")
        for settings in ("", "tuned (quasi-random, 2 trainings)")
    ]
