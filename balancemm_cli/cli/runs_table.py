"""One live table of many runs on stderr: what each is doing, how good it is, how long it will take."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from balancemm_cli.cli.progress import stderr

if TYPE_CHECKING:
    from balancemm_cli.engine.launch import Job, Outcome

State = Literal["running", "failed", "finished", "waiting"]
STYLES: dict[State, str] = {"running": "bold", "failed": "red", "finished": "green", "waiting": "dim"}
LEAST_NAME = 16  # columns of a terminal for the name of a run
OTHER_LINES = 3  # the heading, the line of counts, and one for the cursor


@dataclass
class Row:
    """What is known of one run; `trained` are the epochs since it `started` here, `epoch` those in all."""

    job: "Job"
    state: State = "waiting"
    device: str = ""
    epoch: int = 0
    trained: int = 0
    started: float = 0.0
    seconds: float = 0.0  # from the start to the last epoch's end
    accuracy: float | None = None
    rho: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float | None:
        """Seconds to its end, at the pace so far; None where that is not known."""
        epochs = self.job.config.settings.epochs - self.epoch
        return self.seconds / self.trained * epochs if self.state == "running" and self.trained else None


class RunsTable:
    """The table while the `with` block lasts; redrawn at each event, not by a clock. Silent without a terminal."""

    def __init__(
        self, jobs: "Sequence[Job]", console: Console = stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.clock, self.began = console, clock, clock()
        self.rows = {id(job): Row(job) for job in jobs}
        self._live = Live(
            console=console,
            get_renderable=self.render,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, job: "Job", event: dict[str, Any]) -> None:
        """Take up an event of `run_jobs`: a start, or an epoch's record."""
        row = self.rows[id(job)]
        if "device" in event:
            row.state, row.device, row.started = "running", event["device"], self.clock()
        if "epoch" in event:
            row.epoch, row.trained, row.seconds = (
                event["epoch"] + 1,
                row.trained + 1,
                self.clock() - row.started,
            )
            row.accuracy, row.rho = event["accuracy"]["test"], event.get("rho", {})
        self._draw()

    def end(self, outcome: "Outcome") -> None:
        """Take up how a run ended."""
        row = self.rows[id(outcome.job)]
        row.state = "finished" if outcome.result else "failed"
        if outcome.result:
            row.epoch, row.accuracy = (
                outcome.result["epochs"],
                outcome.result["selections"]["last"]["accuracy"],
            )
            row.rho = outcome.result.get("rho", {})
        self._draw()

    def render(self) -> Group:
        """The table, cut to the height of the terminal, and the line of counts below it."""
        with_device = len({row.device for row in self.rows.values() if row.device}) > 1
        tested = next((row.job.tested_on for row in self.rows.values()), "test")
        headings = ["run", "state", "epoch", tested, "mean ρ", "left"]
        headings += ["on"] if with_device else []
        shown = self.shown(max(1, self.console.height - OTHER_LINES))
        lines = []
        for row in shown:
            cells = [row.job.name, row.state, f"{row.epoch}/{row.job.config.settings.epochs}"]
            cells.append("" if row.accuracy is None else f"{row.accuracy:.3f}")
            cells.append(" ".join(f"{modality} {rho:.2f}" for modality, rho in row.rho.items()))
            cells.append(_duration(row.left))
            cells += [row.device] if with_device else []
            lines.append(cells)
        headings, lines = _fitted(headings, lines, self.console.width)
        table = Table(box=None, pad_edge=False, expand=False)
        for heading in headings:
            table.add_column(
                heading, no_wrap=True, justify="right" if heading in ("epoch", "left") else "left"
            )
        for row, cells in zip(shown, lines, strict=True):
            table.add_row(*map(Text, cells), style=STYLES[row.state])
        return Group(table, Text(self.counts(), no_wrap=True, overflow="ellipsis"))

    def shown(self, lines: int) -> list[Row]:
        """The rows for so many lines: all of them, or those that run and as many of the last that failed."""
        rows = list(self.rows.values())
        if len(rows) <= lines:
            return rows
        running = [row for row in rows if row.state == "running"][:lines]
        failed = [row for row in rows if row.state == "failed"]
        return running + failed[max(0, len(failed) - (lines - len(running))) :]

    def counts(self) -> str:
        """How many runs are in each state, and the time to the end at the pace of all runs so far."""
        number = Counter(row.state for row in self.rows.values())
        parts = [f"{number[state]} {state}" for state in STYLES if number[state]]
        epochs = sum(
            row.job.config.settings.epochs - row.epoch
            for row in self.rows.values()
            if row.state in ("running", "waiting")
        )
        trained = sum(row.trained for row in self.rows.values())
        if trained and epochs:
            parts.append(f"about {_duration((self.clock() - self.began) / trained * epochs)} left")
        return " · ".join(parts)

    def _draw(self) -> None:
        if self._live.is_started:
            self._live.refresh()


def _fitted(headings: list[str], lines: list[list[str]], width: int) -> tuple[list[str], list[list[str]]]:
    """Headings and cells that fit a terminal of that width: names are cut and the last columns left out, but no number
    is cut."""
    while True:
        widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
        room = width - sum(one + 2 for one in widths[1:])
        if room >= min(LEAST_NAME, widths[0]) or len(headings) == 1:
            break
        last = headings.index("mean ρ") if "mean ρ" in headings else len(headings) - 1
        headings = [heading for at, heading in enumerate(headings) if at != last]
        lines = [[cell for at, cell in enumerate(cells) if at != last] for cells in lines]
    room = max(room, 1)
    cut = [name if len(name) <= room else f"{name[: room - 1]}…" for name, *_ in lines]
    return headings, [[name, *cells[1:]] for name, cells in zip(cut, lines, strict=True)]


def _duration(seconds: float | None) -> str:
    """Hours, minutes and seconds as 1:02:03."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
