"""`bmm report --check`: verdicts, exit status and JUnit output, passing, failing, incomplete and damaged."""

import json
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
from run_folders import write_run

from balancemm_cli.cli import main
from balancemm_cli.config.suites import Expected, Suite, load_suite
from balancemm_cli.errors import UsageError
from balancemm_cli.results import checks, published, tables
from balancemm_cli.results.bundle import write_bundle
from balancemm_cli.results.collection import collect
from balancemm_cli.results.statistics import summarize
from balancemm_cli.results.verdicts import Verdict, chance, decide

SUITE = """
title = "mine"
[[runs]]
datasets = ["synthetic"]
methods = ["baseline", "opm"]
[[expected]]
dataset = "synthetic"
low = 0.85
high = 0.95
[[expected]]
dataset = "synthetic"
method = "opm"
metric = "map"
low = 0.9
high = 1.0
"""
NOT_RUN = "No finished run has exactly the settings of the suite."
PRINTED = {
    number.method: number.fraction
    for number in published.rows()
    if (number.table, number.dataset, number.metric) == ("12", "crema-d", "accuracy")
}


def write_cells(root, method, around, spread, seeds=4, **more):
    """Runs of Table 12 whose mean accuracy is `around`."""
    for seed in range(seeds):
        offset = spread * (seed - (seeds - 1) / 2)
        write_run(root, method, seed, accuracy=around + offset, dataset="crema-d", recipe="paper", **more)


def verdict_of(root, method):
    _, suite = load_suite("table-12")
    found = checks.check(suite, collect([root], "last"), "last")
    return next(one for one in found if one.name == f"crema-d concat {method} accuracy")


@pytest.mark.parametrize(
    ("shift", "spread", "word"),
    [
        (0.0, 0.004, "reproduced"),
        (0.005, 0.004, "reproduced"),
        (0.05, 0.004, "better"),
        (-0.05, 0.004, "worse"),
        (0.0, 0.03, "undecided"),  # the interval is wider than the band
        (0.02, 0.004, "undecided"),
    ],
)
def test_a_verdict_is_by_the_whole_interval(tmp_path, shift, spread, word):
    write_cells(tmp_path, "opm", PRINTED["opm"] + shift, spread)
    found = verdict_of(tmp_path, "opm")
    assert found.word == word and found.passes == (word in ("reproduced", "better"))
    assert verdict_of(tmp_path, "ogm").word == "not run"


def test_a_single_run_is_always_undecided(tmp_path):
    write_cells(tmp_path, "opm", PRINTED["opm"], 0, seeds=1, samples=(15_446, 15_446))
    found = verdict_of(tmp_path, "opm")  # Wilson's interval would be ±0.7 points, well within the band
    assert found.word == "undecided" and not found.passes and found.chance is None
    assert "+0.0 points. A single run says nothing of what another seed would give" in found.reason
    write_cells(tmp_path, "ogm", PRINTED["ogm"] + 0.2, 0, seeds=1, samples=(15_446, 15_446))
    assert verdict_of(tmp_path, "ogm").word == "undecided"  # nor is it better


def test_equal_seeds_decide_nothing(tmp_path):
    write_cells(tmp_path, "opm", PRINTED["opm"], 0, seeds=3)
    found = verdict_of(tmp_path, "opm")
    assert found.word == "undecided" and "All 3 seeds gave the same" in found.reason


@pytest.mark.parametrize(
    ("beyond", "word"), [(0.0, "reproduced"), (0.0004, "reproduced"), (0.0006, "undecided")]
)
def test_the_band_has_a_tolerance_for_the_rounding_of_what_is_printed(tmp_path, beyond, word):
    """The interval's upper end on the band's, and half and more than half a unit of the last printed digit beyond."""
    spread = [-0.001, 0.0, 0.001]
    half = scipy.stats.t.ppf(0.95, 2) * 0.001 / 3**0.5
    for seed, offset in enumerate(spread):
        accuracy = PRINTED["opm"] + 0.02 - half + beyond + offset
        write_run(tmp_path, "opm", seed, accuracy=accuracy, dataset="crema-d", recipe="paper")
    assert verdict_of(tmp_path, "opm").word == word


