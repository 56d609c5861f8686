"""Samples that a method adds to an epoch: which are trained, with what, in how many steps, and what is recorded."""

import signal

import pandas as pd
import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.launch import Job
from balancemm_cli.engine.trainer import Trainer
from balancemm_cli.errors import Interrupted
from balancemm_cli.methods.base import Method, MethodSettings

CPU = torch.device("cpu")
ROWS, KEEP = [3, 3, 90, 7], [[True, False], [False, True], [True, False], [True, True]]


class Adding(Method):
    """Adds samples from the second epoch on, and keeps what each step was given."""

    def __init__(self, count):
        super().__init__(MethodSettings(), ["audio", "visual"])
        self.count, self.begun, self.steps = count, 0, []

    def on_epoch_start(self, network, epoch):
        self.begun = epoch.number
        self.looked_at = torch.cat([labels for _, labels in epoch.training()])

    def further_samples(self):
        if not self.begun:
            return None
        return torch.tensor(ROWS[: self.count], dtype=torch.int64), torch.tensor(
            KEEP[: self.count]
        ).bool().view(-1, 2)

    def on_features(self, features, step):
        self.given = features
        return features

    def on_loss(self, loss, step):
        expected = step.losses(step.logits).sum() / step.streams.samples(len(step.labels))[0]
        torch.testing.assert_close(loss, expected)
        keep = torch.ones(len(step.labels), 2, dtype=torch.bool) if step.keep is None else step.keep
        for m, (name, feature) in enumerate(self.given.items()):
            assert torch.equal(feature, step.features[name] * keep[:, m, None])
            assert step.features[name].any(1).all()
        self.steps.append((step.epoch, step.streams.step, step.labels, keep, step.progress.item()))
        return loss

    def state_dict(self):
        return {"begun": torch.tensor(self.begun)}

    def load_state_dict(self, state):
        self.begun = int(state["begun"])


def trainer_of(prepared, runs, count, **given):
    overrides = ["encoder=small", "epochs=2", "batch_size=24", "optimizer.lr=0.01"]
    config = resolve("synthetic", overrides=overrides)
    folder = Job(config, prepared / "synthetic", runs, device="cpu", threads=1).folder()
    with folder.open():
        folder.record_data()
    made, adding = Trainer(folder, CPU, **given), Adding(count)
    made.state.methods[0] = adding
    made._measure_cost = lambda: None  # on copies, whose steps are not those of the run
    return made, adding


def run(trainer):
    with trainer.folder.open():
        trainer.run()


@pytest.mark.parametrize(("count", "added"), [(0, 0), (1, 0), (3, 3), (4, 4)])
def test_an_epoch_has_each_sample_and_those_that_are_added(prepared, tmp_path, count, added):
    """24 · 4 = 96; a single one in the last batch is left out, for batch normalisation could not work on it."""
    made, adding = trainer_of(prepared, tmp_path, count)
    run(made)
    labels = made.sources["train"].labels
    assert torch.equal(adding.looked_at, labels)
    for epoch, further in ((0, []), (1, list(range(added)))):
        steps = [one for one in adding.steps if one[0] == epoch]
        assert [one[1] for one in steps] == list(range(len(steps))) and len(steps) == 4 + bool(further)
        found = sorted(
            (int(label), *keep)
            for _, _, of, kept, _ in steps
            for label, keep in zip(of, kept.tolist(), strict=True)
        )
        expected = [(int(label), True, True) for label in labels]
        expected += [(int(labels[ROWS[k]]), *KEEP[k]) for k in further]
        assert found == sorted(expected)
        assert [one[4] for one in steps] == pytest.approx(
            [(epoch + k / len(steps)) / 2 for k in range(len(steps))]
        )
    recorded = pd.read_feather(made.folder.path / "steps.arrow")
    assert recorded[["epoch", "step"]].to_numpy().tolist() == [list(one[:2]) for one in adding.steps]
    assert recorded["kept"].tolist() == [len(one[2]) for one in adding.steps]
    assert made.state.trained_samples == 2 * 96 + added


def test_a_run_that_is_stopped_in_such_an_epochs_last_step_but_one_goes_on_there(prepared, tmp_path):
    whole, _ = trainer_of(prepared, tmp_path / "whole", 4)
    run(whole)
    seen = []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 4 + 1 + 4:  # an epoch, its record, and all steps of the second one but the last
            signal.raise_signal(signal.SIGINT)

    stopped, _ = trainer_of(prepared, tmp_path / "stopped", 4, on_progress=interrupt)
    with pytest.raises(Interrupted):
        run(stopped)
    assert (stopped.state.epoch, stopped.state.step) == (1, 4)
    resumed, adding = trainer_of(prepared, tmp_path / "stopped", 4)
    run(resumed)
    assert [one[:2] for one in adding.steps] == [(1, 4)] and len(adding.steps[0][2]) == 4
    for name in ("history.jsonl", "steps.arrow", "predictions.arrow"):
        assert (resumed.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes(), name
