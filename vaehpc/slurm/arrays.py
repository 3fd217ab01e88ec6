"""A study as arrays in Slurm's queue: what is missing and not queued is submitted, in chunks that Slurm accepts."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.machine.hardware import NEEDED_GPUS
from vaehpc.machine.processes import launcher_record, running_elsewhere, running_here
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.results import BatchRecord
from vaehpc.schema.site import JobConfig, SlurmConfig
from vaehpc.slurm.client import KEPT_OF_SLURM, QueuedElement, SlurmError, max_minutes, takes_jobs, valid_values
from vaehpc.slurm.containers import environment_lines, python_command, srun_options
from vaehpc.slurm.sbatch import OF_SHELLS, Array, SlurmArray
from vaehpc.study.files import BatchDir, DataDir, RunDir, StudyDir, declaration, write_model, write_text
from vaehpc.study.provenance import own_image
from vaehpc.study.sites import Site
from vaehpc.study.study import missing_runs, source_of

Elements = tuple[tuple[Path, ...], ...]
"""Directories of the tasks of each element of an array."""

SUBMITTING_SECONDS = 60.0
"""From an array's claim to Slurm's answer; after it, a launcher on another machine has been killed."""
TOO_MANY = re.compile("submit limit|MaxSubmit|SubmitJob|accounting/QOS policy", re.IGNORECASE)
"""How Slurm refuses what would be accepted with fewer elements, or later."""
NOT_NOW = re.compile("not available|drained", re.IGNORECASE)
"""How `sbatch --test-only`, which asks when an element would start, refuses what sbatch itself would queue."""
PLAIN = (
    "# Without what would outrank the scripts' own lines, or run ahead of them:",
    "for name in $(env | sed -nE 's/^((SBATCH|SLURM)_[A-Za-z0-9_]*)=.*/\\1/p'); do",
    f'  case $name in {"|".join(KEPT_OF_SLURM)}) ;; *) unset "$name" ;; esac',
    "done",
    f"unset {' '.join(OF_SHELLS)}",
)
"""Of submit.sh."""
OnAccepted = Callable[["Batch", str], None]
"""Called with each batch that Slurm accepted, and its number."""


@dataclass(frozen=True)
class Batch:
    """An array that is to be submitted, or was."""

    name: str
    """STAGE-NNNN."""
    stage: str
    elements: Elements
    of: str | None = None
    """Batch of the same shape: each element waits for its own counterpart there, and needs its success."""
    after: tuple[str, ...] = ()
    """Batches of which all elements must have ended, well or not."""


@dataclass(frozen=True)
class Queue:
    """What of a study is in the queue."""

    numbers: Mapping[str, frozenset[int]]
    """Of each batch that has any, the elements that are queued."""
    batches: Mapping[str, BatchDir]

    def of_stage(self, stage: str) -> list[Batch]:
        """The batches of a stage of which anything is queued."""
        return [_as_batch(batch) for batch in self.batches.values() if batch.record().stage == stage]

    def directories(self, stage: str) -> set[Path]:
        """Directories on which a task of this stage is queued or runs."""
        return {
            directory
            for batch in self.of_stage(stage)
            for number in self.numbers[batch.name]
            for directory in batch.elements[number]
        }


def _as_batch(batch: BatchDir) -> Batch:
    record = batch.record()
    return Batch(batch.name, record.stage, tuple(tuple(map(Path, element)) for element in record.elements))


def study_queue(study: StudyDir, elements: Sequence[QueuedElement]) -> Queue:
    """Which of the user's queued elements are the study's.

    The number of an array is noted where its launcher was killed between Slurm's acceptance and its own note.
    """
    batches: dict[str, BatchDir] = {}
    numbers: dict[str, set[int]] = {}
    for element in elements:
        batch = study.batch_at(element.comment)
        if batch is None or not batch.record_path.exists():
            continue
        job, _, number = element.element.partition("_")
        if batch.job() is None:
            write_text(batch.job_path, f"{job}\n")
        batches[batch.name] = batch
        numbers.setdefault(batch.name, set()).add(int(number or 0))
    return Queue({name: frozenset(queued) for name, queued in numbers.items()}, batches)


def require_only_submission(study: StudyDir, queue: Queue) -> None:
    """UserError if another launcher has claimed an array that Slurm does not know yet, as far as that can be told."""
    for batch in study.batches():
        if batch.job() is not None or batch.name in queue.numbers:
            continue
        record = batch.record()
        age = abs(time.time() - record.created)  # a clock may have been set back, or another machine's be ahead
        other = running_here(record.launcher) or (age < SUBMITTING_SECONDS and running_elsewhere(record.launcher))
        if other:
            raise UserError(
                f"{other} is submitting {batch.name}, {age:.0f} s ago: give the same line again when it is done, or"
                " in a minute. Nothing was submitted."
            )


# What is to be submitted


class Names:
    """STAGE-NNNN, one after the other, beyond those that a study has.

    To be made before Slurm is asked what is queued: of two launchers that see the same queue, only one gets a name.
    """

    def __init__(self, study: StudyDir) -> None:
        self._last: dict[str, int] = {}
        for path in study.jobs.glob("*-[0-9][0-9][0-9][0-9]"):
            stage, _, number = path.name.rpartition("-")
            self._last[stage] = max(self._last.get(stage, 0), int(number))

    def next(self, stage: str) -> str:
        """A name that no batch has."""
        self._last[stage] = self._last.get(stage, 0) + 1
        return f"{stage}-{self._last[stage]:04d}"


@dataclass(frozen=True)
class Limit:
    """How many more elements of some stages Slurm lets into the queue."""

    left: int
    stages: frozenset[str]


@dataclass(frozen=True)
class Limits:
    """What Slurm accepts of this user."""

    array_size: int
    """Elements of one array."""
    submitted: int
    """Elements that may still be put into the queue."""
    of_stages: tuple[Limit, ...] = ()
    """Narrower ones."""

    def room(self, stages: Sequence[str], taken: Counter[str]) -> int:
        """How many elements of each of these stages fit beside those that are taken."""
        found = [(self.submitted - taken.total()) // len(stages)]
        for limit in self.of_stages:
            if counted := limit.stages.intersection(stages):
                found.append((limit.left - sum(taken[stage] for stage in limit.stages)) // len(counted))
        return max(0, min(found))


def arranged(
    study: StudyDir, config: StudyConfig, site: Site, queue: Queue, limits: Limits, names: Names
) -> tuple[list[Batch], int]:
    """Arrays of what is missing and not queued, each after those that it waits for.

    Args:
        study: its markers say what is done.
        config: its runs.
        site: how many trainings share a GPU.
        queue: what is in it is left alone.
        limits: what does not fit is left to a later launch.
        names: of the arrays.

    Returns:
        The arrays, and how many runs did not fit.
    """
    pack, measured_at_once = site.tasks_at_once("train"), site.tasks_at_once("statistics")
    starts_from = {run.name: source_of(run) for run in config.runs()}
    training, measuring = queue.directories("train"), queue.directories("statistics")
    # Where a launcher was killed before it submitted the statistics of trainings that are queued:
    queued = [_as_far_as_queued(batch, queue) for batch in queue.of_stage("train")]
    alone = [batch for batch in queued if not measuring & {*_flat(batch.elements)}]
    unmeasured = [run for run in missing_runs(study, config, "statistics.json") if run.path not in measuring]
    trained = [run for run in unmeasured if run.trained_path.exists() and run.path not in training]
    if config.replay is not None:  # what becomes of a fork is told by its probe, without statistics
        alone, trained = [], []
    untrained = [run for run in missing_runs(study, config, "trained.json") if run.path not in training]
    num_missing = len(trained) + len(untrained)
    # The last job; then, where there is room, an element of each of the two arrays for a pack:
    taken = Counter({"aggregate": 1, "statistics": sum(len([*filter(None, batch.elements)]) for batch in alone)})
    trained = trained[: limits.room(["statistics"], taken) * measured_at_once]
    taken["statistics"] += -(-len(trained) // measured_at_once)
    fitting = untrained[: limits.room(["train", "statistics"], taken) * pack]
    num_left = num_missing - len(trained) - len(fitting)

    def arrays(stage: str, runs: Sequence[RunDir], pack: int, after: tuple[str, ...] = ()) -> list[Batch]:
        packs = tuple(tuple(run.path for run in runs[i : i + pack]) for i in range(0, len(runs), pack))
        size = limits.array_size
        chunks = [packs[i : i + size] for i in range(0, len(packs), size)]
        return [Batch(names.next(stage), stage, chunk, after=after) for chunk in chunks]

    trainings = arrays("train", [run for run in fitting if starts_from[run.name] is None], pack)
    sources = tuple(batch.name for batch in (*trainings, *queue.of_stage("train")))
    trainings += arrays("train", [run for run in fitting if starts_from[run.name] is not None], pack, sources)
    if config.replay is not None:
        return [*trainings, *_last(names, "verdict", trainings, study, config, queue)], num_left
    measurements = [
        Batch(names.next("statistics"), "statistics", batch.elements, of=batch.name) for batch in (*alone, *trainings)
    ]
    measurements += arrays("statistics", trained, measured_at_once)
    last = _last(names, "aggregate", measurements, study, config, queue)
    return [*trainings, *measurements, *last], num_left


def _as_far_as_queued(batch: Batch, queue: Queue) -> Batch:
    """The batch without the elements that have ended: they keep their numbers, with nothing to do."""
    numbers = queue.numbers[batch.name]
    return replace(batch, elements=tuple(e if i in numbers else () for i, e in enumerate(batch.elements)))


def _last(
    names: Names, stage: str, batches: Sequence[Batch], study: StudyDir, config: StudyConfig, queue: Queue
) -> list[Batch]:
    """The job on the whole study after all others, unless it is queued or done."""
    if not batches and (queue.of_stage(stage) or (not queue.numbers and is_reported(study, config))):
        return []
    before = "train" if config.replay is not None else "statistics"
    after = tuple(batch.name for batch in (*batches, *queue.of_stage(before), *queue.of_stage(stage)))
    return [Batch(names.next(stage), stage, ((study.path,),), after=after)]


def preparation(study: StudyDir, data: DataDir) -> list[Batch]:
    """The preparation of a data set, and after its success the launch that submits the study's arrays."""
    names = Names(study)
    prepare = Batch(names.next("prepare"), "prepare", ((data.path,),))
    name = names.next("launch")
    return [prepare, Batch(name, "launch", ((study.jobs / name,),), of=prepare.name)]


