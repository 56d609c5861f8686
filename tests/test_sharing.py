"""Bundles of several people in one report: whose a row is, what is computed again, and which cheats are named."""

import json
import shutil
import zipfile
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from run_folders import write_run, write_search
from test_report import bmm

from balancemm_cli.errors import InputError
from balancemm_cli.results import rows, selections, tables
from balancemm_cli.results.board import Board
from balancemm_cli.results.bundle import owner_named, unpack_all, write_bundle
from balancemm_cli.results.collection import collect
from balancemm_cli.results.groups import choose
from balancemm_cli.results.leaderboard import Leaderboard
from balancemm_cli.results.references import with_references
from balancemm_cli.results.rules import checked
from balancemm_cli.runs.folder import write_table
from balancemm_cli.runs.reading import read_table
from balancemm_cli.runs.search import SearchRecord

SMALL = {"epochs": 3, "samples": (40, 40), "selections": ("last", "best-test")}


def write_pair(root, seeds=(0, 1), shift=0.0, **more):
    """A method and its baseline."""
    for seed in seeds:
        write_run(root, "opm", seed, accuracy=0.85 + shift + seed / 40, **{**SMALL, **more})
        write_run(root, "baseline", seed, accuracy=0.7 + shift + seed / 20, **{**SMALL, **more})
    return root


def pack(root, owner="", name=None):
    """The bundle of the runs under a folder, beside it, made as `bmm report --bundle` does."""
    path = root.with_suffix(".bmm") if name is None else root.parent / name
    write_bundle(collect([root], "last").groups, path, owner)
    return path


