"""CentralNet and MMTM against their equations written out, in training steps, under the switches and in a run."""

import pytest
import torch
from small_training import train_and_evaluate

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.data.made import synthetic
from balancemm_cli.data.preparing.prepare import prepare_dataset
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.models.mmtm import MMTMSettings, Transfer
from balancemm_cli.random_streams import RandomStreams

MODELS = ["centralnet", "mmtm"]
SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(4, width=5)}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def inputs(names, size=5):
    generator = torch.Generator().manual_seed(1)
    shapes = {"audio": (1, 17, 16), "visual": (3, 2, 16, 16), "text": (4, 5)}
    return {name: torch.randn(size, *shapes[name], generator=generator) for name in names}


def make(model, names, **settings):
    return build(model, "small", {name: SHAPES[name] for name in names}, 3, seed=0, settings=settings)


def linear(layer, values):
    return values @ layer.weight.T + layer.bias


def normalised(layer, values):
    """By the statistics of a layer's batch normalisation, before its ReLU, where it has one."""
    if len(layer) < 3:
        return values
    norm = layer[1]
    return (values - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


def stagewise(encoder, pictures):
    """Each stage's average over positions and frames, frame by frame."""
    clip = pictures[:, :, None] if pictures.ndim == 4 else pictures
    of_frames = []
    for maps in clip.unbind(2):
        means = []
        for stage in encoder.stages():
            maps = stage(maps)
            means.append(maps.mean((2, 3)))
        of_frames.append(means)
    return [torch.stack(means).mean(0) for means in zip(*of_frames, strict=True)]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("names", [("audio", "visual"), ("audio", "visual", "text"), ("visual", "text")])
def test_centralnet_by_hand(names, batch_norm):
    network = make("centralnet", names, batch_norm=batch_norm).eval()
    for norm in (module for module in network.fusion.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.normal_(norm.weight)
    given = inputs(names)
    features = network.encode(given)
    fusion = network.fusion
    torch.testing.assert_close({name: feature.shape[1] for name, feature in features.items()}, network.widths)
    v = {name: stagewise(network.encoders[name], given[name]) for name in names if name != "text"}
    if "text" in names:
        v["text"] = [network.encoders["text"](given["text"])]
    for name in names:
        torch.testing.assert_close(features[name], torch.cat(v[name], 1))
    assert [len(alphas) for alphas in fusion.alphas] == {
        ("audio", "visual"): [2, 3, 3, 3],
        ("audio", "visual", "text"): [2, 3, 4, 4],
        ("visual", "text"): [1, 2, 3, 3],
    }[names]
    assert all((alphas >= 0).all() and (alphas < 1).all() for alphas in fusion.alphas)
    pictured = [name for name in names if name != "text"]
    alpha = fusion.alphas
    s = sum(alpha[0][m] * v[name][0] for m, name in enumerate(pictured))
    c = normalised(fusion.layers[0], linear(fusion.layers[0][0], s)).clamp_min(0)
    s = sum(alpha[1][m] * v[name][1] for m, name in enumerate(pictured)) + alpha[1][-1] * c
    c = normalised(fusion.layers[1], linear(fusion.layers[1][0], s)).clamp_min(0)
    s = sum(alpha[2][m] * v[name][2] for m, name in enumerate(pictured)) + alpha[2][-1] * c
    if "text" in names:
        s = s + alpha[2][len(pictured)] * (v["text"][0] @ fusion.adapt["text"].weight.T)
    own = [linear(fusion.heads[name], v[name][-1]) for name in names]
    expected = alpha[3][-1] * linear(fusion.layers[2], s) + sum(
        alpha[3][m] * logits for m, logits in enumerate(own)
    )
    torch.testing.assert_close(network.classify(features), expected)


def test_the_loss_of_centralnet_has_every_prediction_in_it():
    network, given = make("centralnet", ("audio", "visual")), inputs(("audio", "visual"))
    labels = torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        other = make("centralnet", ("audio", "visual"))
        features = other.encode(given)
        last = {name: encoder.stage_widths[-1] for name, encoder in other.encoders.items()}
        own = [linear(other.fusion.heads[name], features[name][:, -width:]) for name, width in last.items()]
        logits = [other.classify(features), *own]
    expected = sum(torch.nn.functional.cross_entropy(values, labels) for values in logits)
    optimizer = build_optimizer(network, OptimizerSettings())
    loss = train_step(network, [], optimizer, given, Step(0, RandomStreams(0), labels), DiscrepancySettings())
    torch.testing.assert_close(loss, expected)


def test_a_transfer_module_by_hand():
    module = Transfer({"a": 1, "b": 2}, MMTMSettings(ratio=1.5))  # 3 / 1.5 = 2 joint numbers
    with torch.no_grad():
        module.squeeze.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-2.0, 1.0, 0.0]]))
        module.squeeze.bias.copy_(torch.tensor([0.5, 0.0]))
        module.excite["a"].weight.copy_(torch.tensor([[1.0, 3.0]]))
        module.excite["a"].bias.fill_(-1.0)
        module.excite["b"].weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        module.excite["b"].bias.zero_()
    gates = module({"a": torch.tensor([[2.0]]), "b": torch.tensor([[1.0, 0.5]])})
    # Z = relu(2 − 0.5 + 0.5, −4 + 1) = (2, 0)
    sigmoid = {1.0: 0.7310586, 0.0: 0.5, 4.0: 0.9820138}
    torch.testing.assert_close(gates["a"], torch.tensor([[2 * sigmoid[1.0]]]))
    torch.testing.assert_close(gates["b"], torch.tensor([[2 * sigmoid[0.0], 2 * sigmoid[4.0]]]))