def _flat(elements: Elements) -> Iterator[Path]:
    return (directory for element in elements for directory in element)


def is_reported(study: StudyDir, config: StudyConfig) -> bool:
    """Whether the report, of a replay the verdict, is there and no result of a run is newer."""
    report, marker = (study.report, "statistics.json") if config.replay is None else (study.replay_path, "trained.json")
    if not report.exists():
        return False
    made = report.stat().st_mtime
    results = [path for run in config.runs() if (path := study.path / run.name / marker).exists()]
    return all(path.stat().st_mtime <= made for path in results)


# Submitting


def script(study: StudyDir, batch: Batch, site: Site) -> str:
    """The batch script, to the letter but for the numbers of jobs that are not submitted yet."""
    waits = dependency(study, batch, {name: f"<{name}>" for name in (batch.of, *batch.after) if name})
    return array(study, batch, site).script(waits)


class TooManyError(UserError):
    """Slurm refuses an array for what is in the queue already, or for its size."""

    def __init__(self, batch: Batch, message: str) -> None:
        super().__init__(message)
        self.stage = batch.stage
        self.num_elements = len([*filter(None, batch.elements)])


def require_accepted(study: StudyDir, batches: Sequence[Batch], site: Site) -> list[str]:
    """Ask Slurm about the largest array of each stage.

    Returns:
        What it says of those that it would take, but start on no node of today.

    Raises:
        TooManyError: fewer elements might be accepted.
        UserError: it refuses one of them, or does not answer.
    """
    said = []
    largest = {batch.stage: batch for batch in sorted(batches, key=lambda batch: len(batch.elements))}
    for batch in largest.values():
        asked = array(study, batch, site)
        try:
            said += _require_accepted(batch, asked)
        except SlurmError as error:
            message = f"Slurm refuses {batch.name}: {error}\nNothing was submitted."
            if TOO_MANY.search(str(error)):
                raise TooManyError(batch, message) from error
            raise UserError(message) from error
    return said


