"""Encoders of sequences by hand, the choice of encoders by modality, and runs on some of the modalities of a set."""

import json
import signal

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from test_resume import assert_same_run

from balancemm_cli.config.run import read_config, resolve
from balancemm_cli.data.kinds.features import Features
from balancemm_cli.data.kinds.tokens import Tokens
from balancemm_cli.data.store import write_shard
from balancemm_cli.engine import checkpoint
from balancemm_cli.engine.launch import Job, check_jobs, run_job
from balancemm_cli.engine.pilot_training import PilotTraining
from balancemm_cli.engine.state import fit_encoders
from balancemm_cli.engine.trainer import Interrupted, Trainer
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.models import build
from balancemm_cli.models.encoders import Choice, SequenceShape, SequenceTransformer, make_encoders
from balancemm_cli.models.encoders.sequences import (
    SeriesConvolution,
    SeriesTransformer,
    TextBag,
    VectorMLP,
)
from balancemm_cli.models.encoders.standardisation import Standardisation
from balancemm_cli.models.weights import digest, start
from balancemm_cli.testing.sets import finish

CPU = torch.device("cpu")


def fitted(module, *batches):
    module.fit(lambda: iter(batches))
    return module


def some(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


# ---- standardisation ------------------------------------------------------------------------------------------


def test_numbers_are_standardised_as_scikit_learn_does():
    """Whatever their sizes: a second pass takes the mean off before it squares."""
    units = torch.tensor([1.0, 1e-6, 1e12, 3.0])
    rows = some(50, 4) * units + torch.tensor([0.0, 5.0, -1e12, 1e4])
    one = fitted(Standardisation(4, padded=False), rows[:1], rows[1:40], rows[40:])
    scaler = StandardScaler().fit(rows.double().numpy())
    np.testing.assert_allclose(one.mean, scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(1 / one.scale, scaler.scale_, rtol=1e-6)
    precise = fitted(Standardisation(4, padded=False).double(), rows.double())
    expected = scaler.transform(rows.double().numpy())
    np.testing.assert_allclose(precise(rows.double()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_that_is_constant_in_training_becomes_zero(dtype):
    """Also where the sum of its values is not exact, and for what is another number in the test."""
    rows = some(7, 3).to(dtype)
    rows[:, 1], rows[:, 2] = 0.1, 1e-44
    one = fitted(Standardisation(3, padded=False).to(dtype), rows[:5], rows[5:])
    found = one(rows + 1)
    assert not found[:, 1:].any() and found[:, 0].all()


def test_padding_is_left_out_and_stays_zero():
    rows = 4 + some(6, 5, 2)
    rows[0, 3:] = rows[1, 1:] = rows[5] = 0
    one = fitted(Standardisation(2, padded=True), rows[:2], rows[2:])
    held = rows[(rows != 0).any(2)]
    assert len(held) == 5 * 6 - 2 - 4 - 5
    scaler = StandardScaler().fit(held.numpy())
    np.testing.assert_allclose(one.mean, scaler.mean_, rtol=1e-5)
    found = one(rows)
    np.testing.assert_allclose(
        found[(rows != 0).any(2)], scaler.transform(held.numpy()), rtol=1e-4, atol=1e-5
    )
    assert not found[(rows == 0).all(2)].any()


def test_without_anything_to_fit_numbers_stay_as_they_are():
    values = some(3, 4, 2)
    assert torch.equal(fitted(Standardisation(2, padded=True), torch.zeros(3, 4, 2))(values), values)
    assert torch.equal(Standardisation(2, padded=False)(values), values)


# ---- encoders by hand -----------------------------------------------------------------------------------------


def test_an_mlp_is_two_layers_on_standardised_numbers():
    vectors = 100 + 5 * some(9, 1, 3)
    one = fitted(VectorMLP(SequenceShape(1, width=3)), vectors)
    x = torch.from_numpy(StandardScaler().fit_transform(vectors[:, 0].double().numpy())).float()
    first, second = (layer for layer in one.modules() if isinstance(layer, torch.nn.Linear))
    assert (first.out_features, second.out_features) == (128, 64)
    expected = (((x @ first.weight.T + first.bias).relu()) @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(one(vectors), expected, rtol=1e-4, atol=1e-5)
    several = vectors.expand(-1, 4, -1)[:, None]  # at four positions, which are averaged
    torch.testing.assert_close(one(several), expected, rtol=1e-4, atol=1e-5)


def test_a_vector_of_zeros_is_a_vector():
    """Of one number that is 0 or 1, zero is no padding."""
    flags = torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None, None]
    one = fitted(VectorMLP(SequenceShape(1, width=1)), flags)
    standardise = next(module for module in one.modules() if isinstance(module, Standardisation))
    assert standardise.mean.item() == 0.75 and standardise.scale.item() == pytest.approx(1 / 0.1875**0.5)
    assert not torch.allclose(one(flags)[0], one(flags)[1])


def test_a_bag_is_the_mean_of_its_words():
    one = TextBag(SequenceShape(4, words=6))
    table = one.words.weight
    texts = torch.tensor([[3, 1, 3, 0], [5, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 4]])
    expected = [(2 * table[3] + table[1]) / 3, table[5], torch.zeros(128), (table[2] + table[4]) / 2]
    torch.testing.assert_close(one(texts), torch.stack(expected))


def test_a_transformer_of_series_is_that_of_before_on_standardised_numbers():
    series = 7 + 2 * some(5, 6, 3)
    series[1, 4:] = 0
    shape = SequenceShape(6, width=3)
    one, plain = fitted(SeriesTransformer(shape), series).eval(), SequenceTransformer(shape).eval()
    state = {name.replace("project.1.", "project."): value for name, value in one.state_dict().items()}
    plain.load_state_dict({name: value for name, value in state.items() if not name.startswith("project.0.")})
    standardised = fitted(Standardisation(3, padded=True), series)(series)
    torch.testing.assert_close(one(series), plain(standardised), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [SeriesTransformer, SeriesConvolution])
def test_a_step_that_equals_the_mean_is_no_padding(kind):
    """What is padding is told by the numbers as they come, not by the standardised ones."""
    series = torch.tensor([[1.0, 3.0, 2.0, 0.0]])[..., None]
    one = fitted(kind(SequenceShape(4, width=1)), series).eval()
    _, weights = one.steps(series)
    assert weights.sum() == (3 if kind is SeriesTransformer else 1)
    assert not torch.allclose(one(series), one(series[:, :2]))


def convolved(layer, values, stride):
    """[T, D] by loops: a window of five steps about every `stride`-th step, zeros beyond the ends."""
    padded = np.pad(values, ((2, 2), (0, 0)))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    rows = [
        np.einsum("odk,kd->o", weight, padded[start : start + 5]) + bias
        for start in range(0, len(values), stride)
    ]
    return np.maximum(np.stack(rows), 0)


def test_a_convolution_is_that_of_the_steps_without_padding():
    """By loops over each series as long as it is, from one step to all of them."""
    lengths = [11, 8, 5, 4, 3, 2, 1]
    series = 5 + 3 * some(len(lengths), 11, 2)
    for values, length in zip(series, lengths, strict=True):
        values[length:] = 0
    one = fitted(SeriesConvolution(SequenceShape(11, width=2)), series)
    scaler = StandardScaler().fit(series[(series != 0).any(2)].numpy())
    for values, length, found in zip(series, lengths, one(series), strict=True):
        x = scaler.transform(values[:length].numpy())
        for layer, stride in zip(one.layers, (1, 2, 2), strict=True):
            x = convolved(layer, x, stride)
        assert len(x) == -(-length // 4)
        np.testing.assert_allclose(found.detach(), x.mean(0), rtol=1e-4, atol=1e-5)


def test_a_convolution_of_nothing_is_zero_and_has_no_step():
    one = fitted(SeriesConvolution(SequenceShape(6, width=2)), some(4, 6, 2))
    values, weights = one.steps(torch.zeros(2, 6, 2))
    assert values.shape == (2, 2, 128) and not values.any() and not weights.any()
    assert not one(torch.zeros(2, 6, 2)).any()


# ---- the choice -----------------------------------------------------------------------------------------------

SHAPES = {
    "vitals": SequenceShape(1, width=3),
    "ecg": SequenceShape(8, width=2),
    "eeg": SequenceShape(8, width=4),
    "note": SequenceShape(5, words=9),
    "scan": 3,
}


def names(**named):
    return {name: type(one).__name__ for name, one in make_encoders(Choice("small", named), SHAPES).items()}


def test_a_modality_has_the_encoder_of_its_name_or_of_its_sort():
    usual = {"vitals": "VectorEncoder", "note": "SequenceTransformer", "scan": "SmallResNet"}
    usual |= dict.fromkeys(["ecg", "eeg"], "SequenceTransformer")
    assert names() == usual
    assert names(ecg="conv1d") == usual | {"ecg": "SeriesConvolution"}
    both = names(series="transformer", ecg="conv1d", vectors="mlp", texts="bag", pictures="resnet18")
    assert both == {
        "vitals": "VectorMLP",
        "ecg": "SeriesConvolution",
        "eeg": "SeriesTransformer",
        "note": "TextBag",
        "scan": "ResNet18",
    }
    assert names(note="transformer") == usual


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"scan": "mlp"}, "Encoder mlp does not fit 'scan', which is one of the pictures. Take resnet18 or"),
        ({"vitals": "resnet18"}, "Encoder resnet18 does not fit 'vitals', .* vectors. Take mlp."),
        ({"series": "bag"}, "Encoder bag does not fit 'ecg', .* series. Take transformer or conv1d."),
        ({"note": "conv1d"}, "Encoder conv1d does not fit 'note', .* texts. Take transformer or bag."),
        ({"other": "bagg"}, r"no encoder 'bagg' \(of 'other'\). Did you mean 'bag'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(named, said):
    with pytest.raises(UsageError, match=said):
        names(**named)


def test_an_encoder_of_sequences_is_none_of_pictures():
    with pytest.raises(UsageError, match="no encoder 'conv1d' of pictures"):
        build("concat", "conv1d", {"ecg": SHAPES["ecg"]}, 2, seed=0)


@pytest.mark.parametrize("model", ["i-vector", "x-vector"])
def test_sound_that_has_an_encoder_of_its_own_takes_no_other(model):
    shapes = {"sound": 1, "note": SHAPES["note"]}
    with pytest.raises(UsageError, match=r"own for sound, and encoders\.sound names another"):
        build(model, "small", shapes, 2, seed=0, encoders={"sound": "resnet18"})
    network = build(model, "small", shapes, 2, seed=0, encoders={"note": "bag", "pictures": "resnet18"})
    assert type(network.encoders["note"]) is TextBag


def test_weights_say_which_encoders_they_are_for(tmp_path):
    config = resolve("ucf-101", overrides=["encoders.rgb=resnet50", "encoders.pictures=resnet34"])
    with pytest.raises(UsageError, match="a file of resnet34 or resnet50 with --weights"):
        config.check_weights()
    assert config.starting_from("0676ba61" + 56 * "0").starts_from_imagenet
    assert not config.starting_from("f37072fd" + 56 * "0").starts_from_imagenet
    shapes = {"a": 3, "b": 3, "note": SHAPES["note"]}
    network = build("concat", "small", shapes, 2, seed=0)
    torch.save(network.encoders["a"].state_dict(), tmp_path / "small.pt")
    start(network, tmp_path / "small.pt", digest(tmp_path / "small.pt"))
    other = build("concat", "small", shapes, 2, seed=0, encoders={"b": "resnet18"})
    with pytest.raises(InputError, match=r"does not fit ResNet18.*encoders\.<modality>"):
        start(other, tmp_path / "small.pt", digest(tmp_path / "small.pt"))


# ---- settings -------------------------------------------------------------------------------------------------


def test_encoders_and_modalities_are_settings(tmp_path):
    plain = resolve("synthetic", method="opm")
    given = resolve(
        "synthetic",
        method="opm",
        overrides=["encoders.text=bag", "encoders.series=conv1d", 'modalities=["b", "a"]'],
    )
    table = resolve(
        "synthetic",
        method="opm",
        overrides=['encoders={text="bag", series="conv1d"}', 'modalities=["a", "b"]'],
    )
    assert given == table and given.hash("data") != plain.hash("data")
    assert given.settings.encoders == {"text": "bag", "series": "conv1d"}
    for config in (plain, given):
        (tmp_path / "config.toml").write_text(config.to_toml())
        assert read_config(tmp_path / "config.toml") == config
    differences = {key: value for key, value in given.by_key.items() if plain.by_key.get(key) != value}
    assert differences == {"encoders.text": "bag", "encoders.series": "conv1d", "modalities": ["a", "b"]}


def test_no_choice_is_no_setting():
    plain, none = resolve("synthetic"), resolve("synthetic", overrides=["encoders={}", "modalities=none"])
    assert none.hash("data") == plain.hash("data")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encoders.text=3", r"'encoders\.text'.* not 3"),
        ("encoders=bag", "'encoders'.* a table of settings"),
        ("encoders.=bag", "Did you mean 'encoders'"),
        ("encoder.text=bag", "no key 'encoder.text'"),
        ("modalities=audio", r"it takes a list, as .*\[\"audio\", \"text\"\], not 'audio'"),
        ("modalities=[]", "at least one name"),
    ],
)
def test_settings_that_are_none_are_refused(override, said):
    with pytest.raises(UsageError, match=said):
        resolve("my", overrides=[override])


# ---- runs -----------------------------------------------------------------------------------------------------

COUNTS = {"train": 40, "val": 10, "test": 20}
WORDS = ["", "a", "b", "c", "noise", "other"]
OVERRIDES = ["epochs=3", "batch_size=8", "optimizer.lr=0.05"]
CHOSEN = ["encoders.m1=conv1d", "encoders.vectors=mlp", "encoders.m3=bag"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data sets with one of a series, a vector and a text, each of which tells the class."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "mine").mkdir()
    modalities = {
        "m1": Features.make_spec(9, 4),
        "m2": Features.make_spec(1, 3),
        "m3": Tokens.make_spec(5, WORDS),
    }
    for split, count in COUNTS.items():
        rows = []
        for index in range(count):
            label = index % 3
            series = 50 + 2 * label + generator.normal(size=(3 + index % 7, 4))
            vector = 1000 + 300 * label + 100 * generator.normal(size=(1, 3))
            text = np.append(generator.integers(4, 6, 2 + index % 3), 1 + label)
            row = {"id": f"{split}-{index}", "label": label, "m1": series.astype("float32")}
            rows.append({**row, "m2": vector.astype("float32"), "m3": text.astype("int32")})
        write_shard(root / "mine" / f"{split}-00000.arrow", rows, modalities)
    finish(root / "mine", "mine", modalities, {}, COUNTS)
    return root


def job(data, runs, *overrides, model="concat", method="opm+ogm"):
    config = resolve("mine", model, method, overrides=[*OVERRIDES, *overrides])
    return Job(config, data / "mine", runs, device="cpu", threads=1)


def quietly(job, on_event=lambda event: None):
    return run_job(job, lambda _, event: on_event(event), lambda _: None)


def options(*overrides):
    return [part for override in overrides for part in ("--set", override)]


def test_a_run_on_some_modalities_with_encoders_of_their_own(bmm, data, tmp_path):
    """From the command line to the report: trained, evaluated, and named with its settings."""
    places = ["--data", data, "--runs", tmp_path / "runs", "--device", "cpu"]
    command = ["train", "--dataset", "mine", "--method", "opm+ogm", *places]
    settings = options(*OVERRIDES, *CHOSEN, 'modalities=["m2","m1"]')
    status, out, err = bmm(*command, *settings)
    assert status == 0, err
    folder = tmp_path / "runs" / out.strip().rpartition("runs/")[2]
    result = json.loads((folder / "result.json").read_text())
    assert list(result["selections"]["last"]["unimodal"]) == ["m1", "m2"]
    assert result["selections"]["last"]["accuracy"] > 0.8
    state = checkpoint.load_last(folder / "checkpoints")["network"]
    assert not any(name.startswith("encoders.m3") for name in state)
    trainer = Trainer(job(data, tmp_path / "other").folder(), CPU)
    raw, _ = next(trainer.sources["train"].batches([np.arange(40)], [None], CPU))
    scaler = StandardScaler().fit(trainer.inputs(raw)["m2"][:, 0].numpy())
    np.testing.assert_allclose(state["encoders.m2.project.0.mean"], scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(1 / state["encoders.m2.project.0.scale"], scaler.scale_, rtol=1e-5)
    status, _, err = bmm("eval", folder, "--data", data, "--device", "cpu", "--missing", "m1=1")
    assert status == 0, err
    assert bmm("eval", folder, "--data", data, "--device", "cpu", "--missing", "m3=1")[0] == 2
    assert bmm(*command, *options(*OVERRIDES, "encoders.m1=transformer", "encoders.m2=mlp"))[0] == 0
    status, out, err = bmm("report", tmp_path / "runs", "--format", "markdown")
    assert status == 0, err
    assert "encoders.m1=conv1d, encoders.m3=bag" in out and "modalities=['m1', 'm2']" in out
    status, out, _ = bmm("report", tmp_path / "runs", "--where", "encoders.m1=conv1d", "--format", "csv")
    assert status == 0 and len(out.splitlines()) == 2


def test_an_interrupted_run_ends_as_an_uninterrupted_one(data, tmp_path):
    """What was fitted is in the checkpoint."""
    whole, stopped = (job(data, tmp_path / name, *CHOSEN) for name in ("whole", "stopped"))
    seen = []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 8:
            signal.raise_signal(signal.SIGINT)

    quietly(whole)
    with pytest.raises(Interrupted, match="epoch 1 at step 2"):
        quietly(stopped, interrupt)
    quietly(stopped)
    assert_same_run(stopped.folder().path, whole.folder().path)


@pytest.mark.parametrize(
    ("overrides", "model", "said"),
    [
        (['modalities=["m1", "m9"]'], "concat", r"no modality 'm9' \(modalities\).*m1, m2, m3"),
        (["encoders.m9=bag"], "concat", r"no modality 'm9' \(encoders\.m9\).*m1, m2, m3, pictures, series"),
        (['modalities=["m1"]'], "unimodal-m3", r"that of 'm3', which is not among modalities=\['m1'\]"),
        (['modalities=["m1"]'], "concat", "balances modalities, but .* has one"),
    ],
)
def test_what_the_set_does_not_have_is_refused_before_a_run(data, tmp_path, overrides, model, said):
    with pytest.raises(UsageError, match=said):
        check_jobs([job(data, tmp_path, *overrides, model=model)])
    assert not list(tmp_path.iterdir())


def test_a_modality_alone_has_its_encoder(data, tmp_path):
    """The settings may name the others too, as those of a suite do."""
    alone = job(data, tmp_path, *CHOSEN, 'modalities=["m1", "m3"]', model="unimodal-m3", method="baseline")
    check_jobs([alone])
    network = Trainer(alone.folder(), CPU).state.network
    assert {name: type(one) for name, one in network.encoders.items()} == {"m3": TextBag}


def test_the_networks_of_pilot_trainings_are_fitted_too(data, tmp_path):
    """Before its training the loss of a modality alone is that of its own network, fitted as in a run."""
    of = Trainer(job(data, tmp_path, *CHOSEN).folder(), CPU)
    pilot = PilotTraining(of.config, of.inputs, of.sources, of.data.classes, CPU)
    (loss, _), _, _ = pilot(["m2"], epochs=0)
    alone = Trainer(job(data, tmp_path, *CHOSEN, model="unimodal-m2", method="baseline").folder(), CPU)
    fit_encoders(alone.state.network, alone.sources["train"], alone.inputs, CPU)
    raw, labels = next(alone.sources["train"].batches([np.arange(40)], [None], CPU))
    with torch.no_grad():
        logits = alone.state.network.eval()(alone.inputs(raw))
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
