"""Tasks on slots: those of a study on this machine, and those of one array element on its node."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from vaehpc.command import HOPELESS, DiskFullError, HopelessError, TaskFailedError, UserError, silenced
from vaehpc.local.sharing import multi_process_service, runs_at_once
from vaehpc.local.starting import added, started, task_module
from vaehpc.machine.hardware import NEEDED_GPUS, gpu_uuid, seen_by_task, visible_gpus
from vaehpc.machine.processes import available_memory, processors
from vaehpc.schema.site import JobConfig
from vaehpc.study.attempts import frames_kept
from vaehpc.study.sites import gpus_here

POLL_SECONDS = 0.2
LEAST_MEMORY = 2**30
"""Bytes that a task with TensorFlow takes, whatever its net is."""
OnChange = Callable[[Sequence["Task"]], None]
"""Called several times a second with the tasks that run."""


@dataclass(frozen=True)
class Task:
    """An import path and a directory, and nothing else."""

    entry_point: str
    directory: str

    def __call__(self) -> None:
        """Import and run the entry point."""
        module, _, function = self.entry_point.partition(":")
        getattr(task_module(module), function)(self.directory)

    @property
    def log(self) -> str:
        """Name of the file in which a pool keeps what it says: 'train-vae-tiny-seed003.log'."""
        return f"{self.entry_point.partition(':')[0].rpartition('.')[2]}-{Path(self.directory).name}.log"


@dataclass(frozen=True)
class Slot:
    """Room for one task: a processor, or a GPU."""

    gpu: str | None
    """The only one that the task sees, by its number, UUID or MIG name; empty: none; None: what this process sees."""
    tasks_on_gpu: int = 1
    """Slots that share it."""


def gpu_slots(gpus: Sequence[str], per_gpu: int) -> list[Slot]:
    """So many slots on each of these GPUs; the first tasks are spread over all of them."""
    return [Slot(gpu, per_gpu) for _ in range(per_gpu) for gpu in gpus]


def local_slots(job: JobConfig, per_gpu: int = 1) -> list[Slot]:
    """Slots on each GPU for jobs that use one, where this machine has any; else one per processor, if memory allows."""
    slots = gpu_slots([gpu_uuid(gpu) for gpu in gpus_here()] if job.needed_gpus else [], per_gpu)
    return slots or [Slot("")] * max(1, min(processors(), available_memory() // LEAST_MEMORY))


def run_debug(tasks: Sequence[Task], on_change: OnChange) -> None:
    """Run tasks one after the other in this process, up to the first one that raises.

    Raises:
        TaskFailedError: its cause is what the task raised, with its frames and their variables.
    """
    for task in tasks:
        on_change([task])
        try:
            with silenced():  # TensorFlow greets when it is imported, before the task has a log
                task_module(task.entry_point.partition(":")[0])
            with frames_kept():
                task()
        except Exception as error:
            raise TaskFailedError(f"{task.directory} failed in {task.entry_point}; debug stops here") from error


def run_pool(
    tasks: Sequence[Task],
    slots: Sequence[Slot],
    environment: Mapping[str, str],
    logs: Path | None,
    on_change: OnChange = lambda _: None,
) -> dict[str, int]:
    """Run tasks, each in a process of its own, one to a slot, until all have ended, well or not.

    Args:
        tasks: in the order in which they start.
        slots: the one that is free takes the next task.
        environment: of every task; what the user has set wins.
        logs: folder for what each task says; None: it says it where this process does.
        on_change: see there.

    Returns:
        Of the tasks that failed the directories, with their exit statuses.

    Raises:
        KeyboardInterrupt: after every task was stopped. Checkpoints and results are safe at any moment.
    """
    waiting, free, failed = deque(tasks), list(slots), dict[str, int]()
    running: dict[BaseProcess, tuple[Task, Slot]] = {}
    try:
        while waiting or running:
            while waiting and free:
                task, slot = waiting.popleft(), free.pop(0)
                running[_started(task, slot, environment, logs)] = (task, slot)
            wait([process.sentinel for process in running], POLL_SECONDS)
            for process in [process for process in running if process.exitcode is not None]:
                task, slot = running.pop(process)
                free.append(slot)
                if process.exitcode:
                    failed[task.directory] = process.exitcode
            on_change([task for task, _ in running.values()])
    finally:
        for process in running:
            _kill(process)
    return failed


def _kill(process: BaseProcess) -> None:
    """End a task with all that it has started."""
    process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it leads no group yet, or has ended
        if process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)


def _started(task: Task, slot: Slot, environment: Mapping[str, str], logs: Path | None) -> BaseProcess:
    own = {**environment, **os.environ, **seen_by_task(slot.gpu, slot.tasks_on_gpu)}
    log = None if logs is None else str(logs / task.log)
    return started(_run, task, own, log, environment=environment)


def _run(task: Task, environment: dict[str, str], log: str | None) -> None:
    """In a new process: run a task in this environment."""
    os.setsid()  # Ctrl-C in a terminal, and its end, are for the one who started it
    end_with_launcher()
    os.environ.clear()
    os.environ.update(environment)
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    try:
        _finish(task)
    except UserError as error:
        print(f"vaehpc: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, DiskFullError) else 2)


def _finish(task: Task) -> None:
    """Run a task; SystemExit with a status of its own where it says that another try is of no use."""
    try:
        task()
    except HopelessError as error:
        print(f"vaehpc: {error}", file=sys.stderr, flush=True)
        raise SystemExit(HOPELESS) from None


def end_with_launcher() -> None:
    """Let this process, and all that it starts, end when the process that asked for it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_end() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait_for_end, daemon=True).start()


