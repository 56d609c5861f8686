"""The scripts that measure run, and end with one JSON object."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "performance"


def test_overhead_prints_ratios():
    command = [sys.executable, str(SCRIPTS / "overhead.py"), "--steps", "1", "--warmup", "1"]
    command += ["--batch", "4", "--spectrogram", "33", "32", "--variant", "official"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and found["batch"] == 4
    assert found["ratios"]["baseline"] == 1 and set(found["ratios"]) == {"baseline", "opm", "ogm", "opm+ogm"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
