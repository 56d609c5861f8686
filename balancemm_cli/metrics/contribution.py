"""The Shapley value: what each member adds to a whole (Shapley 1953), here each modality to the accuracy.

SHAPE (Hu, Li, Zhou, IJCAI 2022) takes it for the contribution of a modality. The values of all members add up to that
of the whole less that of nothing; members that are alike get the same; one that adds nothing to any subset gets 0.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import factorial


def subsets(members: Iterable[str]) -> list[frozenset[str]]:
    """All 2^M subsets, smaller ones first."""
    names = list(members)
    return [frozenset(some) for size in range(len(names) + 1) for some in combinations(names, size)]


def shapley(values: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Each member's value, in the unit of `values`, which has one for each subset of the members.

    φ_m = Σ_S |S|! (M − |S| − 1)! / M! · (v(S ∪ {m}) − v(S)), over the subsets S without m.
    """
    whole = max(values, key=len)
    count = len(whole)
    return {
        member: sum(
            factorial(len(some))
            * factorial(count - len(some) - 1)
            / factorial(count)
            * (values[some | {member}] - value)
            for some, value in values.items()
            if member not in some
        )
        for member in sorted(whole)
    }
