"""What of the runs a report shows, and beside which numbers: --where, --columns, --against, --selection all."""

import csv
import json

import pytest
from run_folders import write_demo, write_run

from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.results import published, selections, tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.groups import choose
from balancemm_cli.results.rows import rows

COLUMNS = ["source", "table", "dataset", "model", "method", "metric", "value", "unit", "note", "split"]


def write_source(path, *numbers):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            ["mine", "1", "crema-d", "concat", method, "accuracy", *rest, "official"]
            for method, *rest in numbers
        )
    return str(path)


@pytest.fixture
def groups(tmp_path):
    """Four seeds of two methods with the paper's settings of CREMA-D, and OPM with other ones."""
    for seed in range(4):
        for method, around in (("baseline", 0.66), ("opm", 0.71)):
            accuracy = around + 0.002 * seed
            write_run(tmp_path, method, seed, dataset="crema-d", recipe="paper", accuracy=accuracy)
        write_run(
            tmp_path, "opm", seed, dataset="crema-d", recipe="paper", accuracy=0.71, overrides=("epochs=5",)
        )
    return collect([tmp_path], "last").groups


def as_dicts(table):
    return [dict(zip(table.header, line, strict=True)) for line in table.cells]


def test_a_row_of_other_settings_is_not_compared(groups):
    (table,) = tables.tables(groups, "last")
    verdicts = [line["Verdict"] for line in as_dicts(table)]
    assert verdicts == [
        "reproduced (last 66.3, best-test 66.3)",
        "worse (last 71.3, best-test 71.3)",
        "not comparable",
    ]
    assert any(
        "opm epochs=5. The settings are not those of suite table-12: epochs=5 for 100." in note
        for note in table.notes
    )
    words = [row.verdict.word for row in rows(groups, "last") if row.verdict]
    assert words == ["reproduced", "worse", "not comparable"]


def test_where_keeps_rows_and_their_gain(groups):
    chosen = choose(groups, ["method=opm,ogm", "epochs=100"])
    assert [group.differences for group in chosen] == [{"epochs": 100}]
    (table,) = tables.tables(chosen, "last", among=groups, columns=["gain", "accuracy", "interval"])
    assert table.header == ["Model", "Method", "Settings", "Gain", "Accuracy", "Interval"]
    assert table.cells[0][3:5] == ["+5.0 (4)", "71.3 ± 0.3 (4)"]  # the same in each seed: no interval
    (alone,) = tables.tables(chosen, "last")
    assert "Gain" not in alone.header  # its baseline is not among these


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("method", "no condition"),
        ("methd=opm", "Did you mean 'method'"),
        ("method=agm", "No group of runs has method=agm"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(groups, where, message):
    with pytest.raises(UsageError, match=message):
        choose(groups, [where])


def test_an_unknown_column_is_refused(groups):
    with pytest.raises(UsageError, match=r"no column 'acuracy'\. Did you mean 'accuracy'"):
        tables.tables(groups, "last", columns=["acuracy"])


def test_a_file_of_ones_own_stands_beside_ours(groups, tmp_path):
    source = write_source(tmp_path / "mine.csv", ("baseline", 65.0, "%", "3 frames"), ("opm", 71.0, "%", ""))
    (table,) = tables.tables(groups, "last", source)
    baseline, opm, _ = as_dicts(table)
    assert (baseline["Published"], baseline["Δ"], baseline["Verdict"].split()[0]) == (
        "65.0",
        "+1.3",
        "reproduced",
    )
    assert (opm["Printed gain"], opm["Verdict"].split()[0]) == ("+6.0", "reproduced")
    assert any("mine Table 1 (3 frames)" in note and "is not checked" in note for note in table.notes)
    other = tables.tables(groups, "last", "cvpr2022")[0]
    assert [line["Published"] for line in as_dicts(other)] == ["51.7", "—", "—"]


@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        (0.65, "%", "is it a fraction"),
        (165, "%", "165 %"),
        ("nan", "%", "nan %"),
        (1.01, "x", "unit 'x' is not that of accuracy"),
        (65, "points", "neither % nor x"),
    ],
)
def test_a_number_that_can_be_none_is_refused(tmp_path, value, unit, message):
    source = write_source(tmp_path / "mine.csv", ("baseline", value, unit, ""))
    with pytest.raises(InputError, match=f"mine.csv is damaged .*{message}"):
        published.rows(source)


def test_selections_side_by_side_show_the_optimism(tmp_path):
    reached = {"last": 0.90, "best-val": 0.91, "best-test": 0.94}
    for seed in (0, 1):
        folder = write_run(tmp_path, seed=seed, accuracy=0.9, selections=tuple(reached))
        path = folder / "result.json"
        content = json.loads(path.read_text())
        for name, accuracy in reached.items():
            content["selections"][name]["accuracy"] = accuracy + 0.01 * seed * (name == "best-test")
        path.write_text(json.dumps(content))
    write_run(tmp_path, "opm", accuracy=0.9)  # without validation samples
    groups = collect([tmp_path], "last").groups
    (table,) = selections.side_by_side(groups)
    baseline, opm = as_dicts(table)
    assert [baseline[one] for one in reached] == ["90.0 ± 0.0 (2)", "91.0 ± 0.0 (2)", "94.5 ± 0.7 (2)"]
    assert (
        baseline["best-test − last"] == "4.5 ± 0.7 (2)"
        and baseline["best-test − best-val"] == "3.5 ± 0.7 (2)"
    )
    assert (opm["best-val"], opm["best-test − best-val"], opm["best-test − last"]) == ("—", "—", "0.0 (1)")
    record = selections.records(groups)[0]
    assert record["optimism"]["last"]["mean"] == pytest.approx(0.045)


def test_rows_that_differ_in_their_variant_say_so(tmp_path):
    for variant in ("paper", "official"):
        write_run(tmp_path, "opm", variant=variant)
    (table,) = selections.side_by_side(collect([tmp_path], "last").groups)
    assert [line["Variant"] for line in as_dicts(table)] == ["official", "paper"]


def test_on_the_command_line(tmp_path, bmm, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path / "runs", 2)
    _, out, _ = bmm("report", "--where", "method=opm", "--columns", "accuracy,gain", "--format", "markdown")
    assert "| Model  | Method | Accuracy" in out and out.count("\n| concat") == 1
    _, out, _ = bmm("report", "--selection", "all", "--table", "12", "--format", "csv")
    assert out == ""  # none of these runs is of the table
    _, out, _ = bmm("report", "--selection", "all", "--format", "json")
    assert {"last", "best-test", "optimism"} <= json.loads(out)[0].keys()
    for words, message in (
        (("--table", "12", "--where", "method=opm"), "--table has rows of its own"),
        (("--check", "--suite", "table-12", "--columns", "gain"), "--check has rows of its own"),
        (("--selection", "all", "--columns", "gain"), "--selection all has its own columns"),
        (("--table", "12", "--figure", "5"), "--table and --figure each make a report of their own"),
        (("--against", "cvpr"), "Did you mean 'cvpr2022'"),
    ):
        status, _, err = bmm("report", *words)
        assert status == 2 and message in err
    status, _, err = bmm("report", "--against", "mine.csv")
    assert status == 3 and "mine.csv is missing" in err
