"""Samples of a prepared split as raw batches on the host, resident (decoded once) or streaming.

Both modes give the same samples and take the same random draws; what follows on the device is in transforms.py.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import center_crop as centre_crop
from torchvision.transforms.v2.functional import resize

from balancemm_cli.data.store import PreparedSplit
from balancemm_cli.data.threads import each
from balancemm_cli.data.transforms import FrameBatch
from balancemm_cli.errors import InputError
from balancemm_cli.random_streams import RandomStreams

CPU = torch.device("cpu")
Loading = Literal["auto", "resident", "streaming"]
RESIDENT_SHARE = 0.5  # of the free memory, up to which "auto" keeps a set resident
GPU_SHARE = 0.25  # of a GPU's free memory, up to which a set is held there: several runs may share it
AHEAD = 2  # batches that are read before they are needed, which bounds the memory of streaming
PART = 256  # samples that are made ready at a time

Raw = Tensor | FrameBatch
Read = Callable[[], tuple[dict[str, Raw], Tensor]]  # gives what `Source._read` reads, now or from a thread


class Column:
    """One modality of a split. Where it is resident, `held` has all of it."""

    held: Tensor | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the modality is held in a GPU's memory."""
        return self.held is not None and self.held.is_cuda

    def batch(self, rows: np.ndarray, streams: RandomStreams | None) -> Raw:
        """Raw samples of `rows` [B]; random choices by `streams`, or none (evaluation)."""
        raise NotImplementedError

    def size(self, ready: bool) -> int:
        """Bytes of memory that the decoded modality takes; `ready`: as network inputs, where these are fixed."""
        raise NotImplementedError

    def hold(self, device: torch.device, ready: bool) -> None:
        """Make the modality resident in the memory of `device`."""
        raise NotImplementedError


