"""Progress on stderr: a rich bar in a terminal, nothing where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

stderr = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print one plain line to stderr."""
    stderr.print(message, markup=False, soft_wrap=True)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A live rich Progress on stderr (count, samples a second, time left); silent without a terminal.

    Give each task a `unit`, as in `bars.add_task("prepare", total=7442, unit="clips")`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bars:
        yield bars


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")
