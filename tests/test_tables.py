import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import statistics

import pytest
from rich.console import Console
from run_folders import write_demo, write_run

from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.origin import misread
from balancemm_cli.results import formats, rows, tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.groups import labels
from balancemm_cli.runs.folder import ALIVE
from balancemm_cli.runs.schema import selection_named


def rows_of(folder, selection="last"):
    return [rows.row(group, selection) for group in collect([folder], selection).groups]


def edit_result(folder, **changes):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_config(folder, content):
    """Replace config.toml, as if the run had been trained with it."""
    (folder / "config.toml").write_text(content)
    edit_result(folder, config_hash=hashlib.sha256(content.encode()).hexdigest())


def test_mean_and_spread_over_seeds(tmp_path):
    for seed, accuracy in enumerate((0.947, 0.951, 0.955)):
        write_run(tmp_path, "opm", seed, accuracy=accuracy)
    (row,) = rows_of(tmp_path)
    assert row.group.seeds == [0, 1, 2]
    assert row.accuracy.mean == pytest.approx(0.951)
    assert row.accuracy.std == pytest.approx(0.004)
    assert row.unimodal["visual"].mean == pytest.approx(0.951 * 0.8)
    maps = [json.loads(p.read_text())["selections"]["last"]["map"] for p in tmp_path.rglob("result.json")]
    assert row.map.mean == pytest.approx(statistics.fmean(maps))
    rho = [json.loads(p.read_text())["rho"]["audio"] for p in tmp_path.rglob("result.json")]
    assert row.rho["audio"].mean == pytest.approx(statistics.fmean(rho))
    (table,) = tables.tables([row.group], "last")
    assert dict(zip(table.header, table.cells[0], strict=True))["Accuracy"] == "95.1 ± 0.4 (3)"


def test_order_of_rows(tmp_path):
    names = [row.group.names[1:3] for row in rows_of(write_demo(tmp_path, seeds=1))]
    joint = [("concat", method) for method in ("baseline", "opm", "ogm", "opm+ogm")]
    assert names == [("unimodal-audio", "baseline"), ("unimodal-visual", "baseline"), *joint]


def test_runs_of_other_settings_or_data_are_never_averaged(tmp_path):
    write_run(tmp_path, seed=0, accuracy=0.9)
    write_run(tmp_path, seed=1, accuracy=0.8)
    write_run(tmp_path, seed=1, accuracy=0.5, overrides=("optimizer.lr=0.5",))
    write_run(tmp_path, seed=1, accuracy=0.1, data="beef" * 16)
    groups = collect([tmp_path], "last").groups
    accuracies = sorted(round(rows.row(group, "last").accuracy.mean, 3) for group in groups)
    assert accuracies == [0.1, 0.5, 0.85]
    settings = [group.differences for group in groups]
    assert {"data hash": "beefbeef", "optimizer.lr": 0.02} in settings
    assert {"data hash": "da7ada7a", "optimizer.lr": 0.5} in settings
    assert len({tuple(one.items()) for one in settings}) == 3
    (table,) = tables.tables(groups, "last")
    column = table.header.index("Settings")
    assert len({cells[column] for cells in table.cells}) == 3
    assert len(set(labels(groups))) == 3


def test_groups_that_no_setting_tells_apart_show_their_settings_hash(tmp_path):
    for protocol in ("1111" * 16, "2222" * 16):
        folder = write_run(tmp_path / protocol[:4])
        write_config(folder, "unheard = 1\n")
        result = json.loads((folder / "result.json").read_text())
        edit_result(folder, hashes=result["hashes"] | {"settings": protocol})
    groups = collect([tmp_path], "last").groups
    assert [group.differences for group in groups] == [
        {"settings hash": "11111111"},
        {"settings hash": "22222222"},
    ]


def test_the_same_seed_twice_is_named_and_counted_once(tmp_path):
    first = write_run(tmp_path / "a", seed=3)
    shutil.copytree(first, tmp_path / "b" / "copy")
    collection = collect([tmp_path], "last")
    assert [group.seeds for group in collection.groups] == [[3]]
    assert len(collection.twins) == 1 and not collection.left_out
    assert "copy" in collection.twins[0] and "counted once" in collection.twins[0]


