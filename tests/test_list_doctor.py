import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]

# In balancemm_cli.cli the names of these modules are those of the commands.
doctor_module = importlib.import_module("balancemm_cli.cli.doctor")
list_module = importlib.import_module("balancemm_cli.cli.list")


@pytest.mark.parametrize("kind", list_module.KINDS)
def test_each_line_has_a_name_a_sentence_and_a_file_that_exists(kind, capsys):
    list_module.list_(kind)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        name, what, where = re.fullmatch(r"(\S+)  +(\S.*)  \[(.+)\]", line).groups()
        assert name and what
        assert (ROOT / where).is_file(), f"{where} is named by 'bmm list {kind}'"


def test_what_is_listed_is_what_there_is():
    from balancemm_cli.data.datasets import DATASETS
    from balancemm_cli.methods import METHODS

    assert [entry.name for entry in list_module.datasets()] == list(DATASETS)
    assert [entry.name for entry in list_module.methods()] == list(METHODS)
    files = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "benchmarks/recipes").glob("*/*.toml")}
    assert {entry.name for entry in list_module.recipes()} == files
    assert "tpami2024/12" in {entry.name for entry in list_module.tables()}


def test_without_a_kind_all_are_listed(capsys):
    list_module.list_(None)
    headings = [line[:-1] for line in capsys.readouterr().out.splitlines() if line.endswith(":")]
    assert headings == list(list_module.KINDS)


def test_unknown_kind():
    with pytest.raises(UsageError, match="Did you mean 'methods'"):
        list_module.list_("method")


def test_this_machine_is_fit(capsys):
    doctor_module.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "optional"}
    assert any("torch" in line and "threads" in line for line in lines)
    assert any(re.search(r"memory: \d+\.\d GiB", line) for line in lines)


def test_required_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]}
    assert set(doctor_module.PACKAGES.values()) == required


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, capsys):
    real = importlib.import_module

    def without_av(name):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_av)
    with pytest.raises(InputError, match="1 required"):
        doctor_module.doctor()
    assert "missing   av: pip install av" in capsys.readouterr().out


def test_a_broken_package_is_told_from_an_absent_one(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('libx.so not found')")
    monkeypatch.syspath_prepend(tmp_path)
    check, module = doctor_module._package("broken_package", "broken-package")
    assert module is None
    assert check.state == "missing"
    assert "libx.so not found" in check.text and "--force-reinstall" in check.text


def test_a_missing_decoder_is_named(monkeypatch):
    import av

    monkeypatch.setitem(doctor_module.DECODERS, "no-such-codec", "nothing")
    (check,) = doctor_module._codecs(av)
    assert check.state == "missing" and "no-such-codec (nothing)" in check.text


def test_listing_published_tables_imports_no_torch():
    code = (
        "import sys; from balancemm_cli.cli.list import list_; list_('tables'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
