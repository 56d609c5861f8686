"""Greedy re-balancing where no figures of its authors reach: three modalities, refusals, evaluation, optimisers."""

import copy

import pytest
import torch

from balancemm_cli.config.recipe import OptimizerSettings
from balancemm_cli.config.run import resolve
from balancemm_cli.engine.optimizer import build_optimizer, update
from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.methods.greedy import Greedy
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.random_streams import RandomStreams

SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}
SIZES = {"audio": (1, 12, 12), "visual": (3, 2, 12, 12), "text": (5, 3)}
CLASSES = 3


def set_up(names, lr=0.05, **given):
    network = build(
        "mmtm", "small", {name: SHAPES[name] for name in names}, CLASSES, 0, {"heads": "branches"}
    )
    method = Greedy(Greedy.Settings(**given), list(names))
    method.attach(network, CLASSES)
    return (
        network,
        method,
        build_optimizer(network, OptimizerSettings(lr=lr, momentum=0.9, weight_decay=0.01)),
    )


def take(setup, index):
    network, method, optimizer = setup
    generator = torch.Generator().manual_seed(index)
    inputs = {name: torch.randn(6, *SIZES[name], generator=generator) for name in network.modalities}
    step = Step(0, RandomStreams(0, 0, index), torch.randint(CLASSES, (6,), generator=generator))
    train_step(network, [method], optimizer, inputs, step, DiscrepancySettings())
    return step


def gates_seen(network):
    """The gates that each module computes, before the method's own watch on them."""
    seen = {level: {name: [] for name in module.excite} for level, module in network.transfers.items()}
    for level, module in network.transfers.items():
        for name, layer in module.excite.items():
            layer.register_forward_hook(
                lambda _, __, out, level=level, name=name: seen[level][name].append(
                    2 * out.detach().sigmoid()
                )
            )
    return seen


@pytest.mark.parametrize("names", [("audio", "visual"), ("audio", "visual", "text")], ids=len)
def test_the_fastest_branch_gets_the_mean_of_its_own_gates_and_all_encoders_learn(names):
    setup = network, method, _ = set_up(names, window=2)
    seen = gates_seen(network)
    given = {level: [] for level in network.transfers}
    for level, module in network.transfers.items():
        module.register_forward_hook(lambda _, __, out, level=level: given[level].append(out))
    replaced = []
    for index in range(6):
        before = copy.deepcopy(network.state_dict())
        replaced.append(take(setup, index).metrics["replaced"].bool())
        changed = {
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        }
        for name, off in zip(names, replaced[-1], strict=True):
            assert any(weight.startswith(f"encoders.{name}.") for weight in changed)
            assert any(weight.startswith(f"fusion.heads.{name}.") for weight in changed)
            excitation = {weight for weight in changed if f"excite.{name}." in weight}
            assert not excitation if off else excitation
    assert [int(step.sum()) for step in replaced] == [0, 1, 1, 0, 1, 1]
    for level, of_steps in given.items():
        for name in of_steps[0]:
            for index, gates in enumerate(of_steps):
                mean = torch.cat(seen[level][name][: index + 1]).mean(0)
                off = replaced[index][names.index(name)]
                expected = mean.expand_as(gates[name]) if off else seen[level][name][index]
                torch.testing.assert_close(gates[name].detach(), expected)
            torch.testing.assert_close(method.state[f"{level}/{name}"], torch.cat(seen[level][name]).mean(0))


def test_an_evaluation_neither_moves_the_means_nor_meets_them():
    setup = network, method, _ = set_up(("audio", "visual"))
    take(setup, 0)
    assert method.state["left"] > 0
    state = copy.deepcopy(method.state)
    plain = build("mmtm", "small", {"audio": 1, "visual": 3}, CLASSES, 1, {"heads": "branches"}).eval()
    plain.load_state_dict(network.state_dict())
    inputs = {name: torch.randn(4, *SIZES[name]) for name in ("audio", "visual")}
    for training in (False, True):  # in training mode, too, what is not of a step
        plain.train(training)
        network.train(training)
        torch.testing.assert_close(network(inputs), plain(inputs), rtol=0, atol=0)
    torch.testing.assert_close(method.state, state, rtol=0, atol=0)


@pytest.mark.parametrize(("model", "heads"), [("concat", None), ("mmtm", "joint"), ("centralnet", None)])
def test_another_network_is_refused_and_the_adaptation_named(model, heads):
    given = [f"mmtm.heads={heads}"] if heads else []
    config = resolve("synthetic", model, "greedy", overrides=[*given, "encoder=small"])
    methods = config.build_methods(["audio", "visual"])
    with pytest.raises(UsageError, match=r"mmtm\.heads=branches, or greedy-adaptation"):
        config.build_network({"audio": 1, "visual": 3}, ["a", "b"], methods)


def test_the_official_slip_needs_gates_of_one_width():
    network = build(
        "mmtm", "small", {name: SHAPES[name] for name in ("audio", "text")}, 3, 0, {"heads": "branches"}
    )
    with pytest.raises(UsageError, match="different widths here"):
        Greedy(Greedy.Settings(second_mean="official"), ["audio", "text"]).attach(network, CLASSES)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("hold", [False, True])
def test_what_is_held_is_as_if_it_had_no_gradient(name, hold):
    networks = [torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)]) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    settings = OptimizerSettings(name=name, lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizers = [build_optimizer(network, settings) for network in networks]
    never = torch.tensor(False)
    for step in range(3):
        of_step = hold and step == 1
        for network in networks:
            for layer in network:
                for weight in layer.parameters():
                    weight.grad = torch.ones_like(weight) * (step + 1)
        if of_step:
            for weight in networks[0][0].parameters():
                weight.grad = None
        update(optimizers[0], never)
        update(optimizers[1], never, [(torch.tensor(of_step), networks[1][0])])
        torch.testing.assert_close(networks[1].state_dict(), networks[0].state_dict(), rtol=0, atol=0)