def submit(
    study: StudyDir,
    batches: Sequence[Batch],
    site: Site,
    on_accepted: OnAccepted,
    begin: Callable[[], None] = lambda: None,
) -> None:
    """Put arrays into the queue.

    Args:
        study: of which they are.
        batches: each after those that it waits for.
        site: where they run.
        on_accepted: called with each.
        begin: writes what the arrays need; called when Slurm would accept them all.

    Raises:
        UserError: Slurm refuses one of them, or does not answer.
    """
    arrays = {batch.name: array(study, batch, site) for batch in batches}
    begin()
    study.make_jobs()
    accepted: list[str] = []
    for batch in batches:
        folder = claimed(batch, arrays[batch.name].asked, site)
        try:
            job = arrays[batch.name].submitted(dependency(study, batch))
        except SlurmError as error:
            if re.search(
                "timed out|did not answer", str(error)
            ):  # then it may have been accepted all the same; squeue will tell
                accepted.append(f"perhaps {batch.name}")
            else:
                shutil.rmtree(folder.path)
            said = "Nothing was submitted."
            if accepted:
                said = f"In the queue: {', '.join(accepted)}. The same line again submits the rest."
            raise UserError(f"Slurm refused {batch.name}: {error}\n{said}") from error
        write_text(folder.job_path, f"{job}\n")
        accepted.append(f"{batch.name} as {job}")
        on_accepted(batch, job)


