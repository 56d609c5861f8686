"""What every encoder of pictures and spectrograms keeps."""

import pytest
import torch

from balancemm_cli.errors import UsageError
from balancemm_cli.models.encoders import ENCODERS, make_encoders
from balancemm_cli.testing.entries import DOCS
from balancemm_cli.testing.small import assert_sentence

of_each_encoder = pytest.mark.parametrize("encoder", ENCODERS)


@of_each_encoder
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_frames_are_averaged_after_the_network(encoder: str, channels: int) -> None:
    """A feature vector of the length that it says, of any number of channels; that of a clip is the mean over its
    frames, and does not depend on the other samples."""
    network, clip = ENCODERS[encoder](channels).eval(), torch.randn(2, channels, 2, 64, 64)
    with torch.no_grad():
        found = network(clip)
        each = torch.stack([network(clip[:, :, frame]) for frame in range(2)])
        torch.testing.assert_close(found, each.mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network(clip[1:]), found[1:], rtol=1e-4, atol=1e-4)
    assert found.shape == (2, network.features)


@of_each_encoder
def test_stages_are_as_wide_as_they_say(encoder: str) -> None:
    """Models that connect encoders between their stages rely on it."""
    network, maps = ENCODERS[encoder](2).eval(), torch.randn(1, 2, 64, 64)
    widths = []
    with torch.no_grad():
        for stage in network.stages():
            maps = stage(maps)
            widths.append(maps.shape[1])
    assert tuple(widths) == network.stage_widths and widths[-1] == network.features


@of_each_encoder
def test_its_convolutions_are_modulated(encoder: str) -> None:
    """OGM scales the gradients of weights of two or more axes, each once, and there are some."""
    network = ENCODERS[encoder](3)
    found = network.modulated()
    assert found and all(weight.ndim >= 2 for weight in found)
    assert len({id(weight) for weight in found}) == len(found)
    assert {id(weight) for weight in found} <= {id(weight) for weight in network.parameters()}


@of_each_encoder
def test_a_misspelt_name_is_refused_with_the_nearest(encoder: str) -> None:
    """In a sentence."""
    with pytest.raises(UsageError, match=f"'{encoder}'") as refused:
        make_encoders(f"{encoder}x", {"visual": 3})
    assert_sentence(str(refused.value))


@pytest.mark.skipif(not DOCS.is_dir(), reason="an installed wheel has no pages")
@of_each_encoder
def test_it_is_explained(encoder: str) -> None:
    """docs/encoders.md has it."""
    assert f"`{encoder}`" in (DOCS / "encoders.md").read_text("utf-8")