def test_beside_a_verdict_stands_its_chance_and_how_many_more_seeds_would_do(tmp_path):
    write_cells(tmp_path, "opm", PRINTED["opm"], 0.01, seeds=3)  # a deviation of 1 point
    found = verdict_of(tmp_path, "opm")
    assert found.word == "reproduced" and found.chance == pytest.approx(0.58, abs=0.01)  # of ±2.05 points
    assert "3 seeds of this spread would show it in 58 % of cases, with 1 more in 80 %." in found.reason


def test_beside_a_verdict_both_epochs_stand_and_the_authors_rule(tmp_path):
    for seed in range(4):
        accuracy = PRINTED["opm"] + 0.002 * seed
        names = {"dataset": "crema-d", "recipe": "paper"}
        write_run(tmp_path, "opm", seed, accuracy=accuracy, best_on_test=accuracy + 0.04, **names)
    found = verdict_of(tmp_path, "opm")
    assert {rule: one.word for rule, one in found.epochs.items()} == {
        "last": "reproduced",
        "best-test": "better",
    }
    assert found.text == "reproduced (last 75.4, best-test 79.4: better)"
    assert (
        "last 75.4 (reproduced), best-test 79.4 (better). The authors' code keeps the epoch that is best"
        in found.reason
    )
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert dict(zip(table.header, table.cells[0], strict=True))["Verdict"] == found.text
    assert any(
        "The authors' code keeps the epoch that is best on the test set" in note for note in table.notes
    )


def test_other_samples_are_not_compared(tmp_path):
    write_cells(tmp_path, "opm", PRINTED["opm"], 0.001, samples=(700, 744))
    found = verdict_of(tmp_path, "opm")
    assert found.word == "not comparable" and "700 of 744 samples" in found.reason and not found.passes


def test_runs_of_another_split_hash_are_not_averaged_and_not_compared(tmp_path):
    write_cells(tmp_path, "opm", PRINTED["opm"], 0.001)
    assert verdict_of(tmp_path, "opm").word == "reproduced"
    write_run(tmp_path, "opm", 9, accuracy=0.99, dataset="crema-d", recipe="paper", splits="0bad" * 16)
    mine, other = collect([tmp_path], "last").groups
    assert sorted([mine.differences["splits hash"], other.differences["splits hash"]]) == [
        "0bad0bad",
        "5b1175b1",
    ]
    found = verdict_of(tmp_path, "opm")
    assert found.word == "not comparable" and not found.passes
    assert "splits hash=5b1175b1; splits hash=0bad0bad" in found.reason


def test_percent_for_a_fraction_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_text(SUITE.replace("low = 0.85", "low = 85"))
    with pytest.raises(UsageError, match=r"expected\.0\.low"):
        load_suite(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("around", "spread", "seeds", "word"),
    [
        (0.90, 0.01, 3, "reproduced"),
        (0.90, 0.03, 3, "undecided"),  # the mean lies in the range, its interval does not
        (0.90, 0.01, 1, "undecided"),
        (0.90, 0.0, 3, "undecided"),
        (0.93, 0.005, 3, "outside"),
        (0.80, 0.005, 3, "outside"),
    ],
)
def test_a_range_is_held_to_the_same_rules(tmp_path, around, spread, seeds, word):
    for seed in range(seeds):
        write_run(tmp_path, seed=seed, accuracy=around + spread * (seed - (seeds - 1) / 2))
    suite = Suite.model_validate(
        {
            "title": "x",
            "runs": [{"datasets": ["synthetic"], "recipe": "default", "seeds": list(range(seeds))}],
            "expected": [{"dataset": "synthetic", "low": 0.87, "high": 0.92}],
        }
    )
    (found,) = checks.check(suite, collect([tmp_path], "last"), "last")
    assert found.word == word


def test_a_range_up_to_100_percent_is_open_there(tmp_path):
    """Student's interval of accuracies near 100 % passes it, which no accuracy can."""
    _, suite = load_suite("demo")
    for seed, accuracy in enumerate([0.999, 0.98, 0.999]):
        write_run(tmp_path, seed=seed, model="unimodal-visual", accuracy=accuracy)
    found = checks.check(suite, collect([tmp_path], "last"), "last")
    (visual,) = [one for one in found if "unimodal-visual" in one.name]
    assert visual.word == "reproduced" and "interval 97.4 to 100.0" in visual.reason


