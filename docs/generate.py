"""Write into the pages what the program itself knows: `python docs/generate.py`, which `make docs` does first.

What stands between `<!-- from: bmm … -->` and `<!-- end -->` is what that command says: usage and options of
`bmm train --help`, a line each of `bmm --help` and `bmm list methods`. tests/test_site.py fails where a page is stale.
"""

import re
from pathlib import Path, PurePosixPath

from typer.main import get_command

from balancemm_cli.cli import app
from balancemm_cli.cli.list import KINDS

DOCS = Path(__file__).parent
BLOCK = re.compile(r"<!-- from: bmm (.+?) -->\n.*?<!-- end -->", re.S)
EXTRAS = re.compile(r"\s*\[(?:default: \(?(.*?)\)?|required|[^;]*)(?:; .*)?\]$")  # [default: 1; x>=1]
TYPES = {"str": "TEXT", "list[str]": "TEXT", "path": "PATH", "int": "N", "float": "X"}
PROGRAM = get_command(app)


def current(page: str) -> str:
    """The text of a page, with its blocks as the program is now."""
    return BLOCK.sub(
        lambda found: f"<!-- from: bmm {found[1]} -->\n\n{_block(found[1])}\n\n<!-- end -->", page
    )


def _block(words: str) -> str:
    if words == "--help":
        commands = PROGRAM.commands.items()
        lines = ((f"bmm {name}", f"{name}.md", one.help.partition("\n")[0]) for name, one in commands)
    elif words.endswith("--help"):
        return _usage_and_options(words.removesuffix(" --help"))
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


if __name__ == "__main__":
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if current(text) != text:
            path.write_text(current(text), encoding="utf-8")
            print(f"{path.relative_to(DOCS)} brought up to date")
