"""The paper's tables with our runs in them."""

import json

import pytest
from run_folders import write_run

from balancemm_cli.errors import UsageError
from balancemm_cli.results import paper_tables, published
from balancemm_cli.results.collection import collect
from balancemm_cli.results.verdicts import suite_of


def write_cell(root, method, seeds, accuracy, **more):
    names = {"dataset": "crema-d", "recipe": "paper", **more}
    return [write_run(root, method, seed, accuracy=accuracy + seed / 100, **names) for seed in range(seeds)]


def shown(table, root):
    groups = collect([root], "last").groups
    found = paper_tables.cells(table, groups, "last")
    layout = paper_tables.layout(table, found, "last")
    lines = [dict(zip(layout.header, cells, strict=True)) for cells in layout.cells]
    return found, lines, layout.notes


def test_ours_stand_beside_the_printed_numbers(tmp_path):
    write_cell(tmp_path, "baseline", 3, 0.60)
    write_cell(tmp_path, "opm", 3, 0.70)
    found, lines, notes = shown("12", tmp_path)
    by_method = {line["Method"]: line for line in lines}
    printed = {
        number.method: number.value
        for number in published.rows()
        if (number.table, number.dataset, number.metric) == ("12", "crema-d", "accuracy")
    }
    cell = by_method["opm"]["crema-d accuracy"]
    assert (
        cell == f"**71.0 ± 1.0 (3) / {printed['opm']:.1f} / {71 - printed['opm']:+.1f} ↓**"
    )  # ± 1.0 over 3 seeds
    assert by_method["ogm"]["crema-d accuracy"] == f"not run / {printed['ogm']:.1f}"
    assert by_method["baseline"]["crema-d accuracy"].startswith("61.0 ± 1.0 (3) / ")
    assert len(lines) == 4 and len(found) == 32
    assert any("4 of 32 numbers were run" in note for note in notes)


def test_only_runs_with_the_suites_settings_count(tmp_path):
    write_cell(tmp_path, "baseline", 2, 0.6)
    write_cell(tmp_path, "opm", 2, 0.7, overrides=("epochs=5",))
    write_cell(tmp_path, "ogm", 2, 0.7, variant="official")
    found, _, _ = shown("12", tmp_path)
    assert {cell.number.method for cell in found if cell.ours} == {"baseline"}


def test_settings_that_share_their_names_are_rows_of_their_own(tmp_path):
    for seed in (0, 1):
        settings = ("batch_size=32", "optimizer.lr=1e-4")
        write_run(tmp_path, seed=seed, dataset="crema-d", recipe="paper", accuracy=0.5, overrides=settings)
    _, lines, _ = shown("1", tmp_path)
    assert len(lines) == 5
    by_note = {line["Setting"]: line["crema-d accuracy"] for line in lines}
    assert "50.0 ± 0.0 (2)" in by_note["batch_size=32 lr=1e-4"]
    assert sum("not run" in cell for cell in by_note.values()) == 4


def test_time_is_told_in_units_of_the_baseline_of_the_same_seed(tmp_path):
    for method, seconds in (("baseline", 100.0), ("opm", 103.0)):
        for folder in write_cell(tmp_path, method, 2, 0.6):
            path = folder / "result.json"
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"time": {"seconds": seconds + content["seed"]}}))
    found, lines, _ = shown("4", tmp_path)
    ratios = {cell.number.method: cell.ours for cell in found}
    assert ratios["opm"].mean == pytest.approx((103 / 100 + 104 / 101) / 2)
    assert ratios["baseline"].mean == 1 and ratios["greedy"] is None
    assert lines[-2]["crema-d training time"].startswith("1.03 ± 0.00 (2) / 1.01")


def test_time_is_not_told_in_units_of_a_baseline_of_other_settings(tmp_path):
    for method, seconds, more in (
        ("baseline", 100.0, ()),
        ("opm", 103.0, ()),
        ("baseline", 10.0, ("epochs=10",)),
    ):
        for folder in write_cell(tmp_path, method, 2, 0.6, overrides=more):
            path = folder / "result.json"
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"time": {"seconds": seconds}}))
    found, _, _ = shown("4", tmp_path)
    ratios = {cell.number.method: cell.ours for cell in found}
    assert ratios["opm"].mean == pytest.approx(1.03) and ratios["opm"].n == 2
    assert ratios["baseline"].mean == 1


def test_every_table_with_a_suite_is_laid_out(tmp_path):
    write_cell(tmp_path, "baseline", 1, 0.6)
    for table in paper_tables.table_numbers():
        found, lines, _ = shown(table, tmp_path)
        source = published.source_of(table)
        expected = [number for number in published.rows(source) if number.table == table]
        assert len(found) == len(expected)
        assert sum(bool(cell) for line in lines for cell in list(line.values())[2:]) >= len(expected), table
        assert suite_of(table).title in paper_tables.layout(table, found, "last").title


def test_a_table_without_a_suite_is_refused(tmp_path):
    with pytest.raises(UsageError, match="table 'x'"):
        paper_tables.cells("x", [], "last")


def test_each_number_that_was_run_has_its_verdict_and_gain(tmp_path):
    write_cell(tmp_path, "baseline", 3, 0.60)
    write_cell(tmp_path, "opm", 3, 0.70)
    found = paper_tables.cells("12", collect([tmp_path], "last").groups, "last")
    table = paper_tables.details(found)
    assert table is not None and len(table.cells) == 4  # accuracy and mAP of two methods
    lines = {tuple(line[1:4]): dict(zip(table.header, line, strict=True)) for line in table.cells}
    opm = lines["concat", "opm", "accuracy"]
    assert (opm["Ours"], opm["Published"], opm["Δ"]) == ("71.0 ± 1.0 (3)", "75.1", "-4.1")
    assert (opm["Verdict"], opm["Printed gain"]) == (
        "worse (last 71.0, best-test 71.0)",
        "+8.2",
    )  # 75.1 − 66.9 of Table 12
    assert opm["Gain"] == "+10.0 (3)"  # the same with each seed, so that there is no interval
    assert opm["Literature"] == "above 2 of 3 (65.4–75.1)"
    assert lines["concat", "opm", "mAP"]["Gain"] == "—"
    (record,) = [one for one in paper_tables.records(found, "last") if one["gain"]["mean"]]
    assert record["gain"]["published"] == pytest.approx(0.082) and record["verdict"]["word"] == "worse"
    assert paper_tables.details(paper_tables.cells("9", [], "last")) is None


def test_another_source_fills_the_papers_rows_or_leaves_gaps(tmp_path):
    write_cell(tmp_path, "baseline", 3, 0.60)
    found = paper_tables.cells("12", collect([tmp_path], "last").groups, "last", "cvpr2022")
    at = {(cell.number.dataset, cell.number.method, cell.number.metric): cell for cell in found}
    assert at["crema-d", "baseline", "accuracy"].text == "61.0 ± 1.0 (3) / 51.7 / +9.3 ↑"
    assert at["crema-d", "opm", "accuracy"].text == "not run / —"  # that paper has no OPM
    assert not any(cell.printed and cell.printed.source != "cvpr2022" for cell in found)
    of_table_1 = paper_tables.cells("1", [], "last", "cvpr2022")
    assert {cell.printed for cell in of_table_1} == {None}  # five settings under one name: which is it?
