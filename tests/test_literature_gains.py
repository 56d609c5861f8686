"""Finding 9: what papers print that OGM and OPM gain over their own baselines."""

import csv
import json
import re
import statistics

import numpy as np
import pytest
from matplotlib.figure import Figure
from run_folders import write_run
from test_report import bmm

from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results import later_papers, literature, printed_gains
from balancemm_cli.results.figures import literature_gains as figures
from balancemm_cli.results.findings.literature_gains import LiteratureGains
from balancemm_cli.results.printed_gains import ALL, OTHERS, RERUNS, WIDER, papers, spreads
from balancemm_cli.results.statistics import rank_correlation, summarize
from balancemm_cli.runs.schema import DataIdentity

ASYMMETRIC = "Asymmetric Representation Learning (ICCV 2025, arXiv 2507.10203)"
DISENTANGLED = "Disentangled Gradient Learning (ICCV 2025, arXiv 2507.10213)"
LFM = "LFM: Facilitating Multimodal Classification via Dynamically Learning Modality Gap (NeurIPS 2024)"
INFOREG = "InfoReg: Adaptive Unimodal Regulation (CVPR 2025)"
CREMA_D = {  # read from the files by hand: joint training and OGM or OGM-GE with concatenation
    "VGMR": (50.54, 51.48),
    "cvpr2022": (51.7, 61.9),
    "PMR (CVPR 2023)": (53.2, 57.7),
    ASYMMETRIC: (58.83, 64.34),
    "independent": (59.20, 63.74),
    "MLA (CVPR 2024)": (61.56, 68.14),
    LFM: (63.31, 66.94),
    "Data Remixing (ICML 2025)": (64.52, 68.15),
    DISENTANGLED: (65.1, 68.82),
    "balancebenchmark2025": (65.50, 67.76),
    "MMPareto (ICML 2024)": (66.13, 69.19),
    INFOREG: (66.61, 68.70),
    "tpami2024": (66.9, 74.6),
}
AUTHORS = {"cvpr2022", "balancebenchmark2025", "MMPareto (ICML 2024)", INFOREG, "tpami2024"}
QUANTILE = {
    2: 4.302653,
    7: 2.364624,
    12: 2.178813,
}  # of Student's t at 0.975, by degrees of freedom, from a table


def spread(measure, kind=ALL, dataset="crema-d"):
    (found,) = [one for one in spreads(dataset) if (one.measure, one.papers) == (measure, kind)]
    return found


def percent(values):
    return {source: pytest.approx(100 * value) for source, value in values.items()}


def test_the_numbers_on_crema_d_are_those_read_by_hand():
    found = papers("crema-d")
    assert [one.source for one in found] == list(CREMA_D)  # from the lowest baseline
    assert [100 * one.baseline for one in found] == pytest.approx([joint for joint, _ in CREMA_D.values()])
    assert {one.source for one in found if one.of_the_authors} == AUTHORS
    assert percent(spread("ogm").values) == {source: ogm - joint for source, (joint, ogm) in CREMA_D.items()}
    assert percent(spread("opm").values) == {
        "independent": 65.43 - 59.20,
        "balancebenchmark2025": 68.75 - 65.50,
        "tpami2024": 75.1 - 66.9,
    }
    assert percent(spread("opm+ogm").values) == {"independent": 69.84 - 59.20, "tpami2024": 76.7 - 66.9}
    assert percent(spread("opm − ogm").values) == {
        "independent": 65.43 - 63.74,
        "balancebenchmark2025": 68.75 - 67.76,
        "tpami2024": 75.1 - 74.6,
    }


def test_other_data_sets_by_hand():
    sounds = spread("ogm", dataset="kinetics-sounds").values
    assert len(sounds) == 10 and percent(sounds)["tpami2024"] == 65.4 - 63.0
    assert percent(sounds)["Diagnosing and Re-learning (ECCV 2024)"] == 67.15 - 65.04
    assert percent(spread("ogm", dataset="vggsound").values) == {
        DISENTANGLED: 48.71 - 47.90,
        "balancebenchmark2025": 48.25 - 48.08,
        "cvpr2022": 50.6 - 49.1,
        "tpami2024": 53.6 - 52.7,
    }


@pytest.mark.parametrize(("measure", "kind"), [("ogm", ALL), ("ogm", OTHERS), ("opm", ALL)])
def test_mean_interval_and_prediction_by_hand(measure, kind):
    found = spread(measure, kind)
    values = list(found.values.values())
    n, mean, std = len(values), statistics.fmean(values), statistics.stdev(values)
    assert found.summary.mean == pytest.approx(mean) and found.summary.std == pytest.approx(std)
    reach = QUANTILE[n - 1] * std
    assert found.interval == pytest.approx((mean - reach / n**0.5, mean + reach / n**0.5), rel=1e-5)
    wide = reach * (1 + 1 / n) ** 0.5
    assert found.prediction == pytest.approx((mean - wide, mean + wide), rel=1e-5, abs=1e-7)
    assert found.ends == (min(values), max(values))


