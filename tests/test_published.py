import csv
import hashlib
from pathlib import Path

import pytest

from balancemm_cli.errors import InputError
from balancemm_cli.resources import benchmarks_folder
from balancemm_cli.results import published

SHARED = Path(__file__).parents[2] / "shared" / "published"
SHA256 = {  # a number changes only where somebody means it to, with its source
    "balancebenchmark2025.csv": "44de010788d6c9c5de4ef4105f4ae1c53ac2c441ba2bad8428095b8eb2b5db64",
    "cvpr2022.csv": "3dba5813ccba951f29229ca22ebb3e6acb943d1a425d0c82170e388c16deb86a",
    "independent.csv": "a0257fa2d55f76d827b0485191bbf4f91e9ed1992a4027aef320b42746f40156",
    "later_papers.csv": "1a291f9e894e7fb37f2e8d6f415e50a6c2733c9624ce63981df6a598282400d4",
    "tpami2024.csv": "71ee12d3572e03cc26e9335af1282c0fdf16d161b249a529d702e3ba9f04e87c",
    "tpami2024_figure9.csv": "a9a643089c9230faac338c630cfd81bbde6bd0892d3198f182ee81b8064feb6a",
}


def test_published_numbers_are_those_that_were_read():
    folder = benchmarks_folder() / "published"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.csv")}
    assert found == SHA256


@pytest.mark.parametrize(
    ("model", "method", "metric", "value", "table"),
    [  # as Tables 12, 2 and 10 of the paper print them
        ("concat", "baseline", "accuracy", 66.9, "12"),
        ("concat", "opm+ogm", "accuracy", 76.7, "12"),
        ("concat", "opm", "map", 81.2, "12"),
        ("sum", "ogm", "accuracy", 63.4, "2"),
        ("unimodal-audio", "baseline", "accuracy", 61.4, "2"),
        ("unimodal-visual", "baseline", "accuracy", 50.9, "2"),
        ("mlp", "opm", "accuracy", 71.9, "10"),
    ],
)
def test_crema_d_numbers_of_the_paper(model, method, metric, value, table):
    number = published.lookup("crema-d", model, method, metric)
    assert number is not None
    assert (number.value, number.unit, number.table, number.source) == (value, "%", table, "tpami2024")
    assert number.fraction == pytest.approx(value / 100)


def test_rgb_and_flow_are_the_first_and_second_modality():
    first = published.lookup("ucf-101", "unimodal-rgb", "baseline", "accuracy")
    second = published.lookup("ucf-101", "unimodal-flow", "baseline", "accuracy")
    assert first is not None and second is not None
    assert (first.value, second.value) == (77.2, 59.9)


def test_a_gap_stays_a_gap():
    assert published.lookup("crema-d", "sum", "opm+ogm", "accuracy") is None
    assert published.lookup("synthetic", "concat", "opm", "accuracy") is None
    assert published.lookup("crema-d", "unimodal-audio", "opm", "accuracy") is None


def test_numbers_that_disagree_are_not_picked_among():
    # Table 2 of the CVPR paper prints 62.3 and 61.1 (without noise), Table 6 63.1 and 58.9 (Adam).
    cell = ("kinetics-sounds", "concat", "ogm", "accuracy")
    rows = published.rows("cvpr2022")
    values = {row.value for row in rows if (row.dataset, row.model, row.method, row.metric) == cell}
    assert len(values) > 1
    assert published.lookup("kinetics-sounds", "concat", "ogm", "accuracy", "cvpr2022") is None


def test_sources_are_not_mixed():
    of_cvpr = published.lookup("crema-d", "concat", "baseline", "accuracy", "cvpr2022")
    assert of_cvpr is not None and (of_cvpr.value, of_cvpr.table) == (51.7, "1")
    independent = published.lookup("crema-d", "concat", "opm+ogm", "accuracy", "independent")
    assert independent is not None and independent.value == 69.84 and "5 seeds" in independent.note


@pytest.mark.parametrize("source", published.SOURCES)
def test_every_row_of_every_source_is_read(source):
    lines = (benchmarks_folder() / "published" / f"{source}.csv").read_text("utf-8").splitlines()
    assert len(published.rows(source)) == len(list(csv.reader(lines))) - 1


def test_all_fifteen_tables_are_there():
    names = [table for source, table, _ in published.tables() if source == "tpami2024"]
    assert sorted(names, key=int) == [str(number) for number in range(1, 16)]


def test_covers():
    assert published.covers("crema-d")
    assert not published.covers("synthetic")


def test_files_are_those_of_the_transcription():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/published, the transcription that these files are copies of")
    for path in SHARED.glob("*.csv"):  # but for the columns that are our judgement
        ours, theirs = (
            list(csv.DictReader(one.read_text(encoding="utf-8").splitlines()))
            for one in (benchmarks_folder() / "published" / path.name, path)
        )
        plain = [{key: one[key] for key in one if key not in ("split", "same_protocol")} for one in ours]
        assert plain == theirs


def test_each_number_of_the_paper_says_of_which_split_it_is():
    found = {
        row.dataset: {one.split for one in published.rows() if one.dataset == row.dataset}
        for row in published.rows()
    }
    assert found == {
        **{name: {"official"} for name in ("crema-d", "vggsound", "ave", "cmu-mosi")},
        **{name: {"1"} for name in ("ucf-101", "ucf-101-three")},
        "kinetics-sounds": {"test"},
        "music-avqa": {""},  # which of its two versions was not published
    }


def test_rounding_is_half_a_unit_of_the_last_printed_digit():
    of_paper = published.lookup("crema-d", "concat", "opm", "accuracy")
    other = published.lookup("crema-d", "concat", "opm+ogm", "accuracy", "independent")
    assert of_paper is not None and other is not None
    assert of_paper.rounding == pytest.approx(0.0005) and other.rounding == pytest.approx(0.00005)


@pytest.mark.parametrize("content", [None, "source,table\nx,1\n", "not a csv"])
def test_a_missing_or_damaged_file_is_named(content, tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    path = tmp_path / "published" / "tpami2024.csv"
    if content is not None:
        path.write_text(content + "\nmore\n", encoding="utf-8")
    monkeypatch.setattr(published, "benchmarks_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"tpami2024\.csv is (missing|damaged)"):
        published.rows.__wrapped__("tpami2024")
