"""Runs on a Slurm cluster, through submitit: a job each, requeued and resumed when it is stopped or killed."""

import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from balancemm_cli.data.store import write_json
from balancemm_cli.errors import BmmError, InputError, Interrupted, UsageError, plain, sentence

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

    from balancemm_cli.engine.launch import Job

RECORD = "slurm.json"  # in the run folder: the id of its last job and where that job's log is
TIME = "4:00:00"  # the time limit of a job, unless said otherwise
TIMEOUTS = 100  # so often a run goes on after its time limit
KILLS = 10  # a job that was killed is not requeued any more once it has been restarted so often
# With those of the last two rows sbatch would queue something else or nothing, wait, or not say what it queued.
OURS = (
    *("array", "error", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "requeue", "signal"),
    *("no-requeue", "wrap", "wait", "test-only"),
    *("parsable", "quiet", "help", "usage", "version"),
)
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # submitit's is SIGUSR2, as NCCL may take the other

SETUP = [  # since Slurm 22.05 srun does not take this over from sbatch by itself
    '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
]
TEARDOWN = [  # 137: killed; 138 and 140: warned while Python was still loading
    "status=$?",
    # the last task of an array has the array's id as its SLURM_JOB_ID, by which all tasks would be requeued
    'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
    f'case $status in 137|138|140) [ "${{SLURM_RESTART_COUNT:-0}}" -ge {KILLS} ] || '
    'scontrol requeue "${job:-$SLURM_JOB_ID}";; esac',
    "exit $status",
]


def parse_options(given: Sequence[str]) -> dict[str, str | bool]:
    """sbatch's options from "partition=gpu" or "exclusive". UsageError for one that bmm sets itself, also where it is
    abbreviated as sbatch allows."""
    options: dict[str, str | bool] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-").replace("_", "-")
        if not key or (equals and not value):
            raise UsageError(f"--slurm takes an option of sbatch, as in --slurm partition=gpu, not '{text}'.")
        if own := next((own for own in OURS if own.startswith(key)), None):
            raise UsageError(
                f"sbatch's option '{own}' is bmm's own: a run is one process of one job, whose id bmm reads. "
                "Leave it out."
            )
        options[key] = value if equals else True
    return options


def minutes(time: str) -> int:
    """Slurm's forms of a time limit (90, 90:00, 1:30:00, 1-12, 1-12:00, 1-12:00:00) in whole minutes, rounded up."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not found:
        raise UsageError(f"--slurm time={time} is no time limit. Use minutes, H:MM:SS or D-HH:MM:SS.")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:
        numbers.insert(0, 0)  # minutes come first
    hours, mins, seconds = (*numbers, 0, 0)[:3]
    total = ((int(days or 0) * 24 + hours) * 60 + mins) * 60 + seconds
    if not total:
        raise UsageError(f"--slurm time={time} leaves no time to train.")
    return -(-total // 60)


def submit(
    jobs: "Sequence[Job]", options: Mapping[str, str | bool], at_once: int | None, folder: Path
) -> list[str]:
    """Queue `jobs`, an array where they are several; returns their ids and writes them into the run folders.

    `at_once` limits how many run at a time. Scripts and logs go into `folder`. InputError when there is no Slurm,
    when it refuses the jobs, and when it does not say their id.
    """
    submitit = _submitit()
    executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
    name = f"bmm-{jobs[0].suite or jobs[0].config.dataset}"
    sbatch = {"requeue": True, "job_name": name}
    sbatch |= {key.replace("-", "_"): value for key, value in options.items() if key != "time"}
    executor.update_parameters(
        time=minutes(str(options.get("time", TIME))),
        setup=SETUP,
        teardown=TEARDOWN,
        additional_parameters=sbatch,
        array_parallelism=at_once or len(jobs),
    )
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints sbatch's errors as well
            submitted = [executor.submit(SlurmRun(job)) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise InputError(f"Slurm refused the jobs. {_reason(str(error))}") from None
    except submitit.core.utils.FailedSubmissionError as error:
        raise InputError(
            f"The jobs may be queued, but their id can't be read: {sentence(plain(str(error)))} They would not find "
            f"what to train: cancel them with `scancel --name={name}`, then run the same command again."
        ) from None
    for job, queued in zip(jobs, submitted, strict=True):
        run = job.folder().path
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / RECORD, {"job": queued.job_id, "log": str(queued.paths.stdout)})
    return [queued.job_id for queued in submitted]


def queue() -> dict[str, str]:
    """State by job id of this user's jobs that wait or run. InputError where Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format=%i %T"]
    lines = [line.split() for line in _slurm(command).splitlines()]
    # a line of other than two words is what the cluster tells its users
    return {line[0]: line[1] for line in lines if len(line) == 2}


