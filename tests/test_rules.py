"""The rules that every row of a report is held to: what is planted is found, what is not asked is left out."""

import json
import shutil
from functools import partial

import pytest
from run_folders import write_run, write_search

from balancemm_cli.methods import METHODS
from balancemm_cli.origin import origins
from balancemm_cli.results import rows, tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.formats import to_latex
from balancemm_cli.results.leaderboard import Leaderboard
from balancemm_cli.results.references import with_references
from balancemm_cli.results.rules import RULES, checked, marks
from balancemm_cli.runs.schema import DataIdentity
from balancemm_cli.runs.search import SearchRecord

OWN = {"opm.q_base": {"range": [0.2, 0.6]}}
RATES = {"opm": "optimizer.lr=0.05", "baseline": "optimizer.lr=0.004"}
ORDER = [rule.name for rule in RULES]


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Runs of a program without changes, whatever the state of the checkout."""
    monkeypatch.setattr("balancemm_cli.runs.folder.commit", lambda: "0123456789ab")


def write_kept(root, seeds=3, budgets=(2, 2), **more):
    """A method and its baseline that keep every rule; `budgets` are those of their searches; the records' paths."""
    paths = []
    for method, budget in zip(RATES, budgets, strict=True):
        for seed in range(seeds):
            accuracy = (0.8 if method == "opm" else 0.7) + 0.01 * seed
            run = write_run(root, method, seed, accuracy=accuracy, overrides=(RATES[method],), **more)
        own = OWN if method == "opm" else {}
        paths.append(write_search(root, run, budget=budget, own=own))
    return paths


def broken(root, selection="last", method="opm"):
    """The rules that the row of a method does not keep, with the reasons."""
    groups = collect([root], selection).groups
    (group,) = [group for group in groups if group.first.method == method]
    return {name: why for name, why in checked(groups, selection)[group.key].items() if why}


def test_rows_that_keep_every_rule(tmp_path):
    write_kept(tmp_path)
    assert broken(tmp_path) == broken(tmp_path, method="baseline") == {}
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    cells = [dict(zip(table.header, line, strict=True))["Rules"] for line in table.cells]
    assert table.header[-1] == "Rules" and cells == ["✓✓✓✓·✓✓✓", "✓✓✓✓✓✓✓✓"]
    assert not [note for note in table.notes if any(note.startswith(f"{name} –") for name in ORDER)]


def test_an_epoch_that_the_test_set_chose(tmp_path):
    write_kept(tmp_path)
    assert broken(tmp_path, "best-test") == {"epoch": "The test samples chose the epoch."}


@pytest.mark.parametrize(("seeds", "said"), [(1, "It has 1 seed."), (2, "It has 2 seeds.")])
def test_too_few_seeds(tmp_path, seeds, said):
    write_kept(tmp_path, seeds)
    assert broken(tmp_path) == {"seeds": said}


def test_missing_samples(tmp_path):
    write_kept(tmp_path, samples=(1100, 1200))
    assert broken(tmp_path) == {"samples": "The test part has 1,100 of 1,200 samples."}


@pytest.mark.parametrize(
    ("dataset", "identity", "said"),
    [
        ("crema-d", DataIdentity(reader="manifest", split_name="own"), "whatever their folder is called"),
        (
            "crema-d",
            DataIdentity(reader="crema-d", split_name="ogm", official_lists=False),
            "not known to be",
        ),
        ("mine", DataIdentity(reader="manifest", split_name="own"), "one's own"),
    ],
)
def test_another_split(tmp_path, dataset, identity, said):
    recipe = "paper" if dataset == "crema-d" else "default"
    write_kept(tmp_path, dataset=dataset, identity=identity, recipe=recipe)
    found = broken(tmp_path)
    assert list(found) == ["split"] and said in found["split"]


