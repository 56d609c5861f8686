"""A guard on what would wait for a GPU, on a machine without one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
