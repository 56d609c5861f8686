"""The run folder: what a run was, how it went and what came out, readable from its files alone."""

import fcntl
import json
import platform
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from balancemm_cli import __version__
from balancemm_cli.config.run import WITHOUT_EFFECT, RunConfig, read_toml
from balancemm_cli.data.store import PreparedSet, atomic_file, write_json
from balancemm_cli.errors import InputError
from balancemm_cli.resources import PACKAGE

FORMAT = 1


class RunFolder:
    """`<runs>/<suite or dataset>/<model>/<method>-<variant>-s<seed>-<hash8>/` and its files.

    config.toml, environment.json, history.jsonl (a line an epoch), steps.arrow (a row a step),
    predictions.arrow (test scores of each selection), result.json, checkpoints/ (the last two states; of the epochs
    that `snapshots` names the weights); from `bmm eval` evaluation.json, features.arrow (see runs.evaluation).
    """

    def __init__(self, root: Path, config: RunConfig, data: PreparedSet, suite: str | None = None) -> None:
        self.config, self.data = config, data
        self.hash = config.hash(data.content_hash)
        name = f"{config.method}-{config.variant}-s{config.seed}-{self.hash[:8]}"
        self.path = root / (suite or config.dataset) / config.model / name
        self.checkpoints = self.path / "checkpoints"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the folder, or check that an existing one is of the same run; keep other processes out.

        InputError when config.toml differs or is damaged, or when the run is being trained elsewhere.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path} is being trained by another process. Wait for it.") from None
            for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            self._check_or_write_config()
            yield

    def _check_or_write_config(self) -> None:
        path = self.path / "config.toml"
        if not path.exists():
            with atomic_file(path) as file:
                file.write(self.config.to_toml().encode())
        elif _decisive(read_toml(path)) != _decisive(tomllib.loads(self.config.to_toml())):
            raise InputError(
                f"{path} holds other settings than this run's. Restore it, or delete the folder to train again."
            )

    def result(self) -> dict[str, Any] | None:
        """The content of result.json, or None. InputError when it is damaged."""
        return read_result(self.path)

    def write_environment(self, device: torch.device, processes: int) -> None:
        """Record the versions, the device, the threads, the processes and the hashes that the run uses."""
        write_json(
            self.path / "environment.json",
            {
                "version": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "platform": platform.platform(),
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),  # of each process
                "processes": processes,
                "git": git_state(),
                "data": self.data.content_hash,
                "splits": self.data.splits_hash,
            },
        )

    def write_result(self, status: str, epochs: int, processes: int, **parts: Any) -> None:  # noqa: ANN401
        """Write result.json. `parts` are selections, rho, time and what else the status needs, plain values."""
        config = self.config
        write_json(
            self.path / "result.json",
            {
                "format": FORMAT,
                "status": status,
                **{
                    key: getattr(config, key)
                    for key in ("dataset", "model", "method", "variant", "recipe", "seed")
                },
                "epochs": epochs,
                "speed": config.settings.speed.model_dump(),
                **parts,
                "processes": processes,
                "split": self.data.protocol,
                "data": {
                    "reader": self.data.reader,
                    "split_name": self.data.split_name,
                    "official_lists": self.data.official_lists,
                },
                "samples": {name: [n, self.data.expected[name]] for name, n in self.data.counts.items()},
                "hashes": {
                    "config": self.hash,
                    "protocol": config.hash(self.data.content_hash, with_seed=False),
                    "data": self.data.content_hash,
                    "splits": self.data.splits_hash,
                },
            },
        )

    def write_failure(self, error: str, processes: int) -> None:
        """Keep in result.json that the run failed, and why; what it says of the epochs before stays."""
        before = self.result()
        if before is None:
            self.write_result("failed", 0, processes, error=error)
        else:
            write_json(self.path / "result.json", {**before, "status": "failed", "error": error})

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Write history.jsonl, a line an epoch."""
        with atomic_file(self.path / "history.jsonl") as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in records)

    def write_steps(self, table: pa.Table) -> None:
        """Write steps.arrow."""
        write_table(self.path / "steps.arrow", table)

    def write_predictions(self, table: pa.Table) -> None:
        """Write predictions.arrow."""
        write_table(self.path / "predictions.arrow", table)


def _decisive(content: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config.toml that change the run's numbers."""
    return {key: value for key, value in content.items() if key not in WITHOUT_EFFECT}


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of a run folder's result.json, or None where there is none. InputError when damaged."""
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text("utf-8"))
        if result["format"] == FORMAT:
            return result
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is damaged or of another format. Delete the run folder to train it again.")


def is_locked(folder: Path) -> bool:
    """Whether a process has a run folder open, on this machine or wherever the file system passes locks on.
    OSError where there is no lock that can be read."""
    with (folder / ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file, whole or not at all."""
    with atomic_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path) -> pa.Table:
    """The content of an Arrow IPC file. InputError where it can't be read."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None


def read_predictions(folder: Path, selection: str) -> pa.Table:
    """What predictions.arrow of a run keeps of a selection: `id`, `label` and `scores`, an answer a row.

    InputError where it can't be read; KeyError or pa.ArrowException where it holds something else.
    """
    table = read_table(folder / "predictions.arrow")
    of_selection = pc.equal(table["selection"], selection)  # pyright: ignore[reportAttributeAccessIssue]
    return table.select(["id", "label", "scores"]).filter(of_selection)


def git_state() -> str | None:
    """The commit of the program's checkout, with `+` behind it where files were changed; None outside one."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None