class NumbersColumn(Column):
    """Numbers of a fixed shape a sample [B, *shape], of the dtype that the split stores.

    Waveforms [T] that are too short are repeated (`repeat`); feature sequences [steps, width] and tokens [T]
    are filled up with zeros. What is too long is cut. `ready` makes network inputs of a batch of them where
    nothing in that is drawn; when these are held, batches consist of them.
    """

    def __init__(
        self,
        split: PreparedSplit,
        modality: str,
        shape: tuple[int, ...],
        repeat: bool,
        ready: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split, self.modality, self.shape, self.repeat, self.ready = split, modality, shape, repeat, ready
        self._holders, self._place = np.unique(split.holders(modality), return_inverse=True)
        self._dtype = split.dtype(modality)

    def size(self, ready: bool) -> int:
        """Bytes of memory that all numbers, or what `ready` makes of them, take."""
        one = torch.from_numpy(np.zeros((1, *self.shape), self._dtype))
        return self._prepared(one, ready).nbytes * len(self._holders)

    def hold(self, device: torch.device, ready: bool) -> None:
        """Hold all numbers, or what `ready` makes of them, in the memory of `device`."""
        for first in range(0, len(self._holders), PART):
            part = self._prepared(self._read(self._holders[first : first + PART]), ready)
            if self.held is None:
                self.held = part.new_empty((len(self._holders), *part.shape[1:]), device=device)
            self.held[first : first + PART] = part

    def _prepared(self, numbers: Tensor, ready: bool) -> Tensor:
        return self.ready(numbers) if ready and self.ready is not None else numbers

    def batch(self, rows: np.ndarray, streams: RandomStreams | None) -> Tensor:
        """Numbers [B, *shape], or network inputs where they are held so."""
        places = self._place[rows]
        return self._read(self._holders[places]) if self.held is None else _rows_of(self.held, places)

    def _read(self, rows: np.ndarray) -> Tensor:
        values = np.zeros((len(rows), *self.shape), self._dtype)
        for value, row in zip(values.reshape(len(rows), -1), rows, strict=True):
            stored = self.split.array(self.modality, int(row))
            if self.repeat and stored.size < value.size:
                stored = np.resize(stored, value.size)
            count = min(value.size, stored.size)
            value[:count] = stored[:count]
        return torch.from_numpy(values)


class FramesColumn(Column):
    """uint8 pictures [H, W, C]: `count` of each sample's stored frames.

    In training `choice` "random" draws without replacement as far as the frames suffice, in order of time, and
    "segments" one frame of each of `count` equal parts of the clip; everything else is fixed: spread evenly (the
    middle of each part), the first ones, or first, middle and last. With too few frames some come twice.
    """

    def __init__(
        self, split: PreparedSplit, modality: str, shape: tuple[int, int, int], count: int, choice: str
    ) -> None:
        self.split, self.modality, self.shape, self.count, self.choice = split, modality, shape, count, choice
        self._holders = split.holders(modality)
        stored = split.lengths(modality)
        of_these = np.isin(
            np.arange(len(stored)), self._holders
        )  # not of samples of another part of the table
        self._stored = np.where(of_these, stored, 0)  # by holder
        self._starts = np.cumsum(self._stored) - self._stored

    def size(self, ready: bool) -> int:
        """Bytes of memory that all decoded frames take. Pictures are never ready: their crops are drawn."""
        return int(self._stored.sum()) * int(np.prod(self.shape))

    def hold(self, device: torch.device, ready: bool) -> None:
        """Decode all frames into the memory of `device`."""
        pictures = torch.empty((int(self._stored.sum()), *self.shape), dtype=torch.uint8, device=device)

        def decode(row: int) -> None:
            for frame, place in enumerate(range(self._starts[row], self._starts[row] + self._stored[row])):
                pictures[place] = self._decode(row, frame)

        each(decode, np.flatnonzero(self._stored).tolist())
        self.held = pictures

    def batch(self, rows: np.ndarray, streams: RandomStreams | None) -> Raw:
        """`count` pictures for each sample; of a GPU's memory one tensor [B, count, H, W, C]."""
        holders = self._holders[rows]
        chosen = self._choose(self._stored[holders, None], streams)
        places = self._starts[holders, None] + chosen
        held, shape = self.held, (len(rows), self.count, *self.shape)
        if held is None:
            return FrameBatch(shape, lambda place: self._decode(int(holders[place[0]]), int(chosen[place])))
        if held.is_cuda:
            return _rows_of(held, places)
        return FrameBatch(shape, lambda place: held[places[place]])

    def _choose(self, stored: np.ndarray, streams: RandomStreams | None) -> np.ndarray:
        """Which frames to take [B, count], of samples that have `stored` [B, 1] of them."""
        if self.choice == "random" and streams is not None:
            # as wide as the longest sample of the split, so that no sample's choice depends on the others in its batch
            width = self._stored.max()
            keys = self._drawn(len(stored), width, streams)
            keys[np.arange(width) >= stored] = 2  # beyond the stored frames: last in the order
            order = np.argsort(keys, 1)
            return np.sort(np.take_along_axis(order, np.arange(self.count) % stored, 1), 1)
        if self.choice == "from-start":
            return np.minimum(np.arange(self.count), stored - 1)
        if self.choice == "first-middle-last":
            share = np.linspace(0, 1, self.count) if self.count > 1 else np.array([0.5])
            return ((stored - 1) * share).astype(np.int64)
        within = 0.5  # of each part
        if self.choice == "segments" and streams is not None:
            within = self._drawn(len(stored), self.count, streams)
        places = (np.arange(self.count) + within) / self.count
        # the bound is for a draw so near to 1 that the sum is rounded up to the next part
        return np.minimum((places * stored).astype(np.int64), stored - 1)

    def _drawn(self, batch: int, width: int, streams: RandomStreams) -> np.ndarray:
        """Random numbers in [0, 1) for each sample of a batch [B, width]."""
        count, mine = streams.samples(batch)
        return np.random.default_rng(streams.key(f"frames/{self.modality}")).random((count, width))[mine]

    def _decode(self, row: int, frame: int) -> Tensor:
        height, width, channels = self.shape
        jpeg = torch.frombuffer(self.split.frame(self.modality, row, frame), dtype=torch.uint8)
        picture = decode_jpeg(jpeg, ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY)
        assert isinstance(picture, Tensor)
        if channels == 2:  # one below the other
            picture = picture.view(2, height, width)
        if picture.shape[1:] != (height, width):  # of a size of its own: the middle of it
            picture = resize(centre_crop(picture, [min(picture.shape[1:])]), [height, width])
        return picture.permute(1, 2, 0)


def _rows_of(held: Tensor, rows: np.ndarray) -> Tensor:
    """Rows of a tensor, on its device, which is not waited for."""
    index = torch.from_numpy(rows)
    return held[index.pin_memory().to(held.device, non_blocking=True) if held.is_cuda else index]


class Source:
    """The samples of one split, served in batches."""

    def __init__(
        self,
        split: PreparedSplit,
        columns: Mapping[str, Column],
        label: str = "label",
        groups: str | None = None,
    ) -> None:
        """`label` and `groups`: the columns of the labels and, if any, of what the samples are grouped by."""
        self.ids = split.ids
        self.labels = torch.from_numpy(split.column(label))
        self.groups: list[str] | None = None if groups is None else split.extra(groups)
        self.columns = columns

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, *modalities: str) -> "Source":
        """The same samples with these modalities alone."""
        part = copy(self)
        part.columns = {name: self.columns[name] for name in modalities}
        return part

    def size(self, ready: bool) -> int:
        """Bytes of memory that the split takes when resident."""
        return sum(column.size(ready) for column in self.columns.values())

    def batches(
        self, rows: Iterable[np.ndarray], streams: Iterable[RandomStreams | None], device: torch.device
    ) -> Iterator[tuple[dict[str, Raw], Tensor]]:
        """Raw inputs and labels [B, …] on `device`, a batch for each entry of `rows` and `streams`.

        The next AHEAD batches are read by a thread of its own while the device works on this one, unless all is held in
        the memory of the CPU that does both.
        """
        if device.type == "cpu" and all(column.held is not None for column in self.columns.values()):
            for next_rows, next_streams in zip(rows, streams, strict=False):
                read = partial(self._read, next_rows, next_streams, pin=False)
                yield self._serve(next_rows, next_streams, read, device)
            return
        with ThreadPoolExecutor(1) as reader:
            waiting: deque[tuple[np.ndarray, RandomStreams | None, Read]] = deque()
            for next_rows, next_streams in zip(rows, streams, strict=False):
                coming = reader.submit(self._read, next_rows, next_streams, device.type == "cuda")
                waiting.append((next_rows, next_streams, coming.result))
                if len(waiting) > AHEAD:
                    yield self._serve(*waiting.popleft(), device)
            while waiting:
                yield self._serve(*waiting.popleft(), device)

    def _read(
        self, rows: np.ndarray, streams: RandomStreams | None, pin: bool
    ) -> tuple[dict[str, Raw], Tensor]:
        """What is read from the host's memory or from files."""
        columns = {name: column for name, column in self.columns.items() if not column.on_gpu}
        raw = {name: column.batch(rows, streams) for name, column in columns.items()}
        labels = self.labels[torch.from_numpy(rows)]
        if pin:
            return {name: _pinned(values) for name, values in raw.items()}, labels.pin_memory()
        return raw, labels

    def _serve(
        self,
        rows: np.ndarray,
        streams: RandomStreams | None,
        read: Read,
        device: torch.device,
    ) -> tuple[dict[str, Raw], Tensor]:
        """A batch with all its parts on the device, in the columns' order."""
        raw, labels = read()
        moved = {
            name: _to_device(raw[name], device) if name in raw else column.batch(rows, streams)
            for name, column in self.columns.items()
        }
        return moved, labels.to(device, non_blocking=True)


