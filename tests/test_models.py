"""Networks: uni-modal logits, encoders against torchvision, weights from the seed."""

import pytest
import torch
from torchvision.models import resnet18, resnet34, resnet50

from balancemm_cli.errors import UsageError
from balancemm_cli.models import build, modalities_of
from balancemm_cli.models.encoders import (
    ResNet18,
    ResNet34,
    ResNet50,
    SequenceShape,
    SequenceTransformer,
)
from balancemm_cli.models.fusion import Concat, ConcatMLP, Fusion, ModelSettings, Sum

WIDTHS = {"a": 4, "b": 6, "c": 5}
PLAIN = ModelSettings()


def features(batch=3):
    return {name: torch.randn(batch, width) for name, width in WIDTHS.items()}


def filled(fusion):
    for weight in fusion.parameters():
        torch.nn.init.normal_(weight)
    return fusion


@pytest.mark.parametrize("kind", [Concat, Sum])
def test_exact_split_adds_up_to_the_prediction(kind):
    fusion, given = filled(kind(WIDTHS, 7, kind.Settings())), features()
    parts = fusion.unimodal_logits(given, None)
    assert list(parts) == list(WIDTHS)
    torch.testing.assert_close(sum(parts.values()), fusion(given))


@pytest.mark.parametrize("kind", [Concat, Sum])
def test_zero_out_equals_the_exact_split_but_for_the_bias(kind):
    fusion, given = filled(kind(WIDTHS, 7, kind.Settings())), features()
    for name, bias in fusion.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(bias)
    exact = fusion.unimodal_logits(given, None)
    for name, logits in Fusion.unimodal_logits(fusion, given, None).items():
        torch.testing.assert_close(logits, exact[name])


def test_an_average_is_the_sum_shared_out_and_each_head_stays_whole():
    given, fusion = features(), filled(Sum(WIDTHS, 7, Sum.Settings(average=True)))
    parts = fusion.unimodal_logits(given, None)
    torch.testing.assert_close(sum(parts.values()) / len(WIDTHS), fusion(given))


def test_bias_split_by_hand():
    fusion = Concat({"a": 1, "b": 1}, 1, PLAIN)
    with torch.no_grad():
        fusion.head.weight.copy_(torch.tensor([[2.0, 3.0]]))
        fusion.head.bias.fill_(6.0)
    given = {"a": torch.tensor([[10.0]]), "b": torch.tensor([[100.0]])}
    logits = fusion.unimodal_logits(given, (1 / 3, 2 / 3))
    assert {name: values.item() for name, values in logits.items()} == pytest.approx({"a": 22.0, "b": 304.0})
    for other in (Sum, ConcatMLP):
        with pytest.raises(UsageError, match="bias_split"):
            other({"a": 1, "b": 1}, 1, other.Settings()).unimodal_logits(given, (0.5, 0.5))
    with pytest.raises(UsageError, match="2 numbers"):
        fusion.unimodal_logits(given, (1.0,))


@pytest.mark.parametrize(
    ("kind", "torchvisions"), [(ResNet18, resnet18), (ResNet34, resnet34), (ResNet50, resnet50)]
)
def test_a_resnet_is_torchvisions(kind, torchvisions):
    encoder, reference = kind(3).eval(), torchvisions().eval()
    for name, value in encoder.body.named_buffers():  # else batch normalisation does next to nothing
        if value.ndim:
            value.copy_(torch.rand(value.shape) + (0.5 if name.endswith("var") else 0))
    reference.load_state_dict(encoder.body.state_dict(), strict=False)
    reference.fc = torch.nn.Identity()
    picture = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(picture), reference(picture), rtol=1e-4, atol=1e-5)
    assert encoder(picture).shape == (2, kind.features)
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in reference.parameters())


def test_modulated_weights_are_the_convolutions():
    encoder = ResNet18(3)
    assert all(weight.ndim == 4 for weight in encoder.modulated())
    assert len(encoder.modulated()) == 20


def attention(layer, x):
    """Four heads over the steps of one sample [T, 128], written out."""
    query, key, value = torch.nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, 1)
    heads = []
    for q, k, v in zip(query.chunk(4, 1), key.chunk(4, 1), value.chunk(4, 1), strict=True):
        heads.append((q @ k.T / 32**0.5).softmax(1) @ v)
    return layer.out_proj(torch.cat(heads, 1))


def plainly(encoder, values, at=0):
    """What a sequence transformer makes of one sample without padding, which begins at step `at`."""
    x = encoder.project(values) + encoder.positions[at : at + len(values)]
    for layer in encoder.layers.layers:
        x = x + attention(layer.self_attn, layer.norm1(x))
        x = x + layer.linear2(layer.linear1(layer.norm2(x)).relu())
    return encoder.layers.norm(x).mean(0)


def sequences(shape, lengths):
    """A batch of samples with so many steps, filled up with zeros."""
    torch.manual_seed(0)
    count = (len(lengths), shape.length)
    batch = torch.randint(1, shape.words, count) if shape.words else torch.randn(*count, shape.width)
    for sample, length in zip(batch, lengths, strict=True):
        sample[length:] = 0
    return batch


SHAPES = [SequenceShape(6, width=3), SequenceShape(6, words=9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_a_sequence_transformer_is_that_without_padding(shape, training):
    encoder, lengths = SequenceTransformer(shape).train(training), [6, 4, 1]
    batch = sequences(shape, lengths)
    expected = torch.stack(
        [plainly(encoder, one[:length]) for one, length in zip(batch, lengths, strict=True)]
    )
    with torch.set_grad_enabled(training):  # else torch takes another way
        torch.testing.assert_close(encoder(batch), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(batch[1:, :4]), expected[1:], rtol=1e-4, atol=1e-5)
        moved = torch.roll(batch[1:2], 2, 1)  # padding before the sample
        behind = plainly(encoder, batch[1, :4], at=2)
        torch.testing.assert_close(encoder(moved)[0], behind, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_a_sequence_of_padding_alone_is_finite_and_leaves_the_others(shape, training):
    encoder = SequenceTransformer(shape).train(training)
    batch = sequences(shape, [5, 0])
    with torch.set_grad_enabled(training):
        found = encoder(batch)
        assert found.isfinite().all()
        torch.testing.assert_close(found[1], plainly(encoder, batch[1, :1]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[:1], encoder(batch[:1]), rtol=1e-4, atol=1e-5)
    if training:
        found.square().sum().backward()
        assert all(
            weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters()
        )
        assert all(weight.grad.any() for weight in encoder.modulated())


def test_a_network_of_sequences_and_pictures():
    shapes = {"text": SHAPES[1], "audio": SHAPES[0], "visual": 3}
    network = build("concat", "small", shapes, 4, seed=0)
    inputs = {name: sequences(shape, [6, 2]) for name, shape in shapes.items() if name != "visual"}
    features = network.encode({**inputs, "visual": torch.randn(2, 3, 1, 16, 16)})
    assert [tuple(values.shape) for values in features.values()] == [(2, 128), (2, 128), (2, 64)]
    torch.testing.assert_close(sum(network.unimodal_logits(features).values()), network.classify(features))


def test_unknown_names_give_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'concat'"):
        modalities_of("concta", ["audio", "visual"])
    with pytest.raises(UsageError, match="unimodal-visual"):
        modalities_of("unimodal-visul", ["audio", "visual"])
    with pytest.raises(UsageError, match="resnet18"):
        build("concat", "resnet19", {"a": 1}, 2, seed=0)
    assert modalities_of("unimodal-visual", ["audio", "visual"]) == ["visual"]
