import csv
import io
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from run_folders import write_demo, write_run
from warm_python import python

from balancemm_cli.config.recipe import recipes
from balancemm_cli.results.collection import collect
from balancemm_cli.results.groups import seeds_text
from balancemm_cli.results.report import train_command

ROOT = Path(__file__).parents[1]


def bmm(*arguments, cwd, status=0):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONWARNINGS": "error::UserWarning",
    }
    done = python("-m", "balancemm_cli", "report", *arguments, folder=cwd, environment=environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_with_nothing_else_typed_it_shows_every_run_under_runs(tmp_path):
    write_demo(tmp_path / "runs" / "demo", 2)
    done = bmm(cwd=tmp_path)
    assert done.stdout.startswith("## synthetic")
    assert done.stdout.count("| concat ") == 4
    assert done.stderr == ""
    assert bmm("--suite", "demo", "--format", "markdown", cwd=tmp_path).stdout == done.stdout


def test_json_and_csv_on_stdout_are_nothing_else(tmp_path):
    write_demo(tmp_path / "runs", 1)
    write_run(tmp_path / "runs", seed=7, status="diverged")
    done = bmm("--format", "json", "--out", "report", cwd=tmp_path)
    assert len(json.loads(done.stdout)) == 8
    assert "diverged, not averaged" in done.stderr and "report.md" in done.stderr
    assert len(list(csv.DictReader(io.StringIO(bmm("--format", "csv", cwd=tmp_path).stdout)))) == 8


def test_report_holds_table_figures_commands_and_what_is_left_out(tmp_path):
    write_demo(tmp_path / "runs", 2)
    write_run(tmp_path / "runs", seed=7, status="interrupted")
    bmm("--out", "out", cwd=tmp_path)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text) + re.findall(r"[^!]\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 9
    assert all((tmp_path / "out" / picture).is_file() for picture in pictures)
    assert text.count("| concat ") == 4
    assert len(re.findall(r"^  bmm train ", text, re.MULTILINE)) == 6
    assert "interrupted, not averaged" in text
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_command_of_a_row_makes_its_settings_again(tmp_path):
    from balancemm_cli.config.run import resolve

    for seed in (0, 1, 2):
        overrides = ("optimizer.lr=0.005", "opm.q_base=0.4", "frames.flip=true", "encoder=resnet18")
        write_run(tmp_path, "opm+ogm", seed, variant="official", overrides=overrides)
    (group,) = collect([tmp_path], "last").groups
    words = shlex.split(train_command(group))
    assert words[:2] == ["bmm", "train"]
    options = list(zip(words[2::2], words[3::2], strict=True))
    given = dict(options)
    assert given["--seeds"] == "0-2"
    config = resolve(
        given["--dataset"],
        given["--model"],
        given["--method"],
        given["--variant"],
        given["--recipe"],
        0,
        [value for name, value in options if name == "--set"],
    )
    assert config.to_toml() == (group.runs[0].folder / "config.toml").read_text(encoding="utf-8")


def test_command_without_a_known_recipe_names_the_settings(tmp_path):
    recipe = tmp_path / "my-own.toml"
    recipe.write_bytes(recipes("synthetic")["default"].read_bytes())
    folder = write_run(tmp_path / "runs", recipe=str(recipe))
    recipe.unlink()
    (group,) = collect([tmp_path / "runs"], "last").groups
    assert train_command(group).endswith(f"# settings: {folder / 'config.toml'}")


@pytest.mark.parametrize(("seeds", "text"), [([0, 1, 2], "0-2"), ([4], "4"), ([0, 2, 3], "0,2,3")])
def test_seeds(seeds, text):
    assert seeds_text(seeds) == text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--format", "markdwon"], 2, "Did you mean 'markdown'?"),
        (["--selection", "best"], 2, "There is no selection 'best'"),
        (["--suite", "dem"], 2, "There is no suite 'dem'"),
        (["nowhere"], 3, "There is no folder nowhere."),
        (["empty"], 3, "Run 'bmm train' first"),
        (["--selection", "best-val"], 3, "no 'best-val' epoch"),
        (["--out", "file"], 3, "file is a file, not a folder"),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path, arguments, status, message):
    write_run(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    done = bmm(*arguments, cwd=tmp_path, status=status)
    assert message in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "file").read_text() == "kept"


def test_no_runs_at_all(tmp_path):
    assert "Run 'bmm train' first" in bmm(cwd=tmp_path, status=3).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_said(tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "out").mkdir(mode=0o555)
    assert "No permission" in bmm("--out", "out", cwd=tmp_path, status=3).stderr
