"""AVGA, DMRN, AVSDN and PSP: their defining equations by hand, each modality alone, and learning what takes both."""

import numpy as np
import pytest
import torch

from balancemm_cli.engine.step import train_step
from balancemm_cli.errors import UsageError
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SegmentShape, SequenceShape
from balancemm_cli.models.guided_attention import GuidedAttention
from balancemm_cli.models.psp import positive
from balancemm_cli.random_streams import RandomStreams
from balancemm_cli.tasks import TASKS

MODELS_HERE = ("avga", "dmrn", "avsdn", "psp")
FEATURES = {
    "audio": SegmentShape(10, SequenceShape(1, width=6)),
    "visual": SegmentShape(10, SequenceShape(1, width=5, positions=9)),
}
MEDIA = {"audio": SegmentShape(10, 1), "visual": SegmentShape(10, 3)}


def features(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "audio": torch.randn(batch, 10, 1, 6, generator=generator),
        "visual": torch.randn(batch, 10, 1, 9, 5, generator=generator),
    }


def media(batch=2):
    return {"audio": torch.randn(batch, 10, 1, 17, 8), "visual": torch.randn(batch, 10, 3, 1, 16, 16)}


@pytest.mark.parametrize("model", ["avga", "dmrn", "psp"])
def test_three_modalities_and_an_unknown_guide_are_refused(model):
    with pytest.raises(UsageError, match="these are audio, visual, flow"):
        build(model, "small", {**FEATURES, "flow": FEATURES["audio"]}, 4, seed=0)
    with pytest.raises(UsageError, match=rf"{model}\.guide is 'sound'"):
        build(model, "small", FEATURES, 4, seed=0, settings={"guide": "sound"})
    with pytest.raises(UsageError, match="needs pictures or one vector per segment for 'visual'"):
        build(model, "small", {**FEATURES, "visual": SegmentShape(10, SequenceShape(2, width=5))}, 4, seed=0)


def test_the_guide_can_be_chosen():
    swapped = {"visual": FEATURES["visual"], "audio": FEATURES["audio"]}
    given = features()
    one = build("avga", "small", FEATURES, 4, seed=0).eval()
    other = build("avga", "small", swapped, 4, seed=0, settings={"guide": "audio"}).eval()
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(given), other({name: given[name] for name in swapped}))


# ---- defining equations --------------------------------------------------------------------------------------


def test_attention_by_hand():
    attention = GuidedAttention(guide=3, width=2, hidden=4, attention=5).double()
    guide, maps = torch.randn(1, 1, 3, dtype=torch.float64), torch.randn(1, 1, 6, 2, dtype=torch.float64)
    named = {name: weight.detach().numpy() for name, weight in attention.named_parameters()}

    def project(kind, vector):
        hidden = np.maximum(named[f"{kind}.0.weight"] @ vector + named[f"{kind}.0.bias"], 0)
        return named[f"{kind}.2.weight"] @ hidden

    sound = project("of_guide", guide[0, 0].numpy())
    raw = [
        named["score.weight"][0] @ np.tanh(project("of_map", maps[0, 0, place].numpy()) + sound)
        for place in range(6)
    ]
    weights = np.exp(raw) / np.exp(raw).sum()
    np.testing.assert_allclose(attention.weights(guide, maps)[0, 0].detach(), weights)
    np.testing.assert_allclose(attention(guide, maps)[0, 0].detach(), weights @ maps[0, 0].numpy())


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_residual_fusion_goes_crosswise(blocks):
    fusion = build("dmrn", "small", FEATURES, 4, seed=0, settings={"blocks": blocks}).fusion
    audio, visual = given = torch.randn(2, 1, 2, 256)
    with torch.no_grad():
        for _ in range(blocks):
            through = [
                fusion.transforms[name][2](torch.tanh(fusion.transforms[name][0](h)))
                for name, h in (("audio", audio), ("visual", visual))
            ]
            shared = (through[0] + through[1]) / 2
            audio, visual = torch.tanh(visual + shared), torch.tanh(audio + shared)
        torch.testing.assert_close(fusion.merge(*given), (audio + visual) / 2)


@pytest.mark.parametrize("model", ["avga", "dmrn", "psp"])
def test_the_official_attention_takes_as_many_positions_as_numbers(model):
    """What it computes is in test_official_networks.py."""
    network = build(model, "small", FEATURES, 4, seed=0, settings={"attention": "official"})
    with pytest.raises(
        UsageError, match=r"one of 49 numbers to each position, and there are 9 positions\. Take"
    ):
        network(features())
    each = SequenceShape(1, width=5, positions=49)
    shapes = {**FEATURES, "visual": SegmentShape(10, each)}
    given = {**features(), "visual": torch.randn(4, 10, 1, 49, 5)}
    official, paper = (
        build(model, "small", shapes, 4, seed=0, settings={"attention": rule})(given)
        for rule in ("official", "paper")
    )
    assert official.shape == (4, 10, 4) and not torch.allclose(official, paper)


