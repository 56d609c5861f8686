"""What stands in for a GPU on a machine without one: a guard on what would wait for it, and captured steps."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from balancemm_cli.engine import acceleration
from balancemm_cli.methods import ogm

aten = torch.ops.aten
FETCHES = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}


class _NoWaiting(TorchDispatchMode):
    """Fails on what fetches a value: item(), bool(), float(), tolist(), indexing by a mask."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's
        by_mask = func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        assert func not in FETCHES and not by_mask, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fail in the block on what would make the host wait for a GPU."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tensor is copied to the host")

    with pytest.MonkeyPatch.context() as patch, _NoWaiting():
        for name in ("cpu", "numpy", "__array__"):
            patch.setattr(torch.Tensor, name, refuse)
        yield


class _Recording(TorchDispatchMode):
    """Keeps every operation with its tensors, as a CUDA graph does; `undo` takes back what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's
        for storage in _storages((args, kwargs)):
            if storage.data_ptr() not in self.before.keys() | self.made:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        self.made |= {storage.data_ptr() for storage in _storages(result)} - self.before.keys()
        return result

    def undo(self) -> None:
        for storage, content in self.before.values():
            storage.copy_(content)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _tensors(result: object) -> list[Tensor]:
    found = result if isinstance(result, list | tuple) else [result]
    return [value for value in found if isinstance(value, Tensor)]


class CPURecorder:
    """Stands in for acceleration.Recorder: what a captured step launched is launched again, on the CPU."""

    captures = replays = 0

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Call `function`."""
        return function()

    def record(
        self, function: Callable[[], Tensor], generators: Iterable[torch.Generator]
    ) -> tuple[Tensor, Callable[[], None]]:
        """Capture `function`: what it returns, filled at each call of the second result."""
        type(self).captures += 1
        with _Recording() as recording:
            result = function()
        recording.undo()

        def replay() -> None:
            type(self).replays += 1
            with torch.no_grad():
                for operation, args, kwargs, old in recording.operations:
                    new = operation(*args, **kwargs)
                    for before, after in zip(_tensors(old), _tensors(new), strict=True):
                        if before.data_ptr() != after.data_ptr():
                            before.copy_(after)

        return result, replay


class _Serial(Executor):
    def __init__(self, *_: object) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:  # noqa: ANN401 - Executor's
        done: Future = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@contextmanager
def captured_on_the_cpu() -> Iterator[type[CPURecorder]]:
    """Let speed.cuda_graphs capture and replay on the CPU in the block; the result counts both."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, on setting its own flags
        patch.setattr(acceleration, "Recorder", CPURecorder)
        patch.setattr(ogm, "ThreadPoolExecutor", _Serial)
        CPURecorder.captures = CPURecorder.replays = 0
        # oneDNN's LSTM keeps nothing for its backward when it is launched again without gradients
        with torch.backends.mkldnn.flags(enabled=False):  # pyright: ignore[reportAttributeAccessIssue]
            yield CPURecorder