def test_one_more_value_lies_in_the_prediction_interval_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 8))
    hits = 0
    for *known, further in draws.tolist():
        summary = summarize(known)
        assert summary and summary.prediction
        hits += summary.prediction[0] <= further <= summary.prediction[1]
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_without_a_spread_there_is_no_prediction():
    assert all(summarize(values).prediction is None for values in ([0.1], [0.1, 0.1, 0.1]))  # type: ignore[union-attr]


def test_of_two_papers_there_are_no_intervals():
    found = spread("opm+ogm")
    assert found.summary.n == 2 and found.interval is None and found.prediction is None


def test_a_paper_counts_once():
    for dataset in ("crema-d", "kinetics-sounds", "vggsound"):
        every = [one.source for one in papers(dataset)]
        assert len(every) == len(set(every))
        assert not {one.source for one in papers(dataset, counted=False)}.intersection(every)
        assert not any("supplementary" in source for source in every)  # the same paper as cvpr2022


def test_a_paper_with_two_names_of_a_method_has_no_gain(monkeypatch):
    """MILES prints OGM and OGM-GE, each under its own name; neither is picked."""
    further = {one.source: one for one in papers("crema-d", counted=False)}
    assert "MILES (2025)" in further and "ogm" not in further["MILES (2025)"].gains
    rows = [dict(row) for row in later_papers.printed()]
    names = ("VGMR", "crema-d", "OGM-GE", "acc")
    (twin,) = [row for row in rows if (row["source"], row["dataset"], row["method"], row["metric"]) == names]
    changed = [*rows, {**twin, "method": "OGM", "value": "60.0"}]
    monkeypatch.setattr(later_papers, "printed", lambda: tuple(changed))
    literature.values.cache_clear()
    try:
        assert "VGMR" not in spread("ogm").values and "VGMR" in spread("baseline").values
    finally:
        literature.values.cache_clear()


def test_no_two_papers_print_the_same_pair():
    """As a copy would."""
    for dataset in ("crema-d", "kinetics-sounds", "vggsound"):
        pairs = [(one.baseline, one.values["ogm"].accuracy) for one in papers(dataset) if "ogm" in one.gains]
        assert len(pairs) == len(set(pairs))


def test_other_splits_and_weights_have_no_part_but_in_the_widest_choice():
    """Splits of their own, and the reproduction on Kinetics-Sounds, which starts from ImageNet."""
    assert {one.source.split(" ")[0] for one in papers("crema-d", counted=False)} == {
        "Diagnosing",
        "MILES",
        "MIMO:",
    }
    wider = spread("ogm", WIDER).values
    assert wider.keys() - spread("ogm").values.keys() == {
        "Diagnosing and Re-learning (ECCV 2024)",
        "MIMO: Mitigating Modality Imbalance via Multi-objective Optimization (2025)",
    }
    assert max(wider.values()) == pytest.approx(0.7449 - 0.6026)
    sounds = {one.source: one for one in papers("kinetics-sounds", counted=False)}
    assert sounds["independent"].gains == {"ogm": pytest.approx(-0.018)}


def test_re_runs_are_all_but_those_that_propose():
    assert spread("ogm").values.keys() - spread("ogm", RERUNS).values.keys() == {"tpami2024", "cvpr2022"}
    assert spread("ogm", OTHERS).values.keys() == CREMA_D.keys() - AUTHORS
    assert [one.papers for one in spreads("crema-d") if one.measure == "opm+ogm"] == [
        ALL,
        RERUNS,
    ]  # no set twice


