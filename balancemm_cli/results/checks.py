"""Whether a suite was reproduced, for `bmm report --check`: a verdict a number, and JUnit XML for a CI job.

A printed number comes without a spread. Ours counts as the same where the whole 95 % interval of ours lies within a
band about it (the suite's `band`), as better or worse where the whole interval lies beyond the band; else the runs do
not decide. A number of other data or of another split is not compared at all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree

from balancemm_cli.data.datasets.lists import OTHER_LISTS
from balancemm_cli.engine.suites import Expected, Suite
from balancemm_cli.results.groups import Collection, Group, Selection
from balancemm_cli.results.paper_tables import Cell, cells, table_numbers
from balancemm_cli.results.statistics import summarize, wilson

Word = Literal["reproduced", "better", "worse", "undecided", "not comparable", "not run"]
PASSING: tuple[Word, ...] = ("reproduced", "better")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one number, and why."""

    name: str
    word: Word
    reason: str

    @property
    def passes(self) -> bool:
        """Whether the check holds for this number."""
        return self.word in PASSING


def check(suite: Suite, collection: Collection, selection: Selection) -> list[Verdict]:
    """A verdict for each number that the suite is held against, and for each run that can't be used."""
    found = [
        Verdict(line.partition(":")[0], "not run", line.partition(": ")[2]) for line in collection.left_out
    ]
    if suite.table in table_numbers():
        found += [judge(cell, suite.band) for cell in cells(suite.table, collection.groups, selection)]
    return found + [_within(expected, collection.groups, selection) for expected in suite.expected]


def judge(cell: Cell, band: float) -> Verdict:
    """The verdict on a printed number; `band` is a fraction, or for times a ratio."""
    printed = cell.published
    name = " ".join(filter(None, (printed.dataset, cell.model, printed.method, printed.metric, printed.note)))
    if cell.group is None or cell.ours is None or cell.delta is None:
        return Verdict(name, "not run", "No finished run has exactly the settings of the suite.")
    obstacles = _obstacles(cell.group)
    if obstacles:
        return Verdict(name, "not comparable", " ".join(obstacles))
    scale, unit = (100, " points") if printed.unit == "%" else (1, "")
    interval = _interval(cell)
    if interval is None:
        difference = f"{cell.delta * scale:+.1f}{unit}"
        return Verdict(
            name, "undecided", f"A single run, {difference} from the printed number, has no interval."
        )
    low, high = (limit - printed.fraction for limit in interval)
    reason = (
        f"The 95 % interval of ours less the printed number is {low * scale:+.1f} to {high * scale:+.1f}{unit}, "
        f"the band ±{band * scale:g}."
    )
    if -band <= low and high <= band:
        return Verdict(name, "reproduced", reason)
    if low > band:
        return Verdict(name, "better", reason)
    if high < -band:
        return Verdict(name, "worse", reason)
    return Verdict(name, "undecided", f"{reason} More seeds narrow it.")


def _interval(cell: Cell) -> tuple[float, float] | None:
    """Of several seeds Student's t, of one run's accuracy Wilson's over the test samples."""
    assert cell.group is not None and cell.ours is not None
    if cell.ours.interval is not None:
        return cell.ours.interval
    if cell.published.metric != "accuracy" or "test" not in cell.group.first.samples:
        return None
    count = cell.group.first.samples["test"][0]
    return wilson(round(cell.ours.mean * count), count)


def _obstacles(group: Group) -> list[str]:
    """Why the numbers of a group can't be held against printed ones."""
    found = [
        f"The {split} part has {used:,} of {expected:,} samples."
        for split, (used, expected) in group.first.samples.items()
        if used < expected
    ]
    if group.first.split == OTHER_LISTS:
        found.append("The lists are not the official ones.")
    return found


def _within(expected: Expected, groups: Sequence[Group], selection: Selection) -> Verdict:
    names = (expected.dataset, expected.model, expected.method)
    name = " ".join((*names, expected.metric))
    found = [group for group in groups if group.names[:3] == names]
    if len(found) != 1:
        reason = "No run has finished." if not found else f"{len(found)} groups of runs have these names."
        return Verdict(name, "not run" if not found else "undecided", reason)
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