def run_pack(entry_point: str, at_once: int, directories: Sequence[str], num_gpus: int = 1) -> None:
    """Run one task on each directory, so many at once; those that share a GPU as many as it trains fastest.

    Args:
        entry_point: of the tasks.
        at_once: on all GPUs together.
        directories: one for each task.
        num_gpus: that the element has asked for; with 0 its node's are left alone.

    Raises:
        RuntimeError: some of several failed; a single one fails as it does.
        SystemExit: with HOPELESS, where no other try would help those that failed.
    """
    tasks = [Task(entry_point, directory) for directory in directories]
    gpus = visible_gpus() if num_gpus else []
    if len(tasks) == 1 and len(gpus) < 2:
        _finish(tasks[0])
        return
    needed = {"VAEHPC_PRELOADED": entry_point.partition(":")[0]}
    with _ignoring_sigterm(), added(needed), contextlib.ExitStack() as stack:
        per_gpu = -(-min(at_once, len(tasks)) // len(gpus)) if gpus else 0
        if per_gpu > 1 and os.environ.get(NEEDED_GPUS) != "0":  # else the CPU is meant
            gpus = [gpu_uuid(gpu) for gpu in gpus]
            stack.enter_context(multi_process_service(gpus))
            per_gpu = runs_at_once(directories[0], per_gpu, gpus[0])
            print(f"{per_gpu} of {len(tasks)} runs at once on each of {len(gpus)} GPU", flush=True)
        failed = run_pool(tasks, gpu_slots(gpus, per_gpu) or [Slot(None)] * at_once, {}, None)
    if not failed:
        return
    named = ", ".join(f"{directory} (exit status {status})" for directory, status in failed.items())
    said = f"{len(failed)} of {len(tasks)} tasks failed: {named}"
    if set(failed.values()) == {HOPELESS}:
        print(f"vaehpc: {said}", file=sys.stderr, flush=True)
        raise SystemExit(HOPELESS)
    raise RuntimeError(said)


@contextlib.contextmanager
def _ignoring_sigterm() -> Iterator[None]:
    """Where Slurm ends a job, every process is told: the tasks leave at a checkpoint, and this one waits for them."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
