"""The worked examples of CONTRIBUTING.md, installed as a package of their own, train."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from balancemm_cli.data.made import synthetic
from balancemm_cli.data.preparing.prepare import prepare_dataset

ROOT = Path(__file__).parents[1]
CODE = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
EXAMPLES = {re.search(r"class (\w+)", code)[1]: code for kind, code in CODE if kind == "python"}


@pytest.fixture
def package(tmp_path):
    """A folder to import from, as pip would have left it."""
    package = tmp_path / "packages" / "my_balance"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "fixed_drop.py").write_text(EXAMPLES["FixedDrop"])
    (package / "largest.py").write_text(EXAMPLES["Largest"])
    groups = tomllib.loads(next(code for kind, code in CODE if kind == "toml"))["project"]["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in [f"[{group}]", *(f"{k} = {v}" for k, v in points.items())]
    ]
    about = package.parent / "my_balance-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-balance\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("\n".join(lines))
    return package


def bmm(package, folder, *words):
    path = os.pathsep.join([str(package.parent), str(ROOT)])
    command = [sys.executable, "-m", "balancemm_cli", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_a_method_and_a_model_of_another_package_train(package, tmp_path):
    synthetic.Synthetic().make(tmp_path / "raw", 1, counts={"train": 40, "test": 20})
    prepare_dataset(
        "synthetic", tmp_path / "raw", out=tmp_path / "data" / "prepared" / "synthetic", workers=1
    )
    names = ["--model", "largest", "--method", "opm+fixed-drop", "--set", "fixed-drop.probability=0.5"]
    done = bmm(
        package, tmp_path, "train", *names, "--set", "largest.width=8", "--set", "epochs=2", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip()
    result = json.loads((folder / "result.json").read_text())
    assert (result["model"], result["method"], result["status"]) == ("largest", "opm+fixed-drop", "finished")
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["model_settings"] == {"width": 8} and config["methods"]["fixed-drop"] == {
        "probability": 0.5
    }
    again = bmm(package, tmp_path, "eval", str(folder), "--device", "cpu")
    assert again.returncode == 0, again.stderr
    listed = bmm(package, tmp_path, "list", "models").stdout
    assert re.search("^largest .*The largest of the modalities' projected features", listed, re.M)


def test_a_broken_one_is_named(package, tmp_path):
    (package / "largest.py").write_text("import nothing_of_that_name\n")
    done = bmm(package, tmp_path, "list", "models")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "'largest' (bmm.models) of my-balance can't be imported" in done.stderr
