"""The end of a test cluster: whatever belongs to it is killed, also when the tests themselves were killed.

Run as `python processes.py FOLDER OTHER...`, this waits for the end of its standard input, then kills the cluster of
the first folder and removes all of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def belonging_to(folder: Path) -> set[int]:
    """Daemons, steps and tasks of the cluster, and all their children, but not this process: needs root.

    Known by SLURM_CONF in the environment they were started with, which slurmd hands on to jobs. Process groups and
    parents do not tell: each daemon, and each step, makes a session of its own, and steps outlive their slurmd.
    """
    mark = f"SLURM_CONF={folder}/".encode()
    parents: dict[int, int] = {}
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(process.name)
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            parents[pid] = int(parent)
            if any(value.startswith(mark) for value in (process / "environ").read_bytes().split(b"\0")):
                found.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return found - {os.getpid()}


def kill_all(folder: Path) -> None:
    """Kills what belongs to the cluster until nothing is left."""
    deadline = time.monotonic() + 30
    while pids := belonging_to(folder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} of {folder} do not end")
        time.sleep(0.05)


def main() -> None:
    """Waits for the end of standard input: its writer has closed it, or is dead."""
    folders = [Path(folder) for folder in sys.argv[1:]]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    kill_all(folders[0])
    for folder in folders:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
