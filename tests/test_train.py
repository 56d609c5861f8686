"""`bmm train` and `bmm eval` as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss

from balancemm_cli.cli import main
from balancemm_cli.cli.train import parse_seeds
from balancemm_cli.config.run import read_config
from balancemm_cli.errors import UsageError
from balancemm_cli.metrics.classification import evaluate_scores


@pytest.fixture
def bmm(monkeypatch, capsys, prepared, tmp_path):
    """Run the program; returns exit status, stdout and stderr. Data and run folders are the test's own."""

    def call(*args, data=prepared):
        places = {"train": ["--data", str(data), "--runs", str(tmp_path / "runs"), "--device", "cpu"]}
        places["eval"] = ["--data", str(data), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["bmm", args[0], *places[args[0]], *args[1:]])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def test_one_run_and_its_folder(bmm, tmp_path, prepared):
    status, out, err = bmm("train", "--method", "opm+ogm", "--set", "epochs=2", "--seeds", "3")
    assert status == 0 and "epoch 2/2" in err
    (folder,) = (tmp_path / "runs" / "synthetic" / "concat").iterdir()
    assert out.strip() == str(folder) and folder.name.startswith("opm+ogm-paper-s3-")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.toml",
        "environment.json",
        "history.jsonl",
        "steps.arrow",
        "predictions.arrow",
        "result.json",
        "checkpoints",
    }
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [0, 1]
    assert set(history[0]["rho"]) == {"audio", "visual"} and history[0]["accuracy"].keys() == {"val", "test"}
    steps = pa.ipc.open_file(folder / "steps.arrow").read_all()
    assert steps.num_rows == 6 and steps["epoch"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert steps["q_audio"][0].as_py() == 0  # the paper's q comes from the step before
    assert history[1]["rho"]["audio"] == pytest.approx(sum(steps["rho_audio"].to_pylist()[3:]) / 3)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and result["samples"]["train"] == [96, 96]
    assert set(result["selections"]) == {"last", "best-test", "best-val"}
    assert result["selections"]["last"]["epoch"] == 1
    best = max(range(2), key=lambda epoch: (history[epoch]["accuracy"]["test"], -epoch))
    assert result["selections"]["best-test"]["epoch"] == best
    predictions = pa.ipc.open_file(folder / "predictions.arrow").read_all().to_pandas()
    last = predictions[predictions.selection == "last"]
    scores = np.stack(last.scores)
    for name, value in evaluate_scores(scores, last.label.to_numpy()).items():
        assert result["selections"]["last"][name] == pytest.approx(value)
    labels = last.label.to_numpy()
    expected = log_loss(labels, scores, labels=range(scores.shape[1]))
    assert history[1]["losses"]["test"] == pytest.approx(expected, rel=1e-5)
    assert read_config(folder / "config.toml").seed == 3


def test_eval(bmm, tmp_path):
    bmm("train", "--set", "epochs=2")
    assert "finished before, skipped" in bmm("train", "--set", "epochs=2")[2]
    (folder,) = (tmp_path / "runs" / "synthetic" / "concat").iterdir()
    result = json.loads((folder / "result.json").read_text())["selections"]["last"]
    status, out, _ = bmm("eval", str(folder), "--probe", "linear", "--format", "json")
    found = json.loads(out)
    assert status == 0 and found["test"] == {key: value for key, value in result.items() if key != "epoch"}
    assert set(found["probe"]["2"]) == {"audio", "visual"} and 0 <= found["probe"]["2"]["audio"] <= 1
    _, out, _ = bmm("eval", str(folder), "--missing", "audio=1", "--missing", "visual=1", "--format", "json")
    (disturbed,) = json.loads(out)["disturbed"].values()
    assert disturbed["accuracy"] == pytest.approx(1 / 6, abs=1e-6)  # one class for all: 10 of 60
    _, out, _ = bmm("eval", str(folder), "--noise", "audio=100")
    assert out.startswith(f"{folder}: accuracy 0.")
    for wrong, said in (
        (["--missing", "smell=0.5"], "no modality 'smell'"),
        (["--missing", "audio=2"], "between 0 and 1"),
        (["--missing", "smell=0,1"], "no modality 'smell'"),
        (["--missing", "audio=0:2:0.5"], "between 0 and 1"),
        (["--missing", "audio=0:1:0"], "audio=0:1:0.2, not"),
        (["--missing", "audio=0:1:1e-9"], "audio=0:1:0.2, not"),
        (["--noise", "audio"], "modality=amounts"),
        (["--noise", "audio=nan"], "between 0 and inf"),
        (["--noise", "audio=1", "--noise", "audio=2"], "names 'audio' twice"),
        (["--noise", "audio=1", "--missing", "visual=0,1"], "a command of their own"),
        (["--epochs", "all"], "needs --probe"),
    ):
        status, _, err = bmm("eval", str(folder), *wrong)
        assert status == 2 and said in err
    status, out, _ = bmm("eval", str(tmp_path))  # as `bmm report` takes it
    assert status == 0 and out.startswith(f"{folder}: accuracy 0.")
    (tmp_path / "empty").mkdir()
    status, _, err = bmm("eval", str(tmp_path / "empty"))
    assert status == 3 and "no run folder" in err


def test_unimodal_training(bmm, tmp_path):
    status, _, _ = bmm("train", "--model", "unimodal-visual", "--set", "epochs=1")
    (folder,) = (tmp_path / "runs" / "synthetic" / "unimodal-visual").iterdir()
    history = json.loads((folder / "history.jsonl").read_text())
    assert status == 0 and "rho" not in history
    assert history["unimodal"]["test"] == {"visual": history["accuracy"]["test"]}
    status, _, err = bmm("train", "--model", "unimodal-visual", "--method", "opm")
    assert status == 2 and "has one" in err


def write_suite(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\n' + text)
    return str(path)


def test_a_suite_goes_on_past_a_run_that_fails(bmm, tmp_path):
    suite = write_suite(
        tmp_path,
        '[[runs]]\ndatasets = ["synthetic"]\nmethods = ["baseline", "opm"]\nseeds = [0, 1]\n'
        'settings = { "epochs" = 1 }\n'
        '[[runs]]\ndatasets = ["synthetic"]\nseeds = [7]\nsettings = { "epochs" = 1, "optimizer.lr" = 1e20 }\n',
    )
    status, out, err = bmm("train", "--suite", suite, "--jobs", "2")
    assert status == 3 and len(out.splitlines()) == 4
    assert "1 of 5 runs failed" in err and "seed 7): failed: The loss is not finite" in err
    assert all(f"{tmp_path}/runs/synthetic/concat/" in line for line in out.splitlines())
    started = time.monotonic()
    again = bmm("train", "--suite", suite, "--jobs", "2")
    assert again[0] == 3 and sorted(again[1].splitlines()) == sorted(out.splitlines())
    assert again[2].count("finished before, skipped") == 4
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--dataset", "synthetc"], 2, "Did you mean 'synthetic'"),
        (["--dataset", "crema-d"], 3, "bmm prepare crema-d"),
        (["--model", "conct"], 2, "Did you mean 'concat'"),
        (["--method", "opn"], 2, "Did you mean 'opm'"),
        (["--recipe", "defualt"], 2, "Did you mean 'default'"),
        (["--set", "opm.qbase=1"], 2, "Did you mean 'opm.q_base'"),
        (["--seeds", "one"], 2, "--seeds"),
        (["--suite", "dem"], 2, "Did you mean 'demo'"),
        (["--suite", "demo", "--method", "opm"], 2, "--method and --suite"),
        (["--device", "cuda:9"], 2, "no device 'cuda:9'"),
        (["--set", "encoder=small2"], 2, "no encoder 'small2'"),
        (["--device", "meta"], 2, "no device 'meta'"),
        (["--threads", "2000"], 2, "--threads 2000: this machine has"),
        (["--set", "opm.q_base=0.3"], 2, "no run has method opm"),
        (["--set", "waveform.hop=100000"], 2, "waveform.hop=100000 is longer than a clip"),
        (["--set", "waveform.n_fft=10000000"], 2, "waveform.n_fft=10000000 is longer"),
        (["--set", "waveform.n_fft=1"], 2, "audio [1, 1, 48], visual [3, 1, 48, 48]) do not fit"),
        (["--set", "frames.size=1"], 2, "do not fit the network"),
        (
            ["--set", "encoder=resnet18", "--set", "batch_size=95", "--set", "frames.size=32"],
            2,
            "Take another batch_size",
        ),
    ],
)
def test_wrong_use_is_one_sentence(bmm, tmp_path, args, status, said):
    code, out, err = bmm("train", *args)
    assert code == status and said in err and out == ""
    assert "Traceback" not in err and len(err.splitlines()) <= 2
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file()
    ]  # nothing is left of what did not begin


