"""Fixtures that several test files share."""

import signal
from pathlib import Path

import pytest

from balancemm_cli.data.datasets import synthetic
from balancemm_cli.data.prepare import prepare_dataset

# Where the suite itself was started with Ctrl-C ignored, as a script's `make test &` is, the commands that tests
# interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder `data/prepared` that holds a small synthetic set: real clips, written and decoded here."""
    root = tmp_path_factory.mktemp("data")
    synthetic.make(root / "raw", workers=1, counts={"train": 96, "val": 48, "test": 60})
    prepare_dataset("synthetic", root / "raw", out=root / "prepared" / "synthetic", workers=1)
    return root / "prepared"
