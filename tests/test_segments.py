"""TSN and TSM: segment consensus, and the temporal shift."""

import torch

from balancemm_cli.models import build
from balancemm_cli.models.encoders import ResNet18
from balancemm_cli.models.tsm import ShiftedFrames, shift

SHAPES = {"audio": 1, "visual": 3, "flow": 2}


def clips(batch=2, frames=4, size=16):
    torch.manual_seed(0)
    return {
        "audio": torch.randn(batch, 1, 17, 16),
        "visual": torch.randn(batch, 3, frames, size, size),
        "flow": torch.randn(batch, 2, frames, size, size),
    }


def test_the_consensus_of_scores_is_the_score_of_the_averaged_feature():
    network, inputs = build("tsn", "small", SHAPES, 4, seed=0).eval(), clips()
    torch.nn.init.normal_(network.fusion.head.bias)
    scores = []
    for k in range(4):
        segment = {name: x[:, :, k : k + 1] if x.ndim == 5 else x for name, x in inputs.items()}
        scores.append(network(segment))
    torch.testing.assert_close(network(inputs), torch.stack(scores).mean(0), rtol=1e-4, atol=1e-5)
    features = network.encode(inputs)
    torch.testing.assert_close(sum(network.unimodal_logits(features).values()), network.classify(features))


def test_the_shift_by_its_definition():
    maps = torch.randn(2 * 3, 18, 2, 2)  # 18 // 8 = 2 channels each way
    found = shift(maps, 3, 8).view(2, 3, 18, 2, 2)
    given = maps.view(2, 3, 18, 2, 2)
    zero = torch.zeros(2, 2)
    for clip in range(2):
        for frame in range(3):
            for channel in range(18):
                source = frame + (1 if channel < 2 else -1 if channel < 4 else 0)
                expected = given[clip, source, channel] if 0 <= source < 3 else zero
                assert torch.equal(found[clip, frame, channel], expected)
    assert torch.equal(shift(maps, 1, 8), maps)
    assert shift(maps[:0], 3, 8).shape == (0, 18, 2, 2)


def test_blocks_shift_within_their_residual_branch_alone():
    torch.manual_seed(0)
    encoder, clip = ResNet18(3).eval(), torch.randn(2, 3, 4, 32, 32)
    plain = encoder(clip)
    names = list(encoder.state_dict())
    body = encoder.body

    def by_hand(clip):
        x = body.maxpool(body.relu(body.bn1(body.conv1(clip.transpose(1, 2).flatten(0, 1)))))
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            for block in layer:
                shortcut = x if block.downsample is None else block.downsample(x)
                moved, c = x.view(2, 4, *x.shape[1:]).clone(), x.shape[1] // 8
                moved[:, :, : 2 * c] = 0
                moved[:, :-1, :c] = x.view(2, 4, *x.shape[1:])[:, 1:, :c]
                moved[:, 1:, c : 2 * c] = x.view(2, 4, *x.shape[1:])[:, :-1, c : 2 * c]
                out = body.relu(block.bn1(block.conv1(moved.flatten(0, 1))))
                x = body.relu(block.bn2(block.conv2(out)) + shortcut)
        return x.mean((2, 3)).view(2, 4, -1).mean(1)

    expected = by_hand(clip)  # before the hooks are there
    ShiftedFrames(encoder, 8)
    torch.testing.assert_close(encoder(clip), expected)
    assert not torch.allclose(encoder(clip), plain)
    assert list(encoder.state_dict()) == names


def test_what_has_no_frames_is_not_shifted():
    plain, shifted = (build(model, "small", SHAPES, 4, seed=0).eval() for model in ("concat", "tsm"))
    inputs = clips()
    before, after = plain.encode(inputs), shifted.encode(inputs)
    torch.testing.assert_close(after["audio"], before["audio"])
    assert all(not torch.allclose(after[name], before[name]) for name in ("visual", "flow"))
    single = clips(frames=1)
    torch.testing.assert_close(shifted.encode(single)["visual"], plain.encode(single)["visual"])
