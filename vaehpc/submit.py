"""Tasks and where they run; the only module that knows submitit."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from vaehpc.config import JobConfig, SiteConfig
from vaehpc.files import declaration

POLL_SECONDS = 0.2
MAX_MINUTES = 60 * 24 * 365
"""submitit's local executor ends a job after its time limit; local jobs have none."""


@dataclass(frozen=True)
class Task:
    """What a scheduler is given: an import path and a directory. The pickle holds nothing else."""

    entry_point: str
    directory: str

    def __call__(self) -> None:
        """Import and run the entry point."""
        module, _, function = self.entry_point.partition(":")
        getattr(importlib.import_module(module), function)(self.directory)


@dataclass(frozen=True)
class LocalSlot:
    """Room for one task on this machine: a processor, or a GPU."""

    gpu: int | None


def job_config(name: str) -> JobConfig:
    """A job's declaration, jobs/NAME.toml."""
    return JobConfig.model_validate(tomllib.loads(declaration(f"jobs/{name}.toml")))


def site_config(name: str) -> SiteConfig:
    """A site's declaration, jobs/sites/NAME.toml."""
    return SiteConfig.model_validate(tomllib.loads(declaration(f"jobs/sites/{name}.toml")))


def local_slots(job: JobConfig) -> list[LocalSlot]:
    """One slot per GPU for jobs that use one, where this machine has any; else one per processor."""
    gpus = range(count_gpus()) if job.gpus else range(0)
    return [LocalSlot(gpu) for gpu in gpus] or [LocalSlot(None)] * len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """GPUs that nvidia-smi lists, within CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip()])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def run_debug(tasks: Sequence[Task], on_change: Callable[[Sequence[Task]], None]) -> None:
    """Run tasks one after the other in this process. A task that fails leaves its log and does not stop the others."""
    for task in tasks:
        on_change([task])
        with contextlib.suppress(Exception):  # recorded in the attempt's log; results are judged by their files
            task()


def run_local(
    tasks: Sequence[Task],
    job: JobConfig,
    site: SiteConfig,
    folder: Path,
    on_change: Callable[[Sequence[Task]], None],
) -> None:
    """Run tasks through submitit's local executor, one to a slot, until all have ended, well or not.

    Args:
        tasks: in the order in which they start.
        job: its resources say what a slot is.
        site: the environment of the tasks.
        folder: for submitit's scripts and logs.
        on_change: called several times a second with the tasks that run.

    Raises:
        KeyboardInterrupt: after every task was stopped.
    """
    waiting = deque(tasks)
    free = local_slots(job)
    running: dict[submitit.Job[None], tuple[Task, LocalSlot]] = {}
    try:
        while waiting or running:
            while waiting and free:
                task, slot = waiting.popleft(), free.pop()
                running[_start(task, slot, site, folder)] = (task, slot)
            for ended_job in [started for started in running if started.done()]:
                free.append(running.pop(ended_job)[1])
            on_change([task for task, _ in running.values()])
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _stop(list(running))
        raise


def _start(task: Task, slot: LocalSlot, site: SiteConfig, folder: Path) -> submitit.Job[None]:
    executor = submitit.LocalExecutor(folder)
    gpus = () if slot.gpu is None else (slot.gpu,)
    executor.update_parameters(timeout_min=MAX_MINUTES, gpus_per_node=len(gpus), visible_gpus=gpus)
    with _environment(site.environment):
        return executor.submit(task)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These environment variables for what is started meanwhile; those that the user has set win."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _stop(jobs: Sequence[submitit.Job[None]]) -> None:
    """End submitit's controllers and the tasks below them; checkpoints and results are safe at any moment."""
    # Not job.cancel(): its SIGINT reaches the task only after the compiled block of steps that it is in.
    controllers = [int(job.job_id) for job in jobs]
    for pid in [*(child for controller in controllers for child in _children(controller)), *controllers]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if (stat := _process_stat(pid)) and int(stat[1]) == parent]


# One launcher at a time


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
    stat = _process_stat(pid)
    return stat[19] if stat else None


def _process_stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat behind the command's name: state, parent, ..."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()
