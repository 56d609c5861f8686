"""Work on single samples, shared out over as many threads as torch itself uses on a CPU."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")
Items = TypeVar("Items", bound=Sequence[Any] | Tensor)

PART = 4  # items that a thread takes at a time: taking one costs some 20 µs

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = Lock()


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, in their order. Worth it where the work is done outside Python, by torch.

    Every item is worked on by one thread alone, so results do not depend on how many there are. A function must
    not call `each` itself.
    """
    found = in_parts(lambda part: list(map(function, part)), list(items))
    return [result for part in found for result in part]


def in_parts(function: Callable[[Items], Result], items: Items) -> list[Result]:
    """As `each`, but `function` gets some items at once, a slice of a sequence or of a tensor."""
    return list(_pool().map(function, [items[first : first + PART] for first in range(0, len(items), PART)]))


def _pool() -> ThreadPoolExecutor:
    key = os.getpid(), torch.get_num_threads()  # threads do not survive a fork
    with _lock:
        if key not in _pools:
            _pools[key] = _single_threads(key[1])
        return _pools[key]


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in which torch's operators use no further threads."""
    pool, together = ThreadPoolExecutor(count, "samples"), Barrier(count)

    def prepare(_: int) -> None:
        torch.set_num_threads(1)
        together.wait()

    list(pool.map(prepare, range(count)))
    torch.set_num_threads(count)  # what threads that are started later get
    return pool
