"""Processes of this machine: which launcher runs a study here, and what memory is left to this one."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def running_launcher(record: Path) -> str | None:
    """'process 4711 on node3' if the launcher in this file still runs on this machine, else None."""
    try:
        return running_here(record.read_text(errors="replace")) if record.is_file() else None
    except OSError:
        return None


def running_here(record: str) -> str | None:
    """'process 4711 on node3' if this is the record of another process that runs on this machine, else None."""
    host, pid, started = _fields(record)
    alive = host == socket.gethostname() and started == process_start(pid) and pid != os.getpid()
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


# Memory

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that this process may still use, by the kernel's estimate and the limits of its control groups."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    estimate = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.removeprefix("0::/") for line in groups if line.startswith("0::/")), "")
    return min([estimate, *left_by_control_groups(CONTROL_GROUPS, own)])


def left_by_control_groups(root: Path, own: str) -> list[int]:
    """Bytes that each limit leaves, from a process's own control group (of version 2) up to the root."""
    group, left = root / own, []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        limit = folder / "memory.max"
        if limit.exists() and (allowed := limit.read_text().strip()).isdigit():
            left.append(int(allowed) - int((folder / "memory.current").read_text()))
    return left