def test_what_is_left_out_is_counted():
    """By hand over the rows of the file."""
    with (benchmarks_folder() / "published" / "later_papers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["metric"]) == ("crema-d", "acc")]
    rows = [row for row in rows if row["method"].partition(" (")[0] in ("joint", "OGM", "OGM-GE", "OPM")]
    of_relearn = [row for row in rows if (row["source"][:10], row["table"]) == ("Diagnosing", "Table 1")]
    other_data = sum(row["same_protocol"] == "no" for row in rows) + len(of_relearn)
    other_model = sum(row["same_protocol"] == "yes" and row["model"] != "concat" for row in rows)
    found = printed_gains.left_out("crema-d")
    assert (found.other_data, found.other_model) == (other_data, other_model) == (16, 16)
    assert "MIDAS (NeurIPS 2025), fusion not named: OPM +3.7" in found.gains
    assert "Diagnosing and Re-learning (ECCV 2024), concat, noisy audio: OGM-GE -3.2" in found.gains
    counted = {(one.source, value.method) for one in papers("crema-d") for value in one.values.values()}
    same = [row for row in rows if (row["source"], row["method"]) in counted and row["model"] == "concat"]
    again = sum(row["table"] == "Table 5" for row in same)  # InfoReg prints its baseline twice
    assert len(rows) == other_data + other_model + len(same) and again == 1


def test_rank_correlation_by_hand():
    # 1 − 6·4/120; of the 120 orders 8 give 0.8 and more, 2·(1 + 4 + 3) of both signs
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx((0.8, 16 / 120))
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx((-1.0, 2 / 24))
    gains = list(spread("ogm").values.values())  # in the order of the baselines, of which no two are equal
    ranks = [sum(one < it for one in gains) + (gains.count(it) + 1) / 2 for it in gains]  # ties: their mean
    rho = statistics.correlation(ranks, range(1, 14))
    t = rho * (11 / (1 - rho**2)) ** 0.5
    found, p = rank_correlation(list(spread("baseline").values.values()), gains)
    assert found == pytest.approx(rho) and -0.697 < t < 0 and p > 0.5  # 0.697: Student's t at 0.75, of 11


def test_printed_deviations():
    of = {one.source: one for one in papers("crema-d")}
    assert of["independent"].gain_std("ogm") == pytest.approx((0.0127**2 + 0.0045**2) ** 0.5)
    assert of["tpami2024"].gain_std("ogm") is None and of["cvpr2022"].gain_std("opm") is None


# ---- the command ----------------------------------------------------------------------------------------------


def test_it_needs_no_runs(tmp_path):
    done = bmm("--suite", "finding-9", "--format", "markdown", "--out", "out", cwd=tmp_path)
    assert "| tpami2024 " in done.stdout and "+8.20" in done.stdout and "these runs" not in done.stdout
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "bmm train" not in text and done.stdout.splitlines()[0] in text
    assert {path.name for path in (tmp_path / "out" / "figures").glob("*.png")} == {
        f"{dataset}-gains.png" for dataset in ("crema-d", "kinetics-sounds", "vggsound")
    }
    (tmp_path / "runs").mkdir()
    assert bmm("--suite", "finding-9", "--format", "markdown", cwd=tmp_path).stdout == done.stdout
    records = json.loads(bmm("--suite", "finding-9", "--format", "json", cwd=tmp_path).stdout)
    first = records[0]
    assert (first["dataset"], first["measure"], first["n"]) == ("crema-d", "baseline", 13)
    assert sorted(first["values"].values()) == pytest.approx([joint / 100 for joint, _ in CREMA_D.values()])
    assert len(
        list(csv.DictReader(bmm("--suite", "finding-9", "--format", "csv", cwd=tmp_path).stdout.splitlines()))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--suite", "finding-9"], "There is no folder nowhere."),
        (["--suite", "finding-9", "--figure", "4"], "There is no folder runs"),
        (["--suite", "finding-5"], "There is no folder runs"),
    ],
)
def test_what_needs_runs_says_so(arguments, message, tmp_path):
    assert message in bmm(*arguments, cwd=tmp_path, status=3).stderr


def test_a_condition_without_runs_is_refused(tmp_path):
    done = bmm("--suite", "finding-9", "--where", "method=opm", cwd=tmp_path, status=2)
    assert "method" in done.stderr and done.stdout == ""


@pytest.fixture
def changed(monkeypatch, tmp_path):
    """Puts a copy of the printed numbers, with one file changed, in the place of theirs."""

    def change(name, text):
        folder = tmp_path / "benchmarks" / "published"
        folder.mkdir(parents=True)
        for path in (benchmarks_folder() / "published").glob("*.csv"):
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(later_papers, "benchmarks_folder", lambda: tmp_path / "benchmarks")
        later_papers.printed.cache_clear()
        literature.values.cache_clear()

    yield change
    monkeypatch.undo()
    later_papers.printed.cache_clear()
    literature.values.cache_clear()


HEADER = "source,table,dataset,model,method,metric,value,std,same_protocol,note\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("not a table\nof numbers\n", "'value'"),
        (HEADER + "P,1,crema-d,concat,joint,acc,0.61,,yes,\n", "0.61 can't be an accuracy in %"),
        (HEADER + "P,1,crema-d,concat,joint,acc,61.2,,perhaps,\n", "same_protocol is 'perhaps'"),
        (HEADER + "P,1,crema-d,concat,joint,acc\n", "damaged"),
    ],
)
def test_a_damaged_file_is_named_in_a_sentence(text, fault, changed, bmm, tmp_path, monkeypatch):
    changed("later_papers.csv", text)
    monkeypatch.chdir(tmp_path)
    status, out, err = bmm("report", "--suite", "finding-9")
    assert status == 3 and not out
    assert "later_papers.csv is damaged" in err and fault in err and "install bmm again" in err


