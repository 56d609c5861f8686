"""What `bmm report --suite finding-N` shows: one question, one file. See docs/findings."""

from balancemm_cli.results.findings.dropping import Dropping
from balancemm_cli.results.findings.finding import Finding
from balancemm_cli.results.findings.noise import Noise
from balancemm_cli.results.findings.ogm_noise import OGMNoise

FINDINGS: dict[str, type[Finding]] = {
    "finding-3": Noise,
    "finding-5": OGMNoise,
    "finding-8": Dropping,
}
