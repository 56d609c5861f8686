"""Models. A model's name says how the modalities are fused; the encoders are a setting of the recipe."""

from collections.abc import Mapping
from typing import Any

import torch

from balancemm_cli.errors import UsageError
from balancemm_cli.extensions import RESERVED, absent, extensions
from balancemm_cli.models.avga import AVGA
from balancemm_cli.models.avsd import AVSD
from balancemm_cli.models.avsdn import AVSDN
from balancemm_cli.models.centralnet import CentralNet
from balancemm_cli.models.dmrn import DMRN
from balancemm_cli.models.encoders import Choice, SegmentShape, Shape, make_encoders, widths
from balancemm_cli.models.film import FiLM
from balancemm_cli.models.fusion import Concat, ConcatMLP, Fusion, ModelSettings, Sum
from balancemm_cli.models.gated import Gated
from balancemm_cli.models.i_vector import IVectorNetwork
from balancemm_cli.models.late_transformer import LateTransformer
from balancemm_cli.models.lmf import LMF
from balancemm_cli.models.mmcosine import MMCosine
from balancemm_cli.models.mmtm import MMTM
from balancemm_cli.models.mwtsm import MWTSM
from balancemm_cli.models.network import Network
from balancemm_cli.models.panoavqa import PanoAVQA
from balancemm_cli.models.psp import PSP
from balancemm_cli.models.shared_head import SharedHead
from balancemm_cli.models.tsm import TSM
from balancemm_cli.models.tsn import TSN
from balancemm_cli.models.vatt import VATT
from balancemm_cli.models.x_vector import XVectorNetwork

_OURS: dict[str, type[Fusion] | type[Network]] = {
    "concat": Concat,
    "sum": Sum,
    "mlp": ConcatMLP,
    "film": FiLM,
    "gated": Gated,
    "mmcosine": MMCosine,
    "shared-head": SharedHead,
    "lmf": LMF,
    "late-transformer": LateTransformer,
    "centralnet": CentralNet,
    "mmtm": MMTM,
    "tsn": TSN,
    "tsm": TSM,
    "i-vector": IVectorNetwork,
    "x-vector": XVectorNetwork,
    "mwtsm": MWTSM,
    "vatt": VATT,
    "avga": AVGA,
    "dmrn": DMRN,
    "avsdn": AVSDN,
    "psp": PSP,
    "avsd": AVSD,
    "panoavqa": PanoAVQA,
}
UNIMODAL = "unimodal-"  # `unimodal-visual`: that modality's encoder and a linear head, trained alone


def _usable(model: type[Fusion] | type[Network], name: str) -> type[Fusion] | type[Network]:
    """A model of another package. TypeError where recipes could not set it, or --model not tell it from ours."""
    if not issubclass(model.Settings, ModelSettings):
        raise TypeError("its Settings are no subclass of ModelSettings")
    if name.startswith(UNIMODAL):
        raise TypeError(f"models with a name that begins with '{UNIMODAL}' are those of one modality")
    return model


MODELS = {**_OURS, **extensions("bmm.models", (Fusion, Network), {*_OURS, *RESERVED}, _usable)}


def modalities_of(model: str, available: list[str]) -> list[str]:
    """The modalities that a model uses, out of those that a data set has.

    UsageError for an unknown name, InputError for a model of another package that is of no use.
    """
    if model in MODELS:
        return available
    alone = [UNIMODAL + name for name in available]
    if model not in alone:
        raise absent("model", model, [*MODELS, *alone], "bmm.models")
    return [model.removeprefix(UNIMODAL)]


def build(
    model: str,
    encoder: str,
    inputs: Mapping[str, Shape],
    classes: int,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    encoders: Mapping[str, str] | None = None,
) -> Network:
    """A network with weights that depend on `seed` alone.

    `inputs` says of each modality in use how many channels its pictures or spectrograms have, which then get
    the encoder of that name, or the shape of its sequences, which get a transformer. `encoders` names others, see
    Choice. `settings` are the model's own. UsageError for an unknown model or encoder, for an encoder that does not fit
    its modality, and for modalities that the model can't take.
    """
    if not inputs:
        raise UsageError("A model needs at least one modality.")
    kind = MODELS.get(model, Concat)
    choice = Choice(encoder, encoders or {})
    of_model = kind.Settings.model_validate(settings or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if issubclass(kind, Network):
            _check_segments(model, kind, inputs)
            return kind.assemble(choice, inputs, classes, of_model)
        made = make_encoders(choice, inputs)
        return Network(made, kind(widths(made), classes, of_model))


def check_encoders(
    model: str, encoder: str, inputs: Mapping[str, Shape], encoders: Mapping[str, str]
) -> None:
    """UsageError as by `build` for encoders, as far as it can be told without making any: a model that makes its own
    may pass over some."""
    choice = Choice(encoder, encoders)
    if not issubclass(MODELS.get(model, Concat), Network):
        for name, shape in inputs.items():
            choice.of(name, shape)


def _check_segments(model: str, kind: type[Network], inputs: Mapping[str, Shape]) -> None:
    segments = any(isinstance(shape, SegmentShape) for shape in inputs.values())
    if segments != kind.segmentwise:
        gives, wants = ("segment", "clip") if kind.segmentwise else ("clip", "segment")
        raise UsageError(
            f"Model {model} answers for each {gives}, and the task asks for each {wants}. Use concat."
        )
