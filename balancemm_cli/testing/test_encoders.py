"""What every encoder keeps, on inputs of the sort that it is for."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from balancemm_cli.errors import UsageError
from balancemm_cli.models import MODELS
from balancemm_cli.models.encoders import (
    ENCODERS,
    Choice,
    Encoder,
    FrameEncoder,
    SequenceShape,
    Shape,
    StepEncoder,
    make_encoders,
    sort_of,
)
from balancemm_cli.shapes import SegmentShape
from balancemm_cli.testing import guards
from balancemm_cli.testing.lengths import others_at_length
from balancemm_cli.testing.small import SHAPES as TOGETHER
from balancemm_cli.testing.small import Case, assert_sentence, made_or_refused, taken_by

DOCS = Path(__file__).parents[2] / "docs"
SHAPES: dict[str, int | SequenceShape] = {
    "pictures": 2,
    "vectors": SequenceShape(1, width=3),
    "series": SequenceShape(9, width=3),
    "texts": SequenceShape(9, words=7),
}
NAMED = [(sort, name) for sort, of_sort in ENCODERS.items() for name in of_sort]
of_each_encoder = pytest.mark.parametrize(("sort", "encoder"), NAMED)
of_sequences = pytest.mark.parametrize(("sort", "encoder"), [of for of in NAMED if of[0] != "pictures"])
of_padded = pytest.mark.parametrize(("sort", "encoder"), [of for of in NAMED if of[0] in ("series", "texts")])
of_numbers = pytest.mark.parametrize(
    ("sort", "encoder"), [of for of in NAMED if of[0] in ("series", "vectors")]
)
of_pictures = pytest.mark.parametrize("encoder", ENCODERS["pictures"])


def made(sort: str, encoder: str, shape: Shape | None = None) -> Encoder:
    """The encoder for an input of that sort, from the seed 0."""
    return deepcopy(_made(sort, encoder, SHAPES[sort] if shape is None else shape))


@cache
def _made(sort: str, encoder: str, shape: Shape) -> Encoder:
    torch.manual_seed(0)
    return make_encoders(Choice("small", {sort: encoder}), {"m": shape})["m"]


def batch_of(sort: str, count: int = 4, seed: int = 0) -> Tensor:
    """Random inputs of that sort; sequences of 9 steps, of which the last four are padding."""
    generator = torch.Generator().manual_seed(seed)
    if sort == "pictures":
        return torch.randn(count, 2, 2, 32, 32, generator=generator)
    if sort == "vectors":
        return 5 + 3 * torch.randn(count, 1, 3, generator=generator)
    if sort == "texts":
        values = torch.randint(1, 7, (count, 9), generator=generator)
    else:
        values = 5 + 3 * torch.randn(count, 9, 3, generator=generator)
    values[:, 5:] = 0
    return values


def fitted(sort: str, encoder: str, shape: Shape | None = None) -> Encoder:
    """Such an encoder after it was fitted to two batches of unequal size."""
    one = made(sort, encoder, shape)
    one.fit(lambda: iter([batch_of(sort, 5, 1), batch_of(sort, 3, 2)]))
    return one


@of_each_encoder
def test_its_features_are_as_wide_as_it_says(sort: str, encoder: str) -> None:
    """Also of a batch of none, which a process of several may get."""
    one = fitted(sort, encoder).eval()
    assert one(batch_of(sort)).shape == (4, one.features)
    assert one(batch_of(sort)[:0]).shape == (0, one.features)


@of_each_encoder
def test_a_sample_does_not_depend_on_the_others(sort: str, encoder: str) -> None:
    """In evaluation the features of a sample are the same alone and in a batch."""
    one = fitted(sort, encoder).eval()
    torch.testing.assert_close(one(batch_of(sort))[1:2], one(batch_of(sort)[1:2]), rtol=1e-4, atol=1e-5)


@of_each_encoder
def test_segments_are_encoded_one_by_one(sort: str, encoder: str) -> None:
    """And fitted on as what they are, not as clips."""
    segments = made(sort, encoder, SegmentShape(2, SHAPES[sort]))
    segments.fit(
        lambda: (
            batch_of(sort, count, seed).unflatten(0, (count // 2, 2)) for count, seed in ((6, 1), (2, 2))
        )
    )
    alone = made(sort, encoder)
    alone.fit(lambda: iter([batch_of(sort, 6, 1), batch_of(sort, 2, 2)]))
    clips = batch_of(sort, 6)
    found = segments.eval()(clips.unflatten(0, (3, 2)))
    torch.testing.assert_close(found.flatten(0, 1), alone.eval()(clips), rtol=1e-5, atol=1e-6)


@of_each_encoder
def test_it_trains_in_float64(sort: str, encoder: str) -> None:
    """The tests against the official code and over processes need it."""
    one = fitted(sort, encoder).double()
    values = batch_of(sort)
    features = one(values.double() if values.is_floating_point() else values)
    assert features.dtype == torch.float64
    features.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in one.parameters())


@of_each_encoder
def test_a_state_holds_what_was_fitted(sort: str, encoder: str) -> None:
    """A checkpoint taken up by a new encoder gives the same features, to the bit: a resumed run does not fit again."""
    one, other = fitted(sort, encoder).eval(), made(sort, encoder).eval()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(batch_of(sort)), one(batch_of(sort)))


@of_each_encoder
def test_what_is_modulated_is_matrices_alone(sort: str, encoder: str) -> None:
    """Neither biases nor normalisation."""
    one = made(sort, encoder)
    weights = [weight for weight in one.parameters() if weight.ndim >= 2]
    assert weights and all(own is weight for own, weight in zip(one.modulated(), weights, strict=True))


@of_each_encoder
def test_a_misspelt_name_is_refused_with_the_nearest(sort: str, encoder: str) -> None:
    """In a sentence, also where no modality of that sort is there to be encoded."""
    with pytest.raises(UsageError, match=f"'{encoder}'") as refused:
        make_encoders(Choice("small", {sort: f"{encoder}x"}), {})
    assert_sentence(str(refused.value))
    assert f"no encoder '{encoder}x'" in str(refused.value)


@of_each_encoder
def test_it_is_refused_for_what_it_does_not_fit(sort: str, encoder: str) -> None:
    """With the encoders that fit."""
    for other, shape in SHAPES.items():
        if encoder not in ENCODERS[other]:
            with pytest.raises(
                UsageError, match=f"does not fit 'm'.*{' or '.join(ENCODERS[other])}"
            ) as refused:
                make_encoders(Choice("small", {"m": encoder}), {"m": shape})
            assert_sentence(str(refused.value))


@of_each_encoder
def test_it_is_explained(sort: str, encoder: str) -> None:
    """docs/encoders.md has it."""
    assert f"`{encoder}`" in (DOCS / "encoders.md").read_text("utf-8")


# ---- sequences ------------------------------------------------------------------------------------------------


@of_padded
def test_padding_does_not_matter(sort: str, encoder: str) -> None:
    """However far a sequence is filled up with zeros."""
    one, values = fitted(sort, encoder).eval(), batch_of(sort)
    expected = one(values)
    for length in (5, 6, 7, 8):
        torch.testing.assert_close(one(values[:, :length]), expected, rtol=1e-4, atol=1e-5)


@of_sequences
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_sequences_have_finite_features_and_gradients(sort: str, encoder: str, length: int) -> None:
    """And so has a sample of zeros alone, as a missing modality leaves one."""
    one, values = fitted(sort, encoder), batch_of(sort)[:, :length]
    values[1] = 0
    features = one(values)
    assert features.isfinite().all()
    features.square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in one.parameters())


@of_numbers
def test_numbers_are_standardised_by_the_training_inputs(sort: str, encoder: str) -> None:
    """Whatever the units of the numbers are, and however the training inputs are cut into batches, the features are the
    same."""
    one, values = fitted(sort, encoder).eval(), batch_of(sort)
    units, zeros = torch.tensor([1000.0, 0.01, 1.0]), torch.tensor([3.0, -7.0, 0.0])

    def converted(batch: Tensor) -> Tensor:
        present = (batch != 0).any(2, keepdim=True)
        return (batch * units + zeros) * present

    other = made(sort, encoder)
    whole = torch.cat([batch_of(sort, 5, 1), batch_of(sort, 3, 2)])
    other.fit(lambda: iter([converted(whole)]))
    torch.testing.assert_close(other.eval()(converted(values)), one(values), rtol=1e-3, atol=1e-4)


@of_padded
def test_the_steps_it_makes_are_zeros_for_padding(sort: str, encoder: str) -> None:
    """As models that attend to them take them, see tokens; their mean is the feature."""
    one = fitted(sort, encoder).eval()
    if isinstance(one, StepEncoder):
        values, weights = one.steps(batch_of(sort))
        assert values.shape[::2] == (4, one.features) and weights.shape == (*values.shape[:2], 1)
        assert torch.equal(values * weights, values) and 0 < weights.sum() < weights.numel()
        torch.testing.assert_close(values.sum(1) / weights.sum(1), one(batch_of(sort)))


# ---- in a network ---------------------------------------------------------------------------------------------


@of_sequences
@pytest.mark.parametrize("model", others_at_length(MODELS, "concat"))
def test_it_learns_in_every_model(sort: str, encoder: str, model: str) -> None:
    """Where the model takes such a modality, or the model refuses the encoder in a sentence that names it. Nothing
    waits for the device."""
    cases = [
        Case(model, "opm+ogm", shapes=name)
        for name in taken_by(model)
        if len(TOGETHER[name]) > 1 and sort in map(sort_of, TOGETHER[name].values())
    ]
    for case in cases[-1:]:  # the last is the one with the fewest other inputs
        training = made_or_refused(case, f"encoders.{sort}={encoder}")
        if isinstance(training, str):
            assert model in training
            return
        names = [name for name, shape in case.inputs.items() if sort_of(shape) == sort]
        weights = [weight for name in names for weight in training.network.encoders[name].parameters()]
        before = [weight.clone() for weight in weights]
        batches = [training.batch(index) for index in range(2)]
        with guards.no_waiting():
            for index, (inputs, labels) in enumerate(batches):
                training.train(index, inputs, labels)
        assert all(weight.isfinite().all() for weight in weights)
        assert not any(torch.equal(*pair) for pair in zip(weights, before, strict=True))


# ---- pictures -------------------------------------------------------------------------------------------------


@of_pictures
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_are_averaged_after_the_network(encoder: str, channels: int) -> None:
    """Features of a clip are the mean over those of its frames, whatever the number of channels."""
    torch.manual_seed(0)
    network, clip = made("pictures", encoder, channels).eval(), torch.randn(2, channels, 2, 64, 64)
    assert isinstance(network, FrameEncoder)
    features = network(clip)
    assert features.shape == (2, network.features)
    expected = torch.stack([network(clip[:, :, frame]) for frame in range(2)]).mean(0)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    maps = network.maps(clip[:, :, 0])
    torch.testing.assert_close(network(clip[:, :, 0]), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


@of_pictures
def test_stages_are_as_wide_as_they_say(encoder: str) -> None:
    """Models that connect encoders between their stages rely on it."""
    network, maps = made("pictures", encoder).eval(), torch.randn(1, 2, 64, 64)
    assert isinstance(network, FrameEncoder)
    widths = []
    for stage in network.stages():
        maps = stage(maps)
        widths.append(maps.shape[1])
    assert tuple(widths) == network.stage_widths
    assert network.features == widths[-1] and maps.shape[2] <= 8


@of_pictures
def test_its_convolutions_are_modulated(encoder: str) -> None:
    """Neither biases nor normalisation; and nothing of a classifier is left."""
    network = made("pictures", encoder, 3)
    assert network.modulated()
    assert all(weight.ndim == 4 for weight in network.modulated())
    assert sum(weight.ndim == 4 for weight in network.parameters()) == len(network.modulated())
    assert not any(isinstance(module, torch.nn.Linear) for module in network.modules())