def merged(tmp_path, *paths, folders=(), own=""):
    place = tmp_path / f"unpacked-{len(list(tmp_path.glob('unpacked-*')))}"
    bundles = unpack_all(paths, place, own)
    return collect(folders, "last", bundles=bundles, owner=own)


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Runs of a program without changes, whatever the state of the checkout."""
    monkeypatch.setattr("balancemm_cli.runs.folder.commit", lambda: "0123456789ab")


@pytest.fixture
def mine(tmp_path):
    return write_pair(tmp_path / "mine")


@pytest.fixture
def theirs(tmp_path):
    """Of a program whose seeds give other numbers."""
    return write_pair(tmp_path / "theirs", seeds=(0, 1, 2), shift=0.025)


# ---- whose rows are -------------------------------------------------------------------------------------------------


def test_rows_say_whose_they_are_and_are_held_against_their_own_baseline(tmp_path, mine, theirs):
    found = merged(tmp_path, pack(mine, "Li, TU X"), pack(theirs, "Ada"))
    assert not found.left_out and not found.twins and not found.remarks
    shown = rows.rows(found.groups, "last")
    assert [(one.group.first.method, one.group.owner, one.group.seeds) for one in shown] == [
        ("baseline", "Ada", [0, 1, 2]), ("baseline", "Li, TU X", [0, 1]),
        ("opm", "Ada", [0, 1, 2]), ("opm", "Li, TU X", [0, 1]),
    ]  # fmt: skip
    ada, li = (one.gain.comparison.difference for one in shown[2:])
    assert (ada.n, li.n) == (3, 2)
    assert ada.mean == pytest.approx(0.15 - 1 / 40) and li.mean == pytest.approx(0.15 - 1 / 80)
    (table,) = tables.tables(found.groups, "last")
    owners = [cells[table.header.index("Owner")] for cells in table.cells]
    assert owners == ["Ada", "Li, TU X"] * 2 and "Settings" not in table.header
    assert rows.record(shown[0])["owner"] == "Ada" and rows.record(shown[0])["claimed"] is False
    assert [group.owner for group in choose(found.groups, ["owner=Li, TU X"])] == ["Li, TU X"] * 2
    (beside,) = selections.side_by_side(found.groups)
    assert "Owner" in beside.header


def test_a_leaderboard_of_two_owners_mixes_nothing(tmp_path, theirs):
    for root in (tmp_path / "own", theirs):
        for name in ("audio", "visual"):
            write_run(
                root, seed=0, model=f"unimodal-{name}", accuracy=0.6 if root == theirs else 0.5, **SMALL
            )
    write_pair(tmp_path / "own", shift=-0.1)
    found = merged(tmp_path, pack(theirs, "Ada"), folders=[tmp_path / "own"])
    groups, left_out = with_references(found.groups)
    assert not left_out
    ensembles = {group.owner: group for group in groups if group.first.model == "ensemble"}
    assert ensembles.keys() == {"", "Ada"}
    assert {run.owner for run in ensembles["Ada"].runs[0].members} == {"Ada"}
    assert [group.owner_name for group in groups if group.first.model == "majority"] == [None]
    board = Board(groups, "last")
    assert {entry.owner for entry in board.entries} == {"Ada", "—", ""}
    assert all(board.reference(one).owner == one.owner for one in board.compared if one.owner)
    records = Leaderboard(groups, "last").records
    assert {one["owner"] for one in records} == {"Ada", None}
    opm = {one["owner"]: one["datasets"]["synthetic"]["mean"] for one in records if one["method"] == "opm"}
    assert opm["Ada"] == pytest.approx(0.9) and opm[None] == pytest.approx(0.7625)
    assert any(one.startswith("Owner: ") for one in Leaderboard(groups, "last").tables[1].notes)


def test_runs_of_one_owner_are_shown_as_before(tmp_path, mine):
    alone = tables.tables(merged(tmp_path, pack(mine, "Li")).groups, "last")
    assert alone == tables.tables(collect([mine], "last").groups, "last")


def test_names_that_are_equal_or_absent(tmp_path, mine, theirs):
    first, second = pack(mine, "Ada"), pack(theirs, "Ada")
    found = merged(tmp_path, first, second)
    assert {group.owner for group in found.groups} == {f"Ada ({first})", f"Ada ({second})"}
    found = merged(tmp_path, first, folders=[theirs], own="Ada")
    assert {group.owner for group in found.groups} == {f"Ada ({first})", "Ada"}
    found = merged(tmp_path, pack(mine, name="nobody.zip"), pack(theirs, name="-=odd.zip"))
    assert {group.owner for group in found.groups} == {"nobody", "bundle 2"}
    assert len(unpack_all([first, first], tmp_path / "same")) == 1


@pytest.mark.parametrize("name", ["a" * 61, "\x1b[2J", "a\x00b", "=cmd()", "a\u202eb", "**a**", "<b>"])
def test_a_name_that_is_none(tmp_path, mine, name):
    with pytest.raises(ValueError, match="an owner's name"):
        owner_named(name)
    path = pack(mine)
    edit_index(path, lambda index: index | {"owner": name})
    with pytest.raises(InputError, match="an owner's name"):
        unpack_all([path], tmp_path / "out")


def edit_index(path, change):
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["index.json"] = json.dumps(change(json.loads(files["index.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_on_the_command_line(tmp_path, mine, theirs):
    assert "--owner: an owner's name" in bmm("mine", "--owner", "=1", cwd=tmp_path, status=2).stderr
    done = bmm("mine", "--bundle", "mine.bmm", "--owner", " Li,  TU X", cwd=tmp_path)
    assert "Packed 4 runs of Li, TU X without" in done.stderr
    assert "is of one" in bmm("mine.bmm", "theirs", "--bundle", "b.bmm", cwd=tmp_path, status=2).stderr
    bmm("mine.bmm", "--where", "method=opm", "--bundle", "again.bmm", cwd=tmp_path)
    assert [one.named for one in unpack_all([tmp_path / "again.bmm"], tmp_path / "out")] == ["Li, TU X"]
    records = json.loads(bmm("mine.bmm", "theirs", "--format", "json", cwd=tmp_path).stdout)
    assert [one["owner"] for one in records if one["method"] == "opm"] == [None, "Li, TU X"]


# ---- searches -------------------------------------------------------------------------------------------------------

RATES = {"opm": "optimizer.lr=0.05", "baseline": "optimizer.lr=0.004"}


def write_tuned(root):
    for method, rate in RATES.items():
        for seed in range(2):
            run = write_run(root, method, seed, accuracy=0.8 + seed / 20, overrides=(rate,), **SMALL)
        write_search(root / "synthetic" / "concat", run)
    return root


def test_searches_go_with_their_runs(tmp_path):
    root = write_tuned(tmp_path / "runs")
    before = rows.rows(collect([root], "last").groups, "last")
    shown = rows.rows(merged(tmp_path, pack(root, "Li")).groups, "last")
    assert [one.gain.tuned for one in shown if one.gain] == [True]
    assert [one.rules for one in shown] == [one.rules for one in before]
    write_pair(tmp_path / "own", shift=0.1)
    both = merged(tmp_path, pack(root, "Li"), folders=[tmp_path / "own"])
    assert {bool(group.searches): group.owner for group in both.groups} == {True: "Li", False: ""}


def test_an_edited_search_counts_for_nothing(tmp_path):
    """Sealed again, but of settings that the runs do not have; or with a trial that lies elsewhere."""
    root = write_tuned(tmp_path / "runs")
    path = next(root.rglob("search-opm-*/search.json"))

    def seal(change):
        content = json.loads(path.read_text())
        change(content)
        record = SearchRecord.model_validate(content)
        path.write_text(
            record.model_copy(update={"fingerprint": record.computed_fingerprint}).model_dump_json()
        )

    seal(lambda content: content["trials"][1]["settings"].update({"optimizer.lr": 0.5}))
    found = collect([root], "last")
    assert "optimizer.lr=0.5" in found.left_out[0] and "do not have" in found.left_out[0]
    assert not any(group.searches for group in found.groups if group.first.method == "opm")
    with pytest.raises(ValueError, match="no folder of a run"):
        seal(lambda content: content["trials"][1].update({"run": "../../elsewhere"}))


# ---- numbers and files that disagree --------------------------------------------------------------------------------


def edited_result(run):
    edit_json(run / "result.json", lambda one: one["selections"]["last"].update(accuracy=0.99))


def edited_map(run):
    edit_json(run / "result.json", lambda one: one["selections"]["last"].update(map=0.999))


def edited_modality(run):
    edit_json(run / "result.json", lambda one: one["selections"]["last"]["unimodal"].update(audio=0.99))


def edited_rho(run):
    edit_json(run / "result.json", lambda one: one["rho"].update(audio=0.99))


def edited_result_and_history(run):
    edited_result(run)
    _edit_last_epoch(run, 0.99)


def edited_history(run):
    _edit_last_epoch(run, 0.2)


def other_epoch(run):
    edit_json(run / "result.json", lambda one: one["selections"]["best-test"].update(epoch=0))


def dropped_samples(run):
    """Those that were wrong."""
    table = read_table(run / "predictions.arrow")
    right = np.array(table["scores"].to_pylist()).argmax(1) == table["label"].to_numpy()
    write_table(run / "predictions.arrow", table.filter(pa.array(right)))
    edit_json(
        run / "result.json", lambda one: [one.update(accuracy=1.0) for one in one["selections"].values()]
    )


def _edit_last_epoch(run, accuracy):
    lines = (run / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1]) | {"accuracy": {"test": accuracy}}
    (run / "history.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")


CHEATS = {
    edited_result: "accuracy 0.99 at the epoch 'last', and its predictions say 0.875",
    edited_map: "says map 0.999",
    edited_modality: "audio accuracy 0.99 at the epoch 'last', and its epochs say",
    edited_rho: "ρ audio 0.99, and the mean of its steps is",
    edited_result_and_history: "its predictions say 0.875",
    edited_history: "its epochs say 0.2",
    other_epoch: "epoch 0 is not 'best-test'",
    dropped_samples: "40 test samples, and there are predictions of",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_bundle_with_edited_numbers_is_named_and_left_out(tmp_path, mine, theirs, cheat):
    cheat(next(theirs.rglob("opm-*-s0-*")))
    path = pack(theirs, "Ada")
    found = merged(tmp_path, pack(mine, "Li"), path)
    assert {group.owner for group in found.groups} == {"Li"}
    (line,) = found.left_out
    assert line.startswith(f"{path}, with all of its runs") and CHEATS[cheat] in line
    with pytest.raises(InputError, match="its numbers are not what its own files give"):
        merged(tmp_path, path)


def test_what_an_edited_number_does_on_the_command_line(tmp_path, mine, theirs):
    edited_result(next(theirs.rglob("opm-*-s0-*")))
    pack(theirs, "Ada")
    done = bmm("mine", "theirs.bmm", cwd=tmp_path)
    assert "Left out: theirs.bmm, with all of its runs" in done.stderr and "Owner" not in done.stdout
    assert "accuracy 0.99" in bmm("theirs.bmm", cwd=tmp_path, status=3).stderr


@pytest.mark.parametrize("cheat", [edited_result, edited_modality, edited_history, other_epoch])
def test_the_same_in_a_folder_breaks_a_rule(tmp_path, mine, cheat):
    cheat(next(mine.rglob("opm-*-s0-*")))
    groups = collect([mine], "last").groups
    (opm,) = [group for group in groups if group.first.method == "opm"]
    assert (
        "result.json says" in (found := checked(groups, "last")[opm.key]["known"])
        or "by its history" in found
    )


def test_without_predictions_a_number_is_claimed(tmp_path, mine, theirs):
    run = next(theirs.rglob("opm-*-s0-*"))
    table = read_table(run / "predictions.arrow")
    write_table(run / "predictions.arrow", table.filter(pa.compute.equal(table["selection"], "best-test")))
    for path in mine.rglob("baseline-*/predictions.arrow"):
        path.unlink()
    found = merged(tmp_path, pack(theirs, "Ada"), folders=[mine])
    shown = {(one.group.first.method, one.group.owner): one for one in rows.rows(found.groups, "last")}
    assert {key for key, one in shown.items() if one.claimed} == {("opm", "Ada"), ("baseline", "")}
    assert all(shown[key].gain.claimed for key in (("opm", "Ada"), ("opm", "")))
    (table,) = tables.tables(found.groups, "last")
    texts = [dict(zip(table.header, cells, strict=True)) for cells in table.cells]
    assert [one["Accuracy"].endswith(" claimed") for one in texts] == [True, False, False, True]
    assert any(note.startswith("claimed: ") for note in table.notes)
    assert selections.records(found.groups)[3]["claimed"] == ["last"]


def test_where_no_predictions_are_is_said_by_the_name_of_the_bundle(tmp_path, mine, theirs):
    """And the majority class is that of the runs that have some."""
    for path in theirs.rglob("predictions.arrow"):
        path.unlink()
    path = pack(theirs, "Ada")
    found = merged(tmp_path, path)
    shown = [rows.record(one) for one in rows.rows(found.groups, "last")]
    run = f"{path}/synthetic/concat/{next(theirs.rglob('baseline-*-s0-*')).name}"
    assert shown[0]["runs"][0] == run
    assert shown[0]["rules"]["known"] == (
        f"An accuracy can't be checked: {run} has no predictions.arrow. Ask for a bundle with it. (and 2 more)"
    )
    assert str(tmp_path / "unpacked") not in str(shown)
    groups, left_out = with_references(found.groups)
    assert left_out == [
        f"no majority class of synthetic: {run} has no predictions.arrow. Ask for a bundle with it."
    ]
    groups, left_out = with_references(merged(tmp_path, path, folders=[mine]).groups)
    assert not left_out and [one.seeds for one in groups if one.first.model == "majority"] == [[0, 1]]


# ---- one owner's runs against another's -----------------------------------------------------------------------------


def test_the_same_runs_under_two_names_are_counted_once_and_named(tmp_path, mine):
    found = merged(tmp_path, pack(mine, "Li"), pack(mine, "Eve", "eve.bmm"))
    assert {group.owner for group in found.groups} == {"Li"}
    assert found.twins == ["'Eve': 4 runs of 'Li' under another name, counted once, for the latter."]
    found = merged(tmp_path, pack(mine, "Li"), folders=[mine])
    assert {group.owner for group in found.groups} == {""} and len(found.twins) == 1


def test_a_copied_baseline_stays_that_of_who_else_has_it(tmp_path, mine, theirs):
    """As where two share one baseline: of whom the first named has it, the other's method is held against it too."""
    for run in mine.rglob("baseline-*-s*"):
        shutil.copytree(run, theirs / "copied" / run.name)
    for run in theirs.rglob("concat/baseline-*-s*"):
        shutil.rmtree(run)
    found = merged(tmp_path, pack(mine, "Li"), pack(theirs, "Ada"))
    gains = {one.group.owner: one.gain for one in rows.rows(found.groups, "last") if one.gain}
    assert {owner: one.comparison.difference.n for owner, one in gains.items()} == {"Li": 2, "Ada": 2}
    assert not found.twins
    (line,) = found.remarks
    assert line.startswith("2 runs of 'Ada' and 'Li' have the same predictions to the last bit")