def _require_accepted(batch: Batch, array: SlurmArray) -> list[str]:
    """What Slurm says against the array that will pass, in words.

    Raises:
        SlurmError: Slurm would refuse it, or let it wait for ever; with what would be valid.
    """
    asked, said = array.asked, []
    try:
        array.require_accepted()
    except SlurmError as error:
        if not NOT_NOW.search(str(error)) or takes_jobs(asked.partition):
            raise SlurmError(f"{error}{valid_values(str(error))}") from error
        where = f"partition {asked.partition}" if asked.partition else "the default partition"
        said = [f"No node of {where} takes jobs now (drained or down): {batch.name} waits until one does"]
    limit = max_minutes(asked.partition)
    if limit is not None and asked.minutes > limit:
        hours = limit / 60 * asked.tasks_at_once / max(map(len, batch.elements))
        goes_on = " A training goes on where it was stopped." if batch.stage == "train" else ""
        raise SlurmError(
            f"it asks for {asked.minutes} minutes, and its partition allows {limit:.0f}: give at most"
            f" hours = {hours:g} in [jobs.{batch.stage}] of the site's file.{goes_on}"
        )
    return said


def write_batches(study: StudyDir, batches: Sequence[Batch], site: Site, folder: Path) -> None:
    """Leave a batch script for each array, and submit.sh, which submits them in order.

    Raises:
        UserError: the folder is not empty.
    """
    require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    study.make_jobs()
    lines = ["#!/bin/sh", "# Submits the arrays of the study, each after those that it waits for.", "set -eu", *PLAIN]
    for batch in batches:
        made = array(study, batch, site)
        claimed(batch, made.asked, site)
        numbers = {name: f"${{{_variable(name)}}}" for name in (batch.of, *batch.after) if name}
        waits = dependency(study, batch, numbers)
        job = shlex.quote(str(BatchDir(study.jobs / batch.name).job_path))
        path = folder.absolute() / f"{batch.name}.sh"
        write_text(path, made.script())
        option = f'--dependency="{waits}" ' if waits else ""
        lines += [
            f"[ -s {job} ] || sbatch --parsable {option}{shlex.quote(str(path))} > {job}",
            f"{_variable(batch.name)}=$(cut -d ';' -f 1 {job})",
            f'echo "{batch.name}: ${{{_variable(batch.name)}}}"',
        ]
    write_text(folder / "submit.sh", "\n".join(lines) + "\n")


