"""FiLM, gated, low-rank and late transformer fusion against their equations, alone and in training steps."""

import pytest
import torch

from balancemm_cli.config.run import resolve
from balancemm_cli.errors import UsageError
from balancemm_cli.models import build
from balancemm_cli.models.film import FiLM
from balancemm_cli.models.gated import Gated
from balancemm_cli.models.late_transformer import LateTransformer
from balancemm_cli.models.lmf import LMF
from balancemm_cli.origin import misread

WIDTHS = {"a": 4, "b": 6, "c": 5}
KINDS = {"film": FiLM, "gated": Gated, "lmf": LMF}


def make(kind, widths, **settings):
    """A fusion of 3 classes with random weights, and features for it."""
    torch.manual_seed(0)
    fusion = kind(widths, 3, kind.Settings(**settings))
    for weight in fusion.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return fusion, {name: torch.randn(5, width) for name, width in widths.items()}


def linear(layer, feature):
    return feature @ layer.weight.T + layer.bias


def first(count):
    return dict(list(WIDTHS.items())[:count])


@pytest.mark.parametrize(
    ("conditioner", "others"), [(None, ["b"]), ("a", ["b"]), ("b", ["a"]), (None, ["b", "c"])]
)
def test_film_by_hand(conditioner, others):
    names = sorted({conditioner or "a", *others})
    fusion, given = make(FiLM, {name: WIDTHS[name] for name in names}, conditioner=conditioner)
    modulated = torch.cat([given[name] for name in others], 1)
    both = linear(fusion.condition, given[conditioner or "a"])
    gamma, beta = both[:, : modulated.shape[1]], both[:, modulated.shape[1] :]
    torch.testing.assert_close(fusion(given), linear(fusion.head, gamma * modulated + beta))
    centred, _ = make(FiLM, {name: WIDTHS[name] for name in names}, conditioner=conditioner, gamma_baseline=1)
    torch.testing.assert_close(centred(given), linear(fusion.head, (1 + gamma) * modulated + beta))


@pytest.mark.parametrize(
    ("gate", "others"), [(None, ["b"]), ("a", ["b"]), ("b", ["a"]), ("c", ["a", "b"])], ids=str
)
def test_a_gate_by_hand(gate, others):
    gate_name = gate or "a"
    names = sorted({gate_name, *others})
    fusion, given = make(Gated, {name: WIDTHS[name] for name in names}, gate=gate, width=7)
    opened = 1 / (1 + torch.exp(-linear(fusion.project[gate_name], given[gate_name])))
    values = sum(linear(fusion.project[name], given[name]) for name in others)
    torch.testing.assert_close(fusion(given), linear(fusion.head, opened * values))


@pytest.mark.parametrize(("count", "gate"), [(2, "each"), (3, None), (3, "each")])
def test_a_gated_multimodal_unit_by_hand(count, gate):
    fusion, given = make(Gated, first(count), gate=gate, width=7)
    everything = torch.cat(list(given.values()), 1)
    unit = 0
    for number, (name, feature) in enumerate(given.items()):
        z = 1 / (1 + torch.exp(-everything @ fusion.gates.weight[7 * number : 7 * number + 7].T))
        unit = unit + z * torch.tanh(linear(fusion.project[name], feature))
    torch.testing.assert_close(fusion(given), linear(fusion.head, unit))


def zeroed(given, kept):
    return {name: value if name == kept else 0 * value for name, value in given.items()}


def test_what_a_modality_of_film_tells_alone():
    fusion, given = make(FiLM, {"a": 6, "b": 6})
    for name, logits in fusion.unimodal_logits(given, None).items():
        torch.testing.assert_close(logits, linear(fusion.head, given[name]))


@pytest.mark.parametrize(
    ("widths", "unimodal"),
    [
        ({"a": 6, "b": 6}, "zero-out"),
        ({"a": 4, "b": 6}, "before-fusion"),
        ({"a": 6, "b": 4}, "before-fusion"),
        ({"a": 6, "b": 6, "c": 6}, "before-fusion"),
    ],
    ids=str,
)
def test_film_is_measured_by_zero_out_where_its_output_layer_does_not_take_each_feature(widths, unimodal):
    fusion, given = make(FiLM, widths, unimodal=unimodal)
    for name, logits in fusion.unimodal_logits(given, None).items():
        torch.testing.assert_close(logits, fusion(zeroed(given, name)))


