"""Whether a suite was reproduced, for `bmm report --check`: one verdict per number, and JUnit XML for a CI job."""

from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from balancemm_cli.config.run import RunConfig
from balancemm_cli.config.suites import GAIN, Expected, Suite
from balancemm_cli.results.collection import Collection
from balancemm_cli.results.evidence import faults_of_files
from balancemm_cli.results.gains import gains, pairs
from balancemm_cli.results.groups import Group
from balancemm_cli.results.paper_tables import cells
from balancemm_cli.results.published import other_reader
from balancemm_cli.results.statistics import TOST_LEVEL, Summary, within_bounds
from balancemm_cli.results.verdicts import (
    Verdict,
    chance,
    decide,
    faults_of_data,
    follows,
    opened,
    reached,
    strength,
    suite_of,
    table_numbers,
    without_interval,
)
from balancemm_cli.runs.run import Run
from balancemm_cli.runs.schema import Selection


def check(suite: Suite, collection: Collection, selection: Selection) -> list[Verdict]:
    """A verdict for each number that the suite is held against, and for each run that can't be used."""
    found = [
        Verdict(line.partition(":")[0], "not run", line.partition(": ")[2]) for line in collection.left_out
    ]
    if suite.table in table_numbers():
        # a suite of one's own can ask for more than the table's own one, and not for less
        band = min(suite.band, suite_of(suite.table).band)
        found += [cell.judge(band) for cell in cells(suite.table, collection.groups, selection)]
    planned = suite.configs()
    return found + [_within(expected, planned, collection.groups, selection) for expected in suite.expected]


def _within(
    expected: Expected, planned: Sequence[RunConfig], groups: Sequence[Group], selection: Selection
) -> Verdict:
    names = (expected.dataset, expected.model, expected.method)
    name = " ".join((*names, expected.metric))
    plans = [config for config in planned if (config.dataset, config.model, config.method) == names]
    found = [
        group
        for group in groups
        if group.names[:3] == names and any(follows(group, config) for config in plans)
    ]
    if not found:
        return Verdict(name, "not run", "No finished run has exactly the settings of the suite.")
    if len(found) > 1:
        return Verdict(name, "undecided", f"{len(found)} groups of runs have these names.")
    if missing := sorted({config.seed for config in plans} - {*found[0].seeds}):
        return Verdict(name, "not run", f"No run of seed {', '.join(map(str, missing))} has finished.")
    if obstacles := faults_of_data(found[0], lambda result: other_reader(result, expected.dataset)):
        return Verdict(name, "not comparable", " ".join(obstacles))
    baseline: list[Run] = []
    if expected.metric == GAIN:
        gain = gains(found, selection, among=groups).get(found[0].key)
        if gain is None:
            return Verdict(name, "not run", "No finished baseline has the same settings and seeds.")
        ours = gain.comparison.difference
        ((_, other),) = pairs(found, groups)
        baseline = other.runs
    else:
        ours = reached(found[0], expected.metric, selection)
    assert ours is not None  # `collect` leaves out runs without that epoch
    verdict = _expected(name, ours, expected)
    if verdict.passes and (faults := faults_of_files(found[0].runs, True) + faults_of_files(baseline, True)):
        return Verdict(name, "not comparable", " ".join(faults))
    return verdict


def _expected(name: str, ours: Summary, expected: Expected) -> Verdict:
    """By the tests of a printed number: the whole interval must lie in the range, so that it holds for other seeds."""
    half = (expected.high - expected.low) / 2
    of_gain = expected.metric == GAIN
    interval = ours.interval_at(TOST_LEVEL)
    interval = interval if of_gain else within_bounds(interval)
    shown = f", {100 * TOST_LEVEL:.0f} % interval {_percent(*interval)}" if interval else ""
    reason = [
        f"{100 * ours.mean:.1f} {'points' if of_gain else '%'} over {ours.n} seeds, expected "
        f"{100 * expected.low:.6g} to {100 * expected.high:.6g}{shown}."
    ]
    reason += (
        strength(ours, half, "Were the true mean in the middle of it")
        if interval
        else [without_interval(ours)]
    )
    ends = (expected.low, expected.high)
    word = decide(ours, *(ends if of_gain else opened(*ends)))
    # above a range is no success, as above a printed number is
    return Verdict(
        name, "outside" if word in ("better", "worse") else word, " ".join(reason), chance(ours, half)
    )


def _percent(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def expectation(verdicts: Sequence[Verdict]) -> str:
    """What to expect of so many verdicts at once, in a sentence; empty for fewer than two that an interval decides."""
    chances = [one.chance for one in verdicts if one.chance is not None]
    if len(chances) < 2:
        return ""
    by_chance = len(chances) * (1 - TOST_LEVEL) / 2
    return (
        f"{len(chances)} of {len(verdicts)} numbers have an interval over seeds. Were each exactly reproduced, about "
        f"{sum(chances):.1f} of them would be shown to be, with so many seeds of such spread; were each off by its "
        f"whole band, about {by_chance:.1f} would pass as reproduced by chance."
    )


def to_junit(suite: str, verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: a failure where a number was not reproduced, an error where it was not run; last what to expect."""
    errors = sum(one.word == "not run" for one in verdicts)
    failures = sum(not one.passes for one in verdicts) - errors
    counts = {"tests": len(verdicts), "failures": failures, "errors": errors}
    root = ElementTree.Element(
        "testsuite", {"name": suite} | {key: str(count) for key, count in counts.items()}
    )
    for one in verdicts:
        case = ElementTree.SubElement(root, "testcase", {"classname": suite, "name": one.name})
        if not one.passes:
            kind = "error" if one.word == "not run" else "failure"
            ElementTree.SubElement(case, kind, {"type": one.word, "message": one.reason})
    if expected := expectation(verdicts):
        ElementTree.SubElement(root, "system-out").text = expected
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_records(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Plain records of name, word, reason, passes."""
    return [{**asdict(one), "passes": one.passes} for one in verdicts]
