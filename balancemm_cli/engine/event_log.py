"""The epochs of a run as TensorBoard's event files: `bmm train --log tensorboard`.

They are a copy of history.jsonl for people to look at. Nothing reads them back, so they are no part of what a run is.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from balancemm_cli.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

LOGS = Literal["tensorboard"]
FOLDER = "tensorboard"  # in the run folder
BY_SPLIT = ("losses", "accuracy", "unimodal")  # keys of a record whose content is by split


def check_log() -> None:
    """InputError where TensorBoard's package is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401 - to see whether it can be
    except ImportError:
        raise InputError(
            "--log tensorboard needs tensorboard. Install it: pip install 'balancemm-cli[tensorboard]'."
        ) from None


@contextmanager
def event_log(run: Path, tested_on: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Within the block, what takes a training's progress (see Trainer) and writes each epoch into the folder of the
    run.

    The files are written anew, up to where the training goes on from history.jsonl, so that a run that was resumed
    has each epoch once; those of a run with nothing left to train all from there. Of a trial (`tested_on` val) the
    numbers of its test are named as what they are, those of validation samples.
    """
    writers: list[SummaryWriter] = []

    def take(event: Mapping[str, Any]) -> None:
        if "epoch" not in event:
            return
        if not writers:
            before = [record for record in _history(run) if record["epoch"] < event["epoch"]]
            writers.append(_begin(run / FOLDER, before, tested_on))
        _add(writers[0], [event], tested_on)

    try:
        yield take
        if not writers:
            writers.append(_begin(run / FOLDER, _history(run), tested_on))
    finally:
        for writer in writers:
            writer.close()


def points(record: Mapping[str, Any], tested_on: str = "test") -> dict[str, float]:
    """The numbers of a line of history.jsonl by their keys, joined by "/": "loss", "unimodal/test/audio"."""
    named = {
        key: {tested_on if split == "test" else split: of for split, of in content.items()}
        if key in BY_SPLIT
        else content
        for key, content in record.items()
        if key != "epoch"
    }
    return dict(_flat(named))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):  # None: a ratio that could not be formed
            yield f"{prefix}{key}", value


def _history(run: Path) -> list[dict[str, Any]]:
    path = run / "history.jsonl"
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    except ValueError:
        raise InputError(f"{path} is damaged. Delete the run folder to train it again.") from None


def _begin(folder: Path, records: Iterable[Mapping[str, Any]], tested_on: str) -> "SummaryWriter":
    """A writer of new files in the place of those that are there, with the records in them."""
    from torch.utils.tensorboard.writer import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    # the purge is for a TensorBoard that has read the old ones
    writer = SummaryWriter(str(folder), purge_step=0)
    _add(writer, records, tested_on)
    return writer


def _add(writer: "SummaryWriter", records: Iterable[Mapping[str, Any]], tested_on: str) -> None:
    for record in records:
        for name, value in points(record, tested_on).items():
            writer.add_scalar(name, value, record["epoch"])
    writer.flush()
