"""Trainings before a run: they are the plain ones, keep off the test split, and are not repeated by a resumed run."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from test_distributed import Pair, float64
from test_resume import assert_same_run

from balancemm_cli.config.run import resolve
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.launch import Job, run_job
from balancemm_cli.engine.pilot_training import PilotTraining
from balancemm_cli.engine.run_evaluation import evaluate_run
from balancemm_cli.engine.trainer import Interrupted, Trainer
from balancemm_cli.errors import InputError
from balancemm_cli.methods.g_blending import GBlending

CPU = torch.device("cpu")
FEW = ["epochs=2", "batch_size=32", "frames.size=24"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def job(prepared, runs, method="g-blending", model="concat", more=()):
    config = resolve("synthetic", model, method, overrides=[*FEW, *more])
    return Job(config, prepared / "synthetic", runs, device="cpu", threads=1)


def run(job, on_event=lambda event: None, on_message=lambda sentence: None):
    return run_job(job, lambda _, event: on_event(event), on_message)


def pilot(prepared, runs, without_val=False):
    trainer = Trainer(job(prepared, runs).folder(), CPU)
    sources = {name: source for name, source in trainer.sources.items() if name != "test"}
    if without_val:
        del sources["val"]
    return PilotTraining(trainer.config, trainer.inputs, sources, trainer.data.classes, CPU)


def scores_of(model, prepared, runs, split, rows):
    """The mean loss of a finished baseline run of `model` on rows of a split."""
    of = job(prepared, runs, "baseline", model)
    run(of)
    trainer = Trainer(of.folder(), CPU)
    trainer.resume()
    source, network = trainer.sources[split], trainer.state.network.eval()
    with torch.no_grad():
        raw, labels = next(source.batches([rows], [None], CPU))
        return torch.nn.functional.cross_entropy(network(trainer.inputs(raw)), labels).item()


def test_a_pilot_is_the_plain_training(prepared, tmp_path):
    train_pilot = pilot(prepared, tmp_path)
    for modalities, model in ((["audio"], "unimodal-audio"), (["audio", "visual"], "concat")):
        before, after, network = train_pilot(modalities)
        assert network.modalities == modalities and network.training
        assert all(math.isfinite(loss) for loss in before) and after[0] < before[0]
        expected = [
            scores_of(model, prepared, tmp_path, split, np.arange(count))
            for split, count in (("train", 96), ("val", 48))
        ]
        assert after == pytest.approx(expected, rel=1e-5)
    assert train_pilot.samples == 2 * 2 * 96


def test_without_a_val_split_a_fifth_of_the_training_samples_is_held_out(prepared, tmp_path):
    train_pilot = pilot(prepared, tmp_path, without_val=True)
    assert train_pilot.held_out is train_pilot.train and len(train_pilot.held_rows) == 20
    assert sorted([*train_pilot.rows, *train_pilot.held_rows]) == list(range(96))
    before, after, _ = train_pilot(["visual"], epochs=1)
    assert before != after and train_pilot.samples == 76
    again = pilot(prepared, tmp_path, without_val=True)
    assert again(["visual"], epochs=1)[:2] == (before, after)


def pilot_visual(prepared, runs):
    with float64():
        return pilot(prepared, runs, without_val=True)(["visual"], epochs=1)[:2]


def test_two_processes_train_a_pilot_as_one(prepared, tmp_path):
    pair = Pair(pilot_visual, prepared, tmp_path)
    alone = np.array(pilot_visual(prepared, tmp_path))
    for found in pair.results():
        np.testing.assert_allclose(found, alone, rtol=1e-9)


def test_a_pilot_that_diverges_says_so(prepared, tmp_path):
    wild = job(prepared, tmp_path, more=["optimizer.lr=1e20"])
    for _ in range(2):  # the second time nothing is trained
        with pytest.raises(InputError, match=r"training of audio that comes before the run .* diverged"):
            run(wild)
    result = json.loads((wild.folder().path / "result.json").read_text())
    assert (result["status"], result["diverged"]) == ("diverged", {"before": "audio"})


def test_a_run_shows_what_was_measured_and_resumes_without_measuring_again(prepared, tmp_path, monkeypatch):
    whole, stopped = (job(prepared, tmp_path / name) for name in ("whole", "stopped"))
    said = []
    run(whole, on_message=said.append)
    shown = [sentence.split(":")[0] for sentence in said if "Before the run" in sentence]
    assert shown == [
        f"Before the run, {name} for 2 epochs" for name in ("audio", "visual", "audio and visual")
    ]
    folder = whole.folder().path
    weights = json.loads((folder / "result.json").read_text())["measured"]["g-blending"]
    assert list(weights) == ["audio", "visual", "all"] and sum(weights.values()) == pytest.approx(1)
    evaluated, _ = evaluate_run(folder, prepared, CPU)
    assert evaluated.test.accuracy == whole.folder().result()["selections"]["last"]["accuracy"]

    seen = []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(stopped, interrupt)
    monkeypatch.setattr(GBlending, "on_start", lambda *_: pytest.fail("measured again"))
    run(stopped)
    assert_same_run(stopped.folder().path, folder)


def test_what_was_measured_is_kept_before_the_first_step(prepared, tmp_path):
    killed = job(prepared, tmp_path)

    def end(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(killed, end)
    state = checkpoint.load_last(killed.folder().checkpoints)
    assert (state["epoch"], state["step"]) == (0, 0) and state["methods"][0]["weights"].shape == (3,)
