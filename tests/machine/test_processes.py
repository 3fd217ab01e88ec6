"""Whether a process lives, and what it may still use."""

import os
from pathlib import Path

from vaehpc.machine.processes import (
    available_memory,
    launcher_record,
    left_by_control_groups,
    process_start,
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
    assert left_by_control_groups(tmp_path, "slurm/job_7/task_0") == [700, 500]
    assert left_by_control_groups(tmp_path, "slurm") == [500]
    assert left_by_control_groups(tmp_path, "gone") == []


def test_available_memory_is_at_most_the_kernels_estimate() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < available_memory() <= 1024 * int(lines["MemTotal"].split()[0])


def test_a_launcher_that_is_gone_does_not_count(tmp_path: Path) -> None:
    record_path = tmp_path / "launcher"
    assert running_launcher(record_path) is None
    record_path.write_text(launcher_record())
    assert running_launcher(record_path) is None  # this very process
    host, _, _ = launcher_record().split()
    record_path.write_text(f"{host} {os.getppid()} {process_start(os.getppid())}\n")
    assert running_launcher(record_path) == f"process {os.getppid()} on {host}"
    record_path.write_text(f"{host} {os.getppid()} 1\n")  # its number was given to another process
    assert running_launcher(record_path) is None
