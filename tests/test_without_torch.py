"""Commands that only read do without torch, and print what they print with it."""

import subprocess
import sys

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.runs.folder import RunFolder

COMMANDS = (
    "list",
    "show ogm",
    "show mmtm",
    "show crema-d/paper",
    "train --suite table-12 --dry-run",
    "report runs",
)
# each command in a fork of its own: what it prints, and whether it came to load torch or one of its relatives
SCRIPT = """
import os, sys
from balancemm_cli.cli import main
for command in sys.argv[1:]:
    if (child := os.fork()) == 0:
        sys.argv = ["bmm", *command.split()]
        try:
            main()
        finally:
            loaded = {"torch._C", "torchvision._C", "torchaudio._extension", "matplotlib", "sklearn"} & {*sys.modules}
            print("END", *loaded, flush=True)
            os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A folder with data/prepared and two runs."""
    folder = tmp_path_factory.mktemp("reading")
    (folder / "data").symlink_to(prepared.parent)
    for seed in (0, 1):
        config = resolve("synthetic", seed=seed, overrides=["epochs=1"])
        train_run(RunFolder(folder / "runs", config, open_set(prepared / "synthetic")), torch.device("cpu"))
    return folder


def test_what_is_printed_is_the_same(trained, bmm, monkeypatch):
    commands = [*COMMANDS, "train --suite demo --status --data data/prepared --set epochs=1"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *commands], cwd=trained, capture_output=True, text=True, check=True
    )
    *printed, rest = done.stdout.split("END\n")
    assert rest == "" and len(printed) == len(commands)
    monkeypatch.chdir(trained)
    for command, text in zip(commands, printed, strict=True):
        status, out, _ = bmm(*command.split())
        assert (status, out) == (0, text)


def test_to_compute_with_what_is_left_out_fails_aloud():
    script = """
from balancemm_cli.cli.without_torch import leave_out_torch
leave_out_torch()
import torch
from torch import nn
class Module(nn.Module):
    @torch.no_grad()
    def call(self, values: torch.Tensor | None) -> int:
        return 1
torch.zeros(3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(
        "A command that only reads called torch's zeros, which is left out here."
    )
