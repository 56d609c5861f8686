"""Where ours lies among what papers printed."""

import csv
from itertools import product

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from run_folders import write_run
from test_report import bmm

from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results import figures, later_papers, literature, published
from balancemm_cli.results.collection import collect
from balancemm_cli.results.rows import record, row
from balancemm_cli.runs.schema import DataIdentity

NAMES = ("crema-d", "concat", "baseline")


def later_rows():
    with (benchmarks_folder() / "published" / "later_papers.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["metric"] == "acc"]


def test_every_name_that_is_mapped_is_one_of_ours_and_occurs():
    assert set(later_papers.METHODS.values()) <= {"baseline", *METHODS}
    assert set(later_papers.MODELS.values()) <= set(MODELS)
    assert set(later_papers.METHODS) <= {row["method"] for row in later_rows()}
    assert set(later_papers.MODELS) <= {row["model"] for row in later_rows()}


def test_values_by_hand():
    theirs = [
        row
        for row in later_rows()
        if (row["dataset"], row["model"], row["method"]) == ("crema-d", "concat", "joint")
    ]
    expected = {(row["source"], float(row["value"])) for row in theirs if row["same_protocol"] == "yes"}
    expected |= {("tpami2024", 66.9), ("cvpr2022", 51.7)}
    found = {(one.source, round(100 * one.accuracy, 2)) for one in literature.values(*NAMES)}
    assert expected <= found and len(found - expected) == 2  # BalanceBenchmark, independent
    assert not any("noisy" in row["method"] for row in theirs)
    papers = {source for source, _ in found}
    assert not any(paper.startswith(("MILES", "MIMO")) for paper in papers)  # splits of their own


def test_of_what_the_names_fit_some_rows_contradict_their_notes():
    """Another split, other preprocessing, another protocol, or copied from another paper."""
    known = literature._known()
    left_out = [row for row in known if row["same_protocol"] == "no"]
    assert (len(known), len(left_out)) == (225, 32)
    words = ("own split", "CREMA-D split", "copied", "other preprocessing", "another MOSI protocol")
    assert all(any(word in row["note"] for word in words) for row in left_out)
    assert "193 count; 32 under these names do not" in literature.note()
    for one in later_rows():
        assert one["same_protocol"] in ("yes", "no")
        if "own split" in one["note"] or "random 7:1:2 split" in one["note"]:
            assert one["same_protocol"] == "no"


def test_what_is_printed_under_another_network_counts_for_that_of_its_authors():
    found = {one.source: one.accuracy for one in literature.values("crema-d", "shared-head", "mla")}
    assert len(found) == 4 and max(found.values()) == 0.7943
    assert literature.LATER not in {one.kind for one in literature.values("crema-d", "concat", "mla")}


def test_each_paper_counts_once():
    for names in product(
        ("crema-d", "kinetics-sounds", "ucf-101", "cmu-mosi"), later_papers.MODELS.values(), METHODS
    ):
        sources = [one.source for one in literature.values(*names)]
        assert len(sources) == len(set(sources))


def test_a_paper_with_two_values_for_one_name_of_ours_has_none(monkeypatch):
    row = dict.fromkeys(later_papers.COLUMNS, "") | {"source": "P", "dataset": "crema-d", "model": "concat"}
    row |= {"metric": "acc", "same_protocol": "yes"}
    printed = [{**row, "method": "OGM", "value": "63.9"}, {**row, "method": "OGM-GE", "value": "70.4"}]
    monkeypatch.setattr(later_papers, "printed", lambda: tuple(printed))
    assert list(literature._of_later("crema-d", "concat", "ogm")) == []
    monkeypatch.setattr(later_papers, "printed", lambda: tuple(printed[:1]))
    assert [one.accuracy for one in literature._of_later("crema-d", "concat", "ogm")] == [0.639]


def test_ave_is_left_out():
    assert literature.values("ave", "concat", "ogm") == ()  # clips of one class each, not segments


def test_runs_of_another_split_have_no_place(tmp_path):
    other = DataIdentity(reader="crema-d", split_name="speaker-independent")
    for seed in (0, 1):
        write_run(tmp_path, seed=seed, dataset="crema-d", recipe="paper", accuracy=0.6, identity=other)
    (group,) = collect([tmp_path], "last").groups
    assert row(group, "last").place is None and literature.beside(group) == ()


def test_the_place_of_a_value(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, seed=seed, dataset="crema-d", recipe="paper", accuracy=0.60 + 0.01 * seed)
    (group,) = collect([tmp_path], "last").groups
    printed = sorted(one.accuracy for one in literature.values(*NAMES))
    place = row(group, "last").place
    assert place is not None and place.below == sum(one < 0.605 for one in printed) > 0
    assert (place.count, place.low, place.high) == (len(printed), printed[0], printed[-1])
    assert record(row(group, "last"))["literature"]["count"] == len(printed)


def test_the_strip_plot_shows_every_value(tmp_path):
    for method in ("baseline", "opm"):
        for seed in (0, 1, 2):
            accuracy = 0.6 + 0.01 * seed
            write_run(tmp_path / "runs", method, seed, dataset="crema-d", recipe="paper", accuracy=accuracy)
    (panel,) = figures.panels(collect([tmp_path / "runs"], "last").groups)
    (axes,) = figures.draw_literature(panel).axes
    scattered = [one.get_offsets() for one in axes.collections if isinstance(one, PathCollection)]
    dots = sorted(x for x, line in np.concatenate(scattered) if line == 0)
    assert dots == pytest.approx([100 * one.accuracy for one in literature.values(*NAMES)])
    ours = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert ours == pytest.approx([61, 61])
    done = bmm("--literature", cwd=tmp_path)
    assert done.stdout.endswith("runs/figures/crema-d-concat-figure-literature.png\n")
    assert "crema-d, concat, opm: 61.0 %, above 0 of 3 (65.4–75.1) printed values" in done.stdout


def test_without_printed_values_there_is_nothing_to_draw(tmp_path):
    write_run(tmp_path / "runs")
    assert "no paper printed an accuracy" in bmm("--literature", cwd=tmp_path, status=3).stderr


def test_a_source_prints_one_number_a_name():
    for source in published.SOURCES:
        kinds = [one for one in literature.values(*NAMES) if one.kind == source]
        assert len(kinds) <= 1
