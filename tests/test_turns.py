"""Several updates on one batch, in each of which some modalities learn: what the hooks are given, and what moves."""

import copy

import pytest
import torch
from small_networks import LABELS, made, take_step

from balancemm_cli.config.run import resolve
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Method, MethodSettings


class InTurn(Method):
    """Lets modalities learn in turns; keeps which hooks were called, and what each update moved."""

    def __init__(self, modalities, turns):
        super().__init__(MethodSettings(), modalities)
        self.given, self.calls, self.flows = turns, [], []

    def turns(self, step):
        return self.given

    def on_features(self, features, step):
        self.calls.append("features")
        return features

    def on_loss(self, loss, step):
        self.calls.append(tuple(step.turn))
        self.flows.append(
            [[name for name, one in of.items() if one.requires_grad] for of in (step.features, step.unimodal)]
        )
        assert step.held == [] and step.rates == []
        step.held.append((torch.tensor(False), torch.nn.Linear(1, 1)))
        return loss

    def on_gradients(self, network, step):
        self.calls.append(
            [name for name, of in network.encoders.items() if next(of.parameters()).grad is not None]
        )

    def on_step_end(self, step):
        self.calls.append("end")


def test_each_update_is_of_the_modalities_whose_turn_it_is():
    network, _, inputs = made("baseline", 3)
    method = InTurn(network.modalities, [["visual"], ["text", "audio"]])
    alone = copy.deepcopy(network)
    loss, _ = take_step(network, [method], inputs, lr=0.1)
    assert method.calls == ["features", ("visual",), ["visual"], ("text", "audio"), ["audio", "text"], "end"]
    assert method.flows == [[["visual"]] * 2, [["audio", "text"]] * 2]
    losses = []
    features = alone.encode(inputs)
    for turn in method.given:  # by plain gradient descent
        shown = {name: one if name in turn else one.detach() for name, one in features.items()}
        losses.append(torch.nn.functional.cross_entropy(alone.classify(shown), LABELS))
        losses[-1].backward()
        with torch.no_grad():
            for weight in alone.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
                weight.grad = None
    torch.testing.assert_close(network.state_dict(), alone.state_dict())
    torch.testing.assert_close(loss, (losses[0] + losses[1]).detach() / 2)


@pytest.mark.parametrize("modalities", [1, 3])
def test_all_in_one_turn_is_the_plain_step_to_the_bit(modalities):
    found = []
    for turns in (None, [["audio", "visual", "text"][:modalities]]):
        network, _, inputs = made("baseline", modalities)
        method = InTurn(network.modalities, turns)
        losses = [take_step(network, [method], inputs, lr=0.1)[0] for _ in range(2)]
        found.append((losses, network.state_dict()))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("other", ["mmpareto", "reconboost"])
def test_two_methods_that_go_backward_in_their_own_way_are_refused(other):
    config = resolve("crema-d", "shared-head", f"mla+{other}", overrides=["encoder=small"])
    with pytest.raises(UsageError, match=f"mla and {other} each go backward in a way of their own"):
        config.build_methods(["audio", "visual"])
