"""Tensors by rule, from which this project and the authors' programs were started alike, and the figures these gave.

The figures are in official_trajectories.json, methods_official.json, models_official.json and, of later methods,
field_official.json beside this file; other files of the same forms are named by BMM_GOLDEN, BMM_GOLDEN_METHODS,
BMM_GOLDEN_MODELS and BMM_GOLDEN_FIELD.
"""

import json
import math
import os
from pathlib import Path

import torch

BESIDE = Path(__file__).parent


def cases(name: str, variable: str) -> dict:
    """The cases of the file beside this one, or of the file that the environment variable names."""
    return json.loads(Path(os.environ.get(variable) or BESIDE / name).read_text())


def wave(shape, phase):
    """sin(phase + 0.7310 n), n = 0, 1, … in row-major order, rounded to float32; in the default dtype."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(phase + 0.7310 * n).reshape(tuple(shape)).float().to(torch.get_default_dtype())


@torch.no_grad()
def fill_encoder(encoder, phase):
    """The convolutions of an encoder, in the order of their definition; norms stay at 1 and 0."""
    kernels = (weight for weight in encoder.parameters() if weight.ndim == 4)
    for k, weight in enumerate(kernels):
        weight.copy_(wave(weight.shape, phase + 1.37 * k) * (2 / weight[0].numel()) ** 0.5 * 2**0.5)


@torch.no_grad()
def fill_linear(layer, phase, gain=1.0):
    """A linear layer; `gain` is of the weight alone."""
    layer.weight.copy_(gain * wave(layer.weight.shape, phase) / layer.weight.shape[1] ** 0.5)
    if layer.bias is not None:
        layer.bias.copy_(0.1 * wave(layer.bias.shape, phase + 0.5))


def make_batch(step, case):
    """Audio [B, 1, F, T], visual [B, 3, T, H, W] and labels [B] of a step; the label moves the audio most."""
    size = case["batch_size"]
    labels = torch.tensor([(7 * step + 3 * i) % case["classes"] for i in range(size)])
    audio = [wave(case["audio_shape"], 0.9 * int(y) + 0.01 * (step * size + i)) for i, y in enumerate(labels)]
    visual = [
        wave(case["visual_shape"], 0.05 * int(y) + 0.77 * (step * size + i)) for i, y in enumerate(labels)
    ]
    return {"audio": torch.stack(audio)[:, None], "visual": torch.stack(visual)}, labels


OF_METHOD = {
    "uniform_baseline": "unimodal-losses"
}  # where a case calls by another name what is held against it
OF_MODEL = {
    "ave_attention_concat": "avga",
    "ave_dmrn": "dmrn",
    "x_vector": "x-vector",
    **{name: name for name in ("film", "gated", "lmf", "mmtm", "tsm", "tsn", "psp", "panoavqa", "avsd")},
}


def model_of(case):
    """The model that a case of models_official.json is of."""
    return next(model for prefix, model in OF_MODEL.items() if case.startswith(prefix))


def held():
    """Of each method and model: how many cases beside this file it is held against, and how near it must come."""
    trajectories, methods, models, field = (
        json.loads((BESIDE / f"{name}.json").read_text())
        for name in ("official_trajectories", "methods_official", "models_official", "field_official")
    )
    found = {}
    for case in trajectories.values():
        kind = case.get("kind") or {"Normal": "baseline"}.get(case["modulation"], "ogm")
        for name in (case.get("fusion", "concat"), *kind.split("+")):
            found.setdefault(name, []).append(1e-6)
    for case in (*methods.values(), *field.values()):
        for name in (
            OF_METHOD.get(case["method"], case["method"]),
            *([case["model"]] if "model" in case else []),
        ):
            found.setdefault(name, []).append(1e-7)
    for name in models:
        found.setdefault(model_of(name), []).append(1e-7)
    return {name: (len(tolerances), max(tolerances)) for name, tolerances in found.items()}
