import json
import os
from pathlib import Path

import pytest
import warm_python
from run_folders import write_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, built as a wheel and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=folder)
    return site


def python(*arguments, cwd, path=""):
    """Run Python in `cwd`, with no other copy of the package in reach; returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = warm_python.python(*arguments, folder=cwd, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_reports_beside_published_numbers(installed, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "runs", "opm", seed, dataset="crema-d", recipe="paper", accuracy=0.74)
    words = ("report", "--format", "json", "--out", "out")
    majority, row = json.loads(python("-m", "balancemm_cli", *words, cwd=tmp_path, path=installed))
    assert majority["model"] == "majority"
    assert row["published"] == {"accuracy": 0.751, "source": "tpami2024", "table": "12", "note": ""}
    assert row["delta"] == pytest.approx(-0.011)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "bmm train --dataset crema-d --model concat --method opm --variant paper --recipe paper" in text


def test_the_wheel_is_what_ran(installed, tmp_path):
    code = "import balancemm_cli.resources as r; print(r.benchmarks_folder())"
    folder = python("-c", code, cwd=tmp_path, path=installed).strip()
    assert Path(folder) == installed / "balancemm_cli" / "benchmarks"


@pytest.mark.parametrize("kind", ["published", "recipes", "spaces", "suites"])
def test_benchmarks_travel_whole(installed, kind):
    package = installed / "balancemm_cli"
    inside = {path.relative_to(package) for path in package.rglob("*")}
    expected = {path.relative_to(ROOT) for path in (ROOT / "benchmarks" / kind).rglob("*") if path.is_file()}
    assert expected and expected <= inside