def test_a_folder_reached_twice_is_read_once(tmp_path):
    write_run(tmp_path / "suite")
    collection = collect([tmp_path, tmp_path / "suite"], "last")
    assert collection.left_out == []
    assert [group.seeds for group in collection.groups] == [[0]]


def test_runs_behind_a_link_are_found_and_a_circle_of_links_ends(tmp_path):
    write_run(tmp_path / "scratch", seed=0)
    write_run(tmp_path / "runs" / "here", seed=1)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "back").symlink_to(tmp_path / "runs")
    assert [group.seeds for group in collect([tmp_path / "runs"], "last").groups] == [[0, 1]]


@pytest.mark.parametrize("status", ["diverged", "running", "interrupted"])
def test_unfinished_runs_are_listed_and_not_averaged(tmp_path, status):
    write_run(tmp_path, seed=0, accuracy=0.9)
    unfinished = write_run(tmp_path, seed=1, accuracy=0.1, status=status)
    edit_result(unfinished, selections={}, rho={"audio": None, "visual": None})
    collection = collect([tmp_path], "last")
    assert [group.seeds for group in collection.groups] == [[0]]
    assert collection.left_out == [f"{unfinished}: {status}, not averaged."]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 1}', "'status'"),
        ('{"format": 3, "status": "finished"}', "Take a newer bmm"),
    ],
)
def test_a_damaged_result_is_named_and_the_rest_is_shown(tmp_path, content, reason):
    write_run(tmp_path, seed=0)
    damaged = write_run(tmp_path, seed=1)
    (damaged / "result.json").write_text(content)
    collection = collect([tmp_path], "last")
    assert [group.seeds for group in collection.groups] == [[0]]
    assert len(collection.left_out) == 1
    assert str(damaged) in collection.left_out[0] and reason in collection.left_out[0]


def test_a_value_that_is_not_finite_is_damage(tmp_path):
    folder = write_run(tmp_path, seed=0)
    edit_result(folder, rho={"audio": float("inf"), "visual": 1.0})
    collection = collect([tmp_path], "last", may_be_empty=True)
    assert not collection.groups and "'rho.audio': Input should be a finite number" in collection.left_out[0]


def test_a_value_that_is_no_fraction_is_damage(tmp_path):
    write_run(tmp_path, seed=0)
    damaged = write_run(tmp_path, seed=1)
    result = json.loads((damaged / "result.json").read_text())
    result["selections"]["last"]["accuracy"] = 95.1
    edit_result(damaged, selections=result["selections"])
    assert "selections.last.accuracy" in collect([tmp_path], "last").left_out[0]


def test_a_run_without_a_result_is_named(tmp_path):
    write_run(tmp_path, seed=0)
    started = write_run(tmp_path, seed=1)
    (started / "result.json").unlink()
    (line,) = collect([tmp_path], "last").left_out
    assert str(started) in line and "no result.json yet" in line


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "config.toml is missing"),
        ("= damaged", "config.toml is damaged"),
        ("", "config.toml is damaged"),
        ('tested_on = "val"\nunheard = 1\n', "differ in 'tested_on'"),  # as a newer version's trial
    ],
)
def test_a_trial_whose_result_says_that_it_is_none_is_no_row(tmp_path, config, said):
    """Which samples a run was tested on its settings say, and nothing else does."""
    write_run(tmp_path)
    trial = write_run(tmp_path, seed=1)
    if config is None:
        (trial / "config.toml").unlink()
    else:
        write_config(trial, config)
    found = collect([tmp_path], "last")
    assert [group.seeds for group in found.groups] == [[0]]
    (line,) = found.left_out
    assert str(trial) in line and said in line


def test_a_config_of_another_version_and_a_missing_environment_do_not_hide_the_numbers(tmp_path):
    folder = write_run(tmp_path)
    write_config(folder, "unheard = 1\n")
    (folder / "environment.json").unlink()
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert any("bmm unknown" in note for note in table.notes)


