"""Modules and networks compute what the authors' code computed from the same weights and inputs (float64).

The figures are in models_official.json; a file of the same form can be named by BMM_GOLDEN_MODELS. A case's weights are
tensors made by rule; `renamed` brings the file's names to ours.
"""

import re

import pytest
import torch
from golden import cases, fill_encoder, fill_linear, wave

from balancemm_cli.methods.base import Step
from balancemm_cli.models import build
from balancemm_cli.models.avga import Concatenation
from balancemm_cli.models.avsd import FactorGraphAttention
from balancemm_cli.models.dmrn import DMRNSettings, ResidualFusion
from balancemm_cli.models.fusion import ModelSettings
from balancemm_cli.models.guided_attention import CourseSettings
from balancemm_cli.models.panoavqa import CrossLayer
from balancemm_cli.models.psp import Propagation, PSPSettings
from balancemm_cli.models.tsm import shift
from balancemm_cli.models.x_vector import XVector, XVectorSettings
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

CASES = cases("models_official.json", "BMM_GOLDEN_MODELS")


def of_kind(*prefixes):
    """A parametrization over the cases whose names begin so."""
    return pytest.mark.parametrize("name", [name for name in CASES if name.startswith(prefixes)])


pytestmark = pytest.mark.usefixtures("in_float64")


def made(spec):
    values = wave(spec["shape"], spec["phase"])
    return spec["offset"] + spec["gain"] * (values.abs() if spec.get("form") == "absolute" else values)


def inputs_of(case):
    return {spec["name"]: made(spec) for spec in case["inputs"]}


def fill(module, case, *renamed):
    """Fill `module` with a case's weights; each of `renamed` is a pattern and what takes its place in a name.

    Returns the names of the parameters that the case has no weights for.
    """
    ours = dict(module.named_parameters())
    for spec in case["weights"]:
        name = spec["name"]
        for pattern, replacement in renamed:
            name = re.sub(pattern, replacement, name)
        parameter = ours.pop(name)
        parameter.data.copy_(made(spec).view_as(parameter))
    return set(ours)


