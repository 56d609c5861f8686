"""The rules of a comparison that can be relied on, checked for every row of a report: docs/rules.md says why each.

The list is data: a rule has a name, what it asks, and a check that gives the reason why a row does not keep it. A mark
says what the files of the runs show. It is no proof: whoever makes up all files of a run can make up these as well.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from balancemm_cli.errors import first_of
from balancemm_cli.origin import not_held, origins
from balancemm_cli.results.evidence import faults_of_files
from balancemm_cli.results.gains import BASELINE, pairs, tuned_alike
from balancemm_cli.results.groups import UNIMODAL, Group, Key
from balancemm_cli.results.published import OWN, other_reader
from balancemm_cli.results.references import MAJORITY
from balancemm_cli.results.statistics import MIN_SEEDS
from balancemm_cli.results.terms import tunings
from balancemm_cli.results.verdicts import faults_of_data
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Result, Selection
from balancemm_cli.runs.search import SearchRecord

MADE = "made"  # the split of data that the program makes itself
CHANGED = "+"  # ends the commit of a program with changes that are not in it
KEPT, BROKEN, NOT_ASKED = "✓", "–", "·"


@dataclass(frozen=True)
class Case:
    """A row as the checks see it: its runs, the epoch rule, its baseline if there is one, and all groups that there
    are."""

    group: Group
    selection: Selection
    baseline: Group | None
    others: Sequence[Group]

    @property
    def is_method(self) -> bool:
        """Whether it is to be held against a baseline."""
        return self.group.first.method != BASELINE


@dataclass(frozen=True)
class Rule:
    """A rule; `check` gives the reason why a row does not keep it, or nothing. It `asks` some rows alone."""

    name: str
    what: str
    why: str
    check: Callable[[Case], str]
    asks: Callable[[Case], bool] = lambda case: case.group.trained


def _epoch(case: Case) -> str:
    return "The test samples chose the epoch." if case.selection == "best-test" else ""


def _seeds(case: Case) -> str:
    count = len(case.group.seeds)
    return f"It has {count} {'seed' if count == 1 else 'seeds'}." if count < MIN_SEEDS else ""


def _samples(case: Case) -> str:
    return " ".join(faults_of_data(case.group, lambda _: ""))


def _split(case: Case) -> str:
    return first_of(found) if (found := list(filter(None, map(_split_fault, _results(case.group))))) else ""


def _split_fault(result: Result) -> str:
    data = result.data
    if data.split_name == MADE:
        return ""
    if fault := other_reader(result, result.dataset):
        return fault
    if data.reader == OWN:
        return "The data are one's own, and no split of them was published."
    if not data.official_lists:
        return f"The lists of split '{data.split_name or 'unknown'}' are not known to be the published ones."
    return ""


def _results(group: Group) -> list[Result]:
    """The results of a group without those that say the same of their data, so that each fault is said once."""
    return list({run.result.data: run.result for run in group.runs}.values())


def _baseline(case: Case) -> str:
    if case.baseline is None:
        return "There are no runs of its baseline with the same settings and data."
    mine, theirs = {*case.group.seeds}, {*case.baseline.seeds}
    sentences = {"Its baseline lacks seed": mine - theirs, "It lacks, of its baseline's, seed": theirs - mine}
    return " ".join(f"{text} {', '.join(map(str, sorted(of)))}." for text, of in sentences.items() if of)


def _tuned(case: Case) -> str:
    if not case.group.searches:
        return "No search chose its settings."
    if not case.is_method:
        return ""
    baselines = _of(case, *case.group.names[:2], BASELINE)
    if case.baseline and tuned_alike(case.group, case.baseline):
        times, theirs = (sum(map(tunings, of)) for of in (_of(case, *case.group.names), baselines))
        return f"It was tuned {times} times, and its baseline {theirs}." if times > theirs else ""
    mine, others = _extent(case.group.searches), [one for of in baselines for one in of.searches]
    if not others:
        return f"No search chose its baseline's settings; its own are from {mine}."
    return f"Its settings are from {mine}, and its baseline's from {_extent(others)}, in other terms."


def _of(case: Case, *names: str) -> list[Group]:
    """The owner's groups whose names begin like this."""
    return [
        group
        for group in case.others
        if group.owner == case.group.owner and group.names[: len(names)] == names
    ]


def _extent(searches: Iterable[SearchRecord]) -> str:
    seeds: dict[str, set[int]] = {}
    for search in searches:
        kind = f"{len(search.trials)} trials ({search.search}, budget {search.allowed}"
        seeds.setdefault(kind, set()).add(search.seed)
    return " and ".join(
        f"{kind}, seed {', '.join(map(str, sorted(of)))})" for kind, of in sorted(seeds.items())
    )


