"""Whether a suite was reproduced, for `bmm report --check`: a verdict a number, and JUnit XML for a CI job."""

from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from balancemm_cli.config.run import RunConfig
from balancemm_cli.config.suites import Expected, Suite
from balancemm_cli.results.groups import Collection, Group
from balancemm_cli.results.paper_tables import cells
from balancemm_cli.results.statistics import summarize
from balancemm_cli.results.verdicts import Verdict, follows, table_numbers
from balancemm_cli.runs.schema import Selection


def check(suite: Suite, collection: Collection, selection: Selection) -> list[Verdict]:
    """A verdict for each number that the suite is held against, and for each run that can't be used."""
    found = [
        Verdict(line.partition(":")[0], "not run", line.partition(": ")[2]) for line in collection.left_out
    ]
    if suite.table in table_numbers():
        found += [cell.judge(suite.band) for cell in cells(suite.table, collection.groups, selection)]
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
    ours = summarize([getattr(run.result.selections[selection], expected.metric) for run in found[0].runs])
    assert ours is not None
    low, high = 100 * expected.low, 100 * expected.high
    reason = f"{100 * ours.mean:.1f} % over {ours.n} seeds, expected {low:.1f} to {high:.1f}."
    if ours.mean < expected.low:
        return Verdict(name, "worse", reason)
    return Verdict(name, "better" if ours.mean > expected.high else "reproduced", reason)


def to_junit(suite: str, verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: a failure where a number was not reproduced, an error where it was not run."""
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
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_records(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Plain records of name, word, reason, passes."""
    return [{**asdict(one), "passes": one.passes} for one in verdicts]
