"""The rule by which samples without a split are shared out."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancemm_cli.data.splitting import in_two_parts, split_by_rule

FOLDS = {"1": 1.0, "2": 1.0, "3": 1.0}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def test_parts_are_the_same_on_every_machine() -> None:
    samples = {f"clip-{number}": [f"class-{number % 3}"] for number in range(200)}
    parts = split_by_rule(samples, SHARES)
    assert Counter(parts.values()) == {"train": 140, "test": 39, "val": 21}
    text = "\n".join(f"{sample},{part}" for sample, part in parts.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "45559415b0683817"
    groups = {sample: f"speaker-{int(sample[5:]) % 17}" for sample in samples}
    parts = split_by_rule(samples, SHARES, groups)
    text = "\n".join(f"{sample},{part}" for sample, part in parts.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3085c115ae1b55a3"


def test_rows_may_be_in_any_order() -> None:
    samples = {f"clip-{number}": [f"class-{number % 3}"] for number in range(50)}
    backwards = dict(reversed(samples.items()))
    assert split_by_rule(samples, SHARES) == split_by_rule(backwards, SHARES)


@given(labels=st.lists(st.sampled_from("abcd"), min_size=1, max_size=300))
def test_each_class_is_shared_out_by_the_shares(labels: list[str]) -> None:
    samples = {f"s{number}": [label] for number, label in enumerate(labels)}
    parts = split_by_rule(samples, SHARES)
    for label in set(labels):
        count = labels.count(label)
        found = Counter(parts[sample] for sample, classes in samples.items() if classes == [label])
        assert found["train"] > 0
        for part, share in SHARES.items():
            assert abs(found[part] - share * count) < 1.5


@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), min_size=1, max_size=120),
    count=st.integers(2, 5),
)
def test_groups_are_never_parted(rows: list[tuple[str, int]], count: int) -> None:
    samples = {f"s{number}": [label] for number, (label, _) in enumerate(rows)}
    groups = {f"s{number}": f"g{group}" for number, (_, group) in enumerate(rows)}
    shares = {str(fold): 1 / count for fold in range(count)}
    parts = split_by_rule(samples, shares, groups)
    assert not in_two_parts(groups, parts)
    if len(set(groups.values())) >= 2 * count:
        assert len(set(parts.values())) > 1


def test_groups_in_two_parts_are_found() -> None:
    groups = {"a": "x", "b": "x", "c": "y"}
    assert in_two_parts(groups, {"a": "train", "b": "test", "c": "test"}) == {"x": ["test", "train"]}


@pytest.mark.parametrize(
    ("samples", "groups", "shares"),
    [
        ({f"s{n}": [f"c{n % 100}"] for n in range(400)}, None, SHARES),
        ({f"s{n}": [f"c{n % 100}"] for n in range(300)}, None, SHARES),
        ({f"s{n}": ["ab"[n % 2]] for n in range(20)}, None, {str(fold): 1.0 for fold in range(20)}),
        ({f"s{n}": [f"d{n % 20}"] for n in range(200)}, {f"s{n}": f"p{n % 40}" for n in range(200)}, FOLDS),
        (
            {f"s{n}": ["ab"[n % 2]] for n in range(8)},
            {f"s{n}": f"p{n % 2}" for n in range(8)},
            {"1": 1, "2": 1},
        ),
    ],
)
def test_many_small_classes_leave_no_part_empty(samples, groups, shares) -> None:
    sizes = Counter(split_by_rule(samples, shares, groups).values())
    assert set(sizes) == set(shares)
    total = sum(shares.values())
    for part, share in shares.items():
        assert abs(sizes[part] - share / total * len(samples)) <= max(5, 0.08 * len(samples))