def require_empty(folder: Path) -> None:
    """UserError if there is anything where scripts are to be left."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--write {folder}: the folder is not empty; name another one")


def _variable(name: str) -> str:
    return name.replace("-", "_")


def claimed(batch: Batch, asked: Array, site: Site) -> BatchDir:
    """The batch's folder with all that its script reads.

    Raises:
        UserError: another launcher was quicker.
    """
    folder = BatchDir(asked.folder)
    try:
        folder.path.mkdir(parents=True)
        folder.path.chmod(0o755)
    except FileExistsError:
        raise UserError(
            f"another launcher is submitting {folder.path}; give the same line again when it is done"
        ) from None
    record = BatchRecord(
        stage=batch.stage,
        elements=tuple(tuple(map(str, element)) for element in batch.elements),
        after=batch.after if batch.of is None else (batch.of,),
        created=time.time(),
        launcher=launcher_record(),
        cpus=asked.cpus,
        gpus=asked.gpus,
        memory_gb=asked.memory_gb,
        minutes=asked.minutes,
        partition=asked.partition,
        tasks_at_once=asked.tasks_at_once,
    )
    if site.jobs[batch.stage].checkpoints:  # whoever stopped a run by hand and launches again wants it to go on
        for directory in _flat(batch.elements):
            (directory / "stop").unlink(missing_ok=True)
    write_text(folder.elements, "".join("\t".join(element) + "\n" for element in record.elements))
    write_model(folder.record_path, record)
    return folder


def dependency(study: StudyDir, batch: Batch, jobs: Mapping[str, str] | None = None) -> str | None:
    """What the batch waits for, as sbatch takes it.

    Args:
        study: its batches know their numbers.
        batch: says on which batches it waits.
        jobs: numbers of batches that are not submitted.
    """
    known = dict(jobs or {})

    def number(name: str) -> str | None:
        return BatchDir(study.jobs / name).job() or known.get(name)

    if batch.of is not None:
        return f"{'aftercorr' if len(batch.elements) > 1 else 'afterok'}:{number(batch.of)}"
    numbers = [job for name in batch.after if (job := number(name)) is not None]
    return ":".join(("afterany", *numbers)) if numbers else None


def array(study: StudyDir, batch: Batch, site: Site) -> SlurmArray:
    """The batch as Slurm is asked for it, but for what it waits for."""
    job, slurm = site.jobs[batch.stage], site.slurm_of(batch.stage)
    size = max(map(len, batch.elements))
    together = min(size, site.tasks_at_once(batch.stage))
    folder = study.jobs / batch.name
    # What launches again stays outside of images if its launcher is: they have no client of Slurm.
    in_image = site.container.runtime != "none" and (batch.stage != "launch" or own_image() is not None)
    own_python = slurm.python or shlex.quote(sys.executable)
    asked = Array(
        name=f"{study.path.name}.{batch.name}",
        folder=folder,
        num_elements=len(batch.elements),
        numbers=tuple(number for number, element in enumerate(batch.elements) if element),
        entry_point=job.entry_point,
        arguments='"${directories[@]}"',
        tasks_at_once=together,
        cpus=job.cpus * together,
        gpus=job.gpus,
        memory_gb=job.memory_gb * together,
        minutes=math.ceil(60 * job.hours * math.ceil(size / together)),
        partition=site.partition(batch.stage),
        setup=tuple(_setup(folder, job, slurm, site)),
        teardown=tuple(declaration("jobs/slurm/after.sh").splitlines()),
        python=shlex.join(python_command(site, batch.stage, job.needed_gpus)) if in_image else own_python,
        srun_options=tuple(srun_options(site, batch.stage)) if in_image else (),
        kill_on_invalid_dependency=batch.of is not None,
    )
    return SlurmArray(asked, slurm)


def _setup(folder: Path, job: JobConfig, slurm: SlurmConfig, site: Site) -> Iterator[str]:
    """What the batch script does before its tasks. The environment comes last: it wins over what modules set."""
    yield f"export {NEEDED_GPUS}={job.needed_gpus}"
    variables = {
        "batch": str(folder),
        "marker": job.marker or "",
        "needs": job.needs or "",
        "checkpoints": "yes" if job.checkpoints else "",
        "warn_seconds": slurm.warn_seconds,
        "max_restarts": slurm.max_restarts,
        "max_crashes": slurm.max_crashes,
        "exclude": slurm.exclude or "",
    }
    yield from (f"{name}={shlex.quote(str(value))}" for name, value in variables.items())
    yield from declaration("jobs/slurm/before.sh").splitlines()
    yield from slurm.setup
    yield from environment_lines(site)
