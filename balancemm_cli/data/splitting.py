"""Splits of our own: parts of fixed shares, by a rule on the samples' names that gives the same on every machine.

Samples of one group (a speaker, a patient, a video) stay together. Groups are taken one after another, the largest
first and equal ones in the order of the SHA-256 of their names, and each goes where it is wanted most: with t_p(c) the
samples of class c that part p should have, and h_p(c) those that it has, the group that brings g(c) of them goes to
the part with the smallest

    Σ_c [(h_p(c) + g(c) − t_p(c))² − (h_p(c) − t_p(c))²] / t_p(c),

the first of equal ones. So each class is shared out as nearly as its groups allow. Where every sample is a group of
its own, no part misses its share of a class by more than one sample or two. Where classes of few groups leave a part
empty, or with MISSED of all samples more or fewer than its share, it is done once more with all samples as one class
beside the others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

RULE = 1  # raised when a line below changes where a sample goes; part of what is hashed
RULE_SPLIT = f"rule-{RULE}"  # the name of a split by it, so that numbers of two rules are never compared
MISSED = 0.05
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}  # where nobody published a split


def split_by_rule(
    samples: Mapping[str, Iterable[str]], shares: Mapping[str, float], groups: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The part of each sample by its id, in the order given.

    `samples` are the classes of each sample (one, or several) by its id, `shares` the parts by name with what each
    is to have of all (above 0; their sum counts as 1), `groups` the group of each sample, where there are any.
    """
    together: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        together[groups[sample] if groups else sample].append(sample)
    labels = {sample: list(of_sample) for sample, of_sample in samples.items()}
    found = _shared_out(labels, shares, together)
    sizes, total = Counter(found.values()), sum(shares.values())
    if any(
        not sizes[part] or abs(sizes[part] - share / total * len(labels)) > MISSED * len(labels)
        for part, share in shares.items()
    ):
        everything = {
            sample: [*(f"class {name}" for name in names), "all"] for sample, names in labels.items()
        }
        found = _shared_out(everything, shares, together)
    return {sample: found[sample] for sample in samples}


def _shared_out(
    samples: Mapping[str, list[str]], shares: Mapping[str, float], together: Mapping[str, list[str]]
) -> dict[str, str]:
    """The part of each sample; `together` are the samples of each group."""
    whole, total = Counter(label for labels in samples.values() for label in labels), sum(shares.values())
    wanted = {
        part: {label: share / total * count for label, count in whole.items()}
        for part, share in shares.items()
    }
    has: dict[str, Counter[str]] = {part: Counter() for part in shares}
    found: dict[str, str] = {}
    for group in sorted(together, key=lambda name: (-len(together[name]), _hash(name))):
        brings = Counter(label for sample in together[group] for label in samples[sample])
        costs = {part: _cost(brings, has[part], wanted[part]) for part in shares}
        part = min(costs, key=lambda part: costs[part])
        has[part].update(brings)
        found.update(dict.fromkeys(together[group], part))
    return found


def _cost(brings: Mapping[str, int], has: Mapping[str, int], wanted: Mapping[str, float]) -> float:
    """How much further a part would be from what it should have; negative where it would be nearer."""
    return sum(n * (2 * (has[label] - wanted[label]) + n) / wanted[label] for label, n in brings.items())


def _hash(name: str) -> str:
    return hashlib.sha256(f"{RULE}/{name}".encode()).hexdigest()


def alike(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Samples of one content as a group: of each sample the first that has the same."""
    first: dict[bytes, str] = {}
    return {sample: first.setdefault(content, sample) for sample, content in contents.items()}


def in_two_parts(groups: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """The groups with samples in more than one part, with these parts; `groups` and `parts` by sample."""
    found: dict[str, set[str]] = defaultdict(set)
    for sample, group in groups.items():
        found[group].add(parts[sample])
    return {group: sorted(among) for group, among in found.items() if len(among) > 1}
