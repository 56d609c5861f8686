"""Records in a built package the commit that it was built from, which `bmm` then shows with its results."""

import runpy
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORD = "balancemm_cli/commit.txt"


class CommitHook(BuildHookInterface):
    """Adds balancemm_cli/commit.txt to wheels and source packages; one built from a source package keeps its own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build; an editable install is left to its checkout."""
        root = Path(self.root)
        if version == "editable" or (root / RECORD).exists():
            return
        resources = runpy.run_path(str(root / "balancemm_cli" / "resources.py"))
        commit = resources["checkout_commit"](root)
        with NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
            file.write(commit or "")
        self.temporary = Path(file.name)
        build_data["force_include"][file.name] = RECORD

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling after a build."""
        if temporary := getattr(self, "temporary", None):
            temporary.unlink(missing_ok=True)
