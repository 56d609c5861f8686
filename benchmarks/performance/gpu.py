"""All that waits for a GPU, in one command: the tests that need one, the speed of a step under each switch (step.py),
and that of whole runs at a time (packed.py). Prints one JSON object: how many tests passed, failed and were skipped,
and the objects of the two scripts. Exit status 1 where anything failed.

    make gpu
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

HERE = Path(__file__).parent


def main() -> None:
    """Run it all, print the JSON object."""
    if not torch.cuda.is_available():
        raise SystemExit("There is no GPU here. Run this where there is one.")
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "tests": run_tests(),
    }
    for name in ("step", "packed"):
        found[name] = run_script(HERE / f"{name}.py")
    print(json.dumps(found))
    sys.exit(bool(found["tests"]["failed"] or None in found.values()))


def run_tests() -> dict[str, int]:
    """The tests with "gpu" in their names: how many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-k", "gpu", f"--junit-xml={report}"]
        subprocess.run(command, cwd=HERE.parents[1], stdout=sys.stderr)
        counts = {name: 0 for name in ("passed", "failed", "skipped")}
        for case in ElementTree.parse(report).iter("testcase"):
            kinds = {child.tag for child in case}
            counts[
                "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            ] += 1
        return counts


def run_script(path: Path) -> dict[str, Any] | None:
    """The object that a script prints on its last line; None where it fails, which is said on stderr."""
    done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


if __name__ == "__main__":
    main()
