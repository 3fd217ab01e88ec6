"""Tasks and where they run; the only module that knows submitit."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from vaehpc.machine.hardware import visible_gpus
from vaehpc.machine.processes import process_stat
from vaehpc.schema.site import OWN_OPTIONS, JobConfig, SiteConfig, SlurmConfig
from vaehpc.slurm import SlurmError, test_only
from vaehpc.study.provenance import own_image
from vaehpc.tasks.sharing import multi_process_service, runs_at_once

POLL_SECONDS = 0.2
KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "LANG", "TERM", "SLURM_CONF")
"""Of the environment inside an image, what a job submitted from there gets."""
HOST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
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


@dataclass(frozen=True)
class Array:
    """An array as Slurm is asked for it. One with a single element becomes a plain job."""

    name: str
    folder: Path
    """For the script and its logs."""
    num_elements: int
    numbers: tuple[int, ...]
    """Of its elements, those that are submitted."""
    entry_point: str
    arguments: str
    """The directories of an element's tasks, as the batch script's shell finds them."""
    tasks_at_once: int
    """Of one element."""
    cpus: int
    gpus: int
    memory_gb: float
    minutes: int
    partition: str | None
    setup: tuple[str, ...]
    teardown: tuple[str, ...]
    """Lines of the batch script before and after its tasks; they run outside of any container."""
    python: str
    """What starts Python on a node, as the batch script's shell reads it."""
    srun_options: tuple[str, ...] = ()
    dependency: str | None = None
    kill_on_invalid_dependency: bool = False


class SlurmArray(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's executor; its script can be read before anything is submitted, and where there is no Slurm."""

    def __init__(self, array: Array, slurm: SlurmConfig) -> None:
        super().__init__(array.folder, python=array.python)
        self._array = array
        self.update_parameters(**_parameters(array, slurm))
        if array.num_elements > 1:
            self.parameters["map_count"] = array.num_elements

    @classmethod
    def affinity(cls) -> int:
        """submitit asks for a client of Slurm when the executor is made; scripts are written without."""
        return 2

    def script(self) -> str:
        """The batch script, to the letter."""
        text: str = self._make_submission_file_text(self._submitit_command_str, "")
        return text

    def submitted(self) -> str:
        """Submit the array; Slurm's number of it.

        Raises:
            SlurmError: Slurm refused; nothing is queued.
        """
        try:
            with _as_from_a_shell():
                job = self._submit_command(self._submitit_command_str)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise SlurmError(str(error)) from error
        number: str = job.job_id
        return number

    def require_accepted(self) -> None:
        """SlurmError if Slurm would refuse the array."""
        with _as_from_a_shell():
            test_only(self.script())

    @property
    def _submitit_command_str(self) -> str:
        """What the script runs. No pickles: a launcher killed between sbatch and their renaming would leave none."""
        entry_point, at_once = self._array.entry_point, self._array.tasks_at_once
        code = f"import sys; from {__name__} import run_pack; run_pack({entry_point!r}, {at_once}, sys.argv[1:])"
        return f"{self.python} -u -c {shlex.quote(code)} {self._array.arguments}"


@contextlib.contextmanager
def _as_from_a_shell() -> Iterator[None]:
    """Without what a job leaves to those that it submits, and what would win over the script's own lines.

    What an image and its runtime set means nothing on a node, where the script runs outside of images.
    """
    before = dict(os.environ)
    for name in before:
        if (
            (name.startswith("SLURM_") and name != "SLURM_CONF")
            or name.removeprefix("SBATCH_").lower().replace("_", "-") in OWN_OPTIONS
            or (own_image() is not None and name not in KEPT_VARIABLES)
        ):
            del os.environ[name]
    if own_image() is not None:
        os.environ["PATH"] = HOST_PATH
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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


def _parameters(array: Array, slurm: SlurmConfig) -> dict[str, Any]:
    """submitit's parameters of an array. None is not said to Slurm."""
    options = dict(option.removeprefix("--").partition("=")[::2] for option in slurm.options)
    gpus = f"{slurm.gpu_type}:{array.gpus}" if slurm.gpu_type else str(array.gpus)
    if array.gpus and slurm.gpu_request == "gpus":
        options["gpus-per-node"] = gpus
    if len(array.numbers) < array.num_elements:
        options["array"] = f"{','.join(map(str, array.numbers))}%{slurm.at_once}"
    if array.kill_on_invalid_dependency:
        options["kill-on-invalid-dep"] = "yes"
    return {
        "job_name": array.name,
        "partition": array.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "mail_user": slurm.mail_user,
        "mail_type": slurm.mail_type,
        "comment": str(array.folder),
        "wckey": None,
        "ntasks_per_node": 1,
        "cpus_per_task": array.cpus,
        "mem": f"{round(1024 * array.memory_gb)}M",
        "gres": f"gpu:{gpus}" if array.gpus and slurm.gpu_request == "gres" else None,
        "time": array.minutes,
        "dependency": array.dependency,
        "array_parallelism": slurm.at_once,
        "setup": list(array.setup),
        "teardown": list(array.teardown),
        "srun_args": list(array.srun_options),
        # To the batch shell alone: what runs in the container is asked by a file.
        "additional_parameters": {"requeue": True, "signal": f"B:USR2@{slurm.warn_seconds}"}
        | {key: value or True for key, value in options.items()},
    }
