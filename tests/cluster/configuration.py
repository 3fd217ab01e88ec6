"""What Slurm's daemons of a test cluster read: slurm.conf, gres.conf, cgroup.conf and slurmdbd.conf."""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path

CPUS = 8
MEMORY_MB = 64000
NODES = {"g1": "Gres=gpu:4", "g2": "Gres=gpu:4", "c1": "", "c2": ""}

SLURM = """
ClusterName=vaetest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Slurm holds a requeued job back until its credential has expired: two minutes, unless this says otherwise.
AuthInfo=socket={munge_socket},cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose

# Four nodes on one machine: no cgroups, no pinning. Who samples the memory of steps kills those above their limit.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SwitchType=switch/none
# The nodes together have more than this machine.
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# Not set: DependencyParameters=kill_invalid_depend. The suite has to do without it.

# Job ids that begin at 1 again would meet the files of an earlier cluster.
FirstJobId={first_job}
MaxArraySize={max_array_size}
MaxJobCount=2000
MinJobAge=300
KillWait=5
OverTimeLimit=0
SlurmdTimeout=10
SlurmctldTimeout=30
InactiveLimit=0
MessageTimeout=10
TCPTimeout=5
ReturnToService=2

GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=c[1-2] Default=YES MaxTime=2-00:00:00 DefaultTime=5
PartitionName=gpu Nodes=g[1-2] MaxTime=2-00:00:00 DefaultTime=5 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=gpu-high Nodes=g[1-2] MaxTime=2-00:00:00 DefaultTime=5 PriorityTier=10 PreemptMode=OFF
# What a test has changed.
Include {folder}/etc/changed.conf
"""

WITH_ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_daemon_port}
# Without the socket's name sacctmgr hangs.
AccountingStoragePass={munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations,limits,qos
"""

WITHOUT_ACCOUNTING = """
AccountingStorageType=accounting_storage/none
"""

# Clients complain of an empty file.
NOTHING_CHANGED = "# nothing\n"

# Slurm gives out a GPU, and sets CUDA_VISIBLE_DEVICES, only if its file is a character device.
GRES = """
NodeName=g[1-2] Name=gpu File={folder}/gpu[0-3]
"""

CGROUP = """
CgroupPlugin=cgroup/v1
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
"""

DATABASE_DAEMON = """
AuthType=auth/munge
AuthInfo=socket={munge_socket}
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database_daemon_port}
SlurmUser=root
DebugLevel=info
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""


@dataclass(frozen=True)
class Ports:
    """TCP ports of one cluster's daemons, in a row."""

    base: int

    COUNT = 3 + len(NODES)

    @property
    def database(self) -> int:
        return self.base

    @property
    def database_daemon(self) -> int:
        return self.base + 1

    @property
    def controller(self) -> int:
        return self.base + 2

    def node(self, name: str) -> int:
        return self.base + 3 + list(NODES).index(name)

    @classmethod
    def free(cls) -> Ports:
        """Ports nobody listens on, below those the kernel gives to clients; anywhere, so that two do not meet."""
        while True:
            base = random.randrange(15000, 30000, cls.COUNT)
            if all(is_free(base + i) for i in range(cls.COUNT)):
                return cls(base)


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write(folder: Path, ports: Ports, *, accounting: bool, max_array_size: int) -> None:
    """Writes folder/etc; the largest index of a job array is max_array_size - 1."""
    host = socket.gethostname().split(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports.node(name)}"
        f" CPUs={CPUS} RealMemory={MEMORY_MB} {gres}"
        for name, gres in NODES.items()
    ]
    values = {
        "folder": folder,
        "host": host,
        "munge_socket": folder / "run/munge.socket",
        "controller_port": ports.controller,
        "database_daemon_port": ports.database_daemon,
        "database_port": ports.database,
        "first_job": int(time.time()) % 1_000_000 + 1000,
        "max_array_size": max_array_size,
        "nodes": "\n".join(nodes),
    }
    files = {
        "slurm.conf": SLURM + (WITH_ACCOUNTING if accounting else WITHOUT_ACCOUNTING),
        "gres.conf": GRES,
        "cgroup.conf": CGROUP,
    }
    if accounting:
        files["slurmdbd.conf"] = DATABASE_DAEMON
    (folder / "etc/changed.conf").write_text(NOTHING_CHANGED)
    for name, text in files.items():
        path = folder / "etc" / name
        path.write_text(text.format_map(values))
        path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
