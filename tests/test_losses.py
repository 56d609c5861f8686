"""The loss of each training step on built-in synthetic data beside those written down: numbers move on purpose only.

`python tests/test_losses.py` writes tests/losses.json again; CHANGELOG.md says then which numbers moved, and why.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.made import synthetic
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.data.store import open_set
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.runs.folder import RunFolder
from balancemm_cli.runs.reading import read_table

LOSSES = Path(__file__).with_name("losses.json")
METHODS = ("baseline", "opm", "ogm", "opm+ogm", "mmpareto")
OVERRIDES = ("epochs=1", "batch_size=16")
TOLERANCE = 1e-4  # other processors sum in another order: 1e-7 a step at first, which training makes larger


def losses_of(method: str, prepared: Path, runs: Path) -> list[float]:
    """The losses of the six steps of one epoch, on one thread."""
    data = open_set(prepared / "synthetic")
    folder = RunFolder(
        runs, resolve("synthetic", "concat", method, recipe="default", overrides=OVERRIDES), data
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_run(folder, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
    return read_table(folder.path / "steps.arrow")["loss"].to_pylist()


@pytest.mark.parametrize("method", METHODS)
def test_every_loss_is_the_one_that_was_written_down(method, prepared, tmp_path):
    expected = json.loads(LOSSES.read_text())[method]
    assert len(expected) == 6 and losses_of(method, prepared, tmp_path) == pytest.approx(
        expected, rel=TOLERANCE
    )


def test_the_methods_part(prepared):
    written = json.loads(LOSSES.read_text())
    assert len({tuple(written[method]) for method in METHODS}) == len(METHODS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        synthetic.Synthetic().make(root / "raw", workers=1, counts={"train": 96, "val": 48, "test": 60})
        prepare_dataset("synthetic", root / "raw", out=root / "synthetic", workers=1)
        found = {method: losses_of(method, root, root / "runs") for method in METHODS}
    LOSSES.write_text(json.dumps(found, indent=1) + "\n")
