"""Whether a process lives, and what it may still use."""

import os
import socket
from pathlib import Path

import pytest

from vaehpc.machine import processes
from vaehpc.machine.processes import (
    available_memory,
    launcher_record,
    left_by_control_groups,
    process_start,
    processors,
    quotas_of_control_groups,
    running_launcher,
)


def test_memory_that_control_groups_leave(tmp_path: Path) -> None:
    """A job's limit holds for its task's group, which has none of its own; groups above are counted too."""
    task = tmp_path / "slurm/job_7/task_0"
    task.mkdir(parents=True)
    for folder, allowed, used in ((task, "max", 1), (task.parent, "1000", 300), (task.parents[1], "5000", 4500)):
        (folder / "memory.max").write_text(f"{allowed}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    (tmp_path.parent / "memory.max").write_text("1\n")  # no group: above the root
    assert left_by_control_groups(tmp_path, "0::/slurm/job_7/task_0\n") == [700, 500]
    assert left_by_control_groups(tmp_path, "0::/slurm\n") == [500]
    assert left_by_control_groups(tmp_path, "0::/gone\n") == []


def test_limits_of_version_1(tmp_path: Path) -> None:
    own = "5:cpu,cpuacct:/job_7\n4:memory:/job_7\n1:name=systemd:/x\n"
    for folder in (tmp_path / "memory/job_7", tmp_path / "cpu/job_7"):
        folder.mkdir(parents=True)
    (tmp_path / "memory/job_7/memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory/job_7/memory.usage_in_bytes").write_text("300\n")
    (tmp_path / "cpu/job_7/cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/job_7/cpu.cfs_period_us").write_text("100000\n")
    assert left_by_control_groups(tmp_path, own) == [700]
    assert quotas_of_control_groups(tmp_path, own) == [2.5]


@pytest.mark.parametrize(
    ("quota", "found"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
def test_a_quota_bounds_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, found: int) -> None:
    """Those of a container, not those of its host."""
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(processes, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(processes, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert processors() == found


def test_available_memory_is_at_most_the_kernels_estimate() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < available_memory() <= 1024 * int(lines["MemTotal"].split()[0])


def test_a_launcher_that_is_gone_does_not_count(tmp_path: Path) -> None:
    record_path = tmp_path / "launcher"
    assert running_launcher(record_path) is None
    record_path.write_text(launcher_record())
    assert running_launcher(record_path) is None  # this very process
    assert running_launcher(record_path, or_this=True) == f"process {os.getpid()} on {socket.gethostname()}"
    host, _, _ = launcher_record().split()
    record_path.write_text(f"{host} {os.getppid()} {process_start(os.getppid())}\n")
    assert running_launcher(record_path) == f"process {os.getppid()} on {host}"
    record_path.write_text(f"{host} {os.getppid()} 1\n")  # its number was given to another process
    assert running_launcher(record_path) is None
