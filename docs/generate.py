"""Write into the pages what the program itself knows: `python docs/generate.py`, which `make docs` does first.

What stands between `<!-- from: bmm … -->` and `<!-- end -->` is what that command says: usage and options of
`bmm train --help`, a line each of `bmm --help` and `bmm list methods`. The table `<!-- from: origins -->` is of
what the methods and models were held against, with the cases of tests/golden.py, and `<!-- from: rules -->` of the
rules that a report checks. tests/test_site.py fails where a page is stale.
"""

import importlib.util
import re
from pathlib import Path, PurePosixPath

from typer.main import get_command

from balancemm_cli.cli import app
from balancemm_cli.cli.list import KINDS
from balancemm_cli.methods import METHODS
from balancemm_cli.origin import origins
from balancemm_cli.results.rules import RULES

DOCS = Path(__file__).parent
BLOCK = re.compile(r"<!-- from: (.+?) -->\n.*?<!-- end -->", re.S)
EXTRAS = re.compile(r"\s*\[(?:default: \(?(.*?)\)?|required|[^;]*)(?:; .*)?\]$")  # [default: 1; x>=1]
TYPES = {"str": "TEXT", "list[str]": "TEXT", "path": "PATH", "int": "N", "float": "X"}
PROGRAM = get_command(app)


def current(page: str) -> str:
    """The text of a page, with its blocks as the program is now."""
    return BLOCK.sub(lambda found: f"<!-- from: {found[1]} -->\n\n{_block(found[1])}\n\n<!-- end -->", page)


def _block(source: str) -> str:
    words = source.removeprefix("bmm ")
    if words == "--help":
        commands = PROGRAM.commands.items()
        lines = ((f"bmm {name}", f"{name}.md", one.help.partition("\n")[0]) for name, one in commands)
    elif words.endswith("--help"):
        return _usage_and_options(words.removesuffix(" --help"))
    elif words == "origins":
        return _origins()
    elif words == "rules":
        return _rules()
    else:
        entries = KINDS[words.removeprefix("list ")]()
        lines = ((entry.name, PurePosixPath(entry.where).name, entry.what) for entry in entries)
    return "\n".join(f"- [{name}]({page}): {what}" for name, page, what in lines)


def _usage_and_options(name: str) -> str:
    command = PROGRAM.commands[name]
    context = command.make_context(f"bmm {name}", [], resilient_parsing=True)
    rows = [_row(*parameter.get_help_record(context)) for parameter in command.params]
    if not rows:
        return f"```\nbmm {name}\n```"
    usage = " ".join(command.collect_usage_pieces(context)).translate(str.maketrans("", "", "{}"))
    return "\n".join(
        [f"```\nbmm {name} {usage}\n```", "", "| option | meaning | default |", "|---|---|---|", *rows]
    )


def _row(typed: str, text: str) -> str:
    """A row of the table, from the two columns of the help: `--jobs N`, and its meaning with `[default: 1]`."""
    name, _, kind = typed.partition(" ")
    kind = TYPES.get(kind.strip("<>"), kind.strip("<>")) if name.startswith("-") else ""
    extras = EXTRAS.search(text)
    cells = [f"`{name} {kind}`".replace(" `", "`"), EXTRAS.sub("", text), (extras and extras[1]) or ""]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |".replace("  |", " |")


def _origins() -> str:
    """A row for each method and model: its paper, its code, what it was held against, and what differs."""
    cases, found = _held(), origins()
    kinds = {name: "methods" if name in METHODS else "models" for name in found}
    lines = ["| name | paper | authors' code | held against | differs by default |", "|---|---|---|---|---|"]
    for name, origin in found.items():
        code = f"[{origin.code}](https://github.com/{origin.code})" if origin.code else "none found"
        count, tolerance = cases.get(name, (0, 0.0))
        whose = "other people's" if origin.held == "others" else "the"
        cases_of = f"{count} {'case' if count == 1 else 'cases'}"
        held = f"numbers of {whose} code: {cases_of}, {tolerance:.0e}" if count else "the equation alone"
        link = f"[{name}]({kinds[name]}/{name}.md)"
        lines.append(f"| {link} | {origin.paper} | {code} | {held} | {origin.differs or 'nothing'} |")
    return "\n".join(lines)


def _rules() -> str:
    """A row for each rule: its place and name, what it asks, and why."""
    lines = ["| | rule | asks | why |", "|---|---|---|---|"]
    lines += [
        f"| {place} | `{rule.name}` | {rule.what} | {rule.why} |" for place, rule in enumerate(RULES, 1)
    ]
    return "\n".join(lines)


def _held() -> dict[str, tuple[int, float]]:
    spec = importlib.util.spec_from_file_location("golden", DOCS.parent / "tests" / "golden.py")
    assert spec and spec.loader
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    return golden.held()


if __name__ == "__main__":
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if current(text) != text:
            path.write_text(current(text), encoding="utf-8")
            print(f"{path.relative_to(DOCS)} brought up to date")