def test_previews_are_offered_for_no_data_set(bmm, prepared):
    (prepared / "synthetc-preview").mkdir(exist_ok=True)
    _, _, err = bmm("train", "--dataset", "synthetc-previe")
    (prepared / "synthetc-preview").rmdir()
    assert "There is no data set 'synthetc-previe'" in err and "'synthetc-preview'" not in err


def test_seeds():
    assert parse_seeds("0") == [0] and parse_seeds("0-2,7") == [0, 1, 2, 7]
    for wrong in ("", "a", "1,1", "2-1", "-3", "0,5-2", "3-1,7", "0-", "1-2-3", "0-100000000"):
        with pytest.raises(UsageError):
            parse_seeds(wrong)


def test_ctrl_c_on_a_suite_keeps_every_run(prepared, tmp_path):
    suite = write_suite(
        tmp_path,
        '[[runs]]\ndatasets = ["synthetic"]\nseeds = [0, 1, 2]\nsettings = { "epochs" = 4000 }\n',
    )
    command = [sys.executable, "-m", "balancemm_cli", "train", "--suite", suite, "--jobs", "2"]
    command += ["--data", str(prepared), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (
        len(list(tmp_path.glob("runs/synthetic/concat/*/history.jsonl"))) < 2 and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command to go on" in err and "Traceback" not in err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/synthetic/concat/*/result.json")]
    assert len(results) == 2 and {result["status"] for result in results} == {"interrupted"}