def _pinned(raw: Raw) -> Tensor:
    """One tensor in memory that a GPU can copy from by itself."""
    if isinstance(raw, Tensor):
        return raw.pin_memory()
    together = torch.empty(raw.shape, dtype=torch.uint8, pin_memory=True)

    def fill(sample: int) -> None:
        for frame, place in enumerate(together[sample]):
            place.copy_(raw.picture((sample, frame)))

    each(fill, range(len(together)))
    return together


def _to_device(raw: Raw, device: torch.device) -> Raw:
    return raw.to(device, non_blocking=True) if isinstance(raw, Tensor) else raw


@dataclass(frozen=True)
class Room:
    """What one of several runs on a machine may take of its memory: bytes of the host's, and a share of a GPU's."""

    host: int
    gpu: float

    @classmethod
    def of_each(cls, runs: int, gpus: int) -> "Room":
        """Equal parts of what is free now, for so many runs at a time over so many GPUs."""
        return cls(free_memory() // runs, 1 / math.ceil(runs / max(gpus, 1)))


def make_resident(
    sources: Iterable[Source], loading: Loading, device: torch.device = CPU, room: Room | None = None
) -> str:
    """Decode the sources into memory if `loading` says so, or "auto" finds room. Returns one line on the choice.

    For a run on a GPU that is the GPU's memory where GPU_SHARE of what is free suffices, else the host's; for a
    run on a CPU spectrograms are held, where there is room, in place of waveforms. InputError when "resident" is
    asked for and memory does not suffice. `room` is what the run may take at most where others run beside it.
    """
    sources = list(sources)
    raw, ready = (sum(source.size(ready) for source in sources) for ready in (False, True))
    if device.type == "cuda" and loading != "streaming":
        free, total = torch.cuda.mem_get_info(device)
        free = min(free, int(total * room.gpu)) if room else free
        if raw <= GPU_SHARE * free:
            _hold(sources, device, ready=False)
            return f"Resident on the GPU: all samples are decoded once ({_sizes(raw, free)})."
    free = min(free_memory(), room.host) if room else free_memory()
    most = free * (1 if loading == "resident" else RESIDENT_SHARE)
    if loading == "streaming" or raw > most:
        if loading == "resident":
            raise InputError(
                f"Resident data would take {_sizes(raw, free)}. Use --loading streaming, or free some memory."
            )
        return f"Streaming: samples are decoded batch by batch (resident would take {_sizes(raw, free)})."
    # held spectrograms are larger than waveforms: the CPU need not compute them, a GPU would have to fetch them
    spectrograms = device.type == "cpu" and raw < ready <= most
    _hold(sources, CPU, spectrograms)
    also = ", and spectrograms computed once" if spectrograms else ""
    return f"Resident: all samples are decoded once{also} ({_sizes(ready if spectrograms else raw, free)})."


def _hold(sources: Iterable[Source], device: torch.device, ready: bool) -> None:
    for source in sources:
        for column in source.columns.values():
            column.hold(device, ready)


def _sizes(needed: int, free: int) -> str:
    return f"{needed / 2**30:.1f} of {free / 2**30:.1f} GiB free memory"


def free_memory() -> int:
    """Bytes that this process may still use: the machine's, or those of its control group if fewer."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        available = min(available, int(limit[0]) - int(used[0]))
    return available


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