def test_a_copy_that_says_another_time_is_named(tmp_path, mine):
    shutil.copytree(mine, tmp_path / "eve")
    for path in (tmp_path / "eve").rglob("result.json"):
        edit_json(path, lambda one: one["time"].update(seconds=31.0))
    found = merged(tmp_path, pack(mine, "Li"), pack(tmp_path / "eve", "Eve"))
    (line,) = found.remarks
    assert line.startswith("4 runs of 'Eve' and 'Li' have the same predictions to the last bit")
    assert len(found.groups) == 4 and not any(run.doubts for group in found.groups for run in group.runs)


def test_a_copy_with_another_seed_is_named(tmp_path, mine):
    """Also where its rows stand in another order."""
    for seed in (5, 6):
        copy = write_run(tmp_path / "eve", "opm", seed, accuracy=0.85 + (seed - 5) / 40, **SMALL)
        original = next(mine.rglob(f"opm-*-s{seed - 5}-*"))
        table = read_table(original / "predictions.arrow")
        write_table(copy / "predictions.arrow", table.take(pa.array(range(len(table))[::-1])))
        said = json.loads((original / "result.json").read_text())["selections"]
        edit_json(copy / "result.json", lambda one, said=said: one.update(selections=said))
        shutil.copy(original / "history.jsonl", copy / "history.jsonl")
    found = merged(tmp_path, pack(mine, "Li"), pack(tmp_path / "eve", "Eve"))
    (line,) = found.remarks
    assert "opm seed 0 of 'Li', opm seed 5 of 'Eve'" in line and "one run was copied" in line
    why = checked(found.groups, "last")
    reasons = [why[group.key]["known"] for group in found.groups if group.first.method == "opm"]
    assert len(reasons) == 2 and all("copied" in one for one in reasons)


