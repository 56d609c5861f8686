"""Training at a size for tests: one epoch on a prepared set with its evaluation, and single steps."""

import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import PreparedSet
from balancemm_cli.engine.run_evaluation import evaluate_run
from balancemm_cli.engine.trainer import train_run
from balancemm_cli.runs.folder import RunFolder

SMALL = (
    "epochs=1",
    "encoder=small",
    "pretrained=false",
    "batch_size=4",
    "frames.size=32",
    "waveform.n_fft=128",
)
CPU = torch.device("cpu")


def train_and_evaluate(prepared: PreparedSet, runs, method="opm+ogm", model="concat", recipe=None) -> dict:
    """The result of one epoch under the data set's own recipe, checked against `bmm eval`'s of the same run."""
    config = resolve(prepared.folder.name, model, method, recipe=recipe, overrides=SMALL)
    folder = RunFolder(runs, config, prepared)
    result = train_run(folder, CPU)
    assert result["status"] == "finished" and result["epochs"] == 1
    assert 0 <= result["selections"]["last"]["accuracy"] <= 1
    used = {name: counts[0] for name, counts in result["samples"].items()}
    assert used == prepared.counts
    evaluated, _ = evaluate_run(folder.path, prepared.folder.parent, CPU)
    assert evaluated.test.accuracy == result["selections"]["last"]["accuracy"]
    return result


def attach(network, methods, classes: int) -> None:
    """Give the network what its methods train of their own, with weights that depend on nothing else."""
    for method in methods:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = method.attach(network, classes)
        if module is not None:
            network.extras[type(method).__name__] = module
