"""Fixtures that several test files share."""

import math
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from balancemm_cli.cli import main
from balancemm_cli.data.made import synthetic
from balancemm_cli.data.preparing import workers
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.engine import PRELOADED, trainer

# What processes are forked from, whichever test comes first: those of runs and those that decode.
forkserver.set_forkserver_preload([*PRELOADED, *workers.PRELOADED])
forkserver.ensure_running()

# Where the suite itself was started with Ctrl-C ignored, as a script's `make test &` is, the commands that tests
# interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _each_epoch_is_written(monkeypatch):
    """However long that takes on this disk, so that tests know what is there."""
    monkeypatch.setattr(trainer, "SAVING", math.inf)


@pytest.fixture
def in_float64():
    """Tensors are made in float64, as the figures of the authors' programs were."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder `data/prepared` that holds a small synthetic set: real clips, written and decoded here."""
    root = tmp_path_factory.mktemp("data")
    synthetic.Synthetic().make(root / "raw", workers=1, counts={"train": 96, "val": 48, "test": 60})
    prepare_dataset("synthetic", root / "raw", out=root / "prepared" / "synthetic", workers=1)
    return root / "prepared"


@pytest.fixture
def bmm(monkeypatch, capsys):
    """Run the program in this process, where torch is imported; returns exit status, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bmm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return call