def test_edited_labels_of_the_same_data_are_named(tmp_path, mine, theirs):
    """With scores and numbers that fit: nothing in the one bundle shows it."""
    for run in theirs.rglob("predictions.arrow"):
        table = read_table(run)
        labels = np.array(table["scores"].to_pylist()).argmax(1).astype(np.int32)
        write_table(run, table.set_column(table.column_names.index("label"), "label", pa.array(labels)))
        edit_json(run.parent / "result.json", perfect)
        lines = [json.loads(line) for line in (run.parent / "history.jsonl").read_text().splitlines()]
        for line in lines:
            line["accuracy"]["test"] = 1.0
        (run.parent / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = merged(tmp_path, pack(mine, "Li"), pack(theirs, "Ada"))
    assert not found.left_out
    assert all(
        "'Ada' and 'Li' have different labels of the same test samples" in line for line in found.remarks[:1]
    )
    assert len(found.remarks) >= 1
    broken = checked(found.groups, "last")
    assert all(
        "different labels" in broken[group.key]["known"] for group in found.groups if group.owner == "Ada"
    )


def perfect(result):
    for selected in result["selections"].values():
        selected |= {"accuracy": 1.0, "map": 1.0, "macro_f1": 1.0}


def test_the_bytes_of_a_bundle_follow_from_runs_and_owner(tmp_path, mine):
    hashes = [
        sha256(pack(mine, owner, f"{n}.bmm").read_bytes()).hexdigest()
        for n, owner in enumerate(["A", "A", "B"])
    ]
    assert hashes[0] == hashes[1] != hashes[2]
