"""What `bmm report --suite finding-N` shows: one question, one file. See docs/findings."""

from balancemm_cli.results.contents import Contents
from balancemm_cli.results.findings.convergence import Convergence
from balancemm_cli.results.findings.dropping import Dropping
from balancemm_cli.results.findings.encoders import Encoders
from balancemm_cli.results.findings.estimate import Estimate
from balancemm_cli.results.findings.literature_gains import LiteratureGains
from balancemm_cli.results.findings.many_modalities import ManyModalities
from balancemm_cli.results.findings.noise import Noise
from balancemm_cli.results.findings.ogm_noise import OGMNoise
from balancemm_cli.results.findings.when_it_pays import WhenItPays

FINDINGS: dict[str, type[Contents]] = {
    "finding-1": Convergence,
    "finding-2": ManyModalities,
    "finding-3": Noise,
    "finding-4": Estimate,
    "finding-5": OGMNoise,
    "finding-6": Encoders,
    "finding-7": WhenItPays,
    "finding-8": Dropping,
    "finding-9": LiteratureGains,
}
