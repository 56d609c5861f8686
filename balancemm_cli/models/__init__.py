"""Models. A model's name says how the modalities are fused; the encoders are a setting of the recipe."""

from collections.abc import Mapping

import torch

from balancemm_cli.errors import UsageError, unknown
from balancemm_cli.models.encoders import ENCODERS, Encoder, SequenceShape, SequenceTransformer
from balancemm_cli.models.fusion import Concat, ConcatMLP, Fusion, Sum
from balancemm_cli.models.network import Network

MODELS: dict[str, type[Fusion]] = {"concat": Concat, "sum": Sum, "mlp": ConcatMLP}

UNIMODAL = "unimodal-"  # `unimodal-visual`: that modality's encoder and a linear head, trained alone


def modalities_of(model: str, available: list[str]) -> list[str]:
    """The modalities that a model uses, out of those that a data set has. UsageError for an unknown name."""
    if model in MODELS:
        return available
    alone = [UNIMODAL + name for name in available]
    if model not in alone:
        raise unknown("model", model, [*MODELS, *alone])
    return [model.removeprefix(UNIMODAL)]


def build(
    model: str, encoder: str, inputs: Mapping[str, int | SequenceShape], classes: int, seed: int
) -> Network:
    """A network with weights that depend on `seed` alone.

    `inputs` says of each modality in use how many channels its pictures or spectrograms have, which then get
    the encoder of that name, or the shape of its sequences, which get a transformer. UsageError for an unknown
    model or encoder.
    """
    if encoder not in ENCODERS:
        raise unknown("encoder", encoder, ENCODERS)
    if not inputs:
        raise UsageError("A model needs at least one modality.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders: dict[str, Encoder] = {
            name: SequenceTransformer(shape) if isinstance(shape, SequenceShape) else ENCODERS[encoder](shape)
            for name, shape in inputs.items()
        }
        widths = {name: module.features for name, module in encoders.items()}
        return Network(encoders, MODELS.get(model, Concat)(widths, classes))