def test_what_to_expect_of_so_many_verdicts_at_once():
    """By simulation: of numbers that are all exactly reproduced so many are shown to be, as `expectation` says."""
    generator = np.random.default_rng(0)
    low, high, shown, said = 0.68, 0.72, [], []
    for _ in range(60):
        groups = [summarize(generator.normal(0.7, 0.01, 5).tolist()) for _ in range(20)]
        verdicts = [Verdict("x", decide(one, low, high), "", chance(one, 0.02)) for one in groups]
        shown.append(sum(one.word == "reproduced" for one in verdicts))
        said.append(float(checks.expectation(verdicts).split("about ")[1].split(" ")[0]))
    assert np.mean(shown) == pytest.approx(20 * 0.95, abs=0.3)
    assert np.mean(said) == pytest.approx(np.mean(shown), abs=2.5)  # each from the deviation that was seen
    assert "about 1.0 would pass as reproduced by chance" in checks.expectation(verdicts)
    assert checks.expectation([Verdict("x", "undecided", "")] * 3) == ""


def bmm_check(folder, monkeypatch, capsys, *words):
    """Exit status, standard output, and the JUnit counts (tests, failures, errors)."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["bmm", "report", "--suite", "mine.toml", "--check", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    root = ElementTree.parse(folder / "runs" / "mine" / "check.xml").getroot()
    counts = tuple(int(root.attrib[name]) for name in ("tests", "failures", "errors"))
    assert len(root.findall("testcase")) == counts[0] and len(root.findall(".//failure")) == counts[1]
    assert len(root.findall(".//error")) == counts[2]
    records = json.loads((folder / "runs" / "mine" / "check.json").read_text())
    assert sum(record["passes"] for record in records) == counts[0] - counts[1] - counts[2]
    return ended.value.code or 0, out, counts


@pytest.fixture
def folder(tmp_path):
    """Three seeds of two methods that pass."""
    (tmp_path / "mine.toml").write_text(SUITE)
    for seed in range(3):
        for method in ("baseline", "opm"):
            write_run(tmp_path / "runs" / "mine", method, seed)
    return tmp_path


def test_passing(folder, monkeypatch, capsys):
    status, out, counts = bmm_check(folder, monkeypatch, capsys)
    assert (status, counts) == (0, (2, 0, 0)) and out.count("reproduced ") == 2
    status, out, _ = bmm_check(folder, monkeypatch, capsys, "--format", "json")
    assert [record["word"] for record in json.loads(out)] == ["reproduced"] * 2


def test_failing(folder, monkeypatch, capsys):
    text = (folder / "mine.toml").read_text().replace("low = 0.85\nhigh = 0.95", "low = 0.95\nhigh = 1.0")
    (folder / "mine.toml").write_text(text)
    status, out, counts = bmm_check(folder, monkeypatch, capsys)
    assert (status, counts) == (4, (2, 1, 0)) and "outside " in out


def test_incomplete(folder, monkeypatch, capsys):
    for path in (folder / "runs").rglob("opm-*/result.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"status": "running", "selections": {}}))
    status, out, counts = bmm_check(folder, monkeypatch, capsys)
    assert status == 4 and counts == (5, 0, 4)  # three runs, and the number that they should give
    assert "synthetic concat opm map: No finished run has exactly the settings of the suite." in out


def test_damaged_and_diverged(folder, monkeypatch, capsys):
    baseline, opm = (next((folder / "runs").rglob(f"{name}-*s1-*")) for name in ("baseline", "opm"))
    (baseline / "result.json").write_text("{")
    content = json.loads((opm / "result.json").read_text())
    (opm / "result.json").write_text(json.dumps(content | {"status": "diverged"}))
    status, out, counts = bmm_check(folder, monkeypatch, capsys)
    assert status == 4 and counts == (4, 0, 4)  # two runs, and the numbers that lack their seed
    assert out.count("No run of seed 1 has finished.") == 2
    assert "result.json is damaged" in out and "diverged, not averaged" in out


def test_junit_tells_a_failure_from_what_was_not_run(folder, monkeypatch, capsys):
    text = (folder / "mine.toml").read_text().replace("low = 0.85\nhigh = 0.95", "low = 0.95\nhigh = 1.0")
    (folder / "mine.toml").write_text(text)
    for path in (folder / "runs").rglob("opm-*/result.json"):
        path.write_text("{")
    bmm_check(folder, monkeypatch, capsys)
    root = ElementTree.parse(folder / "runs" / "mine" / "check.xml").getroot()
    assert (root.tag, root.attrib["name"]) == ("testsuite", "mine")
    cases = {case.attrib["name"]: list(case) for case in root}
    assert all(case.attrib["classname"] == "mine" for case in root)
    (failure,) = cases["synthetic concat baseline accuracy"]
    assert (failure.tag, failure.attrib["type"]) == ("failure", "outside")
    assert "over 3 seeds, expected 95 to 100" in failure.attrib["message"]
    (error,) = cases["synthetic concat opm map"]
    assert (error.tag, error.attrib) == ("error", {"type": "not run", "message": NOT_RUN})
    damaged = [found for name, (*found,) in cases.items() if "opm-paper-s" in name]
    assert len(damaged) == 3 and all("damaged" in one.attrib["message"] for (one,) in damaged)


def test_runs_of_other_settings_reproduce_nothing(folder, monkeypatch, capsys):
    for path in (folder / "runs").rglob("opm-*"):
        shutil.rmtree(path)
    for seed in range(3):
        write_run(folder / "runs" / "mine", "opm", seed, overrides=("epochs=3",))
    status, out, counts = bmm_check(folder, monkeypatch, capsys)
    assert (status, counts) == (4, (2, 0, 1)) and f"opm map: {NOT_RUN}" in out
    for seed in range(3):
        write_run(folder / "runs" / "mine", "opm", seed)
    assert bmm_check(folder, monkeypatch, capsys)[0] == 0  # the others beside them do no harm


def test_a_bundle_beside_its_runs_and_alone(folder, monkeypatch, capsys, bmm):
    groups = collect([folder / "runs"], "last").groups
    assert write_bundle(groups, folder / "all.zip") == 6
    assert bmm_check(folder, monkeypatch, capsys, "all.zip")[::2] == (0, (2, 0, 0))
    shutil.rmtree(folder / "runs")
    status, out, _ = bmm("report", "all.zip", "--suite", "mine.toml", "--check")
    assert status == 0 and out.count("reproduced ") == 2 and (folder / "runs/mine/check.xml").exists()


def test_nothing_at_all_finished(folder, monkeypatch, capsys):
    for path in (folder / "runs").rglob("result.json"):
        path.unlink()
    status, _, counts = bmm_check(folder, monkeypatch, capsys)
    assert status == 4 and counts[2] == counts[0]


def test_an_expected_gain_is_held_over_the_seeds(folder, monkeypatch, capsys):
    text = (folder / "mine.toml").read_text()
    for seed in range(3):
        write_run(folder / "runs" / "mine", "opm", seed, accuracy=0.98 + seed / 200)
    for low, high, word in ((0.01, 0.12, "reproduced"), (0.3, 0.5, "outside"), (0, 1, "reproduced")):
        gain = f'[[expected]]\ndataset = "synthetic"\nmethod = "opm"\nmetric = "gain"\nlow = {low}\nhigh = {high}\n'
        (folder / "mine.toml").write_text(f"{text}\n{gain}")
        _, out, _ = bmm_check(folder, monkeypatch, capsys)
        (line,) = [line for line in out.splitlines() if "synthetic concat opm gain" in line]
        assert line.startswith(word) and "points over 3 seeds" in line
    for path in (folder / "runs").rglob("baseline-*/predictions.arrow"):
        path.unlink()
    _, out, _ = bmm_check(folder, monkeypatch, capsys)
    assert "not comparable synthetic concat opm gain: An accuracy can't be checked" in out


def test_joined_methods_are_expected_in_any_order():
    names = {"dataset": "synthetic", "low": 0.5, "high": 0.6}
    assert Expected(method="ogm+opm", **names).method == "opm+ogm"
