"""Runs of several people beside each other: whose they are, and what the files of one say against those of another.

A bundle of which any number is not what its own files give is left out whole. What speaks against one of two owners,
and can't say which, leaves both in, names both, and is a reason not to trust the rows (the rule `known`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from balancemm_cli.errors import InputError, first_of, plain
from balancemm_cli.results.evidence import claimed, copied_seeds, disagreements, labels_that_differ, tested
from balancemm_cli.runs.run import Run

OWN = "—"  # whose the runs of folders are, unless a name is given; no owner can be called so
NOBODY = "*"  # whose a row is that follows from the runs of several owners; nor so


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked into `folder`: `owner` is the name that its runs go by, `named` the one in it."""

    path: Path
    folder: Path
    owner: str
    named: str = ""

    def in_words(self, line: str) -> str:
        """A line on its runs, with the bundle in the place of the folder that it lies in for now."""
        return line.replace(str(self.folder), str(self.path))


def told_apart(bundles: Sequence[Bundle], own: str) -> list[Bundle]:
    """The bundles, those of one name, or of that of the runs in folders (`own`), with their paths behind it: a name is
    no proof of whose they are."""
    times = Counter([own, *(one.owner for one in bundles)])
    return [
        replace(one, owner=f"{one.owner} ({one.path})") if times[one.owner] > 1 else one for one in bundles
    ]


def borne_out(runs: Sequence[Run], bundle: Bundle) -> tuple[list[Run], list[str]]:
    """The runs of a bundle with what of them is claimed; or none, and a line on why, where their own files say other
    than their numbers."""
    of_group: dict[object, list[Run]] = defaultdict(list)
    found: list[Run] = []
    faults: list[str] = []
    for run in runs:
        try:
            faults += disagreements(run)[:1]
            packed = bundle.path / run.folder.relative_to(bundle.folder)
            found.append(replace(run, owner=bundle.owner, claimed=claimed(run), packed=packed))
            tested(run)  # while its file is decoded
        except InputError as error:
            faults.append(str(error))
        of_group[run.result.hashes].append(run)
    faults += [line for some in of_group.values() for line in copied_seeds(some)]
    if not faults:
        return found, []
    reason = bundle.in_words(first_of(faults))
    return [], [f"{bundle.path}, with all of its runs: its numbers are not what its own files give. {reason}"]


def each_once(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs without those of an owner of whose runs one before has every one, to the last second and the last
    prediction; and a line on each such owner. Who has others beside them keeps all: they may be the baseline of these.
    """
    of_owner: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of_owner[run.owner].append(run)
    kept: dict[str, dict[tuple, list[Run]]] = {}
    lines = []
    for owner, theirs in of_owner.items():
        having_all = [one for one, known in kept.items() if all(_among(run, known) for run in theirs)]
        if having_all:
            copied = f"{_named([owner])}: {_runs(len(theirs))} of {_named(having_all[:1])} under another name"
            lines.append(f"{copied}, counted once, for the latter.")
            continue
        kept[owner] = defaultdict(list)
        for run in theirs:
            kept[owner][_asked(run)].append(run)
    return [run for run in runs if run.owner in kept], lines


def _among(run: Run, known: Mapping[tuple, list[Run]]) -> bool:
    same = (one for one in known.get(_asked(run), ()) if one.result == run.result)
    return any(tested(one) == tested(run) for one in same)


def _asked(run: Run) -> tuple:
    return run.result.hashes, run.result.seed


def doubted(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs with what those of others say against them, and a line for each such thing."""
    if len({run.owner for run in runs}) < 2:
        return list(runs), []
    doubts: dict[Path, str] = {}
    lines = [*_other_labels(runs, doubts), *_same_answers(runs, doubts)]
    return [
        replace(run, doubts=(doubts[run.folder],)) if run.folder in doubts else run for run in runs
    ], lines


def _other_labels(runs: Sequence[Run], doubts: dict[Path, str]) -> Iterator[str]:
    """On labels that differ for the same sample of the same data, of the same task."""
    by_data: dict[tuple, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if one := tested(run):
            task = run.config and run.config.settings.task
            by_data[run.result.hashes.data, task][one.truth].append(run)
    for (data, _), alike in by_data.items():
        for sample, *both in labels_that_differ([some[0] for some in alike.values()]):
            parties = [one for run in both for one in alike[_truth(run)]]
            line = (
                f"{_named([run.owner for run in parties])} have different labels of the same test samples (data hash "
                f"{data[:8]}, as of '{plain(sample)}'): the files of one were changed."
            )
            doubts |= dict.fromkeys((run.folder for run in parties), line)
            yield line


def _truth(run: Run) -> str:
    found = tested(run)
    assert found
    return found.truth


def _same_answers(runs: Sequence[Run], doubts: dict[Path, str]) -> Iterator[str]:
    """On runs of several owners, and of several seeds, that predict the same."""
    by_answers: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        if one := tested(run):
            by_answers[run.result.hashes.data, one.answers].append(run)
    found: dict[tuple, list[list[Run]]] = defaultdict(list)
    for same in by_answers.values():
        owners, seeds = sorted({run.owner for run in same}), {run.result.seed for run in same}
        if len(owners) > 1:
            found[len(seeds) > 1, *owners].append(same)
    for (copied, *owners), some in found.items():
        names = ", ".join(
            f"{run.result.method} seed {run.result.seed} of {_named([run.owner])}" for run in some[0]
        )
        why = (
            "no two seeds give the same, so one run was copied"
            if copied
            else "the same computation on the same kind of machine, or one run under two names"
        )
        line = f"{_runs(len(some))} of {_named(owners)} have the same predictions to the last bit (as {names}): {why}."
        if copied:
            doubts |= dict.fromkeys((run.folder for same in some for run in same), line)
        yield line


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _named(owners: Sequence[str]) -> str:
    return " and ".join(sorted({f"'{owner}'" if owner else "the folders" for owner in owners}))
