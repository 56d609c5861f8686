"""What comes with the program: the files of benchmarks/, and the commit that it was made of.

In a checkout they lie beside the package and in git; an installed wheel has them inside.
"""

import subprocess
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
LATER_TABLES = {
    "arl-2025": ("Asymmetric Representation Learning (ICCV 2025, arXiv 2507.10203)", "Table 1"),
    "dgl-2025": ("Disentangled Gradient Learning (ICCV 2025, arXiv 2507.10213)", "Table 1"),
    "lfm-2024": (
        "LFM: Facilitating Multimodal Classification via Dynamically Learning Modality Gap (NeurIPS 2024)",
        "Table 1",
    ),
    "mmpareto-2024": ("MMPareto (ICML 2024)", "Table 1"),
    "relearning-2024": ("Diagnosing and Re-learning (ECCV 2024)", "Table 1"),
}
"""The tables of later papers that a suite of the same name plans: source and table in published/later_papers.csv."""


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
