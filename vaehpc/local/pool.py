"""Tasks and where they run; the only module that knows submitit."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from vaehpc.local.sharing import multi_process_service, runs_at_once
from vaehpc.machine.hardware import visible_gpus
from vaehpc.machine.processes import process_stat
from vaehpc.schema.site import JobConfig, SiteConfig

POLL_SECONDS = 0.2
MAX_MINUTES = 60 * 24 * 365
"""submitit's local executor ends a job after its time limit; local jobs have none."""


@dataclass(frozen=True)
class Task:
    """An import path and a directory; what submitit pickles on this machine holds nothing else."""

    entry_point: str
    directory: str

    def __call__(self) -> None:
        """Import and run the entry point."""
        module, _, function = self.entry_point.partition(":")
        getattr(importlib.import_module(module), function)(self.directory)


@dataclass(frozen=True)
class Pack:
    """Several tasks as one, each in a process of its own, so many at once; all run, whatever becomes of the others."""

    tasks: tuple[Task, ...]
    at_once: int

    def __call__(self) -> None:
        """Run the tasks.

        Raises:
            RuntimeError: some failed; their logs say why.
        """
        signal.signal(signal.SIGTERM, lambda *_: None)  # the tasks are told too; this process waits for them
        waiting, failed = deque(self.tasks), list[str]()
        running: dict[subprocess.Popen[bytes], Task] = {}
        while waiting or running:
            while waiting and len(running) < self.at_once:
                task = waiting.popleft()
                command = [sys.executable, "-c", f"from {__name__} import Task; {task!r}()"]
                running[subprocess.Popen(command)] = task
            for process in [process for process in running if process.poll() is not None]:
                task = running.pop(process)
                if process.returncode:
                    failed.append(f"{task.directory} (exit status {process.returncode})")
            time.sleep(POLL_SECONDS)
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(self.tasks)} tasks failed: {', '.join(failed)}")


@dataclass(frozen=True)
class LocalSlot:
    """Room for one task on this machine: a processor, or a GPU."""

    gpu: str | None
    """As CUDA_VISIBLE_DEVICES names it."""


def local_slots(job: JobConfig) -> list[LocalSlot]:
    """One slot per GPU for jobs that use one, where this machine has any; else one per processor."""
    gpus = visible_gpus() if job.gpus else []
    return [LocalSlot(gpu) for gpu in gpus] or [LocalSlot(None)] * len(os.sched_getaffinity(0))


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
    per_gpu: int = 1,
) -> None:
    """Run tasks through submitit's local executor, one to a slot, until all have ended, well or not.

    Args:
        tasks: in the order in which they start.
        job: its resources say what a slot is.
        site: the environment of the tasks.
        folder: for submitit's scripts and logs.
        on_change: called several times a second with the tasks that run.
        per_gpu: how many share a GPU.

    Raises:
        KeyboardInterrupt: after every task was stopped.
    """
    waiting = deque(tasks)
    free = [slot for slot in local_slots(job) for _ in range(1 if slot.gpu is None else per_gpu)]
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
    executor.update_parameters(timeout_min=MAX_MINUTES)
    # Not as a parameter: that takes numbers alone, and a slice of a GPU is named by its UUID.
    executor.parameters |= {"gpus_per_node": len(gpus), "visible_gpus": gpus}
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
    return [pid for pid in pids if (stat := process_stat(pid)) and int(stat[1]) == parent]


# Slurm


def run_pack(entry_point: str, at_once: int, directories: Sequence[str]) -> None:
    """Run one task on each directory, so many at once; those that share a GPU as many as it trains fastest.

    Raises:
        RuntimeError: some of several failed; a single one fails as it does.
    """
    tasks = tuple(Task(entry_point, directory) for directory in directories)
    if len(tasks) == 1:
        tasks[0]()
    elif at_once == 1 or not visible_gpus():
        Pack(tasks, at_once)()
    else:
        with multi_process_service():
            at_once = runs_at_once(directories[0], at_once)
            print(f"{at_once} of {len(tasks)} runs at once on this GPU", flush=True)
            Pack(tasks, at_once)()
