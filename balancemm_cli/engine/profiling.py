"""Where the time of a run goes, for `bmm train --profile`."""

import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import torch

Mark = Callable[[str], None]
WAITING = 5000  # marks that are kept before their times are fetched
UNCOUNTED = 1  # steps at the start that are left out, because they allocate, tune and compile


def no_mark(name: str) -> None:
    """The mark of a run that is not profiled."""


class Profile:
    """Times of the parts of a run: each mark names the part that took the time since the mark before.

    On a GPU the marks are events of the current stream, which cost next to nothing and do not wait. The time of a part
    then includes the time in which the GPU waited for the host.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = 0  # that were counted
        self._seconds: dict[str, float] = defaultdict(float)
        self._begun = 0
        self._waiting = [("", self._now())]

    def mark(self, name: str) -> None:
        """Part `name` ends here: input, forward, modulation, backward, optimiser, evaluation, …"""
        self._waiting.append((name, self._now()))
        if len(self._waiting) > WAITING:
            self._fetch()

    def seconds(self) -> dict[str, float]:
        """Seconds of each part over the counted steps, in the order of their first appearance."""
        self._fetch()
        return dict(self._seconds)

    def report(self) -> str:
        """A table of the parts: milliseconds a step and shares. One sentence where there is nothing to show."""
        seconds = self.seconds()
        total = sum(seconds.values())
        if not self.steps or not total:
            return f"Nothing to profile: fewer than {UNCOUNTED + 1} steps were trained."
        lines = [f"Where the time of a step goes ({self.steps} steps, the first left out):"]
        for name, taken in [*seconds.items(), ("total", total)]:
            lines.append(f"  {name:12}{1000 * taken / self.steps:10.2f} ms{100 * taken / total:7.1f} %")
        return "\n".join(lines)

    def _now(self) -> "float | torch.cuda.Event":
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _fetch(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for (_, start), (name, end) in pairwise(self._waiting):
            self._begun += name == "input"
            if self._begun > UNCOUNTED:
                self._seconds[name] += _between(start, end)
        self.steps = max(0, self._begun - UNCOUNTED)
        del self._waiting[:-1]


def _between(start: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000  # from milliseconds
    assert isinstance(start, float) and isinstance(end, float)
    return end - start
