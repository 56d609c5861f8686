"""The report's table by type of question."""

import json

import pytest
from run_folders import write_run

from balancemm_cli.results.collection import collect
from balancemm_cli.results.tables import tables

FOUND = {
    0: {"Audio-Counting": (10, 0.5), "Visual-Location": (30, 0.9), "Audio": (10, 0.5), "Visual": (30, 0.9)},
    1: {"Audio-Counting": (10, 0.7), "Visual-Location": (30, 0.8), "Audio": (10, 0.7), "Visual": (30, 0.8)},
}


@pytest.fixture
def groups(tmp_path):
    for seed, by_group in FOUND.items():
        path = write_run(tmp_path / "runs", seed=seed, accuracy=0.8) / "result.json"
        result = json.loads(path.read_text())
        for chosen in result["selections"].values():
            chosen["by_group"] = {
                name: {"count": count, "accuracy": share} for name, (count, share) in by_group.items()
            }
        path.write_text(json.dumps(result))
    return collect([tmp_path / "runs"], "last").groups


def test_types_and_kinds_stand_in_their_order_and_empty_ones_are_named(groups):
    _, table = tables(groups, "last")
    assert table.title == "synthetic by type of question"
    (row,) = table.cells
    shown = dict(zip(table.header, row, strict=True))
    assert shown["Audio-Counting"] == "60.0 ± 14.1 (2)" and shown["Visual-Location"] == "85.0 ± 7.1 (2)"
    assert shown["Audio (all)"] == "60.0 ± 14.1 (2)" and shown["All"] == "80.0 ± 0.0 (2)"
    assert shown["Audio-Visual-Temporal"] == shown["Audio-Visual (all)"] == "—"
    assert table.notes[0].endswith("Questions: Audio-Counting 10, Visual-Location 30.")
    assert (
        "no question of type Audio-Comparative, Visual-Counting, Audio-Visual-Existential" in table.notes[1]
    )


def test_other_runs_have_no_such_table(tmp_path):
    write_run(tmp_path / "runs")
    assert len(tables(collect([tmp_path / "runs"], "last").groups, "last")) == 1
