"""What a method gains over its own baseline, with intervals over seeds and over test samples."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from run_folders import write_run, write_search

from balancemm_cli.config import run as config_run
from balancemm_cli.results import formats, rows, tables
from balancemm_cli.results.collection import collect
from balancemm_cli.results.gains import gains
from balancemm_cli.results.statistics import minimum_detectable
from balancemm_cli.runs.folder import write_table
from balancemm_cli.runs.schema import DataIdentity


def write_predictions(folder, correct, classes=4):
    """Predictions of which exactly `correct` are right; those of another epoch are all wrong."""
    labels = np.arange(len(correct)) % classes
    guessed = np.where(correct, labels, (labels + 1) % classes)
    parts = [
        pa.table(
            {
                "selection": [name] * len(labels),
                "id": [str(place) for place in range(len(labels))],
                "label": labels.astype(np.int32),
                "scores": pa.array(
                    list(np.eye(classes, dtype=np.float32)[predicted]), pa.list_(pa.float32())
                ),
            }
        )
        for name, predicted in (("last", guessed), ("best-test", (labels + 1) % classes))
    ]
    write_table(folder / "predictions.arrow", pa.concat_tables(parts))


def write_pair(root, mine, other, method="opm", **more):
    """A method's and the baseline's runs of these accuracies, seed by seed, with predictions that fit."""
    order = np.random.default_rng(0).permutation(200)
    for name, accuracies in ((method, mine), ("baseline", other)):
        for seed, accuracy in enumerate(accuracies):
            folder = write_run(root, name, seed, accuracy=accuracy, **more)
            write_predictions(folder, order < round(200 * accuracy))


def rows_of(root):
    return {row.group.first.method: row for row in rows.rows(collect([root], "last").groups, "last")}


def test_the_gain_over_the_own_baseline(tmp_path):
    mine, other = [0.71, 0.745, 0.69], [0.66, 0.7, 0.68]
    write_pair(tmp_path, mine, other, dataset="crema-d", recipe="paper")
    row = rows_of(tmp_path)["opm"]
    expected = scipy.stats.ttest_rel(mine, other)
    assert row.gain is not None and row.gain.p == pytest.approx(expected.pvalue)
    assert row.gain.comparison.difference.mean == pytest.approx(0.035)
    assert row.gain.published == pytest.approx(0.751 - 0.669)  # of Table 12
    low, high = row.gain.new_samples
    assert -0.02 < low < 0.035 < high < 0.09
    assert rows_of(tmp_path)["baseline"].gain is None


def test_a_single_seed_has_its_interval_over_the_test_samples(tmp_path):
    write_pair(tmp_path, [0.8], [0.7])
    gain = rows_of(tmp_path)["opm"].gain
    assert gain.comparison.difference.interval is None and gain.p is None
    assert gain.new_samples[0] < 0.1 < gain.new_samples[1]
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    cell = dict(zip(table.header, table.cells[1], strict=True))["Gain"]
    assert cell == f"+10.0 [{100 * gain.new_samples[0]:+.1f}, {100 * gain.new_samples[1]:+.1f}] (1)"
    assert any("fewer than 3 shared seeds" in note for note in table.notes)


def test_p_values_are_adjusted_over_what_is_shown(tmp_path):
    write_pair(tmp_path, [0.71, 0.745, 0.69], [0.66, 0.7, 0.68])
    alone = rows_of(tmp_path)["opm"].gain.p
    for seed, accuracy in enumerate([0.8, 0.7, 0.9]):
        write_run(tmp_path, "ogm", seed, accuracy=accuracy)
    assert rows_of(tmp_path)["opm"].gain.p == pytest.approx(2 * alone)


def test_the_line_under_the_dagger_is_of_the_test_that_it_uses(tmp_path):
    write_pair(tmp_path, [0.71, 0.745, 0.69], [0.66, 0.7, 0.68])
    for seed, accuracy in enumerate([0.8, 0.7, 0.9]):
        write_run(tmp_path, "ogm", seed, accuracy=accuracy)
    found = {name: row.gain for name, row in rows_of(tmp_path).items()}
    for name in ("opm", "ogm"):
        std = found[name].comparison.difference.std
        assert found[name].tests == 2
        assert found[name].detectable == pytest.approx(minimum_detectable(std, 3, tests=2))
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    (line,) = [note for note in table.notes if note.startswith("†")]
    both = " and ".join(f"{100 * found[name].detectable:.1f}" for name in ("opm", "ogm"))
    assert (
        "Holm's correction for the 2 gains" in line
        and f"a true difference of between {both} points (depending on the row) in 80 % of cases" in line
    )


def test_the_interval_over_new_samples_is_a_column_on_demand(tmp_path):
    write_pair(tmp_path, [0.71, 0.745, 0.69], [0.66, 0.7, 0.68])
    groups = collect([tmp_path], "last").groups
    (table,) = tables.tables(groups, "last")
    assert "Gain new samples" not in table.header
    (table,) = tables.tables(groups, "last", columns=["gain", "gain-new-samples"])
    low, high = rows_of(tmp_path)["opm"].gain.new_samples
    assert table.cells[1][-1] == f"[{100 * low:+.1f}, {100 * high:+.1f}]" and table.cells[0][-1] == "—"
    assert any(note.startswith("Gain new samples: the 95 % interval") for note in table.notes)


def test_no_printed_gain_beside_runs_of_another_split(tmp_path):
    other = DataIdentity(reader="crema-d", split_name="relearn", official_lists=True)
    write_pair(
        tmp_path, [0.71, 0.745, 0.69], [0.66, 0.7, 0.68], dataset="crema-d", recipe="paper", identity=other
    )
    row = rows_of(tmp_path)["opm"]
    assert row.gain.published is None and row.published is None and row.delta is None


def test_a_baseline_of_other_settings_or_data_is_none(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "opm", seed, accuracy=0.8)
        write_run(tmp_path, seed=seed, accuracy=0.7, overrides=("optimizer.lr=0.5",))
        write_run(tmp_path, seed=seed, accuracy=0.6, data="beef" * 16)
    assert gains(collect([tmp_path], "last").groups, "last") == {}


def test_settings_of_the_method_do_not_part_it_from_its_baseline(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "opm", seed, accuracy=0.8 + seed / 100, overrides=("opm.q_base=0.3",))
        write_run(tmp_path, "ogm", seed, accuracy=0.7, variant="official")
        write_run(tmp_path, "g-blending", seed, accuracy=0.9)  # of a revision of its own
        write_run(tmp_path, seed=seed, accuracy=0.6)
    for path in tmp_path.rglob("predictions.arrow"):
        path.unlink()
    found = rows_of(tmp_path)
    assert found["opm"].gain.comparison.difference.mean == pytest.approx(0.21)
    assert found["ogm"].gain.comparison.difference.mean == pytest.approx(0.1)
    assert found["g-blending"].gain.comparison.difference.mean == pytest.approx(0.3)
    assert found["opm"].gain.new_samples is None  # there are no predictions


def test_of_several_baselines_it_is_that_of_the_same_variant_or_that_shares_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "opm", seed, accuracy=0.8, variant="official")
        write_run(tmp_path, seed=seed, accuracy=0.6, variant="official")
    write_run(tmp_path, seed=0, accuracy=0.7)
    difference = rows_of(tmp_path)["opm"].gain.comparison.difference
    assert difference.n == 3 and difference.mean == pytest.approx(0.2)
    for folder in tmp_path.rglob("baseline-official-*"):
        shutil.rmtree(folder)
    difference = rows_of(tmp_path)["opm"].gain.comparison.difference
    assert difference.n == 1 and difference.mean == pytest.approx(0.1)


def test_a_baseline_of_other_seeds_gives_no_gain_and_the_table_says_so(tmp_path):
    write_run(tmp_path, "opm", 1, accuracy=0.8)
    write_run(tmp_path, seed=0, accuracy=0.6)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    assert "Gain" not in table.header
    assert "No gain of concat opm: it shares no seed with its baseline." in table.notes


def test_damaged_predictions_leave_the_gain_over_seeds(tmp_path):
    write_pair(tmp_path, [0.8, 0.81], [0.7, 0.72])
    next(tmp_path.rglob("opm*/predictions.arrow")).write_bytes(b"ARROW1 but not further")
    gain = rows_of(tmp_path)["opm"].gain
    assert gain.new_samples is None and gain.comparison.difference.n == 2


def test_the_gain_is_in_every_record(tmp_path):
    write_pair(tmp_path, [0.71, 0.745, 0.69], [0.66, 0.7, 0.68])
    records = [rows.record(row) for row in rows_of(tmp_path).values()]
    assert all(record["gain"].keys() == records[0]["gain"].keys() for record in records)
    assert "gain_p" in formats.to_csv(records).partition("\n")[0]
    assert json.loads(formats.to_json(records))[1]["gain"]["n"] == 3


# ---- settings that searches chose -----------------------------------------------------------------------------------

OWN = {"opm.q_base": {"range": [0.2, 0.6]}}


def write_tuned(root, method, rate, accuracy, *overrides, seeds=3, **search):
    """Runs whose learning rate a search chose, and its record."""
    for seed in range(seeds):
        given = (f"optimizer.lr={rate}", *overrides)
        run = write_run(root, method, seed, accuracy=accuracy + 0.01 * seed, overrides=given)
    return write_search(root, run, **search)


def tuned_gain(root):
    (gain,) = gains(collect([root], "last").groups, "last").values()
    return gain


def test_a_tuned_method_is_held_against_the_baseline_of_the_same_search(tmp_path):
    """Their learning rates differ; a baseline of the method's own learning rate is not the one."""
    write_tuned(tmp_path, "opm", 0.05, 0.8, "opm.q_base=0.3", own=OWN)
    for seed in range(3):
        write_run(tmp_path, seed=seed, accuracy=0.5 + 0.01 * seed, overrides=("optimizer.lr=0.05",))
    gain = tuned_gain(tmp_path)
    assert not gain.tuned and gain.comparison.difference.mean == pytest.approx(0.3)
    write_tuned(tmp_path, "baseline", 0.004, 0.7)
    gain = tuned_gain(tmp_path)
    assert gain.tuned and gain.comparison.difference.mean == pytest.approx(0.1)
    (table,) = tables.tables(collect([tmp_path], "last").groups, "last")
    (note,) = [note for note in table.notes if "over the tuned baseline" in note]
    assert note.startswith("Gain of opm")


