"""One report.md: the tables, the figures, and the command that makes each row again."""

import json
import shlex
from pathlib import Path

from balancemm_cli.data.store import atomic_file
from balancemm_cli.errors import BmmError, InputError
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.formats import to_markdown
from balancemm_cli.results.groups import Group, seeds_text
from balancemm_cli.results.settings import beyond_recipe


def write_report(contents: Contents, left_out: list[str], folder: Path, titled: bool = True) -> list[str]:
    """Write `folder`/report.md, the tables and the figures it shows; returns a line for each figure left out.

    `left_out` are lines on what of the runs is left out, which the report repeats.

    InputError where `folder` is a file; OSError where it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder. Name another one with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    figures, undrawn = contents.draw(folder / "figures", titled)
    parts = ["# Report\n", *(to_markdown(table) for table in contents.tables)]
    if figures:
        parts.append("## Figures\n\n" + "\n\n".join(_picture(path) for path in figures) + "\n")
    if contents.shown:
        parts.append(_reproduction(contents.shown))
    if missing := left_out + undrawn:
        parts.append("## Left out\n\n" + "\n".join(f"- {line}" for line in missing) + "\n")
    with atomic_file(folder / "report.md") as file:
        file.write("\n".join(parts).encode())
    return undrawn


def _picture(png: Path) -> str:
    vectors = " and ".join(
        f"[figures/{png.stem}.{kind}](figures/{png.stem}.{kind})" for kind in ("svg", "pdf")
    )
    return f"![{png.stem}](figures/{png.name})\n\nAs vectors: {vectors}."


def _reproduction(groups: list[Group]) -> str:
    lines = [
        "## How to make each row again\n",
        "Prepare the data set with `bmm prepare` first, unless it is the built-in one.",
        "A row's settings hash is of its settings without the seed, and of its data.\n",
    ]
    for group in groups:
        name = ", ".join((*group.names, *filter(None, [group.described])))
        parts = group.by_settings
        hashes = ", ".join(part.first.hashes.settings[:8] for part in parts)
        commands = "\n  ".join(map(train_command, parts))
        lines.append(f"- {name} (settings hash {hashes}):\n\n  ```\n  {commands}\n  ```\n")
    return "\n".join(lines)


def train_command(group: Group) -> str:
    """The `bmm train` command that makes the runs of a group with the same settings again.

    Settings that are not those of the recipe are given with --set, a file of weights by its SHA-256. Where the
    recipe is not known here (it was the user's own file), the command ends in a comment that names the run's
    config.toml.
    """
    first = group.first
    words = ["bmm", "train", "--dataset", first.dataset, "--model", first.model, "--method", first.method]
    words += ["--variant", first.variant, "--recipe", first.recipe, "--seeds", seeds_text(group.seeds)]
    try:
        for key, value in beyond_recipe(group).items():
            words += ["--set", f"{key}={json.dumps(value, default=str)}"]
        if weights := group.runs[0].settings.get("weights"):
            words += ["--weights", str(weights)]
    except BmmError:
        return f"{shlex.join(words)}  # settings: {group.runs[0].place / 'config.toml'}"
    return shlex.join(words)
