"""Where ours lies among what papers printed."""

import csv

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from run_folders import write_run
from test_report import bmm

from balancemm_cli.methods import METHODS
from balancemm_cli.models import MODELS
from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results import figures, literature, published
from balancemm_cli.results.groups import collect
from balancemm_cli.results.rows import record, row

NAMES = ("crema-d", "concat", "baseline")


def later_rows():
    with (benchmarks_folder() / "published" / "later_papers.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["metric"] == "acc"]


def test_every_name_that_is_mapped_is_one_of_ours_and_occurs():
    assert set(literature.METHODS.values()) <= {"baseline", *METHODS}
    assert set(literature.MODELS.values()) <= set(MODELS)
    assert set(literature.METHODS) <= {row["method"] for row in later_rows()}
    assert set(literature.MODELS) <= {row["model"] for row in later_rows()}


def test_values_by_hand():
    theirs = [
        row
        for row in later_rows()
        if (row["dataset"], row["model"], row["method"]) == ("crema-d", "concat", "joint")
    ]
    expected = {(row["source"], float(row["value"])) for row in theirs}
    expected |= {("tpami2024", 66.9), ("cvpr2022", 51.7)}
    found = {(one.source, round(100 * one.accuracy, 2)) for one in literature.values(*NAMES)}
    assert expected <= found and len(found - expected) == 2  # BalanceBenchmark, independent
    assert not any("noisy" in row["method"] for row in theirs)


def test_what_is_not_sure_is_left_out_and_counted():
    used, left_out = literature.counts()
    assert used + left_out == len(later_rows()) and used > 100 and left_out > 100
    assert literature.values("ave", "concat", "ogm") == ()  # clips of one class each, not segments


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
