"""Rows that no training is needed for: the ensemble of the modalities trained alone, and the most frequent class.

Both are computed from what the runs that are there predicted on the test part, seed by seed, and are no runs
themselves: they have neither a folder nor a verdict, and what is made from run folders (figures of trainings, bundles,
checks) leaves them out. The *ensemble* is the mean of what the networks of one modality each predict: of the
probabilities of a classification, of the estimates of a regression. The *majority class* answers each test sample with
the answer that is most frequent in the test part, of a regression with the median: no constant answer is better, so
the row flatters nobody."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from balancemm_cli.errors import InputError
from balancemm_cli.metrics.classification import evaluate_scores
from balancemm_cli.results.evidence import kept
from balancemm_cli.results.groups import UNIMODAL, Group, Key, arranged
from balancemm_cli.results.sharing import NOBODY
from balancemm_cli.results.statistics import GAP
from balancemm_cli.results.terms import searched, terms
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import SELECTIONS, Environment, Result, Selected, Selection
from balancemm_cli.runs.search import SearchRecord

ENSEMBLE, MAJORITY = "ensemble", "majority"
JOINT = "concat"  # the model whose baseline both are held against


@dataclass(frozen=True)
class Reference(Run):
    """What one seed's runs give without a training of their own; `members` are the runs that it was computed from."""

    answered: Mapping[Selection, pa.Table] = field(default_factory=dict)
    shared: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, object]:
        """Those that its members share, by the keys that --set takes."""
        return dict(self.shared)

    @cached_property
    def environments(self) -> list[Environment]:
        """Those of its members."""
        return [one for run in self.members for one in run.environments]

    def predictions(self, selection: Selection) -> pa.Table:
        """See Run; these were never in a file."""
        return self.answered[selection]


def with_references(groups: Sequence[Group]) -> tuple[list[Group], list[str]]:
    """The groups and the references that follow from them, in the order of a table; and a line for each ensemble that
    can't be formed, with what it lacks."""
    left_out: list[str] = []
    found = [*_ensembles(groups, left_out), *_majorities(groups, left_out)]
    return arranged([*groups, *found]), left_out


# ---- the ensemble -------------------------------------------------------------------------------------------


def _ensembles(groups: Sequence[Group], left_out: list[str]) -> Iterator[Group]:
    """An ensemble for each set of groups of one modality each, of the same data and settings."""
    families: dict[tuple, dict[str, Group]] = defaultdict(dict)
    found: dict[tuple, tuple[SearchRecord, ...]] = {}
    for group in groups:
        if group.first.model.startswith(UNIMODAL) and group.runs[0].config:
            for key, searches in _terms(group):
                families[key][group.first.model.removeprefix(UNIMODAL)] = group
                found[key] = searches
    formed: set[tuple[Key, ...]] = set()  # of members that share several terms there is one
    for key, alone in families.items():
        members = tuple(group.key for group in alone.values())
        if members in formed:
            continue
        formed.add(members)
        one = next(iter(alone.values()))
        needed = _modalities(one, groups, alone)
        tuned = ", tuned" * bool(found[key])
        name = f"{one.first.dataset} ({one.first.variant}, {one.first.recipe}{tuned})"
        if missing := [modality for modality in needed if modality not in alone]:
            left_out.append(f"no ensemble of {name}: there are no runs of {', '.join(missing)} alone.")
        elif len(needed) > 1:
            yield from _ensemble([alone[modality] for modality in needed], name, found[key], left_out)


def _terms(group: Group) -> list[tuple[tuple, tuple[SearchRecord, ...]]]:
    """What the members of an ensemble share: settings, or where searches chose these, what the searches share."""
    own = ("model", "method")
    return [*searched(group, own).items()] or [(terms(group, own), ())]


def _modalities(one: Group, groups: Sequence[Group], alone: Mapping[str, Group]) -> list[str]:
    """The modalities of a data set, as far as its settings and the joint runs on it tell."""
    config = one.runs[0].config
    if config and config.settings.modalities:
        return list(config.settings.modalities)
    joint = [
        group.first.selections["last"].unimodal
        for group in groups
        if (group.owner, group.first.hashes.data) == (one.owner, one.first.hashes.data)
        and not group.first.model.startswith(UNIMODAL)
    ]
    return list(dict.fromkeys([*(name for names in joint for name in names), *alone]))


def _ensemble(
    members: Sequence[Group], name: str, searches: tuple[SearchRecord, ...], left_out: list[str]
) -> Iterator[Group]:
    by_seed = [{run.result.seed: run for run in group.runs} for group in members]
    shared = sorted(set.intersection(*(set(runs) for runs in by_seed)))
    try:
        runs = [_of_seed([runs[seed] for runs in by_seed]) for seed in shared]
    except (InputError, ValueError) as error:  # files that are missing, or hold what no run writes
        left_out.append(f"no ensemble of {name}: {error}")
        return
    if runs:
        yield Group(runs, searches=searches)
    else:
        left_out.append(f"no ensemble of {name}: its runs of one modality each share no seed.")


