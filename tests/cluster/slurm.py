"""A real SLURM on one machine, for the tests: started in a second, stopped without a trace, no systemd, no accounting.

    python tests/cluster/slurm.py install          # Debian's packages; as root, or by sudo
    python tests/cluster/slurm.py installed        # whether they are; exits with 1 if not
    python tests/cluster/slurm.py start FOLDER     # prints what to put into the environment
    python tests/cluster/slurm.py restart-node FOLDER
    python tests/cluster/slurm.py stop FOLDER

Keys, sockets, configuration, state, logs and spool are all below FOLDER, and the daemons belong to whoever starts them,
so that nothing but `install` needs rights. The node says that it has eight processors and four GPUs, whatever it has:
the GPUs are empty files, which SLURM hands out like any other.
"""

import argparse
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "slurmctld", "slurmd", "munged")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # the daemons are not on everybody's path
PROCESSORS, GPUS = 8, 4

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is queued again waits as long as a credential lives.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
# Jobs that lost their node, or were asked to go, come back; a moment between SIGTERM and SIGKILL.
JobRequeue=1
# A job of the partition `urgent` displaces others, which wait again.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
# Long enough that the queue still knows what has just ended.
MinJobAge=120
# What can never run is refused at once.
EnforcePartLimits=ALL
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


class Broken(Exception):
    """The cluster did not come up; the message has the last lines of the log."""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def install() -> None:
    """Debian's packages. Their services are not needed, and not started where the system lets us say so."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "install", "--no-install-recommends", "slurm-wlm", "munge"], check=True)


def start(folder: Path) -> dict[str, str]:
    """Start everything; returns the environment that the commands need.

    Raises:
        Broken: a program is missing, or a daemon did not come up.
    """
    if missing():
        raise Broken(f"not installed: {', '.join(missing())}; python tests/cluster/slurm.py install")
    folder = folder.resolve()
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    for number in range(GPUS):
        (folder / f"gpu{number}").touch()
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(2)
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            host=host,
            controller=ports[0],
            node=ports[1],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
            processors=PROCESSORS,
            gpus=GPUS,
        )
    )
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    munge = folder / "munge"
    _daemon(
        folder,
        "munged",
        "--force",  # the folder may lie where others may write, as all of /tmp
        f"--key-file={key}",
        f"--socket={munge / 'socket'}",
        f"--pid-file={folder / 'munged.pid'}",
        f"--log-file={folder / 'munged.log'}",
        f"--seed-file={munge / 'seed'}",
    )
    _wait(lambda: (munge / "socket").exists(), folder, "munged")
    _daemon(folder, "slurmctld", "-c", "-i")
    _start_node(folder)
    return environment(folder)


def restart_node(folder: Path) -> None:
    """What a power failure of the node does: every process of it dies, and it comes back."""
    folder = folder.resolve()
    for pid in _processes(folder, ("slurmd", "slurmstepd"), with_children=True):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(lambda: not _processes(folder, ("slurmd", "slurmstepd")), folder, "slurmd")
    host = ask(folder, "sinfo", "-h", "-p", "all", "-o", "%n").strip()
    # What the controller notices by itself, after minutes.
    ask(folder, "scontrol", "update", f"nodename={host}", "state=down", "reason=power failure")
    _start_node(folder, "-b")  # -b: it says that it was rebooted


def stop(folder: Path) -> None:
    """Stop everything that was started with this folder: jobs, daemons; the folder stays."""
    folder = folder.resolve()
    for names in (("slurmd", "slurmstepd"), ("slurmctld", "slurmscriptd"), ("munged",)):
        pids = _processes(folder, names, with_children=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + 3
            while (pids := [pid for pid in pids if _alive(pid)]) and time.monotonic() < deadline:
                time.sleep(0.05)


def environment(folder: Path) -> dict[str, str]:
    """What SLURM's commands look at."""
    return {"SLURM_CONF": str(folder.resolve() / "slurm.conf")}


def ask(folder: Path, *command: str) -> str:
    """What one of SLURM's commands says."""
    done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def _start_node(folder: Path, *flags: str) -> None:
    _daemon(folder, "slurmd", *flags)
    _wait(
        lambda: ask(folder, "sinfo", "-h", "-p", "all", "-o", "%T").strip() in ("idle", "mixed", "allocated"),
        folder,
        "slurmd",
    )


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": PATH, **environment(folder)}


def _daemon(folder: Path, *command: str) -> None:
    """Start a program that sends itself into the background."""
    with open(folder / "daemons.log", "a") as log:
        done = subprocess.run(command, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if done.returncode != 0:
        raise Broken(f"{command[0]} ended with status {done.returncode}:\n{_last(folder, command[0])}")


def _wait(ready: Callable[[], bool], folder: Path, name: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Broken(f"{name} did not come up within {seconds:g} s:\n{_last(folder, name)}")
        time.sleep(0.05)


def _last(folder: Path, name: str) -> str:
    logs = [path for path in (folder / "daemons.log", folder / f"{name}.log") if path.exists()]
    return "\n".join(line for path in logs for line in path.read_text(errors="replace").splitlines()[-10:])


def _processes(folder: Path, names: tuple[str, ...], with_children: bool = False) -> list[int]:
    """The processes of these programs that look at this folder's configuration, and what runs below them."""
    mark = f"SLURM_CONF={environment(folder)['SLURM_CONF']}".encode()
    parents: dict[int, int] = {}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "stat").read_text()
            name, rest = line[line.index("(") + 1 : line.rindex(")")], line[line.rindex(")") + 2 :].split()
            own = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            continue
        if rest[0] == "Z":
            continue
        parents[int(entry.name)] = int(rest[1])
        if own and name in names:
            found.append(int(entry.name))
    if with_children:
        for pid in parents:
            above, trail = parents.get(pid, 0), {pid}
            while above and above not in trail:
                if above in found and pid not in found:
                    found.append(pid)
                trail.add(above)
                above = parents.get(above, 0)
    return found


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("install", "installed", "start", "restart-node", "stop"))
    parser.add_argument("folder", type=Path, nargs="?")
    options = parser.parse_args()
    if options.action == "install":
        install()
        return 0
    if options.action == "installed":
        if missing():
            print(f"not installed: {', '.join(missing())}; 'make slurm' installs them", file=sys.stderr)
        return 1 if missing() else 0
    if options.folder is None:
        parser.error(f"{options.action} needs a folder")
    try:
        if options.action == "start":
            for name, value in start(options.folder).items():
                print(f"export {name}={value}")
        elif options.action == "restart-node":
            restart_node(options.folder)
        else:
            stop(options.folder)
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