def test_nothing_to_report_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no runs under .*bmm train"):
        collect([tmp_path], "last")
    with pytest.raises(InputError, match="There is no folder"):
        collect([tmp_path / "absent"], "last")
    write_run(tmp_path)
    with pytest.raises(InputError, match="'best-val'"):
        collect([tmp_path], "best-val")


def test_unknown_selection_names_the_nearest():
    assert selection_named("best-test") == "best-test"
    with pytest.raises(UsageError, match="'best-test'"):
        selection_named("best-tst")


def test_published_number_and_difference(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "opm+ogm", seed, dataset="crema-d", recipe="paper", accuracy=0.747 + 0.02 * seed)
    (row,) = rows_of(tmp_path)
    assert row.published is not None and row.published.value == 76.7
    assert row.delta == pytest.approx(0.757 - 0.767)
    (table,) = tables.tables([row.group], "last")
    cells = dict(zip(table.header, table.cells[0], strict=True))
    assert (cells["Published"], cells["Δ"]) == ("76.7", "-1.0")
    assert any("tpami2024 Table 12" in note for note in table.notes)


def test_no_published_number_is_a_gap_and_said(tmp_path):
    write_run(tmp_path)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    cells = dict(zip(table.header, table.cells[0], strict=True))
    assert not {"Published", "Δ"} & set(cells)  # columns that hold nothing are left out
    assert any("no number for synthetic" in note for note in table.notes)


def test_incomplete_data_and_selection_are_said(tmp_path):
    write_run(tmp_path, samples=(1190, 1200))
    (table,) = tables.tables(collect([tmp_path], "best-test").groups, "best-test")
    notes = "\n".join(table.notes)
    assert "test on 1,190 of 1,200 samples (incomplete)" in notes
    assert "best test accuracy" in notes
    assert "data hash da7ada7a" in notes
    assert "bmm 0.1.0" in notes


def test_the_split_is_said(tmp_path):
    write_run(tmp_path, split="speaker-independent: no actor is in two parts")
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert "Split: speaker-independent: no actor is in two parts." in "\n".join(table.notes)


def test_one_table_a_data_set(tmp_path):
    write_run(tmp_path, dataset="crema-d", recipe="paper")
    write_run(tmp_path, dataset="synthetic")
    found = tables.tables(collect([tmp_path], "last").groups, "last")
    assert [table.title for table in found] == [
        "crema-d (variant paper, recipe paper)",
        "synthetic (variant paper, recipe default)",
    ]


def test_modalities_stand_in_the_order_of_the_joint_model(tmp_path):
    write_run(tmp_path, model="unimodal-visual")
    write_run(tmp_path)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert table.header.index("Audio") < table.header.index("Visual")


