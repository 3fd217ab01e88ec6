"""What is known of a study's runs: their own files, the arrays that they were sent in, Slurm's queue and accounting."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vaehpc.command import UserError
from vaehpc.machine.processes import process_stat, running_launcher
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import BatchRecord, StudySummary
from vaehpc.slurm.client import AccountedElement, QueuedElement
from vaehpc.study.attempts import Attempt, all_attempts, read_json
from vaehpc.study.files import BatchDir, Event, RunDir, StudyDir, read_words

# What the files say

_NAMES = RunDir(Path("RUN"))
ATTEMPTS, TRAINED, MEASURED = _NAMES.attempts.name, _NAMES.trained_path.name, _NAMES.statistics_path.name


@dataclass(frozen=True)
class Start:
    """An attempt as its files tell it; each is read when it is asked for."""

    attempt: Attempt

    @cached_property
    def began(self) -> dict[str, Any]:
        """Stage, host, process, job."""
        return read_json(self.attempt.start_path)

    @cached_property
    def beat(self) -> dict[str, Any]:
        """Empty before the first heartbeat."""
        return read_json(self.attempt.heartbeat_path)

    @cached_property
    def exit(self) -> dict[str, Any] | None:
        """None while it has not ended, or was killed."""
        return read_json(self.attempt.exit_path) or None

    @property
    def time(self) -> float:
        """Unix time of the start, s."""
        return float(self.began.get("time", 0.0))

    @property
    def last_seen(self) -> float:
        """Unix time of the last sign of life, s."""
        return float((self.exit or self.beat or self.began).get("time", 0.0))

    @property
    def outcome(self) -> str | None:
        """done, failed, stopped, superseded; None while it has not ended, or was killed."""
        return None if self.exit is None else str(self.exit.get("outcome"))

    @property
    def peak_memory_gb(self) -> float:
        """The most memory it is known to have had; 0 if nothing is known."""
        records = (self.beat, self.exit or {})
        return max(float(record.get("peak_memory_gb") or 0.0) for record in records)


@dataclass(frozen=True)
class RunFiles:
    """What a run's directory holds."""

    path: Path
    config: RunConfig
    markers: frozenset[str]
    starts: Mapping[str, Start]
    """The newest of each stage."""
    before: Start | None
    """The start of the training before its newest."""
    num_trainings: int

    @property
    def name(self) -> str:
        """ARM-seedNNN."""
        return self.path.name

    @property
    def is_finished(self) -> bool:
        """Nothing of it will change any more. A fork has no statistics."""
        return TRAINED in self.markers and (MEASURED in self.markers or self.config.arm.fork is not None)

    @cached_property
    def directory(self) -> RunDir:
        """Its files' names; where there are a thousand runs, only those that have begun need them."""
        return RunDir(self.path)

    @property
    def progress(self) -> dict[str, Any]:
        """The training's last heartbeat, of an earlier start if the newest has not said anything yet; may be empty."""
        newest = self.starts.get("train")
        if newest is None:
            return {}
        return newest.beat or (self.before.beat if self.before else {})


def read_run(path: Path, config: RunConfig) -> RunFiles:
    """Markers and the newest starts. Statistics come after all trainings, so what lies before a training is one too."""
    try:
        with os.scandir(path) as entries:  # one call instead of a question for each marker
            names = frozenset(entry.name for entry in entries)
    except OSError:
        names = frozenset()
    starts: dict[str, Start] = {}
    if ATTEMPTS not in names:
        return RunFiles(path, config, names, starts, None, 0)
    attempts = all_attempts(RunDir(path))
    for position in reversed(range(len(attempts))):
        start = Start(attempts[position])
        stage = str(start.began.get("stage", "train"))
        starts.setdefault(stage, start)
        if stage == "train":
            before = Start(attempts[position - 1]) if position else None
            return RunFiles(path, config, names, starts, before, position + 1)
    return RunFiles(path, config, names, starts, None, 0)


def resumed_words(run: RunFiles) -> str:
    """Where the training went on, and whether with the state that was left; only what its files prove.

    The start before says in its heartbeat which checkpoint it wrote last, this one from which state it started.
    """
    newest = run.starts.get("train")
    if newest is None or run.before is None or newest.beat.get("start_step") is None:
        return ""
    step, found = newest.beat["start_step"], newest.beat.get("start_sha256")
    words = f"resumed at step {step:,}"
    written = run.before.beat.get("checkpoint_sha256") if run.before.beat.get("checkpoint_step") == step else None
    written = written or read_json(run.directory.checkpoints / f"step-{step:09d}" / "checkpoint.json").get(
        "state_sha256"
    )
    if not found or not written:
        return words
    return f"{words}, hash of the state " + ("matches" if found == written else "DIFFERS from the checkpoint's")