def test_pairs_below_the_limit_are_cut():
    pairs = torch.tensor([[[6.0, 3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]])
    shares = positive(pairs, 0.15)
    # 0.6, 0.3 and 0.1, which is cut; no similarity at all; four equal ones
    expected = [[[6 / 9, 3 / 9, 0, 0], [0, 0, 0, 0], [0.25] * 4]]
    torch.testing.assert_close(shares, torch.tensor(expected))


def test_propagation_by_hand():
    """What one segment takes up from those of the other modality, by loops."""
    network = build("psp", "small", FEATURES, 4, seed=1, settings={"threshold": 0.3})
    fusion = network.fusion
    audio, visual = torch.randn(1, 3, 256), torch.randn(1, 3, 256)
    with torch.no_grad():
        first, second = (
            {"audio": layer["audio"](audio[0]).relu(), "visual": layer["visual"](visual[0]).relu()}
            for layer in (fusion.first, fusion.second)
        )
        beta = [
            [max(0.0, float(second["visual"][i] @ first["audio"][j]) / 16) for j in range(3)]
            for i in range(3)
        ]

        def shares(row):
            kept = [value / sum(row) if value / sum(row) > 0.3 else 0.0 for value in row]
            return [value / sum(kept) for value in kept]

        seen = torch.stack(
            [
                visual[0, i] + sum(w * second["audio"][j] for j, w in enumerate(shares(beta[i])))
                for i in range(3)
            ]
        )
        columns = [[beta[i][j] for i in range(3)] for j in range(3)]
        heard = torch.stack(
            [
                audio[0, j] + sum(w * first["visual"][i] for i, w in enumerate(shares(columns[j])))
                for j in range(3)
            ]
        )
        expected = sum(
            fusion.norm(fusion.last[name](values).relu())
            for name, values in (("audio", heard), ("visual", seen))
        )
        found = sum(fusion.propagate(audio, visual))
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_the_pair_loss_counts_samples_that_kept_a_modality():
    """By loops; a clip of background alone wants no pair to agree, and one that lost all modalities isn't counted."""
    network = build("psp", "small", FEATURES, 5, seed=3, settings={"pair_weight": 7})
    fused = network.encode(features(3))
    labels = torch.tensor([[4, 4, 2, 2, 2, 2, 4, 4, 4, 4], [4] * 10, [1] * 10])
    keep = torch.tensor([[True, True], [False, True], [False, False]])
    fused = {
        name: values * kept.view(-1, *[1] * (values.ndim - 1))
        for (name, values), kept in zip(fused.items(), keep.unbind(1), strict=True)
    }
    step = Step(0, RandomStreams(0), labels, task=TASKS["localisation"], keep=keep, kept=torch.tensor(2))
    with torch.no_grad():
        found = network.objective(torch.tensor(1.0), fused, step)
        audio, visual = network.fusion.exchanged(fused)
        assert (torch.cosine_similarity(audio, visual, dim=-1)[:2] > 0).any(1).all()
        expected = 0.0
        for clip in range(2):
            similar = torch.cosine_similarity(audio[clip], visual[clip], dim=-1).clamp_min(0)
            for second in range(10):
                wanted = 0.25 if clip == 0 and 2 <= second < 6 else 0.0
                expected += float(similar[second] / (similar.sum() + 1e-8) - wanted) ** 2 / 10 / 2
    assert found.item() == pytest.approx(1 + 7 * expected, rel=1e-5)


def test_the_decoder_sets_out_from_the_whole_clip():
    """A change in the last second reaches the answer for the first one, through the global state alone."""
    network = build("avsdn", "small", FEATURES, 4, seed=0).eval()
    given = features(1)
    changed = {name: values.clone() for name, values in given.items()}
    changed["audio"][:, 9] += 1.0
    before, after = network.encode(given), network.encode(changed)
    assert not torch.allclose(network.classify(before)[:, 0], network.classify(after)[:, 0])
    states = [network.fusion.whole(one) for one in (before, after)]
    assert states[0][0].shape == (1, 1, 128) and not torch.equal(states[0][0], states[1][0])
    answers, _ = network.fusion.decoder(torch.cat(list(after.values()), -1), states[0])
    torch.testing.assert_close(network.fusion.head(answers)[:, 0], network.classify(before)[:, 0])


# ---- learning ------------------------------------------------------------------------------------------------


def clips(count, seed):
    """An event of four in some seconds: sound tells its first bit, and a picture at a random place the second."""
    generator = torch.Generator().manual_seed(seed)
    events = torch.randint(4, (count, 1), generator=generator).expand(count, 10)
    there = torch.rand(count, 10, generator=generator) < 0.7
    audio = 0.5 * torch.randn(count, 10, 1, 6, generator=generator)
    visual = 0.5 * torch.randn(count, 10, 1, 9, 5, generator=generator)
    sign = torch.where(there, (events % 2) * 2.0 - 1, 0.0)
    audio[..., 0, 0] += 2 * sign
    audio[..., 0, 1] += 2 * there
    place = torch.randint(9, (count, 10, 1, 1), generator=generator)
    look = torch.zeros(count, 10, 9, 5)
    look[..., 0] = (2 * torch.where(there, (events // 2) * 2.0 - 1, 0.0))[..., None]
    look[..., 1] = 2.0
    visual[:, :, 0] += torch.zeros_like(look).scatter(
        2, place.expand(-1, -1, -1, 5), look.gather(2, place.expand(-1, -1, -1, 5))
    )
    return {"audio": audio, "visual": visual}, torch.where(there, events, 4)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS_HERE)
def test_learns_what_takes_both_modalities(model):
    """One modality alone tells 0.3 + 0.7 / 2 = 65 % of the seconds. PSP learns first what its pair loss asks for."""
    network = build(model, "small", FEATURES, 5, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)
    given, labels = clips(256, 0)
    for index in range(100 if model == "psp" else 40):
        rows = torch.randperm(256, generator=torch.Generator().manual_seed(index))[:32]
        batch = {name: values[rows] for name, values in given.items()}
        step = Step(0, RandomStreams(0, 0, index), labels[rows], task=TASKS["localisation"])
        train_step(network, [], optimizer, batch, step, DiscrepancySettings())
    test, truth = clips(128, 1)
    network.eval()
    accuracy = (network(test).argmax(-1) == truth).float().mean().item()
    assert accuracy > 0.8, accuracy
