"""The cosine head by hand: logits, shares, and what the lengths of features and weights do."""

import math

import pytest
import torch

from balancemm_cli.errors import UsageError
from balancemm_cli.models.mmcosine import MMCosine

WIDTHS = {"a": 3, "b": 2, "c": 4, "d": 2, "e": 5}


def made(modalities, **settings):
    widths = dict(list(WIDTHS.items())[:modalities])
    torch.manual_seed(modalities)
    fusion = MMCosine(widths, 7, MMCosine.Settings(**settings))
    return fusion, {name: torch.randn(6, width) for name, width in widths.items()}


def test_two_modalities_by_hand():
    fusion = MMCosine({"a": 2, "b": 2}, 2, MMCosine.Settings(scale=5))
    with torch.no_grad():
        fusion.heads["a"].weight.copy_(torch.tensor([[3.0, 4.0], [-2.0, 0.0]]))
        fusion.heads["b"].weight.copy_(torch.tensor([[0.0, 0.1], [7.0, 7.0]]))
    features = {"a": torch.tensor([[10.0, 0.0]]), "b": torch.tensor([[0.0, 0.5]])}
    root = math.sqrt(0.5)  # cosines: of a ⅗ and −1, of b 1 and √½
    shares = fusion.unimodal_logits(features, None)
    torch.testing.assert_close(shares["a"], torch.tensor([[3.0, -5.0]]))
    torch.testing.assert_close(shares["b"], torch.tensor([[5.0, 5 * root]]))
    torch.testing.assert_close(fusion(features), torch.tensor([[8.0, -5 + 5 * root]]))
    with pytest.raises(UsageError, match="bias_split"):
        fusion.unimodal_logits(features, (0.5, 0.5))


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_shares_add_up_to_the_prediction_and_no_length_counts(modalities):
    fusion, features = made(modalities, scale=4)
    logits = fusion(features)
    shares = fusion.unimodal_logits(features, None)
    torch.testing.assert_close(sum(shares.values()), logits)
    for name, feature in features.items():
        weight = fusion.heads[name].weight
        expected = 4 * (feature @ weight.T) / feature.norm(dim=1)[:, None] / weight.norm(dim=1)
        torch.testing.assert_close(shares[name], expected)
    with torch.no_grad():
        for weight in fusion.parameters():
            weight.mul_(torch.arange(1.0, 8)[:, None])
    longer = {name: feature * torch.arange(1.0, 7)[:, None] for name, feature in features.items()}
    torch.testing.assert_close(fusion(longer), logits)


def test_a_modality_at_zero_has_no_share_and_a_finite_gradient():
    fusion, features = made(3)
    dropped = features["b"].clone().requires_grad_()
    fusion({**features, "b": dropped * 0}).logsumexp(1).sum().backward()
    assert torch.equal(dropped.grad, torch.zeros_like(dropped))
    assert all(weight.grad.isfinite().all() for weight in fusion.parameters())
    assert not fusion.unimodal_logits({**features, "b": features["b"] * 0}, None)["b"].any()


def test_the_code_predicts_without_normalisation_after_training():
    fusion, features = made(2, prediction="linear")
    cosines = made(2)[0]
    torch.testing.assert_close(fusion(features), cosines(features))
    expected = sum(feature @ fusion.heads[name].weight.T for name, feature in features.items())
    torch.testing.assert_close(fusion.eval()(features), expected)
    for name, logits in fusion.unimodal_logits(features, None).items():
        torch.testing.assert_close(logits, cosines.unimodal_logits(features, None)[name])
