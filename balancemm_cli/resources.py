"""What comes with the program: the files of benchmarks/, and the commit that it was made of.

In a checkout they lie beside the package and in git; an installed wheel has them inside.
"""

import subprocess
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def benchmarks_folder() -> Path:
    """The folder that holds published/, recipes/, spaces/ and suites/."""
    installed = PACKAGE / "benchmarks"
    return installed if installed.is_dir() else PACKAGE.parent / "benchmarks"


def suites() -> dict[str, Path]:
    """The suite files that come with the program, by name."""
    return {path.stem: path for path in sorted((benchmarks_folder() / "suites").glob("*.toml"))}


def suites_of_the_paper() -> dict[str, Path]:
    """The suites of the paper's tables and figures, which have small forms."""
    return {name: path for name, path in suites().items() if name.startswith(("table-", "figure-"))}


@cache
def commit() -> str | None:
    """The commit of this program, with `+` behind it where files were changed: of its own checkout, else the one that
    the wheel was built from. None where neither is known; never that of a repository around the environment."""
    recorded = PACKAGE / "commit.txt"
    if recorded.is_file():
        return recorded.read_text("utf-8").strip() or None
    return checkout_commit(PACKAGE.parent)


def checkout_commit(folder: Path) -> str | None:
    """The commit of the git checkout whose top is `folder`; None where it is no top, or git can't tell."""
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None
