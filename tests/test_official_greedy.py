"""Greedy re-balancing on MMTM with branches, step by step against what its authors' code computed, in float64."""

import pytest
from golden import cases, fill_encoder, fill_linear, make_batch
from torch import nn

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.engine.optimizer import build_optimizer
from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.greedy import Greedy, speeds
from balancemm_cli.models.encoders import FrameEncoder
from balancemm_cli.models.mmtm import MMTM, Branches, MMTMSettings, Transfer
from balancemm_cli.random_streams import RandomStreams

CASES = {
    name: case
    for name, case in cases("methods_official.json", "BMM_GOLDEN_METHODS").items()
    if case["method"] == "greedy"
}
TWO = ("audio", "visual")
MODULE = {"squeeze": "fc_squeeze", "excite.audio": "fc_visual", "excite.visual": "fc_skeleton"}


pytestmark = pytest.mark.usefixtures("in_float64")


class PlainStages(FrameEncoder):
    """Convolution, batch normalisation and ReLU a stage, which took the place of the ResNets' in the authors' code."""

    def __init__(self, channels, widths):
        super().__init__()
        self.stage_widths, self.features = tuple(widths), widths[-1]
        self.layers = nn.Sequential()
        for width in widths:
            layer = nn.Sequential()
            layer.add_module("conv", nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False))
            layer.add_module("bn", nn.BatchNorm2d(width))
            layer.add_module("relu", nn.ReLU())
            self.layers.append(layer)
            channels = width

    def stages(self):
        return list(self.layers)


def make_network(case):
    encoders = {"audio": PlainStages(1, case["widths"]), "visual": PlainStages(3, case["widths"])}
    settings = MMTMSettings(variant="official", ratio=case["ratio"], heads="branches")
    widths = {name: case["widths"][-1] for name in TWO}
    network = MMTM(encoders, Branches(widths, case["classes"], settings), settings)
    gated = {
        str(stage - 1): Transfer(dict.fromkeys(TWO, case["widths"][stage - 1]), settings)
        for stage in case["gated_stages"]
    }
    if gated.keys() != network.transfers.keys():  # MMTM has them after all stages but the first
        network.transfers = nn.ModuleDict(gated)
    phases = case["phases"]
    for name, encoder in encoders.items():
        fill_encoder(encoder, phases[name])
        fill_linear(network.fusion.heads[name], phases[f"head_{name}"], case["head_gain"][name])
        for weight in encoder.parameters():
            weight.data.mul_(case["conv_gain"][name] if weight.ndim == 4 else 1)
    for level, module in network.transfers.items():
        phase = phases["mmtm"] + int(level) + 1
        for layer, shift in (
            (module.squeeze, 0),
            (module.excite["audio"], 0.1),
            (module.excite["visual"], 0.2),
        ):
            fill_linear(layer, phase + shift, case["gate_gain"])
    return network


def make_method(case, network):
    settings = Greedy.Settings(
        tolerance=case["epsilon"],
        window=case["window"],
        first_epoch=case["starting_epoch"] - 1,  # theirs are counted from 1
        second_mean=case["second_mean"],
    )
    method = Greedy(settings, list(TWO))
    method.attach(network, case["classes"])
    return method


def weights_of(network):
    """The network's weights and statistics by the names that the authors' network has for them."""
    found = {}
    for name, value in network.state_dict().items():
        place, _, rest = name.partition(".")
        if place == "encoders":
            modality, _, layer, of_layer = rest.split(".", 3)
            found[f"view_{modality}.layer{int(layer) + 1}.{of_layer}"] = value
        elif place == "fusion":
            _, modality, of_head = rest.split(".")
            found[f"view_{modality}.fc.{of_head}"] = value
        else:
            level, layer = rest.split(".", 1)
            layer, _, kind = layer.rpartition(".")
            found[f"mmtm{int(level) + 1}.{MODULE[layer]}.{kind}"] = value
    return found


def check(values):
    flat = values.flatten()
    ends = [flat[0].item(), flat[len(flat) // 2].item(), flat[-1].item()]
    return [flat.sum().item(), flat.square().sum().item(), *ends]


def close(expected):
    return pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_authors_trajectory(name):
    case = CASES[name]
    network = make_network(case).train()
    method = make_method(case, network)
    optimizer = build_optimizer(network, OptimizerSettings(**case["optimizer"]))
    for index in range(case["epochs"] * case["steps_per_epoch"]):
        inputs, labels = make_batch(index, case)
        epoch, within = divmod(index, case["steps_per_epoch"])
        step = Step(epoch, RandomStreams(0, epoch, within), labels)
        heads = {modality: head.state_dict() for modality, head in network.fusion.heads.items()}
        heads = {modality: {k: v.clone() for k, v in state.items()} for modality, state in heads.items()}
        loss = train_step(network, [method], optimizer, inputs, step, DiscrepancySettings())
        assert loss.item() == close(case["loss"][index])
        for modality, state in heads.items():
            logits = step.features[modality].detach() @ state["weight"].T + state["bias"]
            own = nn.functional.cross_entropy(logits, labels).item()
            assert own == close(case[f"loss_{modality}"][index])
        replaced = step.metrics["replaced"].tolist()
        assert bool(sum(replaced)) == case["rebalancing"][index], index
        if sum(replaced):
            assert replaced.index(1) == case["caring"][index]
        for m, modality in enumerate(TWO):
            assert method.state["own"][m].item() == close(case[f"sum_main_{modality}"][index])
            assert method.state["gates"][m].item() == close(case[f"sum_gate_{modality}"][index])
        if case["d_bdr"][index] is not None:
            audio, visual = speeds(method.state["gates"], method.state["own"]).tolist()
            assert audio - visual == close(case["d_bdr"][index])
    found = weights_of(network)
    for weight, expected in case["weights"].items():
        assert check(found[weight]) == close(expected), weight
    for module, gates in case["running_gates"].items():
        level = int(module.removeprefix("mmtm")) - 1
        for modality, expected in gates.items():
            assert check(method.state[f"{level}/{modality}"]) == close(expected), module


def test_every_case_re_balances():
    assert CASES and all(any(case["rebalancing"]) for case in CASES.values())
