"""A Slurm of one node on the loopback: its configuration, its start and its end."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
CPUS = 4  # as far as Slurm is concerned
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

_CONFIG = """\
ClusterName=requant
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=requeue_delay=1
GresTypes=gpu
KillWait=2
MailProg=/bin/true
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=3000 Gres=gpu:2 State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES PriorityTier=1
PartitionName=taken Nodes={host} PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs that a test cluster needs and this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster whose state is in `folder`; gives the environment in which Slurm's commands find it."""
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
    _configure(folder)
    daemons = []
    try:
        for command in (_munged(folder), ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            time.sleep(1)
        _wait_for_the_node(environment, folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--user", str(os.getuid())], env=environment, check=False)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("gpu0", "gpu1"):
        (folder / name).touch()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    text = _CONFIG.format(folder=folder, host=socket.gethostname().split(".")[0], ports=_ports(), user=user, cpus=CPUS)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")


def _munged(folder: Path) -> list[str]:
    places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return ["munged", "--force", "--foreground", *(f"--{k}={folder}/munge.{v}" for k, v in places.items())]


def _ports() -> list[int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in (first, second)]


def _wait_for_the_node(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        said = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True).stdout
        if "idle" in said:
            return
        time.sleep(0.5)
    raise RuntimeError("\n".join(path.read_text() for path in folder.glob("*.out")))