@pytest.mark.parametrize("names", [("audio", "visual"), ("audio", "visual", "text"), ("visual", "text")])
def test_mmtm_by_hand(names):
    """Stage by stage, frame by frame, with gates that are far from 1."""
    network, given = make("mmtm", names).eval(), inputs(names)
    pictured = [name for name in names if name != "text"]
    assert list(network.transfers) == (["1", "2"] if len(pictured) > 1 else ["2"])
    for name, weight in network.transfers.named_parameters():
        torch.nn.init.normal_(weight, std=0.5)
        assert weight.requires_grad, name
    clips = {name: given[name] if given[name].ndim == 5 else given[name][:, :, None] for name in pictured}
    frames = {name: list(clips[name].unbind(2)) for name in pictured}
    vector = network.encoders["text"](given["text"]) if "text" in names else None
    for level in range(3):
        for name in pictured:
            frames[name] = [network.encoders[name].stages()[level](maps) for maps in frames[name]]
        present = list(names) if level == 2 else pictured
        if level == 0 or len(present) < 2:
            continue
        module = network.transfers[str(level)]
        squeezed = [
            vector if name == "text" else torch.stack(frames[name]).mean((0, 3, 4)) for name in present
        ]
        assert len(module.squeeze.bias) == sum(values.shape[1] for values in squeezed) // 4
        joint = linear(module.squeeze, torch.cat(squeezed, 1)).clamp_min(0)
        for name in present:
            gate = 2 / (1 + torch.exp(-linear(module.excite[name], joint)))
            if name == "text":
                vector = vector * gate
            else:
                frames[name] = [maps * gate[:, :, None, None] for maps in frames[name]]
    found = network.encode(given)
    for name in pictured:
        torch.testing.assert_close(found[name], torch.stack(frames[name]).mean((0, 3, 4)))
    if vector is not None:
        torch.testing.assert_close(found["text"], vector)
    parts = network.unimodal_logits(found)
    torch.testing.assert_close(sum(parts.values()), network(given))


def test_branches_average_their_logits_and_are_trained_by_losses_of_their_own():
    network, given = make("mmtm", ("audio", "visual"), heads="branches"), inputs(("audio", "visual"))
    labels = torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        features = make("mmtm", ("audio", "visual"), heads="branches").encode(given)
        own = {name: linear(network.fusion.heads[name], feature) for name, feature in features.items()}
        expected = sum(torch.nn.functional.cross_entropy(logits, labels) for logits in own.values())
    torch.testing.assert_close(network.fusion(features), (own["audio"] + own["visual"]) / 2)
    torch.testing.assert_close(network.unimodal_logits(features), own)
    optimizer = build_optimizer(network, OptimizerSettings())
    loss = train_step(network, [], optimizer, given, Step(0, RandomStreams(0), labels), DiscrepancySettings())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("names", [("audio", "visual", "text"), ("visual", "audio")])
def test_gates_of_one_make_mmtm_concat(names):
    network, plain = make("mmtm", names).eval(), make("concat", names).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("transfers")})
    for layers in network.transfers.values():
        for layer in layers.excite.values():
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    torch.testing.assert_close(network(inputs(names)), plain(inputs(names)))


def test_the_ratio_sets_the_joint_size():
    for ratio, joint in ((4, 16), (2, 32), (1000, 1)):
        network = make("mmtm", ("audio", "visual"), ratio=ratio)
        assert network.transfers["1"].squeeze.out_features == joint
    assert resolve("synthetic", "mmtm", overrides=["mmtm.ratio=8"]).model_settings["ratio"] == 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    synthetic.Synthetic().make(root / "raw", workers=1, counts={"train": 8, "val": 4, "test": 6})
    return prepare_dataset("synthetic", root / "raw", out=root / "prepared" / "synthetic", workers=1)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_evaluated_from_its_checkpoint(model, tiny, tmp_path):
    result = train_and_evaluate(tiny, tmp_path, model=model)
    assert set(result["selections"]["last"]["unimodal"]) == {"audio", "visual"}