@pytest.mark.parametrize(("count", "gate"), [(2, None), (2, "b"), (3, "c"), (2, "each"), (3, None)])
def test_what_a_modality_of_gated_tells_alone(count, gate):
    """Its projection before gating, of the unit with the tanh that the gate scales, through the output layer."""
    fusion, given = make(Gated, first(count), gate=gate, width=7)
    for name, logits in fusion.unimodal_logits(given, None).items():
        projected = linear(fusion.project[name], given[name])
        projected = torch.tanh(projected) if fusion.gate is None else projected
        torch.testing.assert_close(logits, linear(fusion.head, projected))
    zeros, _ = make(Gated, first(count), gate=gate, width=7, unimodal="zero-out")
    for name, logits in zeros.unimodal_logits(given, None).items():
        torch.testing.assert_close(logits, zeros(zeroed(given, name)))


@pytest.mark.parametrize(("count", "rank"), [(2, 1), (2, 4), (3, 2)])
def test_low_rank_fusion_is_the_whole_tensor_of_that_rank(count, rank):
    """The weight tensor is built from its factors and applied to the outer product, as tensor fusion would."""
    fusion, given = make(LMF, first(count), rank=rank)
    outer, tensor = torch.ones(5, 1), torch.ones(rank, 3, 1)
    for name, feature in given.items():
        appended = torch.cat([feature, torch.ones(5, 1)], 1)
        outer = (outer[:, :, None] * appended[:, None]).flatten(1)
        layer = fusion.factors[name]
        factor = torch.cat([layer.weight, layer.bias[:, None]], 1).unflatten(0, (rank, 3))
        tensor = (tensor[..., None] * factor[:, :, None]).flatten(2)
    torch.testing.assert_close(fusion(given), outer @ tensor.sum(0).T + fusion.bias)


def test_low_rank_fusion_begins_as_a_sum_for_small_features():
    torch.manual_seed(0)
    fusion = LMF({f"m{index}": 6 for index in range(8)}, 3, LMF.Settings())
    given = {name: 1e-3 * torch.randn(5, 6) for name in fusion.factors}
    linear_part = sum(
        (given[name] @ layer.weight.T).unflatten(1, (4, 3)).sum(1) for name, layer in fusion.factors.items()
    )
    torch.testing.assert_close(fusion(given), 4 + linear_part, rtol=0, atol=1e-4)
    assert linear_part.abs().max() > 1e-3


@pytest.mark.parametrize("key", ["film.conditioner", "gated.gate"])
def test_a_modality_that_is_not_there_is_refused(key):
    model, setting = key.split(".")
    with pytest.raises(UsageError, match=rf"^{key} is 'sound', and the modalities are a, b\. Name one"):
        build(model, "small", {"a": 1, "b": 3}, 3, seed=0, settings={setting: "sound"})
    config = resolve("synthetic", model, overrides=[f"{key}=visual"])
    assert config.model_settings[setting] == "visual"


def attended(tokens, attention):
    """Multi-head self-attention over the tokens [T, D] of one sample, written out, a head for each 64 numbers."""
    q, k, v = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
    heads = []
    for part in range(q.shape[1] // 64):
        of_head = slice(64 * part, 64 * part + 64)
        weights = (q[:, of_head] @ k[:, of_head].T / 8).softmax(-1)
        heads.append(weights @ v[:, of_head])
    return linear(attention.out_proj, torch.cat(heads, -1))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("segments", [(), (4,)], ids=["clip", "segments"])
def test_the_late_transformer_by_hand(count, segments):
    """One sample at a time: the class token, then a token a modality, through pre-norm layers."""
    torch.manual_seed(1)
    fusion = LateTransformer(first(count), 3, LateTransformer.Settings(width=128))
    given = {name: torch.randn(2, *segments, width) for name, width in first(count).items()}
    rows = {name: feature.flatten(0, -2) for name, feature in given.items()}
    expected = []
    for index in range(2 * (segments[0] if segments else 1)):
        tokens = [fusion.tokens[0]]
        for place, (name, feature) in enumerate(rows.items(), start=1):
            tokens.append(linear(fusion.project[name], feature[index]) + fusion.tokens[place])
        state = torch.stack(tokens)
        for layer in fusion.layers.layers:
            state = state + attended(layer.norm1(state), layer.self_attn)
            inner = torch.nn.functional.gelu(linear(layer.linear1, layer.norm2(state)))
            state = state + linear(layer.linear2, inner)
        expected.append(linear(fusion.head, fusion.layers.norm(state[0])))
    torch.testing.assert_close(fusion(given).flatten(0, -2), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_what_is_said_of_a_rho_that_names_another():
    uses = [("concat", {}, 2), *2 * [("film", {}, 2)], ("unimodal-audio", {}, 1), ("absent", {}, 2)]
    assert misread(uses) == [
        "ρ of model film does not tell which modality is ahead: it need not name the stronger one "
        "(docs/findings/estimate.md)."
    ]
    assert "the gated one" in misread([("gated", {}, 2)])[0] and misread([("gated", {"gate": "audio"}, 3)])
    assert not misread([("gated", {"gate": "each"}, 2), ("gated", {}, 3)])
