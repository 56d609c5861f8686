"""Encoders that start from a file: what is read, what is refused, and what it makes of a run."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_resume import assert_same_run
from torch import nn
from torchvision.models import resnet18, resnet34

from balancemm_cli.cli import main
from balancemm_cli.config.run import read_config, resolve
from balancemm_cli.engine.launch import Job, check_jobs
from balancemm_cli.engine.trainer import Interrupted, train_run
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape, SmallResNet
from balancemm_cli.models.weights import digest, start, stem
from balancemm_cli.results.collection import collect
from balancemm_cli.results.report import train_command

CPU = torch.device("cpu")


def torchvisions(kind=resnet18, seed=0):
    """A whole ResNet whose batch normalisation has something to do."""
    torch.manual_seed(seed)
    network = kind().eval()
    for name, value in network.named_buffers():
        if value.ndim:
            value.copy_(torch.rand(value.shape) + (0.5 if name.endswith("var") else 0))
    return network


def small(path, seed=0):
    """A file of weights for the small encoder."""
    torch.manual_seed(seed)
    torch.save(SmallResNet(3).state_dict(), path)
    return path


# ---- reading ----------------------------------------------------------------------------------------------------


def write(form, state, path):
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form != "old")


@pytest.mark.parametrize("form", ["safetensors", "zip", "old", "module", "half", "no counters"])
def test_every_encoder_starts_from_torchvisions_file(form, tmp_path):
    reference, path = torchvisions(), tmp_path / "weights"  # the name says nothing
    state = reference.state_dict()
    if form == "module":
        state = nn.DataParallel(reference).state_dict()
    if form == "half":
        state = {name: value.half() for name, value in state.items()}
        reference.load_state_dict(state)
    if form == "no counters":
        state = {name: value for name, value in state.items() if "num_batches" not in name}
    write(form, state, path)
    network = build("concat", "resnet18", {"rgb": 3, "flow": 2, "sound": 1}, 4, seed=0).eval()
    said = start(network, path, digest(path))
    assert said == (
        f"The encoders of rgb, flow, sound start from {path}, without its classifier (fc.bias, fc.weight)."
    )
    reference.fc = nn.Identity()
    grey = torch.randn(2, 1, 64, 64)
    for name, channels in (
        ("rgb", 3),
        ("flow", 2),
        ("sound", 1),
    ):  # a grey picture is the same to all of them
        same = grey.expand(-1, channels, -1, -1)
        torch.testing.assert_close(
            network.encoders[name](same), reference(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
        )


def test_stem_by_hand():
    weight = torch.tensor([[1.0, 2.0, 6.0], [3.0, 0.0, 0.0]])[:, :, None, None]
    assert stem(weight, 1).flatten(1).tolist() == [[9.0], [3.0]]
    assert stem(weight, 2).flatten(1).tolist() == [[4.5, 4.5], [1.5, 1.5]]
    assert stem(weight, 3) is weight


def test_sequences_keep_their_own_weights(tmp_path):
    path = small(tmp_path / "small.pt")
    shapes = {"text": SequenceShape(6, words=9), "visual": 3}
    network, untouched = (build("concat", "small", shapes, 4, seed=0) for _ in range(2))
    assert "of visual start" in start(network, path, digest(path))
    state, before = network.state_dict(), untouched.state_dict()
    changed = {name.split(".")[1] for name in state if not torch.equal(state[name], before[name])}
    assert changed == {"visual"}
    with pytest.raises(UsageError, match="this run has none"):
        start(build("concat", "small", {"text": shapes["text"]}, 4, seed=0), path, digest(path))


class Program:
    def __reduce__(self):
        return print, ("run",)


def damaged_zip(path):
    torch.save(torchvisions().state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path, form):
    write(form, torchvisions().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def lacking(name):
    return {key: value for key, value in torchvisions().state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "is damaged, or neither"),
        (lambda path: path.write_text("<html>not found</html>"), "is damaged, or neither"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
        (damaged_zip, "is damaged, or neither"),
        (lambda path: cut(path, "zip"), "is damaged, or neither"),
        (lambda path: cut(path, "old"), "is damaged, or neither"),
        (lambda path: cut(path, "safetensors"), "is damaged, or neither"),
        (lambda path: path.write_bytes(pickle.dumps(Program())), "is damaged, or neither"),
        (lambda path: torch.save({"conv1.weight": Program()}, path), "can run programs"),
        (lambda path: torch.save(torchvisions(), path), "can run programs"),
        (lambda path: torch.save({"state_dict": torchvisions().state_dict()}, path), "more than the tensors"),
        (lambda path: torch.save({}, path), "more than the tensors"),
        (lambda path: torch.save(lacking("layer1.0.conv1.weight"), path), "it has no layer1.0.conv1.weight."),
        (
            lambda path: torch.save(torchvisions(resnet34).state_dict(), path),
            r"does not fit ResNet18: layer1.2.conv1.weight is not the encoder's \(95 more such\)",
        ),
        (
            lambda path: torch.save({**torchvisions().state_dict(), "bn1.weight": torch.ones(32)}, path),
            "bn1.weight is 32, not 64",
        ),
        (
            lambda path: torch.save({**torchvisions().state_dict(), "conv1.weight": torch.ones(1)}, path),
            "conv1.weight is 1, not 64×3×7×7",
        ),
    ],
)
def test_what_is_no_file_of_these_weights_is_refused_in_a_line(make, said, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    make(path)
    with pytest.raises(InputError, match=said) as raised:
        start(build("concat", "resnet18", {"rgb": 3}, 4, seed=0), path, digest(path))
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert capsys.readouterr().out == ""  # no pickle ran


def test_a_file_that_is_absent_or_changed(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        digest(tmp_path / "weights.pt")
    with pytest.raises(InputError, match="is a folder"):
        digest(tmp_path)
    path = small(tmp_path / "weights.pt")
    network = build("concat", "small", {"visual": 3}, 4, seed=0)
    with pytest.raises(InputError, match="not the file any more"):
        start(network, path, "0" * 64)


# ---- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bmm(monkeypatch, capsys, prepared, tmp_path):
    """Train two epochs of the synthetic set; returns exit status, the run folder and stderr."""

    def call(*args, command="train"):
        training = ["--runs", str(tmp_path / "runs"), "--set", "epochs=2", "--threads", "1"]
        more = training if command == "train" else []
        monkeypatch.setattr(
            sys, "argv", ["bmm", command, *args, *more, "--data", str(prepared), "--device", "cpu"]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out.strip(), err

    return call


def test_the_file_is_part_of_what_a_run_is(bmm, tmp_path):
    one, other = small(tmp_path / "one.pt", 1), small(tmp_path / "other.pt", 2)
    status, first, err = bmm("--weights", str(one), "--model", "sum")
    assert status == 0 and f"The encoders of audio, visual start from {one}." in err
    config = read_config(Path(first) / "config.toml")
    assert config.weights == digest(one) and config.settings.pretrained
    folders = {first, *(bmm("--weights", str(path), "--model", "sum")[1] for path in (one, other))}
    folders.add(bmm("--model", "sum")[1])
    losses = {
        json.loads((Path(run) / "history.jsonl").read_text().splitlines()[0])["loss"] for run in folders
    }
    assert len(folders) == len(losses) == 3
    (group,) = collect([Path(first)], "last").groups
    command = train_command(group)
    assert "--set pretrained=true" in command and command.endswith(f" --weights {digest(one)}")
    moved = one.rename(tmp_path / "moved.pt")
    assert bmm("--weights", str(moved), "--model", "sum")[:2] == (
        0,
        first,
    )  # finished, wherever the file lies
    moved.unlink()
    status, out, _ = bmm(first, command="eval")
    assert status == 0 and out.startswith(first)
    assert bmm("--weights", digest(other), "--model", "sum")[0] == 0


def test_a_run_goes_on_without_the_file(prepared, tmp_path):
    path, runs = small(tmp_path / "weights.pt"), tmp_path / "runs"
    overrides = ["epochs=2", "pretrained=true"]
    config = resolve("synthetic", method="opm+ogm", overrides=overrides).starting_from(digest(path))

    def train(place, weights, stop=None):
        seen = []

        def show(event):
            seen.append(event)
            if len(seen) == stop:
                raise Interrupted("now")  # as a kill would: nothing is kept but the last checkpoint

        folder = Job(config, prepared / "synthetic", place).folder()
        train_run(folder, CPU, on_progress=show, weights=weights)
        return folder.path

    with pytest.raises(InputError, match=r"has no checkpoint yet, .* --weights FILE"):
        train(runs, None)
    with pytest.raises(Interrupted):
        train(runs, path, stop=5)  # in the second epoch
    assert_same_run(train(runs, None), train(tmp_path / "whole", path))


def test_a_recipe_that_starts_from_weights_asks_for_them(bmm, prepared, tmp_path):
    status, out, err = bmm("--set", "pretrained=true")
    assert (status, out) == (2, "") and "--weights FILE" in err and "--set pretrained=false" in err
    assert len(err.splitlines()) == 1 and not (tmp_path / "runs").exists()
    job = Job(resolve("ucf-101"), prepared / "synthetic", tmp_path)
    with pytest.raises(UsageError, match=r"ucf-101 .* file of resnet18 .* IMAGENET1K_V1"):
        check_jobs([job])
    status, _, err = bmm("--weights", str(small(tmp_path / "w.pt")), "--set", "pretrained=false")
    assert status == 2 and "pretrained is false" in err
    status, _, err = bmm("--weights", str(tmp_path / "absent.pt"))
    assert status == 3 and "There is no file" in err and len(err.splitlines()) == 1


def test_a_suite_gives_the_file_to_those_that_ask(bmm, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'title = "mine"\n[[runs]]\ndatasets = ["synthetic"]\nmodels = ["unimodal-audio"]\nseeds = [0]\n'
        '[[runs]]\ndatasets = ["synthetic"]\nmodels = ["unimodal-audio"]\nseeds = [0]\n'
        "settings = { pretrained = true }\n"
    )
    path = small(tmp_path / "w.pt")
    status, out, _ = bmm("--suite", str(suite), "--weights", str(path))
    assert status == 0
    assert {read_config(Path(run) / "config.toml").weights for run in out.splitlines()} == {
        None,
        digest(path),
    }