def _of_seed(members: Sequence[Run]) -> Run:
    """The ensemble of one seed. InputError where predictions are missing, or not of the same samples."""

    def mean(selection: Selection) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[Any]]:
        parts = [kept(run, selection) for run in members]
        ids, truth = parts[0][0], parts[0][2]
        for run, (others, _, labels) in zip(members, parts, strict=True):
            if not (np.array_equal(ids, others) and np.array_equal(truth, labels)):
                raise InputError(f"{run.place} was tested on other samples than {members[0].place}.")
        return ids, np.asarray(np.mean([one for _, one, _ in parts], 0, dtype=np.float64)), truth

    def unimodal(selection: Selection) -> dict[str, float]:
        return {
            run.result.model.removeprefix(UNIMODAL): run.result.selections[selection].accuracy
            for run in members
        }

    shared: list[Selection] = [
        selection for selection in SELECTIONS if all(selection in run.result.selections for run in members)
    ]
    seconds = [run.result.time.get("seconds") for run in members]
    total = {"seconds": sum(one for one in seconds if one is not None)} if all(seconds) else {}
    found: dict[Selection, tuple] = {
        selection: (*mean(selection), unimodal(selection)) for selection in shared
    }
    first = members[0]
    own = ("method", f"{first.result.model}.")
    as_joint = {
        key: value
        for key, value in first.settings.items()
        if not key.startswith(own) and all(run.settings.get(key) == value for run in members)
    }
    return replace(
        _reference(ENSEMBLE, members, found, {**as_joint, "model": JOINT}, total), owner=first.owner
    )


# ---- the most frequent class --------------------------------------------------------------------------------


def _majorities(groups: Sequence[Group], left_out: list[str]) -> Iterator[Group]:
    """The majority class of each data set, for each seed that any run of it has: of folds each seed has another test
    part."""
    owners = {group.owner for group in groups}
    owner = owners.pop() if len(owners) == 1 else NOBODY
    by_data: dict[tuple, dict[int, Run]] = defaultdict(dict)
    with_predictions_first = sorted(
        (run for group in groups for run in group.runs), key=lambda run: "last" in run.claimed
    )
    for run in with_predictions_first:
        if run.config:
            terms = (run.result.dataset, run.result.hashes.data, run.config.settings.task)
            of_data = by_data[terms]
            if "last" not in run.claimed or not of_data:
                of_data.setdefault(run.result.seed, run)
    for (dataset, *_), runs in by_data.items():
        try:
            found = [replace(_constant(runs[seed]), owner=owner) for seed in sorted(runs)]
        except (InputError, ValueError) as error:
            left_out.append(f"no majority class of {dataset}: {error}")
            continue
        yield Group(found)


def _constant(run: Run) -> Run:
    assert run.config
    ids, predictions, truth = kept(run, "last")
    constant = run.config.task.constant(truth, predictions.shape[-1])
    found: dict[Selection, tuple] = {
        selection: (ids, constant, truth, {})
        for selection in SELECTIONS
        if selection in run.result.selections
    }
    return _reference(MAJORITY, [run], found, {"task": run.config.settings.task}, {})


# ---- both ---------------------------------------------------------------------------------------------------


def _reference(
    name: str,
    members: Sequence[Run],
    found: Mapping[Selection, tuple],
    shared: Mapping[str, object],
    time: Mapping[str, float],
) -> Run:
    """A Reference of ids, predictions, labels and the modalities' own accuracies by selection."""
    first, config = members[0], members[0].config
    assert config
    selections: dict[Selection, Selected] = {}
    answered: dict[Selection, pa.Table] = {}
    for selection, (ids, predictions, truth, unimodal) in found.items():
        scores, labels = config.task.answers(predictions, truth)
        metrics = {
            **evaluate_scores(scores, labels),
            "unimodal": unimodal,
            **config.task.metrics(predictions, truth, None),
        }
        epoch = first.result.selections[selection].epoch
        selections[selection] = Selected.model_validate({"epoch": epoch, **metrics})
        answered[selection] = pa.table({"id": ids, "label": labels, "scores": list(scores)})
    told_by = f"{name} {first.result.dataset} {first.result.hashes.data} {sorted(shared.items())}"
    if name == ENSEMBLE:  # of members whose settings differ, as each one's search chose them
        told_by += str([run.result.hashes.settings for run in members])
    settings = hashlib.sha256(told_by.encode()).hexdigest()
    result: Result = first.result.model_copy(
        update={
            "model": name,
            "method": GAP,
            "selections": selections,
            "rho": {},
            "hashes": first.result.hashes.model_copy(update={"settings": settings}),
            "time": dict(time),
        }
    )
    return Reference(
        first.folder / name,
        result,
        members=tuple(members),
        claimed=frozenset(one for run in members for one in run.claimed),
        answered=answered,
        shared=shared,
    )
