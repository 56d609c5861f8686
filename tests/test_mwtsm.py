"""Windows of time: how they are cut, encoded, and put in order."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.models.mwtsm import spread

SHAPES = {"audio": 1, "visual": 3, "text": SequenceShape(5, width=3)}


def inputs(batch=6, frames=6):
    torch.manual_seed(0)
    return {
        "audio": torch.randn(batch, 1, 17, 30),
        "visual": torch.randn(batch, 3, frames, 16, 16),
        "text": torch.randn(batch, 5, 3),
    }


def windowed(names=("audio", "visual"), windows=3):
    shapes = {name: SHAPES[name] for name in names}
    return build("mwtsm", "small", shapes, 4, seed=0, settings={"windows": windows})


def test_windows_by_hand():
    assert spread(12, 3) == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert spread(10, 4) == [slice(0, 3), slice(2, 5), slice(5, 8), slice(7, 10)]
    assert spread(2, 3) == [slice(0, 1), slice(0, 1), slice(1, 2)]
    assert spread(7, 1) == [slice(0, 7)]


@given(length=st.integers(1, 300), windows=st.integers(1, 20))
def test_windows_cover_all_and_stay_within(length, windows):
    found = spread(length, windows)
    assert len(found) == windows and found == sorted(found, key=lambda part: part.start)
    assert {part.stop - part.start for part in found} == {-(-length // windows)}
    assert {step for part in found for step in range(part.start, part.stop)} == set(range(length))
    assert found[0].start >= 0 and all(part.stop <= length for part in found)


def test_each_window_is_encoded_alone():
    network, values = windowed().eval(), inputs()
    for name, axis, size in (("audio", 3, 10), ("visual", 2, 2)):
        encoder = network.encoders[name]
        alone = [encoder.encoder(values[name].narrow(axis, start * size, size)) for start in range(3)]
        torch.testing.assert_close(
            encoder.by_window(values[name]), torch.stack(alone, 1), rtol=1e-4, atol=1e-5
        )


def test_the_order_of_windows_matters():
    encoder, values = windowed().eval().encoders["visual"], inputs()["visual"]
    assert not torch.allclose(encoder(values), encoder(values.flip(2)), atol=1e-4)
    assert encoder(values[:, :, :1]).shape == (6, 128)  # one frame for all windows
    assert encoder(values[:0]).shape == (0, 128)
