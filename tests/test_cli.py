"""The program as a whole: help, start-up, errors, exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import write_demo
from warm_python import python

from balancemm_cli import __version__
from balancemm_cli.cli import explain
from balancemm_cli.cli.terminal import expand_home
from balancemm_cli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "pandas", "pyarrow", "matplotlib", "sklearn", "scipy", "av")


def run(*args):
    return python("-m", "balancemm_cli", *args)


def test_help_imports_nothing_heavy():
    program = (
        "import sys; sys.argv = ['bmm', '--help']\n"
        "from balancemm_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    for command in ("prepare", "train", "tune", "eval", "report", "list", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["prepare", "train", "tune", "eval", "report", "list", "doctor"])
def test_each_command_has_help_with_an_example(command):
    done = run(command, "--help")
    assert done.returncode == 0 and f"bmm {command}" in done.stdout


def test_version_and_usage():
    assert run("--version").stdout.strip() == __version__
    assert run("no-such-command").returncode == 2
    assert run("train", "--no-such-option").returncode == 2


def test_errors_become_a_sentence_and_a_status(tmp_path):
    assert explain(UsageError("a")) == ("a", 2)
    assert explain(InputError("b")) == ("b", 3)
    assert explain(KeyboardInterrupt())[1] == 130
    assert explain(OSError(28, "No space left on device", "x.arrow")) == (
        "No space left on the disk for x.arrow. Free some, then run the same command to go on.",
        3,
    )
    assert explain(NotADirectoryError(20, "Not a directory", "/x")) == (
        "/x: Not a directory. Check the path, or name another one.",
        3,
    )
    assert explain(PermissionError(13, "Permission denied", "/x"))[0].startswith("No permission for /x.")


def test_debug_shows_the_traceback(tmp_path):
    plain, debug = run("eval", str(tmp_path)), run("--debug", "eval", str(tmp_path))
    assert plain.returncode == 3 and "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr and "InputError" in debug.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_our_signs_gets_the_table_all_the_same(tmp_path, encoding):
    write_demo(tmp_path / "runs", 1)
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "balancemm_cli", "report"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0 and b"rho audio" in done.stdout, done.stderr


def test_the_home_folder_is_meant_by_a_tilde_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(["train", "--out=~/x", "--set", "a=~", "--runs=r~"]) == [
        "train", "--out=/home/me/x", "--set", "a=~", "--runs=r~",
    ]  # fmt: skip


def test_half_of_what_torchrun_sets_is_refused(bmm, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    status, _, err = bmm("train", "--set", "epochs=1")
    assert status == 2 and "Start with torchrun, or unset both" in err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "x"}, "WORLD_SIZE=x, which is no number"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK=5"),
    ],
)
def test_wrong_numbers_of_torchrun_are_refused(bmm, monkeypatch, variables, said):
    for name, value in {**variables, "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    status, _, err = bmm("train", "--set", "epochs=1")
    assert status == 2 and said in err and "Traceback" not in err


def test_closed_standard_output_is_no_traceback(tmp_path):
    write_demo(tmp_path / "runs", 1)
    program = f"{sys.executable} -m balancemm_cli report --suite demo >&-"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
