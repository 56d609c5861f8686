import json
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from run_folders import write_demo, write_run

from balancemm_cli.errors import InputError
from balancemm_cli.results import figures
from balancemm_cli.results.collection import collect
from balancemm_cli.results.figures import drawing
from balancemm_cli.results.figures.drawing import STYLE, WINDOWS, legend, named, save, windows
from balancemm_cli.results.figures.modulation import read_steps

KINDS = ("accuracy", "modulation", "epochs")


def draw(root, folder):
    return figures.draw_all(collect([root], "last").groups, "last", folder)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with runs of two seeds and their figures, and what was written of these and left out."""
    folder = tmp_path_factory.mktemp("drawn")
    return folder, *draw(write_demo(folder / "runs", 2), folder / "figures")


@pytest.fixture
def undrawn(monkeypatch):
    """Let figures be made and laid out, but none be drawn into a file, which takes most of the time."""
    monkeypatch.setattr(drawing, "FORMATS", {})


def test_every_figure_in_three_formats(drawn):
    folder, written, left_out = drawn
    assert left_out == []
    assert [path.name for path in written] == [f"synthetic-concat-{kind}.png" for kind in KINDS]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 3
        ET.parse(path.with_suffix(".svg"))
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    suffixes = sorted(path.suffix for path in (folder / "figures").iterdir())
    assert suffixes == [".pdf"] * 3 + [".png"] * 3 + [".svg"] * 3


@pytest.mark.parametrize("titled", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_a_title_can_be_left_out(tmp_path, titled, monkeypatch):
    groups = collect([write_demo(tmp_path / "runs", 1)], "last").groups
    titles = []
    whole = Figure.draw
    monkeypatch.setattr(
        Figure, "draw", lambda own, *a, **k: (titles.append(own.get_suptitle()), whole(own, *a, **k))
    )
    figures.draw_all(groups, "last", tmp_path / "figures", titled)
    assert titles and all(bool(title) == titled for title in titles)


def test_names_are_drawn_as_they_are(tmp_path):
    """A dollar begins no formula, and a name with a leading underscore has its place in the legend."""
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], label=named("_hidden"))
        axes.set_title("$x^$ and ^_y")
        legend(figure, [axes], 1)
        save(figure, tmp_path / "names")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.strip("\u200b") for text in texts] == ["_hidden"]


def test_the_same_runs_give_the_same_bytes(drawn, tmp_path):
    folder, *_ = drawn
    draw(folder / "runs", tmp_path)
    for path in (folder / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
        assert b"<dc:date>" not in path.read_bytes()


def test_one_modality_alone_is_a_reference_of_its_own_terms_only(tmp_path):
    write_demo(tmp_path, 1)
    (panel,) = figures.panels(collect([tmp_path], "last").groups)
    assert sorted(panel.alone) == ["audio", "visual"]
    assert len(panel.groups) == 4
    write_run(tmp_path, model="unimodal-audio", data="beef" * 16)
    (panel,) = figures.panels(collect([tmp_path], "last").groups)
    assert sorted(panel.alone) == ["audio", "visual"]
    write_run(tmp_path, model="unimodal-audio", overrides=("optimizer.lr=0.5",))
    (panel,) = figures.panels(collect([tmp_path], "last").groups)
    assert sorted(panel.alone) == ["visual"]


def test_bars_show_the_numbers_of_the_table(tmp_path):
    for seed, accuracy in enumerate((0.90, 0.94)):
        write_run(tmp_path, "opm", seed, accuracy=accuracy)
    (panel,) = figures.panels(collect([tmp_path], "last").groups)
    figure = figures.draw_accuracy(panel)
    (axes,) = figure.axes
    heights = [float(container.lines[0].get_ydata()[0]) for container in axes.containers]
    assert heights == pytest.approx([92, 92 * 0.9, 92 * 0.8])


def test_lines_of_the_steps_are_means_over_seeds(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "opm", seed)
    (group,) = collect([tmp_path], "last").groups
    (panel,) = figures.panels([group])
    figure = figures.draw_modulation(panel)
    rho = np.mean([read_steps(run)["rho_audio"] for run in group.runs], axis=0)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "audio")
    np.testing.assert_allclose(line.get_ydata(), rho)


@pytest.mark.parametrize("length", [1, 149, 150, 151, 600, 601])
def test_windows_keep_the_mean(length):
    column = np.random.default_rng(0).random(length)
    places, means = windows([column, 2 * column])
    assert len(places) == means.shape[1] <= WINDOWS
    assert places[0] >= 0 and places[-1] <= length - 1
    if length % max(1, -(-length // WINDOWS)) == 0:
        assert means[0].mean() == pytest.approx(column.mean())
    np.testing.assert_allclose(means[1], 2 * means[0])


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_costs_its_own_figure_only(tmp_path):
    runs = write_demo(tmp_path / "runs", 1)
    next(runs.rglob("opm-*/steps.arrow")).write_bytes(b"ARROW1 no more")
    written, left_out = draw(runs, tmp_path / "figures")
    assert [path.stem.rsplit("-", 1)[1] for path in written] == ["accuracy", "epochs"]
    assert len(left_out) == 1 and "steps.arrow cannot be read" in left_out[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("line", ['{"epoch": 0}', "{", "[]"])
def test_a_damaged_history_costs_its_own_figure_only(tmp_path, line):
    runs = write_demo(tmp_path / "runs", 1)
    path = next(runs.rglob("ogm-*/history.jsonl"))
    path.write_text(path.read_text() + line + "\n")
    written, left_out = draw(runs, tmp_path / "figures")
    assert len(written) == 2
    assert len(left_out) == 1 and str(path) in left_out[0]


@pytest.mark.usefixtures("undrawn")
def test_three_modalities(tmp_path):
    for seed in (0, 1):
        folder = write_run(tmp_path / "runs", "baseline", seed)
        path = folder / "result.json"
        result = json.loads(path.read_text())
        for selected in result["selections"].values():
            selected["unimodal"]["flow"] = 0.5
        path.write_text(json.dumps(result))
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for line in lines:
            line["unimodal"]["test"]["flow"] = 0.5
        (folder / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    written, left_out = draw(tmp_path / "runs", tmp_path / "figures")
    assert (len(written), left_out) == (3, [])
    (panel,) = figures.panels(collect([tmp_path / "runs"], "last").groups)
    assert [axes.get_title() for axes in figures.draw_epochs(panel).axes] == [
        "fused",
        "audio",
        "visual",
        "flow",
    ]


def test_runs_of_one_modality_only_have_no_figure(tmp_path):
    write_run(tmp_path / "runs", model="unimodal-audio")
    assert draw(tmp_path / "runs", tmp_path / "figures") == ([], [])


def test_more_rows_than_a_figure_has_room_for(tmp_path):
    for number in range(41):
        write_run(tmp_path / "runs", overrides=(f"optimizer.lr={number + 1}e-3",))
    with pytest.raises(InputError, match=r"41 rows have no room in it, 40 have\. Choose some with --where"):
        figures.draw_figure("4", collect([tmp_path / "runs"], "last").groups, tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_modality_alone_without_a_history_is_left_out_of_the_epochs(tmp_path):
    write_demo(tmp_path / "runs", 1)
    (history,) = (tmp_path / "runs").glob("unimodal-audio/*/history.jsonl")
    history.write_text("")
    written, left_out = draw(tmp_path / "runs", tmp_path / "figures")
    assert len(written) == 3 and left_out == []
