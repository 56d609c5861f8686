"""A Slurm cluster of one node on the loopback address, for tests: real daemons, all files in one folder.

    python tests/slurm_cluster.py squeue     # runs a command with such a cluster, e.g. a shell

It needs root, and the packages slurm-wlm and munge (`apt-get install slurm-wlm munge`). No service of the machine is
touched: the daemons have their own ports, key and sockets.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "setpriv")
SECONDS = 30  # to start or to stop

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired: 120 s unless said otherwise, and 5 at least.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
SlurmdTimeout=30
KillWait=10
JobRequeue=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if missing:
        return f"Slurm is not installed here: no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run the cluster; gives the environment variables that its commands need."""
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    controller, daemon = _free_ports(2)
    conf.write_text(CONF.format(folder=folder, host=host, controller=controller, daemon=daemon))
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    environment = {"SLURM_CONF": str(conf), "PATH": _path()}
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    with ExitStack() as stack:
        for command, ready in (
            (munged, (folder / "munge.socket").exists),
            (["slurmctld", "-D"], lambda: _answers("scontrol", "ping", environment=environment)),
            (["slurmd", "-D"], lambda: "idle" in _output("sinfo", "-h", "-o", "%T", environment=environment)),
        ):
            stack.enter_context(_daemon(command, folder, environment, ready))
        stack.callback(_end_jobs, conf, environment)
        yield environment


def _end_jobs(conf: Path, environment: dict[str, str]) -> None:
    """Cancel all jobs; end what is left of them after a while, so that no process outlives the cluster."""
    _output("scancel", "--partition=main", environment=environment)
    deadline = time.monotonic() + SECONDS
    while _output("squeue", "-h", environment=environment) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or ends now
            variables = (process / "environ").read_bytes().split(b"\0")
            is_step = (process / "cmdline").read_bytes().startswith(b"slurmstepd")
            in_job = is_step or any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
            if in_job and f"SLURM_CONF={conf}".encode() in variables:
                os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def _daemon(
    command: list[str], folder: Path, environment: dict[str, str], ready: Callable[[], bool]
) -> Iterator[None]:
    """Run a daemon in the foreground until the end of the context, or of this process."""
    log = folder / f"{command[0]}.out"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _output(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS
    )
    return done.stdout


def _answers(*command: str, environment: dict[str, str]) -> bool:
    return "UP" in _output(*command, environment=environment)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where the daemons are


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as place, cluster(Path(place)) as variables:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, **variables}).returncode)
