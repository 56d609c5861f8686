"""Cross-modal attention: its tokens, its transformer against torch's own, and what every model must do."""

import pytest
import torch
from small_training import train_and_evaluate
from torch import nn

from balancemm_cli.config.run import resolve
from balancemm_cli.data.store import open_set
from balancemm_cli.errors import UsageError
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape

SHAPES = {
    "audio": 1,
    "visual": 3,
    "text": SequenceShape(5, width=3),
    "question": SequenceShape(6, words=9),
}
SMALL = {"width": 64, "layers": 2, "grid": 2}


def make(*names, **settings):
    shapes = {name: SHAPES[name] for name in names}
    return build("vatt", "small", shapes, 4, seed=0, settings={**SMALL, **settings})


def inputs(*names, batch=6):
    """Media, and sequences with padding behind the first steps of the second sample."""
    torch.manual_seed(0)
    values = {
        "audio": torch.randn(batch, 1, 17, 30),
        "visual": torch.randn(batch, 3, 2, 32, 32),
        "text": torch.randn(batch, 5, 3),
        "question": torch.randint(1, 9, (batch, 6)),
    }
    values["text"][1:2, 3:] = 0
    values["question"][1:2, 2:] = 0
    return {name: values[name] for name in names}


def test_tokens_are_the_pooled_positions_of_the_last_map():
    network, values = make("audio", "visual").eval(), inputs("audio", "visual")
    tokens, encoder = network.encode(values), network.encoders["visual"]
    maps = torch.stack([encoder.maps(values["visual"][:, :, frame]) for frame in range(2)]).mean(0)
    assert maps.shape == (6, 64, 4, 4)
    by_hand = [maps[:, :, r : r + 2, c : c + 2].mean((2, 3)) for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(tokens["visual"], torch.stack(by_hand, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens["visual"].mean(1), encoder(values["visual"]), rtol=1e-4, atol=1e-5)
    assert tokens["audio"].shape == (6, 4, 64)
    fine = make("audio", "visual", grid=3).encode(values)
    assert [tuple(one.shape) for one in fine.values()] == [(6, 9, 64), (6, 9, 64)]


@pytest.mark.parametrize("name", ["text", "question"])
def test_tokens_of_a_sequence_are_its_steps(name):
    network, values = make(name, "audio"), inputs(name, "audio")
    tokens, present = network.encode(values)[name], values[name] != 0
    present = present if present.ndim == 2 else present.any(2)
    assert torch.equal((tokens != 0).any(2), present)
    mean = tokens.sum(1) / present.sum(1, keepdim=True)
    torch.testing.assert_close(mean, network.encoders[name](values[name]))


@pytest.mark.parametrize("names", [("audio", "visual"), ("visual", "text"), ("text", "audio", "question")])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_torchs_transformer_on_the_tokens_that_are_there(names, training):
    """One sample at a time, without padding or a mask, through a TransformerEncoder built and filled apart."""
    network = make(*names).train(training)
    features, fusion = network.encode(inputs(*names)), network.fusion
    layer = nn.TransformerEncoderLayer(64, 1, 256, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
    reference = nn.TransformerEncoder(layer, 2, nn.LayerNorm(64, 1e-6), enable_nested_tensor=False)
    reference.train(training)
    reference.load_state_dict(fusion.layers.state_dict())
    expected = []
    for sample in range(6):
        tokens = [fusion.token[None]]
        for name in names:
            here = features[name][sample].any(1)
            projected = nn.functional.gelu(fusion.project[name][0](features[name][sample]))
            places = fusion.positions[name]
            centred = places - places.mean(1, keepdim=True)
            places = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
            tokens.append((projected + places)[here])
        first = reference(torch.cat(tokens)[None])[0, 0]
        expected.append(fusion.head.weight @ first + fusion.head.bias)
    with torch.set_grad_enabled(training):  # else torch takes another way
        torch.testing.assert_close(fusion(features), torch.stack(expected), rtol=1e-4, atol=1e-5)
    rest = [fusion.token, *fusion.positions.values()]
    rest += [w for part in (fusion.project, fusion.place, fusion.head) for w in part.parameters()]
    counted = sum(one.numel() for one in [*reference.parameters(), *rest])
    assert sum(one.numel() for one in fusion.parameters()) == counted


def test_layers_start_apart():
    first, second = (layer.linear1.weight for layer in make("audio", "visual").fusion.layers.layers)
    assert not torch.equal(first, second)


def test_a_modality_changes_what_another_gives():
    """The logits of both together are no sum of each alone, and a token's place counts."""
    network = make("audio", "visual").eval()
    features = network.encode(inputs("audio", "visual"))
    assert not torch.allclose(sum(network.unimodal_logits(features).values()), network.classify(features))
    turned = {**features, "visual": features["visual"].flip(1)}
    assert not torch.allclose(network.classify(turned), network.classify(features), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_order_matters_from_the_start(seed):
    """The tokens of a picture turned round move the logits about as far as another sample would, not a tenth of it."""
    network = build("vatt", "small", {"audio": 1, "visual": 3}, 4, seed=seed, settings=SMALL).eval()
    features = network.encode(inputs("audio", "visual", batch=8))
    with torch.no_grad():
        straight = network.classify(features)
        turned = network.classify({**features, "visual": features["visual"].flip(1)})
    assert (turned - straight).norm() > (straight - straight.mean(0)).norm() / 3


def test_what_is_modulated_is_the_encoders():
    network = make("audio", "text")
    found = {id(weight) for weights in network.modulated().values() for weight in weights}
    matrices = {id(weight) for weight in network.encoders.parameters() if weight.ndim >= 2}
    assert found == matrices and not found & {id(weight) for weight in network.fusion.parameters()}
    convolutions = [weight for weight in network.modulated()["audio"] if weight.ndim == 4]
    assert len(convolutions) == len(network.modulated()["audio"]) == 9


def test_what_it_cannot_take_is_refused():
    with pytest.raises(UsageError, match=r"^Model 'vatt' fuses two or more modalities, .* only 'audio'\."):
        make("audio")
    with pytest.raises(UsageError, match=r"vatt\.width"):
        resolve("synthetic", "vatt", overrides=["vatt.width=100"])


def test_its_checkpoint_gives_its_own_numbers(prepared, tmp_path):
    result = train_and_evaluate(open_set(prepared / "synthetic"), tmp_path / "runs", model="vatt")
    assert set(result["selections"]["last"]["unimodal"]) == {"audio", "visual"}
