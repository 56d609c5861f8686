"""FiLM, gated and low-rank fusion and MMTM's module against what the authors' code computed, in float64."""

import pytest
import torch
from golden import cases, wave

from balancemm_cli.models.film import FiLM
from balancemm_cli.models.gated import Gated
from balancemm_cli.models.lmf import LMF
from balancemm_cli.models.mmtm import MMTMSettings, Transfer
from balancemm_cli.models.stages import Course

CASES = cases("models_official.json", "BMM_GOLDEN_MODELS")
EXACT = {"rtol": 1e-7, "atol": 1e-9}


pytestmark = pytest.mark.usefixtures("in_float64")


def of(model):
    return pytest.mark.parametrize("name", [name for name in CASES if name.split("_")[0] == model])


def tensors(entries):
    """Tensors by rule, by their names: weights and inputs."""
    values = {}
    for entry in entries:
        made = wave(entry["shape"], entry["phase"])
        made = made.abs() if entry.get("form") == "absolute" else made
        values[entry["name"]] = entry["offset"] + entry["gain"] * made
    return values


def start(module, weights):
    """Give a module the weights of a case, each of which it must have."""
    with torch.no_grad():
        for name, value in weights.items():
            weight = module.get_parameter(name)
            assert weight.shape == value.shape, name
            weight.copy_(value)
    assert sum(weight.numel() for weight in weights.values()) == parameters(module)
    return module.eval()


def parameters(module):
    return sum(weight.numel() for weight in module.parameters())


def assert_output(found, expected):
    assert list(found.shape) == expected["shape"]
    assert found.sum().item() == pytest.approx(expected["sum"], rel=1e-7, abs=1e-9)
    assert found.square().sum().item() == pytest.approx(expected["sum_squares"], rel=1e-7, abs=1e-9)
    flat, middle = found.flatten(), found.numel() // 2
    if "values" in expected:
        torch.testing.assert_close(flat, torch.tensor(expected["values"]).flatten(), **EXACT)
        return
    for part, values in (("first", flat[:8]), ("middle", flat[middle : middle + 8]), ("last", flat[-8:])):
        torch.testing.assert_close(values, torch.tensor(expected[part]), **EXACT)


@of("film")
def test_film_is_that_of_the_cvpr_code(name):
    case = CASES[name]
    inputs, config = tensors(case["inputs"]), case["config"]
    widths = {modality: values.shape[1] for modality, values in inputs.items()}
    fusion = FiLM(widths, config["classes"], FiLM.Settings(conditioner=config["conditioner"]))
    start(fusion, tensors(case["weights"]))
    assert parameters(fusion) == case["parameters"]
    assert_output(fusion(inputs), case["outputs"]["logits"])
    # each modality alone: its feature before fusion through the output layer
    for modality, logits in fusion.unimodal_logits(inputs, None).items():
        torch.testing.assert_close(logits, fusion.head(inputs[modality]), **EXACT)


@of("gated")
def test_gated_is_that_of_the_cvpr_code(name):
    case = CASES[name]
    inputs, config = tensors(case["inputs"]), case["config"]
    widths = {modality: values.shape[1] for modality, values in inputs.items()}
    settings = Gated.Settings(gate=config["gate"], width=config["width"])
    fusion = start(Gated(widths, config["classes"], settings), tensors(case["weights"]))
    assert parameters(fusion) == case["parameters"]
    assert_output(fusion(inputs), case["outputs"]["logits"])
    for modality, logits in fusion.unimodal_logits(inputs, None).items():
        torch.testing.assert_close(logits, fusion.head(fusion.project[modality](inputs[modality])), **EXACT)