def test_a_baseline_that_is_absent_or_lacks_a_seed(tmp_path):
    runs = partial(write_run, tmp_path, accuracy=0.8)
    for seed in range(3):
        runs("opm", seed)
    assert "no runs of its baseline" in broken(tmp_path)["baseline"]
    for seed in range(2):
        runs("baseline", seed)
    assert broken(tmp_path)["baseline"] == "Its baseline lacks seed 2."
    assert "baseline" not in checked(collect([tmp_path], "last").groups[:1], "last").popitem()[1]


def test_seeds_that_were_left_out_are_told(tmp_path):
    """Of ten seeds the best three, beside a baseline with all, and without the one that the search tested first."""
    write_kept(tmp_path, seeds=10)
    for run in tmp_path.rglob("opm-paper-s*"):
        if run.name.split("-")[2] not in ("s3", "s5", "s8"):
            shutil.rmtree(run)
    groups = collect([tmp_path], "last").groups
    (table,) = tables.tables(groups, "last")
    assert "No run of seed 0, which `bmm tune` tests first: opm." in table.notes
    assert broken(tmp_path) == {"baseline": "It lacks, of its baseline's, seed 0, 1, 2, 4, 6, 7, 9."}
    assert any(note.startswith("Seeds: 0-9 of baseline; 3,5,8 of opm. Means") for note in table.notes)
    (said,) = [note for note in Leaderboard(groups, "last").tables[0].notes if note.startswith("Seeds: ")]
    assert "synthetic 3, 5, 8. Not counted" in said and "synthetic 0,1,2,4,6,7,9 of concat baseline" in said


def test_a_baseline_with_fewer_trials_than_the_method(tmp_path):
    write_kept(tmp_path, budgets=(4, 2))
    found = broken(tmp_path)
    assert list(found) == ["baseline", "tuned"]
    assert "4 trials (quasi-random, budget 4 trainings, seed 0)" in found["tuned"]
    assert "2 trials (quasi-random, budget 2 trainings, seed 0)" in found["tuned"]


def test_a_method_that_was_tuned_more_often_than_its_baseline(tmp_path):
    """Another search of its own, with other seeds of trials, shows in every row of it."""
    write_kept(tmp_path)
    for seed in range(3):
        run = write_run(tmp_path, "opm", seed, accuracy=0.6, overrides=("optimizer.lr=0.07",))
    again = write_search(tmp_path, run, own=OWN, seed=5)

    def reasons():
        groups = collect([tmp_path], "last").groups
        asked = [group for group in groups if group.first.method == "opm"]
        return {checked(groups, "last")[group.key]["tuned"] for group in asked}

    assert "It was tuned 2 times, and its baseline 1." in reasons() and None not in reasons()
    again.unlink()
    assert None in reasons()


def test_fewer_trials_under_the_same_budget(tmp_path):
    """As of a record from which some were taken, and which was sealed again."""
    path = write_kept(tmp_path, budgets=(4, 4))[1]
    seal_without_a_trial(path)
    assert "3 trials (quasi-random, budget 4 trainings" in broken(tmp_path)["tuned"]


def seal_without_a_trial(path):
    content = json.loads(path.read_text())
    changed = SearchRecord.model_validate({**content, "trials": content["trials"][1:], "chosen": 2})
    sealed = changed.model_copy(update={"fingerprint": changed.computed_fingerprint})
    path.write_text(sealed.model_dump_json())


@pytest.mark.parametrize("number", [0, 1])
def test_an_edited_search(tmp_path, number):
    path = write_kept(tmp_path)[number]
    path.write_text(path.read_text().replace('"accuracy":0.6', '"accuracy":0.9'))
    assert "No search chose its" in broken(tmp_path)["tuned"]


def test_what_no_search_chose(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "baseline", seed)
        write_run(tmp_path, "opm", seed)
    assert broken(tmp_path) == {"tuned": "No search chose its settings."}


def test_what_was_not_held_against_code(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "moddrop", seed, accuracy=0.8)
    assert broken(tmp_path, method="moddrop")["code"] == "Never held against its authors' code: moddrop."


