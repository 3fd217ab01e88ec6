"""Processes of this machine: which launcher runs a study here."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def running_launcher(record: Path) -> str | None:
    """'process 4711 on node3' if the launcher in this record still runs on this machine, else None."""
    if not record.exists():
        return None
    host, pid, started = record.read_text().split()
    alive = host == socket.gethostname() and started == process_start(int(pid)) and int(pid) != os.getpid()
    return f"process {pid} on {host}" if alive else None


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