def is_alive(start: Start) -> bool | None:
    """Whether the process of a task still runs; None if it was started on another machine."""
    if start.began.get("host") != socket.gethostname():
        return None
    if (fields := process_stat(int(start.began.get("pid", 0)))) is None:
        return False
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    process_began = int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] != "Z" and process_began < start.time + 2  # else its number was given to another process


# Where a run was sent


@dataclass(frozen=True)
class Element:
    """An array element that a run was given to."""

    batch: BatchDir
    record: BatchRecord
    number: int
    job: str | None
    """Slurm's number of the array, None if it was not accepted."""

    @property
    def id(self) -> str | None:
        """4711_0, or 4711 where the array has only one."""
        return f"{self.job}_{self.number}" if self.job and len(self.record.elements) > 1 else self.job

    @property
    def tasks_at_once(self) -> int:
        """Tasks that share its resources."""
        num_tasks = len(self.record.elements[self.number])
        return min(num_tasks, self.record.tasks_at_once or (num_tasks if self.record.gpus else 1))

    @property
    def log(self) -> Path | None:
        """What the node's side of the task wrote."""
        return None if self.job is None else self.batch.path / f"{self.id}_0_log.err"

    @cached_property
    def events(self) -> list[Event]:
        """What its batch script noted."""
        return self.batch.events(self.number)

    def last(self, *kinds: str) -> Event | None:
        """The newest event of one of these kinds since the element was started last."""
        for event in reversed(self.events):
            if event.kind in kinds:
                return event
            if event.kind == "start":
                break
        return None

    def num_requeued(self, state: str) -> int:
        """How often it went back into the queue for another reason than a crash, if this is its state there now."""
        kinds = [event.kind for event in self.events]
        begun_here = 0 if state == "PENDING" else 1
        return max(0, kinds.count("start") - begun_here - kinds.count("crash"))


def read_batches(study: StudyDir) -> list[Element]:
    """The elements of every array of the study, oldest first."""
    elements = []
    for batch in study.batches():
        record, job = batch.record(), batch.job()
        elements += [Element(batch, record, number, job) for number in range(len(record.elements))]
    return elements


def by_run(elements: Iterable[Element]) -> dict[tuple[str, str], Element]:
    """The newest element of each (stage, run); one that was not accepted only where there is no other."""
    found: dict[tuple[str, str], Element] = {}
    for element in elements:
        for directory in element.record.elements[element.number]:
            key = (element.record.stage, Path(directory).name)
            if element.job is not None or key not in found:
                found[key] = element
    return found


# What Slurm says


@dataclass(frozen=True)
class Sources:
    """What is known beside a run's own files."""

    elements: Mapping[tuple[str, str], Element] = field(default_factory=dict)
    job_ids: frozenset[str] = frozenset()
    queue: Mapping[str, QueuedElement] | None = None
    """By element; None if squeue did not answer."""
    accounts: Mapping[str, AccountedElement] | None = None
    """By element; None if sacct was not asked or did not answer."""
    launcher: str | None = None
    """The process of this machine that runs the study."""
    launcher_since: float = 0.0
    """Unix time, s."""
    launcher_elsewhere: str | None = None
    """Host that the study was launched on, if it is another one."""
    summary: StudySummary | None = None
    now: float = 0.0


def read_launcher(study: StudyDir) -> dict[str, Any]:
    """The launcher's fields of Sources."""
    words, here = read_words(study.launcher).split(), socket.gethostname()
    if not words:
        return {}
    host = words[0]
    return {
        "launcher": running_launcher(study.launcher, or_this=True),  # which writes the page
        "launcher_since": study.launcher.stat().st_mtime,
        "launcher_elsewhere": None if host == here else host,
    }


def adopted(study: StudyDir, elements: Sequence[Element], queue: Iterable[QueuedElement]) -> list[Element]:
    """Elements whose launcher was killed just after their array was accepted get the number that the queue has."""
    jobs: dict[str, str] = {}
    for entry in queue if any(element.job is None for element in elements) else ():
        if (batch := study.batch_at(entry.comment)) is not None:
            jobs[batch.name] = entry.element.partition("_")[0]
    return [replace(element, job=element.job or jobs.get(element.batch.name)) for element in elements]


def read_summary(study: StudyDir) -> StudySummary | None:
    """summary.json, None if it is missing or of another version: then the classes are not shown."""
    try:
        return study.summary()
    except UserError:
        return None
