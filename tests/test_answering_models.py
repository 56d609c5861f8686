"""AVSD and PanoAVQA: their defining equations by hand, each modality alone, and learning what the question decides."""

import numpy as np
import pytest
import torch
from torch import nn

from balancemm_cli.engine.step import train_step
from balancemm_cli.methods.base import Step
from balancemm_cli.methods.discrepancy import DiscrepancySettings
from balancemm_cli.models import build
from balancemm_cli.models.encoders import SequenceShape
from balancemm_cli.models.tokens import absent
from balancemm_cli.random_streams import RandomStreams

MODELS_HERE = ("avsd", "panoavqa")
SMALL = {"avsd": {}, "panoavqa": {"width": 64}}
FEATURES = {
    "audio": SequenceShape(10, width=6),
    "visual": SequenceShape(10, width=5),
    "question": SequenceShape(8, words=12),
}
MEDIA = {"audio": 1, "visual": 3, "question": FEATURES["question"]}


def make(model, shapes=FEATURES, **settings):
    return build(model, "small", shapes, 4, seed=0, settings={**SMALL[model], **settings})


def features(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    question = torch.randint(1, 12, (batch, 8), generator=generator)
    question[:, 5:] = 0  # padding
    return {
        "audio": torch.randn(batch, 10, 6, generator=generator),
        "visual": torch.randn(batch, 10, 5, generator=generator),
        "question": question,
    }


def media(batch=2):
    return {
        "audio": torch.randn(batch, 1, 17, 16),
        "visual": torch.randn(batch, 3, 2, 32, 32),
        "question": features(batch)["question"],
    }


@pytest.mark.parametrize("model", MODELS_HERE)
def test_padding_changes_nothing(model):
    """The question with and without the zeros that fill it up, a sample at a time."""
    network = make(model).eval()
    given = features()
    whole = network(given)
    for index in range(4):
        one = {name: values[index : index + 1] for name, values in given.items()}
        one["question"] = one["question"][:, :5]
        torch.testing.assert_close(network(one)[0], whole[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [*MODELS_HERE, "vatt"])
def test_inputs_of_zeros_have_tokens_and_features_of_zeros_have_none(model):
    """What `bmm eval --missing` leaves of a modality (of a sequence one token), and what a method that drops it."""
    for shapes, inputs, left in ((FEATURES, features, 1), (MEDIA, media, 16)):
        network = build(model, "small", shapes, 4, seed=0).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.bias)  # training moves it from 0
        shown = network.encode({name: values * 0 for name, values in inputs().items()})
        for name, tokens in shown.items():
            assert (~absent(tokens)).sum(1).tolist() == len(tokens) * [1 if name == "question" else left]
            assert absent(tokens * 0).all()


# ---- defining equations --------------------------------------------------------------------------------------


def test_factor_graph_attention_by_hand():
    fusion = make("avsd").double().fusion
    generator = torch.Generator().manual_seed(1)
    shown = {name: torch.randn(1, 3, 128, generator=generator, dtype=torch.float64) for name in FEATURES}
    shown["question"][:, 2] = 0  # padding
    with torch.no_grad():
        fusion.shares["audio"].copy_(torch.tensor([0.5, 2.0, -1.0, 3.0]))
        first, _, last = fusion.alone["audio"]
        scores = []
        for token in shown["audio"][0]:
            score = 0.5 * float(last(first(token).relu()))
            for share, other in zip([2.0, -1.0, 3.0], FEATURES, strict=True):
                own = fusion.embed["audio"][other](token)
                of_other = fusion.embed_again["audio"] if other == "audio" else fusion.embed[other]["audio"]
                cosines = [
                    float(torch.cosine_similarity(own, of_other(y), dim=0))
                    for y in shown[other][0]
                    if y.any()
                ]
                score += share * np.mean(cosines)
            scores.append(score)
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(fusion.weights("audio", shown)[0], expected)
        assert fusion.weights("question", shown)[0, 2] == 0
        average = sum(w * token for w, token in zip(expected, shown["audio"][0], strict=True))
        torch.testing.assert_close(fusion.attend("audio", shown)[0], average)


def test_each_modality_attends_to_the_next():
    """In one layer across, the question is changed by the sound, and the sound is not by the question."""
    layer = make("panoavqa", cross_layers=1).eval().fusion.across[0]
    values = {name: torch.randn(2, 3, 64) for name in FEATURES}
    left_out = {name: torch.zeros(2, 3, dtype=torch.bool) for name in FEATURES}
    before = layer(values, left_out)
    changed_by = {
        other: {
            name
            for name, found in layer({**values, other: torch.randn(2, 3, 64)}, left_out).items()
            if not torch.allclose(found, before[name])
        }
        for other in FEATURES
    }
    assert changed_by == {
        "audio": {"audio", "question"},
        "visual": {"visual", "audio"},
        "question": {"question", "visual"},
    }


def test_texts_can_have_more_layers_of_their_own():
    network = make("panoavqa", layers=2, text_layers=3)
    assert {name: len(layers) for name, layers in network.fusion.own.items()} == {
        "audio": 2,
        "visual": 2,
        "question": 3,
    }
    assert {len(layers) for layers in make("panoavqa", layers=2).fusion.own.values()} == {2}


# ---- learning ------------------------------------------------------------------------------------------------


SHORT = {
    "audio": SequenceShape(3, width=6),
    "visual": SequenceShape(3, width=5),
    "question": SequenceShape(3, words=12),
}
SHALLOW = {"avsd": {}, "panoavqa": {"layers": 1, "text_layers": 1, "cross_layers": 1}}


def questions(count, seed):
    """The first word of three asks for what the sound says (yes or no) or for what the picture says."""
    generator = torch.Generator().manual_seed(seed)
    heard, seen, asked = (torch.randint(2, (count,), generator=generator) for _ in range(3))
    audio = 0.5 * torch.randn(count, 3, 6, generator=generator)
    visual = 0.5 * torch.randn(count, 3, 5, generator=generator)
    audio[:, :, 0] += 2.0 * heard[:, None] - 1
    visual[:, :, 0] += 2.0 * seen[:, None] - 1
    question = torch.randint(3, 12, (count, 3), generator=generator)
    question[:, 0] = 1 + asked
    return {"audio": audio, "visual": visual, "question": question}, torch.where(asked == 0, heard, 2 + seen)


@pytest.mark.parametrize("model", MODELS_HERE)
def test_learns_what_the_question_asks_for(model):
    """Sound and question tell half of the answers and half of the rest: 75 %."""
    network = make(model, SHORT, **SHALLOW[model])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    given, labels = questions(256, 0)
    for index in range(40):
        rows = torch.randperm(256, generator=torch.Generator().manual_seed(index))[:32]
        batch = {name: values[rows] for name, values in given.items()}
        train_step(
            network,
            [],
            optimizer,
            batch,
            Step(0, RandomStreams(0, 0, index), labels[rows]),
            DiscrepancySettings(),
        )
    test, truth = questions(200, 1)
    network.eval()
    accuracy = (network(test).argmax(-1) == truth).float().mean().item()
    assert accuracy > 0.9, accuracy
