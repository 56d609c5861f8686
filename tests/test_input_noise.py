"""Noise on inputs in training: its deviation by hand, what it leaves alone, and that it is the noise of `bmm eval`."""

import copy
import math

import pytest
import torch
from small_networks import made, take_step

from balancemm_cli.config.run import resolve
from balancemm_cli.engine.evaluator import Corruption
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.input_noise import InputNoise, batch_deviation
from balancemm_cli.random_streams import RandomStreams

SAMPLES = 400
SHAPES = {"audio": (1, 16, 16), "visual": (3, 2, 8, 8), "text": (5, 7), "depth": (1, 16, 16), "flow": (1, 40)}


def inputs_of(*names):
    """Random inputs of which neither mean nor deviation is simple; every second text ends with padding."""
    generator = torch.Generator().manual_seed(0)
    found = {name: 3 + 5 * torch.randn(SAMPLES, *SHAPES[name], generator=generator) for name in names}
    if "text" in found:
        found["text"][::2, 3:] = 0
    return found


def step_at(index=0, count=SAMPLES):
    return Step(0, RandomStreams(0, 0, index), torch.zeros(count, dtype=torch.int64))


def noisy(inputs, deviation, index=0):
    method = InputNoise(InputNoise.Settings(deviation=deviation), list(inputs))
    return method.on_inputs(inputs, step_at(index, len(next(iter(inputs.values())))))


@pytest.mark.parametrize("names", [("audio", "visual"), ("audio", "visual", "text"), tuple(SHAPES)])
def test_each_modality_gets_noise_of_its_own_deviation(names):
    """The deviation of what is added, its mean of 0, and that it is Gaussian: 68.3 % within one deviation."""
    inputs, deviations = inputs_of(*names), [0.5, 0, 2, 1, 0.1][: len(names)]
    before = {name: values.clone() for name, values in inputs.items()}
    found = noisy(inputs, tuple(deviations))
    assert list(found) == list(names)
    for (name, values), deviation in zip(found.items(), deviations, strict=True):
        assert torch.equal(inputs[name], before[name]), "the inputs themselves stay as they are"
        if not deviation:
            assert values is inputs[name]
            continue
        size = deviation * inputs[name].std()
        added = ((values - inputs[name]) / size)[inputs[name] != 0]
        assert added.mean().item() == pytest.approx(0, abs=5 / math.sqrt(len(added)))
        assert added.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * len(added)))
        within = (added.abs() < 1).float().mean().item()
        assert within == pytest.approx(0.6827, abs=5 * 0.47 / math.sqrt(len(added)))


def test_padding_stays_zero():
    inputs = inputs_of("text")
    found = noisy(inputs, 2)["text"]
    assert (found[::2, 3:] == 0).all()
    assert (found[::2, :3] != 0).all() and (found[1::2] != 0).all()


def test_noise_is_drawn_for_each_step_and_each_modality_anew():
    inputs = inputs_of("audio", "depth")
    added = [
        (values - inputs[name]).flatten() for i in (0, 1) for name, values in noisy(inputs, 1, i).items()
    ]
    correlations = torch.corrcoef(torch.stack(added)) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(len(added[0]))
    again = noisy(inputs, 1)
    assert torch.equal(again["audio"] - inputs["audio"], added[0].view_as(inputs["audio"]))


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_noise_of_an_evaluation(name):
    """Of the same draws the method makes what `bmm eval --noise` does: x + σ s ε, and 0 where a step is padding."""

    class SameDraws(RandomStreams):
        def key(self, purpose):
            return super().key(purpose.replace("input-noise/", "test-noise/"))

    inputs, streams = inputs_of(name), SameDraws(3, step=4)
    method = InputNoise(InputNoise.Settings(deviation=0.7), [name])
    of_method = method.on_inputs(inputs, Step(0, streams, torch.zeros(SAMPLES)))[name]
    of_evaluation = Corruption({}, {name: 0.7})(inputs, streams)[name]
    x = inputs[name]
    noise = torch.randn(x.shape, generator=streams.generator(f"test-noise/{name}"))
    expected = x + 0.7 * x.std() * noise * (1 if name != "text" else (x != 0).any(2, keepdim=True))
    torch.testing.assert_close(of_evaluation, expected)
    torch.testing.assert_close(of_method, expected)


def test_the_deviation_of_a_batch_that_is_shared_out(in_float64):
    """Each process asks for count, sum and squared differences; here both parts answer as one."""
    parts = torch.randn(7, 3), 4 + torch.randn(2, 3)
    whole = torch.cat(parts)
    wholes = iter([whole.new_tensor(27), whole.sum(), (whole - whole.mean()).square().sum()])
    torch.testing.assert_close(batch_deviation(parts[0], lambda _: next(wholes)), whole.std())
    assert batch_deviation(torch.ones(1, 1), lambda values: values) == 0, (
        "a single number deviates from nothing"
    )


def test_opm_sees_the_noisy_inputs():
    """The features that all of a step measures are those of the inputs with noise."""
    network, methods, inputs = made("opm+input-noise", 2, deviation=[2, 0])
    assert [type(method).__name__ for method in methods] == ["InputNoise", "OPM"]
    before = copy.deepcopy(network)
    _, step = take_step(network, methods, inputs)
    streams = step.streams
    noise = streams.normal(tuple(inputs["audio"].shape), "input-noise/audio", "cpu")
    expected = before.encode(inputs | {"audio": inputs["audio"] + 2 * inputs["audio"].std() * noise})
    for name, feature in step.features.items():
        torch.testing.assert_close(feature, expected[name])
    assert not torch.allclose(step.features["audio"], before.encode(inputs)["audio"])


def test_wrong_deviations_are_refused():
    for given in ("-1", "[1,-1]", "inf", "nan"):
        with pytest.raises(UsageError, match=r"input-noise\.deviation"):
            resolve("synthetic", method="input-noise", overrides=[f"input-noise.deviation={given}"])
    with pytest.raises(UsageError) as refused:
        InputNoise(InputNoise.Settings(deviation=(1, 2, 3)), ["audio", "visual"])
    assert str(refused.value) == (
        "input-noise.deviation has 3 numbers, and there are 2 modalities (audio, visual). Give one number for all of "
        "them, or one each."
    )


def test_text_takes_no_noise():
    """A number of its own is refused, one for all passes it over, unless nothing else is there."""
    inputs = inputs_of("audio") | {"words": torch.ones(SAMPLES, 5, dtype=torch.int64)}
    refusal = (
        r"'words' is text, to which no noise can be added\. Let its number in input-noise\.deviation be 0\."
    )
    with pytest.raises(UsageError, match=refusal):
        noisy(inputs, (1, 0.5))
    with pytest.raises(UsageError, match=refusal):
        noisy({"words": inputs["words"]}, 1)
    for given in (1, (1, 0)):
        found = noisy(inputs, given)
        assert found["words"] is inputs["words"] and not torch.equal(found["audio"], inputs["audio"])
