import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from balancemm_cli.metrics.classification import evaluate_scores


@st.composite
def scored_samples(draw):
    classes = draw(st.integers(2, 5))
    samples = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.random((samples, classes)).astype(np.float32)
    # One decimal makes many ties, as scores that saturate do.
    scores = scores.round(draw(st.sampled_from([1, 7])))
    return scores, random.integers(0, classes, samples)


@settings(deadline=None, max_examples=150)
@given(scored_samples())
def test_equals_scikit_learn(case):
    """To the bit."""
    scores, labels = case
    ours = evaluate_scores(scores, labels)
    present = [c for c in range(scores.shape[1]) if (labels == c).any()]
    precisions = [average_precision_score(labels == c, scores[:, c]) for c in present]
    assert ours["accuracy"] == accuracy_score(labels, scores.argmax(1))
    assert ours["map"] == np.mean(precisions)
    assert ours["macro_f1"] == f1_score(labels, scores.argmax(1), labels=present, average="macro")
    if set(scores.argmax(1)) <= set(present):  # else scikit-learn counts a class without a sample as 0
        assert ours["macro_f1"] == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"))
    assert ours.get("map_classes_left_out", 0) == scores.shape[1] - len(present)


def test_by_hand():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    values = evaluate_scores(scores, np.array([0, 1, 0, 1]))
    # Class 0 ranks 0, 2, 1, 3: its positives come first. Class 1 ranks 3, 1, 2, 0: so do its own.
    assert values["map"] == 1
    assert values["accuracy"] == 0.75
    assert values["macro_f1"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)
    assert "map_classes_left_out" not in values


def test_average_precision_by_hand():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    # Class 0 has its positives at ranks 1 and 3, class 1 at ranks 1 and 3 too: (1/1 + 2/3) / 2.
    assert evaluate_scores(scores, np.array([0, 1, 0, 1]))["map"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_without_a_sample_is_left_out_and_counted():
    scores = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = evaluate_scores(scores, np.array([0, 1]))
    assert values == {"accuracy": 1.0, "map": 1.0, "macro_f1": 1.0, "map_classes_left_out": 1}


def test_values_are_plain():
    values = evaluate_scores(np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert {type(value) for value in values.values()} <= {float, int}


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int)),
        (np.zeros((2, 3)), np.zeros(3, dtype=int)),
        (np.zeros(3), np.zeros(3, dtype=int)),
        (np.array([[np.nan, 1.0]]), np.array([0])),
        (np.array([[0.5, 0.5]]), np.array([2])),
        (np.array([[0.5, 0.5]]), np.array([-1])),
    ],
)
def test_refuses_what_makes_no_sense(scores, labels):
    with pytest.raises(ValueError, match=r"Scores|scores|Labels"):
        evaluate_scores(scores, labels)