def test_a_method_of_another_package_says_nothing_of_it(tmp_path, monkeypatch):
    known = {name: one for name, one in origins().items() if name != "opm"}
    monkeypatch.setattr("balancemm_cli.results.rules.origins", lambda: known)
    assert "opm" in METHODS
    write_kept(tmp_path)
    assert broken(tmp_path) == {"code": "Never held against its authors' code: opm."}


def made_by(folder, git):
    """A run whose environment names that commit."""
    path = folder / "environment.json"
    (one,) = json.loads(path.read_text())["environments"]
    path.write_text(json.dumps({"environments": [{**one, "git": git}]}))


def test_a_program_that_is_not_known(tmp_path):
    write_kept(tmp_path)
    run = next(tmp_path.rglob("opm-paper-s1-*"))
    made_by(run, "0123456789ab+")
    assert broken(tmp_path) == {"known": "A changed program made it (commit 0123456789ab+)."}
    made_by(run, None)
    assert "was not recorded" in broken(tmp_path)["known"]


def test_an_accuracy_that_is_not_that_of_the_predictions(tmp_path):
    write_kept(tmp_path)
    run = next(tmp_path.rglob("opm-paper-s1-*"))
    result = json.loads((run / "result.json").read_text())
    result["selections"]["last"]["accuracy"] = 0.95
    (run / "result.json").write_text(json.dumps(result))
    found = broken(tmp_path)
    assert list(found) == ["known"] and "says 95.00 %" in found["known"]


def test_rows_without_a_training_are_asked_what_applies(tmp_path):
    for seed in range(3):
        for model in ("unimodal-audio", "unimodal-visual", "concat"):
            write_run(tmp_path, seed=seed, model=model, accuracy=0.7 + 0.01 * seed)
    groups, _ = with_references(collect([tmp_path], "last").groups)
    found = {group.first.model: checked(groups, "last")[group.key] for group in groups}
    assert [*found["majority"]] == ["samples", "split", "known"]
    assert [*found["ensemble"]] == ["epoch", "seeds", "samples", "split", "baseline", "known"]
    assert set(found["ensemble"].values()) == set(found["majority"].values()) == {None}
    assert marks(found["majority"]) == "··✓✓···✓"


def test_reasons_stand_once_under_the_table_and_in_each_record(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "baseline", seed)
        write_run(tmp_path, "opm", seed)
    groups = collect([tmp_path], "last").groups
    (table,) = tables.tables(groups, "last")
    assert "seeds – each row that is asked: It has 2 seeds." in table.notes
    assert [note for note in table.notes if note.startswith("Rules: ✓ kept, – not")]
    assert r"$\surd$--$\surd$$\surd$$\cdot$--$\surd$" in to_latex([table])
    record = rows.record(rows.rows(groups, "last")[1])
    assert list(record["rules"]) == ORDER
    assert record["rules"]["seeds"] == "It has 2 seeds." and record["rules"]["samples"] is None
    (chosen,) = tables.tables(groups, "last", columns=["accuracy"])
    assert "Rules" not in chosen.header and not [note for note in chosen.notes if "Rules" in note]


def test_strict_fails_where_a_rule_is_not_kept(tmp_path, bmm):
    paths = write_kept(tmp_path / "runs")
    status, said, told = bmm("report", str(tmp_path / "runs"), "--strict")
    assert (status, told) == (0, "") and "| majority " in said
    paths[1].unlink()
    status, said, told = bmm("report", str(tmp_path / "runs"), "--strict", "--where", "method=opm")
    assert (
        status == 4 and "| opm " in said and "synthetic, tuned – opm: No search chose its baseline's" in told
    )


@pytest.mark.parametrize("more", [["--selection", "all"], ["--table", "12"], ["--leaderboard"]])
def test_strict_is_of_the_table_of_runs(tmp_path, bmm, more):
    write_kept(tmp_path)
    status, _, told = bmm("report", str(tmp_path), "--strict", *more)
    assert status == 2 and "--strict is of the rows of the table of runs" in told