def _code(case: Case) -> str:
    model, method = case.group.first.model, case.group.first.method
    names = [*not_held([(model, method)]), *({model, *method.split("+")} - origins().keys())]
    return f"Never held against its authors' code: {', '.join(sorted(names))}." if names else ""


def _known(case: Case) -> str:
    runs = [member for run in case.group.runs for member in (run.members or (run,))]
    faults = [fault for run in runs if (fault := _unknown(run))]
    by_model: dict[str, list[Run]] = {}
    for run in runs:
        by_model.setdefault(run.result.model, []).append(run)
    found = list(dict.fromkeys(faults)) or [
        one for some in by_model.values() for one in faults_of_files(some)
    ]
    return first_of(found) if found else ""


def _unknown(run: Run) -> str:
    if run.config is None:
        return "A config.toml names what this version does not know."
    if run.result.data.reader is None:
        return "A version that did not record the data set made it."
    if any(one.version is None or one.git is None for one in run.environments):
        return "Which version and commit of the program made it was not recorded."
    changed = sorted({str(one.git) for one in run.environments if str(one.git).endswith(CHANGED)})
    return f"A changed program made it (commit {', '.join(changed)})." if changed else ""


def _of_runs(case: Case) -> bool:
    """Rows with seeds of their own: trained ones, and the ensemble."""
    return case.group.first.model != MAJORITY


RULES = (
    Rule(
        "epoch",
        "the epoch was not chosen on the test samples",
        "An epoch that is best on the test samples is best by luck too: its accuracy is too high.",
        _epoch,
        _of_runs,
    ),
    Rule(
        "seeds",
        f"at least {MIN_SEEDS} seeds",
        f"Fewer than {MIN_SEEDS} say next to nothing of how much seeds vary; five or more are better.",
        _seeds,
        _of_runs,
    ),
    Rule(
        "samples",
        "all samples of the data set",
        "A test on some of the samples is another test.",
        _samples,
        lambda _: True,
    ),
    Rule(
        "split",
        "the split is the official one, by its lists; of data without one, the fixed one of this program",
        "Numbers of two splits can't be compared.",
        _split,
        lambda _: True,
    ),
    Rule(
        "baseline",
        "its baseline was run with the same settings, or those of the same search, and with the same seeds",
        "Baselines of one data set lie tens of points apart between papers; the best seeds lie above the mean of all.",
        _baseline,
        lambda case: case.is_method and _of_runs(case),
    ),
    Rule(
        "tuned",
        "a search chose its settings, and under the same budget those of its baseline",
        "What was tuned longer looks better than what it is held against.",
        _tuned,
    ),
    Rule(
        "code",
        "method and model were held against numbers of their authors' code",
        "What is called by a method's name must be that method.",
        _code,
        lambda case: case.group.trained and not case.group.first.model.startswith(UNIMODAL),
    ),
    Rule(
        "known",
        "data, settings, version and commit are recorded, and the accuracies are those of the predictions",
        "What is not known can't be made again.",
        _known,
        lambda _: True,
    ),
)


def checked(
    groups: Sequence[Group], selection: Selection, among: Sequence[Group] = ()
) -> dict[Key, dict[str, str | None]]:
    """For each group, by its key, the rules that it is asked for, each with the reason why it does not keep it, None
    where it does. Baselines are looked for in `groups` and `among`."""
    others = list({id(group): group for group in (*groups, *among)}.values())
    baselines = {group.key: baseline for group, baseline in pairs(groups, among)}
    cases = [Case(group, selection, baselines.get(group.key), others) for group in groups]
    return {
        case.group.key: {rule.name: rule.check(case) or None for rule in RULES if rule.asks(case)}
        for case in cases
    }


def marks(found: Mapping[str, str | None]) -> str:
    """The marks of a row, one a rule in the order of RULES."""
    return "".join(
        NOT_ASKED if rule.name not in found else BROKEN if found[rule.name] else KEPT for rule in RULES
    )


def missing(names: Sequence[str], found: Sequence[Mapping[str, str | None]]) -> list[str]:
    """A line for each rule and reason why rows do not keep it, with the names of these rows."""
    lines = []
    for rule in RULES:
        asked = [(name, one[rule.name]) for name, one in zip(names, found, strict=True) if rule.name in one]
        for reason in dict.fromkeys(reason for _, reason in asked if reason):
            rows = [name for name, one in asked if one == reason]
            which = "each row that is asked" if len(rows) == len(asked) > 1 else ", ".join(rows)
            lines.append(f"{rule.name} {BROKEN} {which}: {reason}")
    return lines


def key() -> str:
    """What the marks stand for, for a note under a table."""
    order = ", ".join(rule.name for rule in RULES)
    return f"Rules: {KEPT} kept, {BROKEN} not, {NOT_ASKED} not asked of such a row; in the order {order}."
