"""Where the files of benchmarks/ are: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def benchmarks_folder() -> Path:
    """The folder that holds published/, recipes/ and suites/."""
    installed = PACKAGE / "benchmarks"
    return installed if installed.is_dir() else PACKAGE.parent / "benchmarks"


def suites() -> dict[str, Path]:
    """The suite files that come with the program, by name."""
    return {path.stem: path for path in sorted((benchmarks_folder() / "suites").glob("*.toml"))}
