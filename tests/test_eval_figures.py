"""The figures that are drawn from what `bmm eval` kept."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from run_folders import write_run

from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.results import figures
from balancemm_cli.results.collection import collect
from balancemm_cli.results.figures.features import draw_features
from balancemm_cli.results.figures.missing import draw_missing
from balancemm_cli.results.figures.probes import draw_probes
from balancemm_cli.results.tables import tables
from balancemm_cli.runs.folder import write_table

METRICS = {"accuracy": 0.9, "map": 0.9, "macro_f1": 0.9, "unimodal": {"audio": 0.8, "visual": 0.6}}


def evaluated(root, method="baseline", seed=0, **given):
    """A run folder with an evaluation whose numbers are known."""
    folder = write_run(root, method, seed, **given)
    modalities = ["audio", "visual"] if "model" not in given else [given["model"].removeprefix("unimodal-")]
    points = [
        {"amount": amount, "draws": 5, **METRICS, "accuracy": 0.9 - 0.5 * amount - 0.01 * seed}
        for amount in (0, 0.5, 1)
    ]
    evaluation = {
        "format": 1,
        "checkpoint": "0" * 64,
        "epochs": 20,
        "test": METRICS,
        "missing": {name: points for name in modalities},
        "noise": {modalities[-1]: points},
        "probe": {
            str(epoch): dict.fromkeys(modalities, 0.05 * epoch + 0.01 * seed)
            for epoch in (2, 4, 8, 10)[seed:]
        },
        "features": dict.fromkeys(modalities, 5),
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(3, dtype=np.int32), 10)
    features = {
        name: list((random.normal(size=(30, 5)) + 9 * codes[:, None]).astype(np.float32))
        for name in modalities
    }
    labels = pa.DictionaryArray.from_arrays(codes, ["a", "b", "c"])
    write_table(
        folder / "features.arrow", pa.table({"id": [str(i) for i in range(30)], "label": labels, **features})
    )
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two methods and one modality alone over two seeds."""
    for seed in (0, 1):
        for method in ("baseline", "opm"):
            evaluated(tmp_path / "runs", method, seed)
        evaluated(tmp_path / "runs", seed=seed, model="unimodal-visual")
    return tmp_path / "runs"


def groups(runs):
    return collect([runs], "last").groups


def panel(runs):
    (only,) = figures.panels(groups(runs))
    return only


@pytest.mark.parametrize(
    "name", ["1", *(pytest.param(name, marks=pytest.mark.long) for name in ("6", "features"))]
)
def test_each_is_drawn_the_same_each_time(runs, tmp_path, name):
    for folder in ("a", "b"):
        written, left_out = figures.draw_figure(name, groups(runs), tmp_path / folder)
        assert left_out == [] and [path.name for path in written] == [f"synthetic-concat-figure-{name}.png"]
        with Image.open(written[0]) as picture:
            assert picture.width > 600
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 3
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_probes_over_the_epochs_that_all_seeds_have(runs):
    audio, visual = draw_probes(panel(runs)).axes
    assert audio.get_title() == "audio encoder"
    names = [line.get_label() for line in visual.lines]
    assert names == ["baseline", "opm", "this modality, trained alone"] and len(audio.lines) == 2
    assert audio.lines[0].get_xdata().tolist() == [4, 8, 10]
    np.testing.assert_allclose(audio.lines[0].get_ydata(), [20.5, 40.5, 50.5])  # mean of two seeds, in %


def test_a_run_without_kept_epochs_is_a_point(tmp_path):
    path = evaluated(tmp_path / "runs") / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["probe"] = {"8": {"audio": 0.5, "visual": 0.25}}
    path.write_text(json.dumps(evaluation))
    (line,) = draw_probes(panel(tmp_path / "runs")).axes[1].lines
    assert line.get_ydata().tolist() == [25] and line.get_marker() == "o"


