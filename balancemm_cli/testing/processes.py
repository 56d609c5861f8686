"""Two processes that share a training, as torchrun starts them (gloo, on the CPU)."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from balancemm_cli.engine import PRELOADED, distributed
from balancemm_cli.errors import BmmError
from balancemm_cli.testing.small import Case, assert_close, trained_together

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


@contextmanager
def float64() -> Iterator[None]:
    """Training amplifies rounding: in float32 a process with other threads drifts as much as two processes do."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class Pair:
    """Two processes that run `function` together; `longest` is for how many seconds they may say nothing."""

    longest = 60

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401 - of `function`
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ours, self.processes = [], []
        for rank in range(2):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_enter, args=(rank, port, theirs, function, args), daemon=True)
            process.start()
            theirs.close()
            self.ours.append(ours)
            self.processes.append(process)

    def wait_until_joined(self) -> None:
        """Wait until both know each other. Before that torchrun ends them, and nothing can be lost."""
        for ours in self.ours:
            assert ours.recv() == ("joined", None)

    def end(self) -> tuple[list[Any], list[int]]:
        """What each process sent last, and its exit status, in bounded time."""
        last = [None, None]
        for rank, (ours, process) in enumerate(zip(self.ours, self.processes, strict=True)):
            try:
                while ours.poll(self.longest):
                    last[rank] = ours.recv()
            except EOFError:
                pass
            process.join(self.longest)
            if process.exitcode is None:
                process.kill()
                raise AssertionError(f"process {rank} hangs")
        return last, [process.exitcode for process in self.processes]

    def results(self) -> list[Any]:
        """The two results of `function`."""
        last, statuses = self.end()
        assert statuses == [0, 0], (last, statuses)
        return [pickle.loads(result) for _, result in last]


def _enter(rank: int, port: int, parent: Connection, function: Callable[..., Any], args: tuple) -> None:
    """What torchrun does for a process, then `function`; its result, or the sentence it ends with, to the parent."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, 2, 2, "127.0.0.1", port)
    os.environ.update(zip(names, map(str, values), strict=True))
    torch.set_num_threads(1)
    try:
        with distributed.joined("cpu"):
            parent.send(("joined", None))
            # by value: torch would hand over its tensors by files of a process that has ended
            parent.send(("result", pickle.dumps(function(*args))))
    except (BmmError, KeyboardInterrupt) as error:
        parent.send(("error", (type(error).__name__, str(error))))
        os._exit(getattr(error, "exit_status", 130))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class Together:
    """Cases trained in one process and in two, all those at once that the tests of a module ask for."""

    def __init__(self, cases: Mapping[str, Sequence[tuple[Case, float]]]) -> None:
        listed = [case for of_name in cases.values() for case in of_name]
        pair = Pair(trained_together, listed)
        pair.longest = 600
        found = iter(zip(trained_together(listed), *pair.results(), strict=True))
        self.found = {name: [next(found) for _ in of_name] for name, of_name in cases.items()}

    def check(self, name: str) -> None:
        """The cases of `name` were trained, and both processes have the numbers of one."""
        for alone, *shared in self.found[name]:
            assert not isinstance(alone, str), alone
            for one in shared:
                assert not isinstance(one, str), f"In two processes: {one}"
                assert_close(one, alone, 1e-8)
