"""Samples of a prepared split as raw batches on the host, resident (decoded once) or streaming.

Both modes give the same samples and take the same random draws; what follows on the device is in transforms.py.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from balancemm_cli.data.store import PreparedSplit
from balancemm_cli.draws import Draws
from balancemm_cli.errors import InputError

Loading = Literal["auto", "resident", "streaming"]
RESIDENT_SHARE = 0.5  # of the free memory, up to which "auto" keeps a set resident


class Column(Protocol):
    """One modality of a split."""

    def batch(self, rows: np.ndarray, draws: Draws | None) -> Tensor:
        """Raw samples of `rows` [B]; random choices by `draws`, or none (evaluation)."""
        ...

    def size(self) -> int:
        """Bytes of memory that the decoded modality takes."""
        ...

    def decode_all(self) -> None:
        """Make the modality resident."""
        ...


class NumbersColumn:
    """Numbers of a fixed shape a sample [B, *shape], of the dtype that the split stores.

    Waveforms [T] that are too short are repeated (`repeat`); feature sequences [steps, width] and tokens [T]
    are filled up with zeros. What is too long is cut.
    """

    def __init__(self, split: PreparedSplit, modality: str, shape: tuple[int, ...], repeat: bool) -> None:
        self.split, self.modality, self.shape, self.repeat = split, modality, shape, repeat
        self._holders, self._place = np.unique(split.holders(modality), return_inverse=True)
        self._dtype = split.dtype(modality)
        self._all: Tensor | None = None

    def size(self) -> int:
        """Bytes of memory that all numbers take."""
        return self._dtype.itemsize * int(np.prod(self.shape)) * len(self._holders)

    def decode_all(self) -> None:
        """Hold all numbers in memory."""
        self._all = self._read(self._holders)

    def batch(self, rows: np.ndarray, draws: Draws | None) -> Tensor:
        """Numbers [B, *shape]."""
        places = self._place[rows]
        return self._read(self._holders[places]) if self._all is None else self._all[torch.from_numpy(places)]

    def _read(self, rows: np.ndarray) -> Tensor:
        values = np.zeros((len(rows), *self.shape), self._dtype)
        for value, row in zip(values.reshape(len(rows), -1), rows, strict=True):
            stored = self.split.array(self.modality, int(row))
            if self.repeat:
                stored = np.resize(stored, value.size)
            count = min(value.size, stored.size)
            value[:count] = stored[:count]
        return torch.from_numpy(values)


class FramesColumn:
    """uint8 pictures [B, count, H, W, C]: `count` of each sample's stored frames.

    In training `choice` "random" draws without replacement as far as the frames suffice, in order of time;
    everything else is fixed: spread evenly, or first, middle and last. With too few frames some come twice.
    """

    def __init__(
        self, split: PreparedSplit, modality: str, shape: tuple[int, int, int], count: int, choice: str
    ) -> None:
        self.split, self.modality, self.shape, self.count, self.choice = split, modality, shape, count, choice
        self._holders = split.holders(modality)
        self._stored = split.lengths(modality)  # by holder
        self._starts = np.cumsum(self._stored) - self._stored
        self._all: Tensor | None = None

    def size(self) -> int:
        """Bytes of memory that all decoded frames take."""
        return int(self._stored.sum()) * int(np.prod(self.shape))

    def decode_all(self) -> None:
        """Decode all frames into memory."""
        self._all = torch.empty((int(self._stored.sum()), *self.shape), dtype=torch.uint8)
        for row in np.flatnonzero(self._stored):
            for index, jpeg in enumerate(self.split.frames(self.modality, int(row)), int(self._starts[row])):
                self._all[index] = self._decode(jpeg)

    def batch(self, rows: np.ndarray, draws: Draws | None) -> Tensor:
        """Pictures uint8 [B, count, H, W, C]."""
        holders = self._holders[rows]
        chosen = self._choose(self._stored[holders, None], draws)
        if self._all is not None:
            return self._all[torch.from_numpy(self._starts[holders, None] + chosen)]
        pictures = torch.empty((*chosen.shape, *self.shape), dtype=torch.uint8)
        for sample, row, frames in zip(pictures, holders, chosen, strict=True):
            jpegs = self.split.frames(self.modality, int(row))
            for picture, frame in zip(sample, frames, strict=True):
                picture[:] = self._decode(jpegs[frame])
        return pictures

    def _choose(self, stored: np.ndarray, draws: Draws | None) -> np.ndarray:
        """Which frames to take [B, count], of samples that have `stored` [B, 1] of them."""
        if self.choice == "random" and draws is not None:
            keys = np.random.default_rng(draws.key(f"frames/{self.modality}")).random(
                (len(stored), stored.max())
            )
            keys[np.arange(stored.max()) >= stored] = 2  # beyond the stored frames: last in the order
            order = np.argsort(keys, 1)
            return np.sort(np.take_along_axis(order, np.arange(self.count) % stored, 1), 1)
        if self.choice == "first-middle-last":
            share = np.linspace(0, 1, self.count) if self.count > 1 else np.array([0.5])
            return ((stored - 1) * share).astype(np.int64)
        return ((np.arange(self.count) + 0.5) / self.count * stored).astype(np.int64)

    def _decode(self, jpeg: bytes) -> Tensor:
        height, width, channels = self.shape
        mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
        picture = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode)
        assert isinstance(picture, Tensor)
        if channels == 2:  # one below the other
            picture = picture.view(2, height, width)
        return picture.permute(1, 2, 0)


class Source:
    """The samples of one split, served in batches."""

    def __init__(self, split: PreparedSplit, columns: Mapping[str, Column]) -> None:
        self.ids = split.ids
        self.labels = torch.from_numpy(split.labels)
        self.columns = columns

    def __len__(self) -> int:
        return len(self.ids)

    def size(self) -> int:
        """Bytes of memory that the split takes when resident."""
        return sum(column.size() for column in self.columns.values())

    def batches(
        self, rows: Iterable[np.ndarray], draws: Iterable[Draws | None], device: torch.device
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Raw inputs and labels [B] on `device`, a batch for each entry of `rows` and `draws`.

        The next batch is read by a thread of its own while the device works on this one.
        """
        with ThreadPoolExecutor(1) as reader:
            waiting = None
            for next_rows, next_draws in zip(rows, draws, strict=False):
                coming = reader.submit(self._read, next_rows, next_draws, device.type == "cuda")
                if waiting is not None:
                    yield _to_device(*waiting.result(), device)
                waiting = coming
            if waiting is not None:
                yield _to_device(*waiting.result(), device)

    def _read(self, rows: np.ndarray, draws: Draws | None, pin: bool) -> tuple[dict[str, Tensor], Tensor]:
        raw = {name: column.batch(rows, draws) for name, column in self.columns.items()}
        labels = self.labels[torch.from_numpy(rows)]
        if pin:
            return {name: values.pin_memory() for name, values in raw.items()}, labels.pin_memory()
        return raw, labels


def _to_device(
    raw: dict[str, Tensor], labels: Tensor, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    moved = {name: values.to(device, non_blocking=True) for name, values in raw.items()}
    return moved, labels.to(device, non_blocking=True)


def make_resident(sources: Iterable[Source], loading: Loading) -> str:
    """Decode the sources into memory if `loading` says so, or "auto" finds room. Returns one line on the choice.

    InputError when "resident" is asked for and memory does not suffice.
    """
    sources = list(sources)
    needed, free = sum(source.size() for source in sources), free_memory()
    sizes = f"{needed / 2**30:.1f} of {free / 2**30:.1f} GiB free memory"
    if loading == "streaming" or (loading == "auto" and needed > RESIDENT_SHARE * free):
        return f"Streaming: samples are decoded batch by batch (resident would take {sizes})."
    if needed > free:
        raise InputError(f"Resident data would take {sizes}. Use --loading streaming, or free some memory.")
    for source in sources:
        for column in source.columns.values():
            column.decode_all()
    return f"Resident: all samples are decoded once ({sizes})."


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