@pytest.mark.parametrize(
    "other", [{"budget": 3}, {"seed": 1}, {"own": {"optimizer.weight_decay": {"range": [0.0, 0.1]}}}]
)
def test_a_baseline_of_another_search_is_none(tmp_path, other):
    write_tuned(tmp_path, "opm", 0.05, 0.8, own=OWN)
    write_tuned(tmp_path, "baseline", 0.004, 0.7, **other)
    assert gains(collect([tmp_path], "last").groups, "last") == {}


def test_budgets_in_seconds_must_be_the_same_and_trials_need_not(tmp_path):
    write_tuned(tmp_path, "opm", 0.05, 0.8, own=OWN, seconds=60.0)
    path = write_tuned(tmp_path, "baseline", 0.004, 0.7, budget=3, seconds=60.0)
    assert tuned_gain(tmp_path).tuned
    shutil.rmtree(path.parent)
    write_tuned(tmp_path, "baseline", 0.004, 0.7, seconds=30.0)
    assert gains(collect([tmp_path], "last").groups, "last") == {}


def test_what_was_not_searched_must_be_the_same(tmp_path):
    write_tuned(tmp_path, "opm", 0.05, 0.8, "batch_size=16", own=OWN)
    write_tuned(tmp_path, "baseline", 0.004, 0.7)
    assert gains(collect([tmp_path], "last").groups, "last") == {}


