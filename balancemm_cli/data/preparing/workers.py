"""Work shared out over processes that end with their parent, whatever ends it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

from balancemm_cli.errors import InputError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

PRELOADED = ["balancemm_cli.cli", "balancemm_cli.data.preparing.prepare"]
"""What the process imports once from which the workers are forked."""

_ticks: Any = None  # in a worker: the counter that it shares with its parent


def cores(workers: int | None) -> int:
    """The number of workers to use: as asked, else one a core that this process may use. May raise
    UsageError."""
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is {workers}; it must be 1 or more.")
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    on_ticks: Callable[[int], None] | None = None,
) -> list[Result]:
    """Call `function` on each task in processes of their own; the results in the order of the tasks.

    `on_ticks` gets the number of calls of `tick` in all workers so far. The first error ends all workers and
    is raised here; so does KeyboardInterrupt. A worker that dies raises InputError.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)  # without effect where bmm train has started it for its runs
    ticks = context.Value("Q", 0)  # also starts Python's resource tracker, which resets the signal mask
    others = set(active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)) or 1, mp_context=context, initializer=_begin, initargs=(ticks,)
    )
    futures: list[Future[Result]] = []
    try:
        with interrupts_held():
            futures.extend(pool.submit(function, task) for task in tasks)
        _watch(futures, lambda: on_ticks(ticks.value) if on_ticks else None)
        return [future.result() for future in futures]
    except (BrokenProcessPool, MemoryError):
        raise InputError(
            "A worker process died, most likely for lack of memory. What was finished is kept: run the same "
            "command with fewer --workers to go on."
        ) from None
    finally:
        if any(not future.done() for future in futures):
            for child in set(active_children()) - others:
                child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def tick() -> None:
    """Count one item as done. For the functions that `run` calls."""
    if _ticks is not None:
        with _ticks.get_lock():
            _ticks.value += 1


def _watch(futures: list[Future[Any]], report: Callable[[], None]) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        report()
        for future in done:
            future.result()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C until the block ends. It reaches every process of a terminal; workers that are started in
    here leave it to their parent, which must not be interrupted while it starts one."""
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def _begin(ticks: Any) -> None:  # noqa: ANN401 - a shared value of multiprocessing
    global _ticks
    _ticks = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers, which would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
