"""What `bmm report --suite finding-N` shows: one question, one file. See docs/findings."""

from balancemm_cli.results.contents import Contents
from balancemm_cli.results.findings.dropping import Dropping
from balancemm_cli.results.findings.literature_gains import LiteratureGains
from balancemm_cli.results.findings.ogm_noise import OGMNoise

FINDINGS: dict[str, type[Contents]] = {
    "finding-5": OGMNoise,
    "finding-8": Dropping,
    "finding-9": LiteratureGains,
}