def test_a_search_that_was_edited_counts_for_nothing(tmp_path):
    path = write_tuned(tmp_path, "opm", 0.05, 0.8, own=OWN)
    write_tuned(tmp_path, "baseline", 0.004, 0.7)
    assert tuned_gain(tmp_path).tuned
    path.write_text(path.read_text().replace('"accuracy":0.6', '"accuracy":0.9'))
    found = collect([tmp_path], "last")
    assert gains(found.groups, "last") == {}
    assert any("is not what a search wrote" in line for line in found.left_out)


def test_a_method_of_a_later_revision_has_a_baseline(tmp_path):
    """Its config.toml says which revision it is, and that of the baseline does not."""
    for seed in range(3):
        run = write_run(tmp_path, "g-blending", seed, accuracy=0.8)
        write_run(tmp_path, seed=seed, accuracy=0.7)
    assert "revisions" in (run / "config.toml").read_text()
    assert tuned_gain(tmp_path).comparison.difference.n == 3


@pytest.mark.parametrize("searched", [False, True])
def test_a_method_of_another_package_has_a_baseline(tmp_path, monkeypatch, searched):
    """Its config.toml says which package it is of, and that of the baseline does not."""
    package = {"package": "my-balance", "version": "1.0", "sha256": "50c4"}
    monkeypatch.setattr(config_run, "source_identity", lambda _, name: package if name == "opm" else None)
    for method, rate, accuracy in (("opm", 0.05, 0.8), ("baseline", 0.004, 0.7)):
        if searched:
            write_tuned(tmp_path, method, rate, accuracy)
        else:
            for seed in range(3):
                write_run(tmp_path, method, seed, accuracy=accuracy + 0.01 * seed)
    for path in tmp_path.rglob("opm-*/config.toml"):
        assert "[extensions.opm]" in path.read_text()
    gain = tuned_gain(tmp_path)
    assert gain.comparison.difference.mean == pytest.approx(0.1) and gain.tuned == searched
