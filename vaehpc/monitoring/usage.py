"""What a study's jobs asked for and what they used: time, memory, processors, GPU; and what to ask for next time.

Told by the attempts of its runs, and by Slurm's accounting where it answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaehpc.command import duration
from vaehpc.monitoring.causes import HEADROOM, rounded_up
from vaehpc.monitoring.records import Element, Start, read_batches
from vaehpc.slurm.client import AccountedElement, SlurmError, accounted
from vaehpc.study.attempts import all_attempts
from vaehpc.study.files import StudyDir

STAGES = ("train", "statistics")
ROUNDING = 0.1
"""Processors that a task may use beyond a whole number of them without one more being asked for."""


@dataclass(frozen=True)
class RunUsage:
    """What one stage of one run used, over all its starts. None where nothing is known."""

    seconds: float
    """Wall time."""
    peak_memory_gb: float | None
    cores: float | None
    """CPU time over wall time."""


@dataclass(frozen=True)
class StageUsage:
    """Requested against used, of one run of a stage; of what was used, the most of any run."""

    stage: str
    num_runs: int
    hours: float | None
    """Requested; None on one machine, where nothing is requested."""
    memory_gb: float | None
    cpus: float | None
    gpus: int
    tasks_at_once: int
    used: RunUsage
    gpu_percent: float | None
    """Mean utilisation over the elements whose GPU the cluster measures."""


def usage_lines(study: StudyDir, seconds: float) -> Iterator[str]:
    """A paragraph per stage, then lines for the site file.

    Args:
        study: its directory.
        seconds: to wait for sacct.
    """
    elements = read_batches(study)
    jobs = sorted({element.job for element in elements if element.job})
    accounts: Mapping[str, AccountedElement] = {}
    if jobs:
        try:
            accounts = accounted(jobs, seconds)
        except SlurmError as error:
            yield f"accounting down: told by the runs' own records. {error}"
    stages = [usage for stage in STAGES if (usage := stage_usage(study, stage, elements, accounts)) is not None]
    if not stages:
        yield f"{study.path.name}: nothing has been started yet"
        return
    for usage in stages:
        yield from stage_lines(usage)
    yield f"To ask for next time, in the site file ({HEADROOM:g} x the most time and memory of a run; rounded up):"
    for usage in stages:
        yield from request_lines(usage)


# Reading


def stage_usage(
    study: StudyDir, stage: str, elements: Sequence[Element], accounts: Mapping[str, AccountedElement]
) -> StageUsage | None:
    """What the runs of a stage used; None if none has started."""
    of_stage = [element for element in elements if element.record.stage == stage and element.job]
    accounted_for = {
        Path(directory).name: (element, accounts.get(element.id or ""))
        for element in of_stage
        for directory in element.record.elements[element.number]
    }
    used = []
    for config in study.config().runs():
        starts = [Start(attempt) for attempt in all_attempts(study.run(config.name))]
        if starts := [start for start in starts if start.began.get("stage") == stage]:
            used.append(run_usage(starts, *accounted_for.get(config.name, (None, None))))
    if not used:
        return None
    newest = of_stage[-1] if of_stage else None
    at_once = newest.tasks_at_once if newest else 1
    tasks = max(map(len, newest.record.elements), default=1) if newest else 1
    gpu = [account.gpu_percent for _, account in accounted_for.values() if account and account.gpu_percent is not None]
    return StageUsage(
        stage=stage,
        num_runs=len(used),
        hours=newest.record.minutes / 60 * at_once / tasks if newest else None,
        memory_gb=newest.record.memory_gb / at_once if newest else None,
        cpus=newest.record.cpus / at_once if newest else None,
        gpus=newest.record.gpus if newest else 0,
        tasks_at_once=at_once,
        used=RunUsage(
            max(run.seconds for run in used),
            _most(run.peak_memory_gb for run in used),
            _most(run.cores for run in used),
        ),
        gpu_percent=sum(gpu) / len(gpu) if gpu else None,
    )


def run_usage(starts: Sequence[Start], element: Element | None, account: AccountedElement | None) -> RunUsage:
    """What the starts of a stage of one run used; accounting speaks for an element with one task alone."""
    seconds = sum(max(0.0, start.last_seen - start.time) for start in starts)
    peaks = [start.peak_memory_gb for start in starts if start.peak_memory_gb]
    cores = [cpu / (start.last_seen - start.time) for start in starts if (cpu := _cpu_seconds(start)) is not None]
    if account is not None and element is not None and len(element.record.elements[element.number]) == 1:
        peaks += [account.max_rss_gb] if account.max_rss_gb else []
        seconds = max(seconds, account.elapsed_seconds or 0.0)
        if not cores and account.cpu_seconds and account.elapsed_seconds:
            cores = [account.cpu_seconds / account.elapsed_seconds]
    return RunUsage(seconds, _most(peaks), _most(cores))


def _cpu_seconds(start: Start) -> float | None:
    """CPU time of a task up to its last sign of life, where it is known and not too short to tell."""
    used = (start.exit or {}).get("cpu_seconds", start.beat.get("cpu_seconds"))
    return None if used is None or start.last_seen - start.time < 1 else float(used)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


# Saying


def stage_lines(usage: StageUsage) -> Iterator[str]:
    """What was asked for and used by a run, line by line."""
    used = usage.used
    yield f"{usage.stage}: {usage.num_runs} runs; the most that one used, of what it had asked for"
    yield f"  time    {of_asked(used.seconds, usage.hours and 3600 * usage.hours, duration)}"
    yield f"  memory  {of_asked(used.peak_memory_gb, usage.memory_gb, lambda value: f'{value:.1f} GB')}"
    yield f"  CPUs    {of_asked(used.cores, usage.cpus, lambda value: f'{value:.1f}')}"
    if usage.gpus:
        sharing = f", {usage.tasks_at_once} runs at once" if usage.tasks_at_once > 1 else ""
        known = "not known" if usage.gpu_percent is None else f"{usage.gpu_percent:.0f} % on average"
        yield f"  GPU     {known}{sharing}"


def of_asked(used: float | None, asked: float | None, words: Callable[[float], str]) -> str:
    """'2.1 h of 24.0 h (9%)'."""
    if used is None:
        return "not known" if asked is None else f"not known, of {words(asked)}"
    return words(used) if asked is None else f"{words(used)} of {words(asked)} ({used / asked:.0%})"


def request_lines(usage: StageUsage) -> Iterator[str]:
    """A table of the site file."""
    yield f"[jobs.{usage.stage}]"
    yield f"hours = {rounded_up(HEADROOM * max(60.0, usage.used.seconds) / 3600):g}"
    if usage.used.peak_memory_gb is not None:
        yield f"memory_gb = {rounded_up(HEADROOM * usage.used.peak_memory_gb):g}"
    if usage.used.cores is not None:
        yield f"cpus = {max(1, math.ceil(usage.used.cores - ROUNDING))}"