def count(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


def close(value):
    return pytest.approx(value, rel=1e-7, abs=1e-9)


def check(found, expected):
    """A tensor against its shape, sums and entries in the file."""
    flat, middle = found.detach().flatten(), found.numel() // 2
    assert list(found.shape) == expected["shape"]
    assert [flat.sum().item(), flat.square().sum().item()] == close(
        [expected["sum"], expected["sum_squares"]]
    )
    if "values" in expected:
        assert flat.tolist() == close(torch.tensor(expected["values"]).flatten().tolist())
    else:
        for part, values in (("first", flat[:8]), ("middle", flat[middle : middle + 8]), ("last", flat[-8:])):
            assert values.tolist() == close(expected[part])


# ---- shifts and segments --------------------------------------------------------------------------------------


@of_kind("tsm_shift")
def test_shift(name):
    case = CASES[name]
    config, (maps,) = case["config"], inputs_of(case).values()
    check(shift(maps, config["frames"], config["division"]), case["outputs"]["maps"])


@of_kind("tsm_resnet", "tsn_resnet")
def test_frames(name):
    case = CASES[name]
    config, (frames,) = case["config"], inputs_of(case).values()
    settings = {"division": config["division"]} if config["shifted"] else {}
    model = "tsm" if config["shifted"] else "tsn"
    network = build(model, "resnet18", {"visual": 3}, config["classes"], seed=0, settings=settings)
    encoder, head = network.encoders["visual"], network.fusion.head
    fill_encoder(encoder, config["phase"])
    fill_linear(head, config["phase"] + 0.2)
    assert count(network) == case["parameters"]
    maps = []
    encoder.body.layer4.register_forward_hook(lambda *given: maps.append(given[-1]))
    for mode in ("train", "eval"):
        scores = network.train(mode == "train")({"visual": frames.transpose(1, 2)})
        check(scores, case["outputs"][f"{mode}_scores"])
        of_frames = head(maps.pop().mean((2, 3))).unflatten(0, frames.shape[:2])
        check(of_frames, case["outputs"][f"{mode}_frame_scores"])


# ---- event localisation ---------------------------------------------------------------------------------------

GUIDED = (
    (r"^(attention\.of_\w+)\.first", r"\1.0"),
    (r"^(attention\.of_\w+)\.second", r"\1.2"),
    (r"^lstm", "courses"),
)


def sizes(case):
    return {spec["name"]: spec["shape"][-1] for spec in case["inputs"]}


def clips(case):
    """Audio [B, S, D] and visual [B, S, P, D]."""
    given = inputs_of(case)
    return {"audio": given["audio"], "visual": given["visual"].flatten(2, 3)}


def check_courses(fusion, case):
    given, outputs = clips(case), case["outputs"]
    check(fusion.attention.weights(given["audio"], given["visual"]), outputs["attention"])
    check(fusion.attention(given["audio"], given["visual"]), outputs["attended"])
    for name, hidden in zip(("audio", "visual"), fusion.hidden(given), strict=True):
        check(hidden, outputs[f"hidden_{name}"])
    check(fusion(given).softmax(-1), outputs["probabilities"])
    assert count(fusion) == case["parameters"]


@of_kind("ave_attention_concat")
def test_avga(name):
    case = CASES[name]
    settings = CourseSettings(attention="official", width=case["config"]["lstm_width"])
    fusion = Concatenation(sizes(case), case["config"]["classes"], settings, "audio")
    assert not fill(fusion, case, *GUIDED, (r"^head\.first", "head.0"), (r"^head\.second", "head.2"))
    check_courses(fusion, case)


@of_kind("ave_dmrn")
def test_dmrn(name):
    case = CASES[name]
    config = case["config"]
    settings = DMRNSettings(attention="official", width=config["lstm_width"], blocks=config["blocks"])
    fusion = ResidualFusion(sizes(case), config["classes"], settings, "audio")
    transform = (
        (r"^transform\.(\w+)\.first", r"transforms.\1.0"),
        (
            r"^transform\.(\w+)\.second",
            r"transforms.\1.2",
        ),
    )
    assert not fill(fusion, case, *GUIDED, *transform)
    check_courses(fusion, case)


PROPAGATION = (
    *GUIDED,
    (r"^(narrow\.\w+)\.first", r"\1.0"),
    (r"^(narrow\.\w+)\.second", r"\1.1"),
    (r"^head\.first", "head.0"),
    (r"^head\.second", "head.2"),
)


@of_kind("psp")
def test_psp(name):
    case = CASES[name]
    config = case["config"]
    settings = PSPSettings(
        attention="official", threshold=config["threshold"], pair_weight=config["weight_of_pair_loss"]
    )
    fusion = Propagation(sizes(case), config["classes"], settings, "audio")
    assert not fill(fusion, case, *PROPAGATION)
    assert count(fusion) == case["parameters_used"]
    given, outputs = clips(case), case["outputs"]
    audio, visual = fusion.exchanged(given)
    check((audio + visual) / 2, outputs["fused"])
    check(torch.cosine_similarity(audio, visual, dim=-1), outputs["similarity"])
    logits = fusion(given)
    check(logits, outputs["logits"])

    labels = torch.tensor(case["segment_labels"])
    step = Step(0, RandomStreams(0), labels, task=TASKS["localisation"])
    loss = step.mean(step.losses(logits))
    assert loss.item() == close(case["loss_classes"])
    total = fusion.objective(loss, given, step)
    assert (total - loss).item() == close(config["weight_of_pair_loss"] * case["loss_pairs"])
    assert total.item() == close(case["loss_total"])
    total.backward()
    weights = dict(fusion.named_parameters())
    for name, expected in case["gradient_sum_squares_of_total"].items():
        for pattern, replacement in PROPAGATION:
            name = re.sub(pattern, replacement, name)
        assert weights[name].grad.square().sum().item() == close(expected), name


# ---- question answering ---------------------------------------------------------------------------------------


@of_kind("panoavqa_cross_layer")
@pytest.mark.parametrize("gradients", [True, False])  # without them torch takes another way
def test_panoavqa(name, gradients):
    case = CASES[name]
    config = case["config"]
    names = list(config["lengths"])
    layer = CrossLayer(names, config["width"], config["heads"], config["inner_width"]).eval()
    parts = {spec["name"]: spec for spec in case["weights"]}
    for name, weight in layer.named_parameters():
        weight.data.copy_(torch.cat([made(parts.pop(part)) for part in pano_parts(name)]))
    assert not parts and count(layer) == case["parameters"]
    given = inputs_of(case)
    padding = config.get("padding", {})
    left_out = {
        name: torch.tensor(padding[name]).bool()
        if config["masked"]
        else torch.zeros(given[name].shape[:2], dtype=torch.bool)
        for name in names
    }
    with torch.set_grad_enabled(gradients):
        found = layer({name: given[name] for name in names}, left_out)
    for name in names:
        check(found[name], case["outputs"][name])


def pano_parts(name):
    """The weights of the file that one of ours is made of: query, key and value lie one above the other."""
    group, of, *rest = name.split(".")
    kind = rest[-1]
    if group == "norm":
        return [f"{of}.cross.norm.{kind}"]
    inner = rest[0] if group == "own" else "attention"
    prefix = f"{of}.own" if group == "own" else f"{of}.cross"
    if "in_proj" in kind:
        return [f"{prefix}.{part}.{kind.removeprefix('in_proj_')}" for part in ("query", "key", "value")]
    if "out_proj" in rest:
        return [f"{prefix}.out.{kind}"]
    others = {"linear1": "wide", "linear2": "narrow", "norm1": "own.norm", "norm2": "last_norm"}
    return [f"{of}.{others[inner]}.{kind}"]


@of_kind("avsd_attention")
def test_avsd(name):
    case = CASES[name]
    widths = case["config"]["widths"]
    fusion = FactorGraphAttention(widths, 3, ModelSettings())
    ordered = {spec["name"]: spec for spec in case["weights"]}
    for modality, order in case["config"][
        "order_of_shares"
    ].items():  # ours are in the order of the modalities
        shares = made(ordered.pop(f"shares.{modality}")).flatten()
        fusion.shares[modality].data.copy_(
            torch.stack([shares[order.index(other)] for other in ("alone", *widths)])
        )
    left = fill(
        fusion,
        {"weights": list(ordered.values())},
        (r"^(alone\.\w+)\.first", r"\1.0"),
        (r"^(alone\.\w+)\.second", r"\1.2"),
        (r"^pair\.(\w+)\.\1\.left", r"embed.\1.\1"),
        (r"^pair\.(\w+)\.\1\.right", r"embed_again.\1"),
        (r"^pair\.(\w+)\.(\w+)\.left", r"embed.\1.\2"),
        (r"^pair\.(\w+)\.(\w+)\.right", r"embed.\2.\1"),
    )
    assert {name.split(".")[0] for name in left} == {"shares", "head"}
    assert count(fusion) - count(fusion.head) == case["parameters"]
    given = inputs_of(case)
    given = {modality: given[modality] for modality in widths}
    for modality in widths:
        check(fusion.attend(modality, given), case["outputs"][modality])


# ---- sound ----------------------------------------------------------------------------------------------------

LAYERS = (("frame", "frames", 1), ("segment", "segment", 6))  # in the file, here, and the number of the first


@of_kind("x_vector")
def test_x_vector(name):
    """The pooling apart: the code that made the figures has the unbiased deviation and adds 1e-5 to it."""
    case = CASES[name]
    config = case["config"]
    settings = XVectorSettings(bands=config["bands"])
    encoder = XVector(settings, config["channels"], config["segment_width"])
    assert not fill(
        encoder,
        case,
        *(
            (rf"^{kind}{n + first}\.(norm\.)?", rf"{ours}.{n}.\1")
            for kind, ours, first in LAYERS
            for n in range(5)
        ),
        (r"^(\w+\.\d)\.norm", r"\1.2"),
        (r"^(\w+\.\d)\.(weight|bias)", r"\1.0.\2"),
    )
    assert count(encoder) == case["parameters"]
    (spectrogram,) = inputs_of(case).values()
    for mode in ("train", "eval"):
        encoder.train(mode == "train")
        outputs = {
            key.removeprefix(f"{mode}_"): value for key, value in case["outputs"].items() if mode in key
        }
        frames = encoder.frames(spectrogram.mT)
        check(frames, outputs["frames"])
        pooled = torch.cat([frames.mean(2), frames.std(2) + 1e-5], 1)
        check(pooled, outputs["statistics"])
        first, second = encoder.segment
        pooled = first(pooled)
        check(pooled, outputs["segment6"])
        check(second(pooled), outputs["segment7"])