def test_missing_rates_and_noise(runs):
    missing_audio, _, noise_audio, noise_visual = draw_missing(panel(runs)).axes
    np.testing.assert_allclose(missing_audio.lines[0].get_xdata(), [0, 50, 100])
    np.testing.assert_allclose(missing_audio.lines[0].get_ydata(), [89.5, 64.5, 39.5])
    np.testing.assert_allclose(noise_visual.lines[1].get_xdata(), [0, 0.5, 1])
    assert not noise_audio.lines and noise_audio.texts[0].get_text() == "not evaluated"


def test_every_sample_is_a_point_of_its_class(runs):
    figure = draw_features(panel(runs))
    assert [len(axes.collections) for axes in figure.axes] == [3] * 4
    places = [one.get_offsets() for one in figure.axes[0].collections]
    assert [len(one) for one in places] == [10, 10, 10]
    centres = [one.mean(0) for one in places]  # classes far apart stay apart
    spread = max(one.std(0).max() for one in places)
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * spread


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("1", lambda one: one.pop("probe"), "Train with --set snapshots=N"),
        ("6", lambda one: (one.pop("missing"), one.pop("noise")), "Run `bmm eval` with --missing"),
        ("features", lambda one: one.pop("features"), "Run `bmm eval` with --features"),
        ("1", lambda one: one.update(epochs=3), "no run was evaluated for it since it was trained"),
        ("6", lambda one: one["test"].update(accuracy=90.0), "evaluation.json is damaged"),
    ],
)
def test_what_lacks_is_said(tmp_path, name, change, said):
    path = evaluated(tmp_path / "runs") / "evaluation.json"
    evaluation = json.loads(path.read_text())
    change(evaluation)
    path.write_text(json.dumps(evaluation))
    with pytest.raises(InputError, match=said):
        figures.draw_figure(name, groups(tmp_path / "runs"), tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="no run was evaluated"):
        figures.draw_figure(name, groups(tmp_path / "runs"), tmp_path)


@pytest.mark.parametrize("name", ["1", "6", "features"])
def test_what_was_not_evaluated_is_named_in_the_picture(runs, name):
    for left in ("baseline-paper-s0*", "opm-paper-s1*", "opm-paper-s0*"):
        (next((runs / "concat").glob(left)) / "evaluation.json").unlink()
    title = figures.FIGURES[name](panel(runs)).get_suptitle()
    assert "not evaluated: opm" in title and ("1 seed" in title or "seed 1" in title)


def test_other_names_and_runs_of_one_modality(tmp_path):
    evaluated(tmp_path / "runs", model="unimodal-visual")
    with pytest.raises(UsageError, match="no figure '2'"):
        figures.draw_figure("2", groups(tmp_path / "runs"), tmp_path)
    with pytest.raises(InputError, match="compares joint ones"):
        figures.draw_figure("6", groups(tmp_path / "runs"), tmp_path)


def test_the_report_takes_no_notice_of_an_evaluation(tmp_path):
    folder = evaluated(tmp_path / "runs")
    with_it = collect([tmp_path / "runs"], "last")
    for name in ("evaluation.json", "features.arrow"):
        shutil.move(folder / name, tmp_path / name)
    assert collect([tmp_path / "runs"], "last") == with_it


def test_what_is_left_of_an_accuracy_can_stand_in_the_table(runs):
    ids = ["accuracy", "missing-audio-0.5", "noise-visual-1"]
    (table,) = tables(collect([runs], "last").groups, "last", columns=ids)
    cells = {
        line[1]: dict(zip(table.header, line, strict=True)) for line in table.cells if line[0] == "concat"
    }
    assert cells["opm"]["Missing audio 0.5"] == "64.5 ± 0.7 (2)"  # 0.65 and 0.64
    assert cells["baseline"]["Noise visual 1"] == "39.5 ± 0.7 (2)"
    assert any(note.startswith("Missing, noise: the accuracy") for note in table.notes)