def test_markdown_is_a_table(tmp_path):
    (table,) = tables.tables(collect([write_demo(tmp_path, 2)], "last").groups, "last")
    lines = [line for line in formats.to_markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(table.cells)
    assert {line.count("|") for line in lines} == {len(table.header) + 1}


def test_rich_shows_every_cell(tmp_path):
    (table,) = tables.tables(collect([write_demo(tmp_path, 2)], "last").groups, "last")
    text = io.StringIO()
    Console(file=text, width=200).print(formats.to_rich(table, 200))
    for cells in table.cells:
        assert all(cell in text.getvalue() for cell in cells)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_on_a_narrow_terminal_no_number_is_broken_and_columns_go_aloud(tmp_path, width):
    (table,) = tables.tables(collect([write_demo(tmp_path, 2)], "last").groups, "last")
    text = io.StringIO()
    Console(file=text, width=width).print(formats.to_rich(table, width))
    for place, name in enumerate(table.header):
        whole = all(cells[place] in text.getvalue() for cells in table.cells)
        left_out = " ".join(text.getvalue().partition("No room for")[2].split())
        assert whole or name in ("Model", "Method") or name in left_out
    assert all(cells[table.header.index("Accuracy")] in text.getvalue() for cells in table.cells)


def test_csv_and_json_hold_the_same_in_full_precision(tmp_path):
    groups = collect([write_demo(tmp_path, 3)], "last").groups
    records = [rows.record(rows.row(group, "last")) for group in groups]
    objects = json.loads(formats.to_json(records))
    lines = list(csv.DictReader(io.StringIO(formats.to_csv(records))))
    assert len(objects) == len(lines) == len(groups)
    for group, one, line in zip(groups, objects, lines, strict=True):
        values = [run.result.selections["last"].accuracy for run in group.runs]
        assert one["accuracy"]["mean"] == pytest.approx(statistics.fmean(values), rel=1e-12)
        assert one["accuracy"]["std"] == pytest.approx(statistics.stdev(values), rel=1e-9)
        assert float(line["accuracy_mean"]) == one["accuracy"]["mean"]
        assert line["seeds"] == "0 1 2"
        assert line["published_accuracy"] == "" and one["published"]["accuracy"] is None
        assert one["hashes"]["settings"] == line["hashes_settings"] == group.first.hashes.settings


def test_classes_left_out_of_map_are_said(tmp_path):
    folder = write_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    result["selections"]["last"]["map_classes_left_out"] = 2
    edit_result(folder, selections=result["selections"])
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert any("mAP and macro-F1 leave out 2 class" in note for note in table.notes)


def test_a_run_whose_process_was_killed_is_told_from_one_that_runs(tmp_path):
    write_run(tmp_path, seed=0)
    killed = write_run(tmp_path, seed=1, status="running")
    with (killed / ALIVE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process that trains it does, as long as it lives
        assert collect([tmp_path], "last").left_out == [f"{killed}: running, not averaged."]
    (line,) = collect([tmp_path], "last").left_out
    assert line == f"{killed}: killed, or running on another machine, not averaged."


def test_folders_that_cannot_be_read_and_links_to_nowhere_are_named(tmp_path, monkeypatch):
    write_run(tmp_path, seed=0)
    (tmp_path / "closed").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    scandir = os.scandir

    def refuse(place):
        if os.fspath(place).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    left_out = collect([tmp_path], "last").left_out
    assert len(left_out) == 2
    assert f"{tmp_path / 'gone'}: a link that leads nowhere." in left_out
    assert any(
        f"{tmp_path / 'closed'}: this folder cannot be read (Permission denied)" in one for one in left_out
    )


def test_settings_other_than_the_recipes_and_the_suites_are_named(tmp_path):
    for overrides in ((), ("optimizer.lr=0.03",)):
        write_run(tmp_path, "opm", overrides=overrides)
    groups = collect([tmp_path], "last").groups
    (table,) = Contents(groups, "last", suite="demo").tables
    of_recipe = [note for note in table.notes if "recipe's" in note]
    assert of_recipe == [
        "Settings other than the recipe's: concat opm optimizer.lr=0.03 (optimizer.lr=0.03)."
    ]
    (of_suite,) = [note for note in table.notes if "suite demo" in note]
    assert "concat opm optimizer.lr=0.03" in of_suite and "optimizer.lr=0.02" not in of_suite


def test_a_run_that_was_resumed_elsewhere_says_so(tmp_path):
    folders = [write_run(tmp_path, seed=seed) for seed in range(2)]
    path = folders[1] / "environment.json"
    (begun,) = json.loads(path.read_text())["environments"]
    path.write_text(json.dumps({"environments": [begun, begun | {"torch": "2.12.0"}]}))
    note = tables.made_with(collect([tmp_path], "last").groups[0].runs)
    assert f"torch {' and '.join(sorted([begun['torch'], '2.12.0']))}" in note
    assert note.endswith(f"Resumed under other versions or devices than begun: {folders[1]}.")


@pytest.mark.parametrize(("model", "said"), [("film", True), ("concat", False)])
def test_a_rho_that_does_not_tell_who_is_ahead_is_named_under_the_table(tmp_path, model, said):
    write_run(tmp_path, "opm", 0, accuracy=0.9, model=model)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert [note for note in table.notes if note.startswith("ρ of")] == misread([(model, {}, 2)])
    assert bool(misread([(model, {}, 2)])) == said
