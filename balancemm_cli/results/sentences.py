"""What a table of runs shows, in up to three sentences that are made from its numbers: docs/reading-a-report.md has the
rules. A sentence says no more than intervals over the seeds allow; where several numbers are looked at to find the one
that is spoken of, they are at the level that Bonferroni's correction asks for."""

from collections.abc import Callable, Iterator, Sequence

from balancemm_cli.results.gains import BASELINE, accuracies
from balancemm_cli.results.groups import UNIMODAL, Group, labels
from balancemm_cli.results.references import ENSEMBLE, JOINT
from balancemm_cli.results.rows import Row
from balancemm_cli.results.statistics import LEVEL, MIN_SEEDS, Comparison, compare
from balancemm_cli.results.terms import on_the_same

NAMED = 3  # methods that a sentence names

Difference = tuple[float, tuple[float, float]]
"""A mean difference and its interval, in fractions."""


def sentences(rows: Sequence[Row]) -> list[str]:
    """The sentences on the rows of one data set."""
    joint = [
        one.group for one in rows if one.group.trained and not one.group.first.model.startswith(UNIMODAL)
    ]
    names = dict(zip(map(id, joint), labels(joint), strict=True))
    found = [*_gains(rows, names)]
    if len({(one.group.owner, one.group.first.hashes.data) for one in rows if one.group.trained}) == 1:
        found += [*_without_joint_training(rows, names), *_encoders(rows)]
    return found


# ---- the gains ------------------------------------------------------------------------------------------------------


def _gains(rows: Sequence[Row], names: dict[int, str]) -> Iterator[str]:
    """Which methods differ from their baseline by the test that † stands for."""
    found = [(names[id(one.group)], one.gain) for one in rows if one.gain and id(one.group) in names]
    if not found:
        return
    tested = [(name, gain) for name, gain in found if gain.p is not None]
    if not tested:
        yield f"No gain can be told from chance: the runs share fewer than {MIN_SEEDS} seeds, or have no spread."
        return
    decided = [
        (name, gain.comparison.difference.mean, gain.comparison.difference.interval)
        for name, gain in tested
        if gain.p is not None and gain.p < 1 - LEVEL
    ]
    texts = {
        verb: _listed([f"{name} ({_text(mean, interval)})" for name, mean, interval in some])
        for verb, some in (
            ("above", sorted((one for one in decided if one[1] > 0), key=lambda one: -one[1])),
            ("below", sorted((one for one in decided if one[1] < 0), key=lambda one: one[1])),
        )
        if some
    }
    if not texts:
        yield f"Of {_counted(len(found), 'gain')} over a baseline none can be told from chance."
        return
    parts = [
        f"{verb} its baseline {'is' if ' and ' not in text else 'are'} {text}" for verb, text in texts.items()
    ]
    rest = len(found) - len(decided)
    told = f"; of {_counted(rest, 'other')} it can't be told" if rest else ""
    yield f"{_capital('; '.join(parts))}{told}."


# ---- without joint training -----------------------------------------------------------------------------------------


def _without_joint_training(rows: Sequence[Row], names: dict[int, str]) -> Iterator[str]:
    """Whether the ensemble or a modality alone does better than the networks trained jointly, or worse."""
    alone = [one for one in rows if one.group.first.model.startswith((UNIMODAL, ENSEMBLE))]
    joint = [one for one in rows if id(one.group) in names]
    if not alone or not joint:
        return
    best, other = max(alone, key=_mean), max(joint, key=_mean)
    pairs = len(alone) * len(joint)
    found = _difference(best.group, other.group, best, pairs)
    if found is None:
        return
    name, rival = _of_alone(best), names[id(other.group)]

    def each(mine: Row, others: Sequence[Row]) -> bool:
        differences = [_difference(mine.group, one.group, mine, pairs) for one in others]
        return all(one and one[1][0] > 0 for one in differences)

    if each(best, joint):
        yield (
            f"{_capital(name)} does better than each network trained jointly: {_text(*found)} points over the best of "
            f"them, {rival}."
        )
    elif each(other, alone):
        low, high = found[1]
        yield (
            f"Joint training by {rival} does better than whatever was trained alone: {_text(-found[0], (-high, -low))} "
            f"points over the best of it, {name}."
        )
    else:
        yield (
            f"Whether {name} or {rival}, the best without and with joint training, is better can't be told: "
            f"{_text(*found)} points."
        )


def _of_alone(row: Row) -> str:
    model = row.group.first.model
    return "the ensemble" if model == ENSEMBLE else f"{model.removeprefix(UNIMODAL)} alone"


# ---- the encoders ---------------------------------------------------------------------------------------------------


def _encoders(rows: Sequence[Row]) -> Iterator[str]:
    """Which encoder is worth less inside the jointly trained baseline than trained alone by the same settings."""
    joint = [one for one in rows if one.group.trained and one.group.first.method == BASELINE]
    alone = {
        one.group.first.model.removeprefix(UNIMODAL): one
        for one in joint
        if one.group.first.model.startswith(UNIMODAL)
    }
    fused = next((one for one in joint if one.group.first.model == JOINT), None)
    if fused is None:
        return
    shared = [
        name
        for name, one in alone.items()
        if name in fused.unimodal
        and on_the_same(fused.group, one.group, ("model", JOINT, one.group.first.model))
    ]
    found = {
        name: _difference(fused.group, alone[name].group, fused, len(shared), _accuracy_of(name))
        for name in shared
    }
    less = [f"{name} ({_text(*one)} points)" for name, one in found.items() if one and one[1][1] < 0]
    if less:
        yield f"Worth less inside the fused baseline than trained alone: {_listed(less)}."


def _accuracy_of(modality: str) -> Callable[[Group, Row], dict[int, float]]:
    def accuracies_of(group: Group, row: Row) -> dict[int, float]:
        return {
            run.result.seed: value
            for run in group.runs
            if (value := run.result.selections[row.selection].unimodal.get(modality)) is not None
        }

    return accuracies_of


# ---- all ------------------------------------------------------------------------------------------------------------


def _mean(row: Row) -> float:
    return row.accuracy.mean


def _difference(
    mine: Group,
    other: Group,
    row: Row,
    looked_at: int,
    values: Callable[[Group, Row], dict[int, float]] = lambda group, row: accuracies(group, row.selection),
) -> Difference | None:
    """What one is above the other, seed by seed, with the interval for one of so many that were looked at; None of too
    few seeds, or without any spread."""
    found: Comparison | None = compare(values(mine, row), values(other, row))
    if found is None or found.difference.n < MIN_SEEDS:
        return None
    interval = found.difference.interval_at(1 - (1 - LEVEL) / looked_at)
    return None if interval is None else (found.difference.mean, interval)


def _text(mean: float, interval: tuple[float, float] | None) -> str:
    between = f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]" if interval else ""
    return f"{100 * mean:+.1f}{between}"


def _listed(texts: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = len(texts) - NAMED
    shown = [*texts[:NAMED], *([f"{more} more"] if more > 0 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
