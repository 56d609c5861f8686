"""The run folder: what a run was, how it went and what came out, readable from its files alone."""

import fcntl
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from balancemm_cli import __version__
from balancemm_cli.config.run import RunConfig, read_config
from balancemm_cli.data.store import PreparedSet, atomic_file, file_hash, write_json
from balancemm_cli.errors import InputError, UsageError
from balancemm_cli.resources import commit
from balancemm_cli.runs.places import Places
from balancemm_cli.runs.reading import read_environments
from balancemm_cli.runs.schema import NAMES, Environment, Result

FORMAT = 2
LOCK, ALIVE = ".lock", ".alive"


class RunFolder:
    """The folder of a run under `root` and its files; see `places` for where it lies.

    config.toml, environment.json (each environment that it was trained in), history.jsonl (one line per epoch),
    steps.arrow (one row per step),
    predictions.arrow (test scores of each selection), result.json, checkpoints/ (the last two states; of the epochs
    that `snapshots` names the weights); from `bmm eval` evaluation.json, features.arrow (see runs.evaluation).
    """

    def __init__(
        self,
        root: Path,
        config: RunConfig,
        data: PreparedSet,
        suite: str | None = None,
        place: Path | None = None,
    ) -> None:
        self.config, self.prepared, self.suite = config, data, suite
        self.hash = config.hash(data.content_hash)
        self.path = place or Places(root).of(config, data.content_hash)
        self.checkpoints = self.path / "checkpoints"

    @cached_property
    def data(self) -> PreparedSet:
        """The data set as this run sees it. InputError where it has too few samples for that."""
        return self.prepared.for_run(self.config.seed, self.config.settings.tested_on)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the folder, or check that an existing one is of the same run; keep other processes out.

        InputError when config.toml differs or is damaged, or when the run is being trained elsewhere. Two files are
        locked: LOCK keeps other trainers out, and ALIVE, which `is_locked` looks at, tells that there is one. So a look
        at it, which takes a lock for a moment, never stands in a trainer's way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as lock, (self.path / ALIVE).open("w") as alive:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path} is being trained by another process. Wait for it.") from None
            fcntl.flock(alive, fcntl.LOCK_EX)
            for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            self._check_or_write_config()
            try:
                yield
            except UsageError:
                self._leave_nothing()
                raise

    def _leave_nothing(self) -> None:
        """Delete the folder of a run that was refused before it began: one that would never be finished."""
        if {path.name for path in self.path.iterdir()} == {"config.toml", LOCK, ALIVE}:
            shutil.rmtree(self.path)

    def _check_or_write_config(self) -> None:
        path = self.path / "config.toml"
        if not path.exists() and (self.path / "result.json").exists():
            raise InputError(
                f"{self.path} holds a result without its config.toml. Restore it, or delete the folder."
            )
        if not path.exists():
            with atomic_file(path) as file:
                file.write(self.config.to_toml().encode())
            return
        kept = read_config(path)
        if kept.hash(self.prepared.content_hash) != self.hash:
            raise InputError(
                f"{path} holds other settings than this run's. Restore it, or delete the folder to train again."
            )
        # the same run may be asked for under other names, as in the other variant: its two files keep one set of them
        self.config = self.config.model_copy(update={name: getattr(kept, name) for name in NAMES})

    def result(self) -> dict[str, Any] | None:
        """The content of result.json, or None. InputError when it is damaged."""
        return read_result(self.path)

    def is_own(self, run_hash: str) -> bool:
        """Whether a checkpoint with that hash is of this run; a former version's stands in its result.json."""
        if run_hash == self.hash:
            return True
        result = self.result()
        return result is not None and result["format"] == 1 and result["hashes"]["config"] == run_hash

    def write_environment(self, device: torch.device, processes: int) -> None:
        """Add to environment.json the versions, the device, the threads and the processes that the run uses from now
        on, unless they are those it had."""
        own = Environment(
            version=__version__,
            git=commit(),
            python=platform.python_version(),
            torch=torch.__version__,
            platform=platform.platform(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            processes=processes,
            suite=self.suite,
        )
        before = self._environments()
        if own not in before[-1:]:
            environments = [one.model_dump() for one in (*before, own)]
            write_json(self.path / "environment.json", {"environments": environments})

    def _environments(self) -> list[Environment]:
        try:
            return read_environments(self.path)
        except (OSError, ValueError):
            return []

    def write_result(self, status: str, epochs: int, processes: int, **parts: Any) -> None:  # noqa: ANN401
        """Write result.json. `parts` are selections, rho, time and what else the status needs, plain values."""
        content = {
            "status": status,
            **{name: getattr(self.config, name) for name in NAMES},
            "epochs": epochs,
            "tested_on": self.config.settings.tested_on,
            "speed": self.config.settings.speed.model_dump(),
            **parts,
            "processes": processes,
            **self._identity(),
        }
        Result.model_validate(content)
        write_json(self.path / "result.json", content)

    def write_failure(self, error: str, processes: int) -> None:
        """Keep in result.json that the run failed, and why; what it says of the epochs before stays."""
        before = self.result()
        if before is None:
            self.write_result("failed", 0, processes, error=error)
        else:
            write_json(self.path / "result.json", {**before, "status": "failed", "error": error})

    def _identity(self) -> dict[str, Any]:
        """What result.json says of which run it is, and of which data."""
        data = self.data
        return {
            "format": FORMAT,
            "split": data.split_description,
            "data": {
                "reader": data.reader,
                "split_name": data.split_name,
                "official_lists": data.official_lists,
            },
            "samples": {name: [count, data.expected[name]] for name, count in data.counts.items()},
            "hashes": {
                "run": self.hash,
                "settings": self.config.hash(data.content_hash, with_seed=False),
                "data": data.content_hash,
                "splits": data.splits_hash,
            },
            "config_hash": file_hash(self.path / "config.toml"),
        }

    def record_data(self) -> None:
        """Write into the result of a finished run of a former version which data it is of: the prepared set, of the
        same content, knows by now."""
        result = self.result()
        unknown = result is not None and result.get("data", {}).get("reader") is None
        if result and unknown and result["status"] == "finished" and self.data.reader:
            write_json(self.path / "result.json", result | self._identity())

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Write history.jsonl, one line per epoch."""
        with atomic_file(self.path / "history.jsonl") as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in records)

    def write_steps(self, table: pa.Table) -> None:
        """Write steps.arrow."""
        write_table(self.path / "steps.arrow", table)

    def write_predictions(self, table: pa.Table) -> None:
        """Write predictions.arrow."""
        write_table(self.path / "predictions.arrow", table)


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of a run folder's result.json, or None where there is none. InputError when damaged."""
    path = folder / "result.json"
    try:
        content = path.read_bytes()
        Result.model_validate_json(content)
        return json.loads(content)
    except FileNotFoundError:
        return None
    except ValueError:  # ValidationError is one, too
        pass
    raise InputError(f"{path} is damaged or of another format. Delete the run folder to train it again.")


def is_locked(folder: Path) -> bool:
    """Whether a process trains the run of a folder, on this machine or wherever the file system passes locks on.
    OSError where there is no lock that can be read."""
    with (folder / ALIVE).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file, whole or not at all."""
    with atomic_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