@pytest.mark.parametrize("folded_into", [0, -1])
@of("lmf")
def test_lmf_is_that_of_both_codes_folded(name, folded_into):
    """Row 0 of a factor meets the appended 1; the code's weights of the ranks are folded into one modality's factor."""
    case = CASES[name]
    inputs, weights = tensors(case["inputs"]), tensors(case["weights"])
    rank, classes = case["config"]["rank"], case["config"]["classes"]
    widths = {modality: values.shape[1] for modality, values in inputs.items()}
    fusion = LMF(widths, classes, LMF.Settings(rank=rank))
    given = {"bias": weights["fusion_bias"].reshape(-1)}
    for modality in inputs:
        factor = weights[f"factor.{modality}"]
        if modality == list(inputs)[folded_into]:
            factor = factor * weights["fusion_weights"].reshape(-1, 1, 1)
        given[f"factors.{modality}.bias"] = factor[:, 0].flatten()
        given[f"factors.{modality}.weight"] = factor[:, 1:].transpose(1, 2).flatten(0, 1)
    start(fusion, given)
    assert parameters(fusion) + rank == case["parameters"]  # the code's weights of the ranks
    assert_output(fusion(inputs), case["outputs"]["logits"])


@of("mmtm")
def test_a_transfer_module_is_that_of_the_code(name):
    """Gates and scaled maps, of maps with frames and without; the code squeezes the visual map first."""
    case = CASES[name]
    inputs, config = tensors(case["inputs"]), case["config"]
    widths = {modality: config[f"channels_{modality}"] for modality in ("visual", "audio")}
    settings = MMTMSettings(variant="official", ratio=config["code_ratio"])
    module = start(Transfer(widths, settings), tensors(case["weights"]))
    assert module.squeeze.out_features == config["joint"] and parameters(module) == case["parameters"]
    courses = {}
    for modality, maps in inputs.items():
        courses[modality] = course = Course(torch.nn.Identity(), maps)
        if maps.ndim == 5:  # [B, C, T, H, W] to [B · T, C, H, W]
            course.map, course.frames = maps.transpose(1, 2).flatten(0, 1), maps.shape[2]
    gates = module({modality: course.pooled() for modality, course in courses.items()})
    for modality, course in courses.items():
        assert_output(gates[modality], case["outputs"][f"gate_{modality}"])
        course.scale(gates[modality])
        scaled = course.map
        if course.frames > 1:
            scaled = scaled.unflatten(0, (-1, course.frames)).transpose(1, 2)
        assert_output(scaled, case["outputs"][modality])


@of("mmtm")
def test_the_papers_module_has_twice_the_gates_and_half_the_joint_width(name):
    case = CASES[name]
    config = case["config"]
    widths = {modality: config[f"channels_{modality}"] for modality in ("visual", "audio")}
    module = Transfer(widths, MMTMSettings(ratio=config["paper_ratio"]))
    start(module, tensors(case["weights"]))
    squeezed = {m: values.flatten(2).mean(2) for m, values in tensors(case["inputs"]).items()}
    for modality, gate in module(squeezed).items():
        assert_output(gate / 2, case["outputs"][f"gate_{modality}"])


def test_parameters_at_the_published_widths():
    """Of those sizes that the cases count beside their own."""
    known = 0
    for name, case in CASES.items():
        model = name.split("_")[0]
        counts = {key: value for key, value in case.items() if key.startswith("parameters_at_")}
        for key, expected in counts.items() if model in ("film", "gated", "lmf", "mmtm") else ():
            numbers = [int(part) for part in key.split("_") if part.isdigit()]
            known += 1
            assert _counted(model, numbers, case["config"]) == expected, (name, key)
    assert known


def _counted(model, numbers, config):
    if model == "mmtm":  # a module at each of these widths, both modalities alike
        settings = MMTMSettings(variant="official", ratio=config["code_ratio"])
        return sum(parameters(Transfer({"a": width, "b": width}, settings)) for width in numbers)
    width, classes, *rank = numbers
    widths = {"a": width, "b": width}
    if model == "lmf":
        return parameters(LMF(widths, classes, LMF.Settings(rank=rank[0]))) + rank[0]
    kind = FiLM if model == "film" else Gated
    return parameters(kind(widths, classes, kind.Settings(**({"width": width} if kind is Gated else {}))))
