"""Weights from a file: what encoders of pictures and spectrograms start from, as ImageNet's for UCF-101 (Sec. 4.2).

A file is safetensors or what torch.save makes of a state dict; its content decides, not its name. Names and shapes
are those of the encoder's `trunk`: torchvision's for a ResNet. The paper says that the encoders start from ImageNet
weights and no more, and no code of the authors loads any, so:

1. A stem of C channels is made from one of 3 as the mean over its input channels, times 3 / C. The mean is TSN's rule
   for flow (Wang et al., ECCV 2016, arXiv 1608.00859, Sec. 3.2), which repeats it unscaled. The factor (timm's, for
   other numbers of channels) keeps what a picture with equal channels gives, so that the statistics of the batch
   normalisation behind it fit: a grey picture is to a stem of one channel what it was to the three.
2. Differences of pictures have three channels, and their stem stays as it is, as in TSN.
3. The classifier (`fc.*`) is left out. `module.` before every name, as DataParallel writes it, is taken off.
"""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.models.encoders import FrameEncoder

State = dict[str, Tensor]


def digest(path: Path) -> str:
    """The SHA-256 of a file of weights, in hex. InputError for a file that is absent."""
    return hashlib.sha256(_content(path)).hexdigest()


def start(network: nn.Module, path: Path, expected: str) -> str:
    """Put the weights of a file, whose SHA-256 must be `expected`, into every FrameEncoder of a network.

    Returns a sentence that says what was done. UsageError for a network without such an encoder; InputError for a
    file that is absent, damaged or another, that holds anything but tensors, or that does not fit the encoders.
    """
    encoders = {name: one for name, one in network.named_modules() if isinstance(one, FrameEncoder)}
    if not encoders:
        raise UsageError(
            "Weights are for encoders of pictures and spectrograms, and this run has none. "
            "Leave out --weights, or use --set pretrained=false."
        )
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != expected:
        raise InputError(f"{path} is not the file any more that this run is to start from. Restore it.")
    given = read(content, path)
    left_out = sorted(name for name in given if name.startswith("fc."))
    given = {name: value for name, value in given.items() if name not in left_out}
    for encoder in encoders.values():
        _fill(encoder, given, path)
    names = ", ".join(name.removeprefix("encoders.") for name in encoders)
    without = f", without its classifier ({', '.join(left_out)})" if left_out else ""
    return f"The encoders of {names} start from {path}{without}."


def read(content: bytes, path: Path) -> State:
    """The tensors of a file's content by name. InputError where it is no file of weights; see start."""
    if content.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` there.")
    state = _read_safetensors(content, path) if content[8:9] == b"{" else _read_torch(content, path)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{path} holds more than the tensors of a state dict. Save that alone: torch.save(model.state_dict(), …)."
        )
    state = {str(name): value for name, value in state.items()}
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def stem(weight: Tensor, channels: int) -> Tensor:
    """The weight [O, channels, h, w] of a first convolution, from one for pictures [O, 3, h, w]; see the head.

    One for another number of channels than 3 is returned as it is.
    """
    if weight.ndim != 4 or weight.shape[1] != 3 or channels == 3:
        return weight
    mean = weight.to(torch.float32).mean(1, keepdim=True)
    return (mean * (3 / channels)).expand(-1, channels, -1, -1)


def _fill(encoder: FrameEncoder, given: Mapping[str, Tensor], path: Path) -> None:
    own = encoder.trunk.state_dict()
    first = next(iter(own))
    if first in given:
        given = {**given, first: stem(given[first], own[first].shape[1])}
    differences = [f"it has no {name}" for name in own if name not in given and not _counter(name)]
    differences += [f"{name} is not the encoder's" for name in given if name not in own]
    differences += [
        f"{name} is {_size(given[name])}, not {_size(value)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if differences:
        others = f" ({len(differences) - 1} more such)" if len(differences) > 1 else ""
        raise InputError(
            f"{path} does not fit {type(encoder).__name__}: {differences[0]}{others}. "
            "Name the file of that encoder, or the encoder of that file with --set encoder or encoders.<modality>."
        )
    encoder.trunk.load_state_dict({**own, **given})


def _counter(name: str) -> bool:
    return name.endswith(
        ".num_batches_tracked"
    )  # of no use here, and absent from files of before torch 0.4.1


def _size(value: Tensor) -> str:
    return "×".join(str(length) for length in value.shape) or "a number"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}. Check the path of --weights.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder. Name the file of the weights in it.") from None


def _read_safetensors(content: bytes, path: Path) -> State:
    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def _read_torch(content: bytes, path: Path) -> object:
    """What torch.save wrote. Nothing that a pickle asks for is run but the making of tensors and plain values."""
    file = io.BytesIO(content)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:  # torch.load does not compare the checksums
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"checksum of {damaged}")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise InputError(
                f"{path} holds more than tensors and plain values, and such a pickle can run programs, so it is not "
                "read. Save the state dict alone: torch.save(model.state_dict(), …)."
            ) from None
        raise _damaged(path, error) from None
    except Exception as error:  # zipfile and torch raise many kinds for a damaged file
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged, or neither safetensors nor of torch.save ({type(error).__name__}). Get the file anew."
    )