def last_job(run: Path) -> dict[str, str] | None:
    """The id ("job") and the log of the last job that was queued for the run in a folder, or None."""
    path = run / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        return {key: str(record[key]) for key in ("job", "log")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged. Delete it once the run is no longer in the queue.") from None


class SlurmRun:
    """What a job does; submitit pickles it, and calls `checkpoint` before it requeues the job.

    A warning or SIGTERM ends training at the next step, with the state kept. Then the job is requeued, unless Slurm
    has ended it: a job that was cancelled stays so, and one that Slurm requeues itself needs no more.
    """

    def __init__(self, job: "Job") -> None:
        self.job = job

    def __call__(self) -> None:
        """Train the run, in a process of its own that submitit has started."""
        import submitit
        from submitit.core.logger import get_logger

        from balancemm_cli.engine.launch import run_job

        log = get_logger()
        threads = self.job.threads or int(os.environ.get("SLURM_CPUS_ON_NODE", 1))
        warning = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        requeue: Any = signal.getsignal(warning)  # submitit's handler: checkpoint, requeue, exit
        signal.signal(signal.SIGTERM, _stop)
        for number in WARNINGS:  # training takes SIGTERM as a request to stop at the next step
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))
        try:
            run_job(
                replace(self.job, threads=threads), lambda job, event: _log_epoch(log, job, event), log.info
            )
        except Interrupted as interrupted:
            for number in (signal.SIGTERM, *WARNINGS):  # to be requeued is to get SIGTERM
                signal.signal(number, signal.SIG_IGN)
            log.info(str(interrupted))
            if _is_wanted(submitit.JobEnvironment().job_id):
                requeue(warning, None)
            sys.exit(130)
        except BmmError as error:  # SystemExit is not taken up by submitit, which would add a traceback
            log.error(str(error))
            sys.exit(error.exit_status)

    def checkpoint(self) -> "DelayedSubmission":
        """What the requeued job does: the same, from the run's last checkpoint."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def _log_epoch(log: Any, job: "Job", event: dict[str, Any]) -> None:  # noqa: ANN401 - a logger
    if "epoch" in event:
        reached = f"{job.tested_on} {event['accuracy']['test']:.3f}"
        log.info(f"epoch {event['epoch'] + 1}: loss {event['loss']:.3f}, {reached}")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted("Interrupted before or after training, which takes the signal itself.")


def _is_wanted(job: str) -> bool:
    """Whether a job (of an array: `array_task`, for the last task's other id is that of the whole array) still runs
    as far as Slurm knows: not when it was cancelled, or is requeued already."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    return "RUNNING" in _slurm(command).splitlines()


def _submitit() -> ModuleType:
    if not shutil.which("sbatch"):
        raise InputError("There is no sbatch here. Run this on the login node of a Slurm cluster.")
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError:
        raise InputError(
            "--launcher slurm needs submitit. Install it: pip install 'balancemm-cli[slurm]'."
        ) from None


def _slurm(command: list[str]) -> str:
    """The output of one of Slurm's commands. InputError when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise InputError(f"There is no {command[0]} here. Run this on the login node of a cluster.") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} does not answer. Try again later.") from None
    if done.returncode:
        raise InputError(f"{command[0]} failed. {_reason(done.stderr)}")
    return done.stdout


def _reason(text: str) -> str:
    """What a command of Slurm said, in a line: `sbatch: error: …`, without hints on its help."""
    lines = text.strip().splitlines()
    return " ".join(line for line in lines if re.match(r"\w+: ", line)) or " ".join(lines[-1:])