def test_without_a_gain_on_crema_d_it_says_so(monkeypatch, bmm, tmp_path):
    monkeypatch.setattr(literature, "values", lambda dataset, model, method: ())
    monkeypatch.chdir(tmp_path)
    status, out, err = bmm("report", "--suite", "finding-9")
    assert status == 3 and not out and err.count("\n") == 1
    assert "No printed gain of OGM or OPM on crema-d is left" in err


def test_a_data_set_without_gains_has_no_table(monkeypatch):
    values = literature.values
    monkeypatch.setattr(
        literature, "values", lambda name, *of: () if name == "vggsound" else values(name, *of)
    )
    assert list(LiteratureGains([], "last").papers) == ["crema-d", "kinetics-sounds"]


def write_ours(folder, **changes):
    for method, gain in {"baseline": 0.0, "ogm": 0.03, "opm": 0.05}.items():
        for seed in (0, 1, 2):
            accuracy = 0.60 + 0.02 * seed + gain + 0.01 * seed * (gain > 0)
            write_run(folder, method, seed, dataset="crema-d", recipe="paper", accuracy=accuracy, **changes)


def test_runs_have_a_row_of_their_own(tmp_path, monkeypatch):
    write_ours(tmp_path / "runs")
    done = bmm("--suite", "finding-9", "--format", "markdown", cwd=tmp_path)
    (row,) = [line.split("|")[3:10] for line in done.stdout.splitlines() if line.startswith("| these runs")]
    of_ogm, of_opm, of_both, baseline, ogm, opm, both = map(str.strip, row)
    assert baseline == "62.0 ± 2.0 (3)" and ogm == "66.0 ± 3.0 (3)" and opm == "68.0 ± 3.0 (3)"
    assert of_ogm == "+4.0 [+1.5, +6.5]" and of_opm.startswith("+6.0 [") and both == of_both == "—"
    assert (
        f"| Δ OGM                          | {ALL}             | 13 " in done.stdout
    )  # they have no part there
    bmm("--suite", "finding-9", "--out", "out", cwd=tmp_path)
    assert "bmm train --dataset crema-d" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_runs_on_another_split_are_not_put_beside_papers(tmp_path):
    other = DataIdentity(reader="crema-d", split_name="speaker-independent")
    write_ours(tmp_path / "runs", identity=other)
    done = bmm("--suite", "finding-9", "--format", "markdown", cwd=tmp_path)
    assert "These runs are not shown. The split is 'speaker-independent'" in done.stdout
    assert "| these runs" not in done.stdout


# ---- the figure -----------------------------------------------------------------------------------------------


def test_the_figure_has_a_line_a_paper_and_the_intervals(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, stem, titled: drawn.append(figure) or stem)
    finding = LiteratureGains([], "last")
    assert len(figures.draw_gains(finding, tmp_path)) == len(drawn) == 3
    (axes,) = drawn[0].axes
    labels = [one.get_text() for one in axes.get_yticklabels()]
    assert labels[:2] == ["VGMR, 50.5 %", "cvpr2022, 51.7 %"] and "LFM (NeurIPS 2024), 63.3 %" in labels
    assert labels[13:] == [
        "mean OGM, 13 papers",
        "mean OGM, 11 re-runs",
        "mean OGM, 8 of other groups",
        "mean OPM, 3 papers",
    ]
    dots = {tuple(np.round(one.get_offsets()[0], 6)) for one in axes.collections}
    assert (10.2, 1.0) in dots and len(dots) == 13 + 3 + 2
    at = labels.index("mean OGM, 13 papers")
    drawn_there = [list(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [at, at]]
    found = spread("ogm")
    assert found.prediction and found.interval
    for ends, line in zip((found.prediction, found.interval), drawn_there, strict=True):
        assert line == pytest.approx([100 * end for end in ends])


def test_the_page_shows_what_the_command_prints():
    page = (benchmarks_folder().parent / "docs" / "findings" / "literature-gains.md").read_text(
        encoding="utf-8"
    )
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    shown = [re.split(r"\s*\|\s*", line.strip().strip("|").strip()) for line in lines]
    first, second, *_ = LiteratureGains([], "last").tables
    rows = [first.header, *first.cells, second.header, *second.cells]
    assert shown == rows
    assert all(f"- {note}" in page for note in (*first.notes, *second.notes))
