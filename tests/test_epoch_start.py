"""What a method is given before each epoch: random batches of the training part, drawn anew for each epoch and name,
and the validation part as it is."""

import numpy as np
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import evaluator
from balancemm_cli.engine.launch import Job
from balancemm_cli.engine.trainer import Trainer
from balancemm_cli.methods.base import Method, MethodSettings

CPU = torch.device("cpu")
FEW = ["epochs=2", "batch_size=20", "frames.size=16", "waveform.n_fft=32"]


class Looking(Method):
    """Keeps what it is given before each epoch."""

    def __init__(self, shares):
        super().__init__(MethodSettings(), ["audio", "visual"])
        self.shares, self.seen, self.steps = shares, [], 0

    def on_epoch_start(self, network, epoch):
        assert network.training and self.steps == epoch.number * 5
        self.seen.append({name: list(epoch.batches(share, name)) for name, share in self.shares.items()})
        self.validation = list(epoch.validation())

    def on_step_end(self, step):
        self.steps += 1


def looked_at(prepared, runs, **shares):
    config = resolve("synthetic", method="unimodal-losses", overrides=FEW)
    folder = Job(config, prepared / "synthetic", runs, device="cpu", threads=1).folder()
    with folder.open():
        folder.record_data()
        trainer, looking = Trainer(folder, CPU), Looking(shares)
        trainer.state.methods[0] = looking
        trainer._measure_cost = lambda: None  # on copies, whose steps are not those of the run
        trainer.run()
    whole = [(inputs, trainer.sources["val"].labels) for inputs in in_order(trainer)]
    torch.testing.assert_close(looking.validation, whole, rtol=0, atol=0)
    return looking.seen, trainer.sources["train"]


def in_order(trainer):
    """The validation part, as an evaluation sees it: one batch, for it has few samples."""
    return evaluator.in_order(trainer.sources["val"], trainer.inputs, CPU)


def test_batches_are_random_ones_of_the_training_part(prepared, tmp_path):
    epochs, train = looked_at(prepared, tmp_path / "one", none=0.1, some=0.5, all=1.0)
    assert len(train) == 96 and len(epochs) == 2
    for epoch in epochs:
        assert {name: len(batches) for name, batches in epoch.items()} == {"none": 1, "some": 2, "all": 5}
        labels = torch.cat([labels for _, labels in epoch["all"]])
        assert np.bincount(labels).tolist() == np.bincount(train.labels).tolist()
        assert [len(labels) for _, labels in epoch["all"]] == [20, 20, 20, 20, 16]
    for name in ("some", "all"):  # of other epochs and names other ones, of the same ones the same
        assert not torch.equal(epochs[0][name][0][0]["audio"], epochs[1][name][0][0]["audio"])
    assert not torch.equal(epochs[0]["some"][0][0]["audio"], epochs[0]["all"][0][0]["audio"])
    again, _ = looked_at(prepared, tmp_path / "two", some=0.5)
    torch.testing.assert_close(again[1]["some"], epochs[1]["some"], rtol=0, atol=0)
