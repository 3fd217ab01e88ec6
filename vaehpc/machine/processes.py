"""Processes of this machine: which launcher runs a study here, and what memory is left to this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path


def running_launcher(record: Path, or_this: bool = False) -> str | None:
    """'process 4711 on node3' if the launcher in this file still runs on this machine, else None.

    Args:
        record: the file.
        or_this: whether it may be this very process.
    """
    try:
        return running_here(record.read_text(errors="replace"), or_this) if record.is_file() else None
    except OSError:
        return None


def running_here(record: str, or_this: bool = False) -> str | None:
    """'process 4711 on node3' if this is the record of another process that runs on this machine, else None."""
    host, pid, started = _fields(record)
    alive = host == socket.gethostname() and started == process_start(pid) and (or_this or pid != os.getpid())
    return f"process {pid} on {host}" if alive else None


def running_elsewhere(record: str) -> str | None:
    """'process 4711 on node3' if this is the record of a process of another machine: whether it runs is not known."""
    host, pid, _ = _fields(record)
    return None if host in ("", socket.gethostname()) else f"process {pid} on {host}"


def _fields(record: str) -> tuple[str, int, str]:
    """Host, process and its start; a damaged record is of no process."""
    parts = record.split()
    if len(parts) != 3 or not parts[1].isdecimal():
        return "", 0, ""
    return parts[0], int(parts[1]), parts[2]


def launcher_record() -> str:
    """Host, process and its start time: a process number alone is used again."""
    return f"{socket.gethostname()} {os.getpid()} {process_start(os.getpid())}\n"


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None if there is no such process."""
    stat = process_stat(pid)
    return stat[19] if stat else None


def process_stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat behind the command's name: state, parent, ..."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()


# Processors and memory

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def processors() -> int:
    """Processors that this process can keep busy: those that it may use, and what its control groups' quota allows."""
    quotas = quotas_of_control_groups(CONTROL_GROUPS, OWN_GROUPS.read_text())
    return max(1, min(len(os.sched_getaffinity(0)), *(int(quota) for quota in quotas), 2**20))


def available_memory() -> int:
    """Bytes that this process may still use, by the kernel's estimate and the limits of its control groups."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    estimate = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min([estimate, *left_by_control_groups(CONTROL_GROUPS, OWN_GROUPS.read_text())])


def left_by_control_groups(root: Path, own: str) -> list[int]:
    """Bytes that each limit leaves, from a process's own control group up to the root.

    Args:
        root: where control groups are seen.
        own: /proc/self/cgroup of the process.
    """
    left = []
    for folder in _groups(root, own, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if (allowed := _number(folder / limit)) is not None:
                left.append(int(allowed - (_number(folder / used) or 0)))
    return left


def quotas_of_control_groups(root: Path, own: str) -> list[float]:
    """Processors that each quota allows; the arguments as in left_by_control_groups."""
    quotas = []
    for folder in _groups(root, own, "cpu"):
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
            quotas += [int(allowed) / int(period)] if allowed.isdigit() else []
        elif (quota := _number(folder / "cpu.cfs_quota_us")) is not None:  # -1: none
            quotas.append(quota / (_number(folder / "cpu.cfs_period_us") or 100_000))
    return quotas


def _groups(root: Path, own: str, controller: str) -> Iterator[Path]:
    """Folders of a process's control groups, from its own up to the root: of version 2, and of version 1."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        group = base / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(base))


def _number(path: Path) -> float | None:
    """What a file of a control group holds; None where it is not there, or says that there is no limit."""
    text = path.read_text().strip() if path.exists() else ""
    return float(text) if text.isdigit() else None
