"""The stages of a study on this machine: what each run still lacks, one stage after the other, then the report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from vaehpc.command import UserError, say
from vaehpc.local.forecast import later_seconds
from vaehpc.local.pool import Slot, Task, local_slots, run_debug, run_pool
from vaehpc.local.progress import expected, stage_view
from vaehpc.local.sharing import multi_process_service, runs_at_once
from vaehpc.local.starting import ANALYSIS, TRAIN, added
from vaehpc.machine.hardware import gpu_uuid, seen_by_task
from vaehpc.machine.processes import launcher_record, running_launcher
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.site import Device, JobConfig
from vaehpc.study.attempts import LAST_LINES, tail
from vaehpc.study.files import RunDir, StudyDir, write_text
from vaehpc.study.sites import built_in_site, gpus_here, job_config
from vaehpc.study.study import missing_runs, source_of

MOST_PER_GPU = 8
SHARING_SECONDS = 45.0
"""About as long as each number of runs on a GPU is measured, with its start."""
REPORT_SECONDS = 15.0
"""About what a report takes before it comes to the runs, a quarter of a second each."""
Show = Callable[[StudyDir, Console], int]
"""Says what a study found that has ended, and returns the exit code."""
INTERRUPTED = "interrupted; everything was stopped. The same line goes on where it left."


def require_only_launcher(study: StudyDir) -> None:
    """UserError if another process of this machine runs the study."""
    if (other := running_launcher(study.launcher)) is not None:
        raise UserError(f"study {study.path} is being run by {other}. Wait for it, or stop it with Ctrl-C there.")


def claim(study: StudyDir) -> None:
    """Note that this process runs the study."""
    study.make_jobs()
    write_text(study.launcher, launcher_record())


def run_stage(
    stage: str,
    study: StudyDir,
    config: StudyConfig,
    executor: str,
    console: Console,
    renew: Callable[[], None] = lambda: None,
    device: Device | None = None,
) -> None:
    """Run a stage's task on every run that lacks its result and has that of the stage before.

    Runs that start from the trained weights of another are trained after all others. `renew` is called whenever the
    running tasks are looked at; `device` is cpu where GPUs are to be left alone.
    """
    job = job_config(stage, device)
    assert job.marker is not None
    runs = list(missing_runs(study, config, job.marker))
    if stage == "statistics":
        runs = [run for run in runs if run.trained_path.exists()]
    if not runs:
        say(console, f"{stage}: nothing left to do")
        return
    sources = {run.name: source_of(run) for run in config.runs()} if stage == "train" else {}
    after = later_seconds(study, config) if stage == "train" else 0.0
    first = [run for run in runs if sources.get(run.name) is None]
    _run_wave(stage, first, job, study, executor, console, renew, after)
    ready = []
    for run in runs:
        if (source := sources.get(run.name)) is None:
            continue
        if study.run(source).trained_path.exists():
            ready.append(run)
        else:
            say(console, f"{stage}: {run.name} is left out, for {source}, whose weights it starts from, is missing")
    _run_wave(f"{stage} from trained weights", ready, job, study, executor, console, renew, after)


def _run_wave(
    title: str,
    runs: Sequence[RunDir],
    job: JobConfig,
    study: StudyDir,
    executor: str,
    console: Console,
    renew: Callable[[], None],
    seconds_after: float,
) -> None:
    """Run a job on these runs, at most as many at once as there is room for."""
    if not runs:
        return
    for run in runs:
        run.stop.unlink(missing_ok=True)
    by_directory = {str(run.path): run for run in runs}
    tasks = [Task(job.entry_point, directory) for directory in by_directory]
    with contextlib.ExitStack() as stack:
        slots = local_slots(job) if executor == "debug" else stack.enter_context(_sharing(tasks, job, console))
        view = stack.enter_context(stage_view(title, len(runs), console, seconds_after, executor == "debug"))

        def show(running: Sequence[Task]) -> None:
            view.update([by_directory[task.directory] for task in running])
            renew()

        _run_tasks(tasks, slots, study, executor, show)


def _run_tasks(
    tasks: Sequence[Task],
    slots: Sequence[Slot],
    study: StudyDir,
    executor: str,
    show: Callable[[Sequence[Task]], None],
) -> None:
    if executor == "debug":
        with added(seen_by_task(slots[0].gpu)):
            run_debug(tasks, show)
    else:
        # Stages follow each other: where nothing is trained now, nothing will be, and the fork server does without.
        trains = any(task.entry_point.partition(":")[0] in TRAIN for task in tasks)
        with added({} if trains else {"VAEHPC_PRELOADED": " ".join(ANALYSIS)}):
            run_pool(tasks, slots, built_in_site("local").environment, study.jobs, show)


@contextlib.contextmanager
def _sharing(tasks: Sequence[Task], job: JobConfig, console: Console) -> Iterator[list[Slot]]:
    """Slots on this machine; several on a GPU only where that was measured to pay."""
    gpus = [gpu_uuid(gpu) for gpu in gpus_here()] if job.needed_gpus else []
    if not gpus or len(tasks) < 2 * len(gpus):
        yield local_slots(job)
        return
    most = min(MOST_PER_GPU, len(tasks) // len(gpus))
    with multi_process_service(gpus):
        with expected("measuring how many runs share a GPU", most.bit_length() * SHARING_SECONDS, console):
            number = runs_at_once(tasks[0].directory, most, gpus[0])
        yield local_slots(job, number)


def run_study_job(stage: str, study: StudyDir, result: Path, executor: str, console: Console) -> bool:
    """Run a job on the whole study; whether it wrote `result`, and if not, the end of its log is shown."""
    before = result.stat().st_mtime_ns if result.exists() else None
    job = job_config(stage)
    task = Task(job.entry_point, str(study.path))
    study.heartbeat(stage).unlink(missing_ok=True)
    with expected(stage, REPORT_SECONDS + len(study.config().runs()) / 4, console, study.heartbeat(stage)):
        _run_tasks([task], local_slots(job), study, executor, lambda _: None)
    if result.exists() and result.stat().st_mtime_ns != before:
        return True
    ended = "\n  ".join(tail(study.jobs / task.log, LAST_LINES)) or "it left no log"
    print(f"vaehpc: the {stage} failed; the end of its log:\n  {ended}", file=sys.stderr)
    return False


def end_study(study: StudyDir, executor: str, console: Console, show: Show) -> int:
    """Aggregate, and say with `show` what was found; the exit code."""
    if not run_study_job("aggregate", study, study.report, executor, console):
        return 3
    return show(study, console)
