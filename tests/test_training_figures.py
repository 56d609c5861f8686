"""The paper's figures that need only what training writes: `bmm report --figure 4, 5, 7, 8, 9`."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from run_folders import write_run
from sklearn.metrics import recall_score

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.errors import InputError
from balancemm_cli.results import figures
from balancemm_cli.results.collection import collect
from balancemm_cli.results.figures.classes import draw_classes
from balancemm_cli.results.figures.discrepancy import draw_discrepancy
from balancemm_cli.results.figures.drops import draw_drops
from balancemm_cli.results.figures.loss import draw_loss
from balancemm_cli.results.figures.modulation import draw_modulation
from balancemm_cli.results.figures.sensitivity import draw_sensitivity
from balancemm_cli.runs.folder import RunFolder, write_table
from balancemm_cli.runs.reading import read_table

NAMES = ("4", "5", "7", "8")


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> Path:
    """Real runs of two methods over two seeds, three epochs each."""
    runs, data = tmp_path_factory.mktemp("trained"), open_set(prepared / "synthetic")
    for method in ("baseline", "opm"):
        for seed in (0, 1):
            config = resolve("synthetic", method=method, seed=seed, overrides=("epochs=3",))
            train_run(RunFolder(runs, config, data), torch.device("cpu"))
    return runs


def panel(root, selection="last"):
    (only,) = figures.panels(collect([root], selection).groups, selection)
    return only


def lines(axes):
    """The curves of a panel by their name."""
    return {line.get_label(): line for line in axes.lines}


def steps(group):
    """steps.arrow of each run."""
    return [read_table(run.folder / "steps.arrow").to_pandas() for run in group.runs]


def over_seeds(group, column):
    return np.mean([table.groupby("epoch")[column].mean() for table in steps(group)], axis=0)


@pytest.mark.long
def test_each_is_drawn_the_same_each_time(trained, tmp_path):
    groups = collect([trained], "last").groups
    for name in NAMES:
        for folder in ("a", "b"):
            written, left_out = figures.draw_figure(name, groups, tmp_path / folder)
            assert left_out == []
            assert [path.name for path in written] == [f"synthetic-concat-figure-{name}.png"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_losses_are_those_of_the_history(trained):
    shown = panel(trained)
    train, test = draw_loss(shown).axes
    for name, group in zip(("baseline", "opm"), shown.groups, strict=True):
        tables = [pd.read_json(run.folder / "history.jsonl", lines=True) for run in group.runs]
        expected = np.mean([table.loss for table in tables], axis=0)
        np.testing.assert_allclose(lines(train)[name].get_ydata(), expected)
        expected = np.mean([[value["test"] for value in table.losses] for table in tables], axis=0)
        np.testing.assert_allclose(lines(test)[name].get_ydata(), expected)


def test_runs_that_recorded_no_test_loss_say_so(tmp_path):
    write_run(tmp_path)
    train, test = draw_loss(panel(tmp_path)).axes
    assert len(train.lines[0].get_xdata()) == 8
    assert not test.lines and "not recorded" in test.texts[0].get_text()


def test_discrepancy_of_the_modality_that_leads_in_the_baseline(trained):
    shown = panel(trained)
    means = {name: over_seeds(shown.groups[0], f"rho_{name}").mean() for name in ("audio", "visual")}
    leading = max(means, key=means.__getitem__)
    (axes,) = draw_discrepancy(shown).axes
    assert axes.get_ylabel().endswith(f"of {leading}")
    for name, group in zip(("baseline", "opm"), shown.groups, strict=True):
        line = lines(axes)[name]
        assert line.get_xdata().tolist() == [1, 2, 3]
        np.testing.assert_allclose(line.get_ydata(), over_seeds(group, f"rho_{leading}"))
    assert lines(axes)["balanced"].get_ydata() == [1, 1]


def test_a_ratio_and_a_difference_are_not_drawn_together(tmp_path):
    write_run(tmp_path, overrides=("discrepancy.form=difference",))
    (axes,) = draw_discrepancy(panel(tmp_path)).axes
    assert lines(axes)["balanced"].get_ydata() == [0, 0]
    assert lines(draw_modulation(panel(tmp_path)).axes[0])["balanced"].get_ydata() == [0, 0]
    write_run(tmp_path, "opm")
    with pytest.raises(ValueError, match="as a ratio, others as a difference"):
        draw_discrepancy(panel(tmp_path))


def test_drops_of_the_methods_that_drop(trained):
    shown = panel(trained)
    grid = np.array(draw_drops(shown).axes).reshape(2, 2)
    for row, quantity in zip(grid, ("q", "rho"), strict=True):
        for axes, modality in zip(row, ("audio", "visual"), strict=True):
            assert lines(axes).keys() - {"balanced"} == {"opm"}
            expected = over_seeds(shown.groups[1], f"{quantity}_{modality}")
            np.testing.assert_allclose(lines(axes)["opm"].get_ydata(), expected)


def test_without_drops_it_says_which_method_has_some(tmp_path):
    write_run(tmp_path / "runs", "ogm")
    with pytest.raises(InputError, match=r"no run drops features .* --method opm"):
        figures.draw_figure("7", collect([tmp_path / "runs"], "last").groups, tmp_path)


@pytest.mark.parametrize("selection", ["last", "best-test"])
def test_classes_are_recalls(trained, prepared, selection):
    shown = panel(trained, selection)
    (axes,) = draw_classes(shown).axes
    names = open_set(prepared / "synthetic").classes
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{name} (10)" for name in names]
    for container, group in zip(axes.containers, shown.groups, strict=True):
        recalls = []
        for run in group.runs:
            table = read_table(run.folder / "predictions.arrow").to_pandas().query("selection == @selection")
            recalls.append(recall_score(table.label, np.stack(table.scores).argmax(1), average=None))
        dots, _, (bars,) = container.lines
        np.testing.assert_allclose(dots.get_xdata(), 100 * np.mean(recalls, axis=0))
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends[:, 1], 100 * np.max(recalls, axis=0))


def predict(folder, labels, predicted, classes):
    scores = list(np.eye(classes, dtype=np.float32)[predicted])
    columns = {"selection": ["last"] * len(labels), "id": list(map(str, labels)), "label": labels}
    write_table(folder / "predictions.arrow", pa.table({**columns, "scores": scores}))


def test_of_many_classes_those_in_which_methods_differ_most(tmp_path):
    labels = np.repeat(np.arange(49), 2)  # class 49 has no sample
    wrong = np.where((labels >= 10) & (labels % 2 == 0), 49, labels)
    predict(write_run(tmp_path), labels, labels, 50)
    predict(write_run(tmp_path, "opm"), labels, wrong, 50)
    figure = draw_classes(panel(tmp_path))
    (axes,) = figure.axes
    assert "35 of 49 classes in which methods differ most" in figure.get_suptitle()
    shown = {int(text.get_text().split()[1]) for text in axes.get_yticklabels()}
    assert len(shown) == 35 and set(range(10, 49, 2)) < shown
    opm = dict(zip(sorted(shown), axes.containers[1].lines[0].get_xdata(), strict=True))
    assert all(value == (0 if place >= 10 and place % 2 == 0 else 100) for place, value in opm.items())


@pytest.mark.parametrize(
    ("labels", "said"), [([0, 1, 1], "same number of samples of each class"), (None, "cannot be read")]
)
def test_classes_of_other_tests_and_damaged_predictions(tmp_path, labels, said):
    predict(write_run(tmp_path / "runs"), np.array([0, 0, 1]), np.array([0, 0, 1]), 2)
    folder = write_run(tmp_path / "runs", "opm")
    if labels:
        predict(folder, np.array(labels), np.array(labels), 2)
    else:
        (folder / "predictions.arrow").write_bytes(b"no table")
    with pytest.raises(InputError, match=said):
        figures.draw_figure("8", collect([tmp_path / "runs"], "last").groups, tmp_path)


def sweep(root, dataset="crema-d", **more):
    """OPM over λ and q_base, which share one place; two seeds, each a point apart."""
    for seed in (0, 1):
        for lam, base in ((0.2, 0.5), (0.4, 0.5), (0.5, 0.5), (0.5, 0.3)):
            write_run(
                root,
                "opm",
                seed,
                dataset=dataset,
                recipe="paper" if dataset == "crema-d" else "default",
                overrides=(f"opm.lam={lam}", f"opm.q_base={base}"),
                accuracy=lam + base / 10 + seed / 100,
                **more,
            )
    return root


def test_sensitivity_is_between_runs_that_differ_in_one_setting(tmp_path):
    over_lam, over_base = draw_sensitivity(panel(sweep(tmp_path, "synthetic"))).axes
    assert (over_lam.get_xlabel(), over_base.get_xlabel()) == ("λ of OPM", "q_base of OPM")
    (curve,), (other,) = over_lam.containers, over_base.containers
    assert curve.get_label() == other.get_label() == "opm"
    np.testing.assert_allclose(curve.lines[0].get_xdata(), [0.2, 0.4, 0.5])
    np.testing.assert_allclose(curve.lines[0].get_ydata(), [25.5, 45.5, 55.5])
    np.testing.assert_allclose(other.lines[0].get_xdata(), [0.3, 0.5])
    ends = np.array([segment[:, 1] for segment in curve.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[25, 26], [45, 46], [55, 56]])


def test_published_points_are_those_read_off_the_plot(tmp_path):
    axes = draw_sensitivity(panel(sweep(tmp_path))).axes[0]
    points = axes.containers[-1]
    assert "read off the plot by eye" in str(points.get_label())
    source = Path(__file__).parents[1] / "benchmarks" / "published" / "tpami2024_figure9.csv"
    with source.open(encoding="utf-8") as file:
        printed = {
            row["method"]: float(row["accuracy"])
            for row in csv.DictReader(file)
            if row["dataset"] == "crema-d"
        }
    assert points.lines[0].get_xdata().tolist() == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert points.lines[0].get_ydata().tolist() == [printed[f"OPM lambda=0.{n}"] for n in range(2, 7)]


def test_other_models_have_no_published_points(tmp_path):
    axes = draw_sensitivity(panel(sweep(tmp_path, model="sum"))).axes[0]
    assert [str(one.get_label()) for one in axes.containers] == ["opm"]


def test_without_a_sweep_it_says_how_to_make_one(tmp_path):
    write_run(tmp_path / "runs", "opm", overrides=("opm.lam=0.2",))
    write_run(tmp_path / "runs", "opm", overrides=("opm.lam=0.3", "epochs=5"))
    with pytest.raises(InputError, match=r"--set opm.lam=0.2"):
        figures.draw_figure("9", collect([tmp_path / "runs"], "last").groups, tmp_path)


def test_the_page_shows_tables_and_the_figure_that_is_named(trained, bmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, page, _ = bmm("report", trained, "--figure", "5", "--format", "html")
    assert page.count("<img ") == 1 and 'alt="synthetic-concat-figure-5"' in page and "<td>opm</td>" in page
    assert list(tmp_path.iterdir()) == []
    status, paths, _ = bmm("report", trained, "--figure", "5", "--out", "here")
    assert (status, paths) == (0, "here/figures/synthetic-concat-figure-5.png\n")
    assert sorted(path.suffix for path in (tmp_path / "here/figures").iterdir()) == [".pdf", ".png", ".svg"]
    status, _, said = bmm("report", trained, "--figure", "3")
    assert status == 2 and "no figure '3'" in said and "1, 4, 5, 6, 7, 8, 9, features" in said
    assert bmm("report", trained, "--figure", "9")[0] == 3


def test_the_page_of_a_table_has_the_figures_of_the_runs_in_it(bmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for method in ("baseline", "opm"):
        write_run(tmp_path / "runs", method, dataset="crema-d", recipe="paper")
    write_run(tmp_path / "runs", "opm")  # of the built-in synthetic data, which the table does not have
    _, page, _ = bmm("report", "--table", "12", "--format", "html")
    for kind in ("accuracy", "modulation", "epochs"):
        assert f'alt="crema-d-concat-{kind}"' in page
    assert page.count("<img ") == 3
