"""The methods, one file each. Several are joined by `+`; their hooks run in the order of the table below."""

from balancemm_cli.errors import UsageError
from balancemm_cli.extensions import RESERVED, absent, extensions
from balancemm_cli.methods.agm import AGM
from balancemm_cli.methods.annealed_dropout import AnnealedDropout
from balancemm_cli.methods.arl import ARL
from balancemm_cli.methods.base import Method, MethodSettings
from balancemm_cli.methods.cggm import CGGM
from balancemm_cli.methods.curriculum_dropout import CurriculumDropout
from balancemm_cli.methods.dgl import DGL
from balancemm_cli.methods.dropout import Dropout
from balancemm_cli.methods.evolutional_dropout import EvolutionalDropout
from balancemm_cli.methods.g2d import G2D
from balancemm_cli.methods.g_blending import GBlending
from balancemm_cli.methods.greedy import Greedy
from balancemm_cli.methods.greedy_adaptation import GreedyAdaptation
from balancemm_cli.methods.inforeg import InfoReg
from balancemm_cli.methods.input_noise import InputNoise
from balancemm_cli.methods.lfm import LFM
from balancemm_cli.methods.mla import MLA
from balancemm_cli.methods.mmpareto import MMPareto
from balancemm_cli.methods.moddrop import ModDrop
from balancemm_cli.methods.mslr import MSLR
from balancemm_cli.methods.ogm import OGM
from balancemm_cli.methods.ogm_star import OGMStar
from balancemm_cli.methods.opm import OPM
from balancemm_cli.methods.pmr import PMR
from balancemm_cli.methods.reconboost import ReconBoost
from balancemm_cli.methods.relearning import Relearning
from balancemm_cli.methods.smv import SMV
from balancemm_cli.methods.unimodal_losses import UnimodalLosses
from balancemm_cli.models import MODELS

_OURS: dict[str, type[Method]] = {
    "baseline": Method,
    "input-noise": InputNoise,
    "mla": MLA,
    "reconboost": ReconBoost,
    "g-blending": GBlending,
    "greedy": Greedy,
    "greedy-adaptation": GreedyAdaptation,
    "agm": AGM,
    "pmr": PMR,
    "mmpareto": MMPareto,
    "opm": OPM,
    "ogm": OGM,
    "ogm-star": OGMStar,
    "moddrop": ModDrop,
    "dropout": Dropout,
    "annealed-dropout": AnnealedDropout,
    "evolutional-dropout": EvolutionalDropout,
    "curriculum-dropout": CurriculumDropout,
    "unimodal-losses": UnimodalLosses,
    "dgl": DGL,
    "arl": ARL,
    "lfm": LFM,
    "mslr": MSLR,
    "relearning": Relearning,
    "cggm": CGGM,
    "inforeg": InfoReg,
    "smv": SMV,
    "g2d": G2D,
}
VARIANTS = ("paper", "official")


def _usable(method: type[Method], name: str) -> type[Method]:
    """A method of another package. TypeError where recipes could not set it."""
    if not issubclass(method.Settings, MethodSettings):
        raise TypeError("its Settings are no subclass of MethodSettings")
    if not {*VARIANTS} <= {*method.VARIANTS}:
        raise TypeError(f"its VARIANTS lack one of {' and '.join(VARIANTS)}")
    return method


METHODS = {**_OURS, **extensions("bmm.methods", Method, {*_OURS, *MODELS, *RESERVED}, _usable)}


def method_names(method: str) -> list[str]:
    """The methods joined in a name such as "opm+ogm", in the order of METHODS.

    UsageError for a name that is unknown or stands twice, InputError for one of another package that is of no use.
    """
    names = method.split("+")
    for name in names:
        if name not in METHODS:
            raise absent("method", name, METHODS, "bmm.methods")
    if len(set(names)) < len(names):
        raise UsageError(f"Method '{method}' names one method twice. Name each once, as in opm+ogm.")
    return sorted(names, key=list(METHODS).index)
