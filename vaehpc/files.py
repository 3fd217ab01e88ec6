"""Every file name of a data set, a study and a run, and how they are read and written.

Nothing here locks: a directory is claimed by mkdir and a result appears by rename, which NFS and Lustre keep atomic.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import logging
import os
import resource
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic

from vaehpc.command import UserError, explained
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import (
    BatchRecord,
    EpochRecord,
    LatentStatistics,
    Manifest,
    StudySummary,
    TrainedRecord,
    TriggerRecord,
)

Model = TypeVar("Model", bound=Frozen)


class SupersededError(Exception):
    """A newer attempt at this run exists: this one may publish nothing and must leave."""


class StoppedError(Exception):
    """The run was asked to stop and left a checkpoint: a later start continues from it."""


# Reading and writing


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; then flush it to disk and rename it, so `path` is never half-written.

    Raises:
        UserError: the disk is full or the folder may not be written. Whatever is raised, nothing stays behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explained(error, path) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, which appears whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file, which appears whole or not at all."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_model(path: Path, value: Frozen) -> None:
    """Write a configuration or result as indented JSON."""
    write_text(path, value.model_dump_json(indent=2) + "\n")


def read_model(path: Path, model: type[Model]) -> Model:
    """Read a configuration or result; UserError if the file is missing or is not such a value."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path} is not a valid {model.__name__}: {where}: {first['msg']}. It was damaged, edited, or written by"
            " another version of vaehpc: restore it, or delete its folder and launch again."
        ) from None


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(folder: Path, start: str = "") -> list[Path]:
    """What lies in a folder under names that begin so, in their order; nothing where there is no such folder.

    A glob asks the file system once more, and some folders are listed for every one of ten thousand runs.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith(start))
    except (FileNotFoundError, PermissionError):
        return []


def require_space(directory: Path, num_bytes: int, num_files: int) -> None:
    """UserError if the file system of `directory` (or its nearest parent that exists) lacks `num_bytes`."""
    existing = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise UserError(
            f"{directory} needs {gigabytes(num_bytes)} in {num_files:,} files, {gigabytes(free)} free on {existing}."
            " Free some space or choose another --out; nothing was written."
        )


def gigabytes(num_bytes: int) -> str:
    """'38 GB', '0.4 GB', '12 MB', '89 KB'."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} KB"
    if num_bytes < 100e6:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / 1e9:.1f} GB"


def declaration(name: str) -> str:
    """Text of a file that ships with the package, such as 'analysis/plan.toml' or 'jobs/train.toml'.

    In a checkout these folders stand beside the package, in a wheel inside it.
    """
    package = importlib.resources.files("vaehpc")
    for root in (package / "declared", Path(str(package)).parent):
        if (file := root / name).is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is not part of this installation of vaehpc")


# Directories


class DataDir:
    """A prepared data set."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.manifest_path = self.path / "manifest.json"
        self.attributes = self.path / "attributes.npy"
        self.image_numbers = self.path / "image_numbers.npy"
        self.progress = self.path / ".prepare"
        """Request, settings and records of finished shards, until the manifest is written."""
        self.request_path = self.progress / "request.json"
        self.settings_path = self.progress / "settings.json"

    def manifest(self) -> Manifest:
        """The manifest; UserError where the data set is missing or unfinished."""
        if not self.manifest_path.exists():
            found = "an unfinished data set" if self.progress.exists() else "no data set"
            raise UserError(
                f"{self.path} holds {found} (no manifest.json). Make it with"
                f" `python -m vaehpc.prepare --celeba PATH --out {self.path}`."
            )
        return read_model(self.manifest_path, Manifest)


class RunDir:
    """One run: RUN = ARM-seedNNN."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.name
        self.config_path = self.path / "run.json"
        self.attempts = self.path / "attempts"
        self.stop = self.path / "stop"
        self.checkpoints = self.path / "checkpoints"
        self.history_path = self.path / "history.jsonl"
        self.recorder = self.path / "recorder"
        self.probe = self.recorder / "probe.arrow"
        self.steps = self.recorder / "steps.arrow"
        self.triggers = self.path / "triggers"
        self.explanation = self.path / "explanation"
        self.tensorboard = self.path / "tensorboard"
        self.latents = self.path / "latents"
        self.mu = self.latents / "mu.npy"
        self.log_var = self.latents / "log_var.npy"
        self.z = self.latents / "z.npy"
        self.images = self.latents / "images"
        self.trained_path = self.path / "trained.json"
        self.statistics_path = self.path / "statistics.json"
        self.statistics_arrays = self.path / "statistics"

    def config(self) -> RunConfig:
        """What the run was asked to be."""
        return read_model(self.config_path, RunConfig)

    def trained(self) -> TrainedRecord:
        """The marker of a finished training."""
        return read_model(self.trained_path, TrainedRecord)

    def statistics(self) -> LatentStatistics:
        """The statistics of the run's latents."""
        return read_model(self.statistics_path, LatentStatistics)

    def history(self) -> list[EpochRecord]:
        """One record per finished epoch."""
        if not self.history_path.exists():
            return []
        return [EpochRecord.model_validate_json(line) for line in self.history_path.read_text().splitlines()]

    def trigger_records(self) -> list[TriggerRecord]:
        """The flight recorder's triggers in the order of their steps."""
        return [read_model(path / "trigger.json", TriggerRecord) for path in self.trigger_dirs()]

    def trigger_dirs(self) -> list[Path]:
        """Their directories, in the same order."""
        return entries(self.triggers, "step-")

    def checkpoint_dirs(self) -> list[Path]:
        """Its checkpoints in the order of their steps."""
        return entries(self.checkpoints, "step-")

    def all_attempts(self) -> list[Attempt]:
        """Every start of a task on this run, oldest first."""
        found = [Attempt(self, path) for path in entries(self.attempts) if path.name.isdecimal()]
        return sorted(found, key=lambda attempt: attempt.number)


class StudyDir:
    """A study: arms x seeds."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.config_path = self.path / "study.json"
        self.jobs = self.path / "jobs"
        self.launcher = self.jobs / "launcher"
        """Which process runs the study on this machine."""
        self.summary_path = self.path / "summary.json"
        self.runs_table = self.path / "runs.parquet"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"
        self.report_text = self.path / "report.md"
        self.pages = self.path / "pages"
        """One page for each run."""
        self.crate = self.path / "ro-crate-metadata.json"
        self.start = self.path / "start"
        """Of a replay: the state that the forks start from, and the probe of their source run."""
        self.replay_path = self.path / "replay.json"
        self.replay_page = self.path / "replay.md"

    def config(self) -> StudyConfig:
        """What the study was asked to be."""
        if not self.config_path.exists():
            raise UserError(f"{self.path} is not a study: it has no study.json")
        return read_model(self.config_path, StudyConfig)

    def summary(self) -> StudySummary:
        """What the study found."""
        return read_model(self.summary_path, StudySummary)

    def run(self, name: str) -> RunDir:
        """The directory of one run."""
        return RunDir(self.path / name)

    def page(self, run: str) -> Path:
        """The page of one run."""
        return self.pages / f"{run}.html"

    def batches(self) -> list[BatchDir]:
        """Every array that was handed to Slurm, or was about to be, oldest first."""
        found = [BatchDir(path.parent) for path in self.jobs.glob("*/batch.json")]
        return sorted(found, key=lambda batch: batch.record().created)

    def batch_at(self, folder: str) -> BatchDir | None:
        """The study's array with this folder, whatever links lead there; None if it is none of the study's."""
        path = Path(folder).resolve()
        return BatchDir(self.jobs / path.name) if path.parent == self.jobs.resolve() else None


@dataclass(frozen=True)
class Event:
    """Something that the batch script of an array element noted on its node."""

    time: float
    """Unix time, s."""
    node: str
    kind: str
    """start, done, requeue, crash, ended (by Slurm: cancelled, put back, out of time), left (by hand), given-up."""
    detail: str


class BatchDir:
    """One array of a stage: runs/STUDY/jobs/STAGE-NNNN, with its script and logs."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.name
        self.record_path = self.path / "batch.json"
        self.elements = self.path / "elements"
        """One line per element: the directories of its tasks, separated by tabs. The batch script reads it."""
        self.job_path = self.path / "job"
        """Slurm's number of the array, once it was accepted."""

    def record(self) -> BatchRecord:
        """What was to be submitted."""
        return read_model(self.record_path, BatchRecord)

    def job(self) -> str | None:
        """Slurm's number of the array, None if it was never accepted as far as is known."""
        return self.job_path.read_text().partition(";")[0].strip() or None if self.job_path.exists() else None

    def events(self, number: int) -> list[Event]:
        """What the element's batch script noted, oldest first."""
        path = self.path / f"{number}.events"
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [parts for line in lines if len(parts := line.split("\t")) == 4]  # a full disk tears the last one
        return [Event(float(time), node, kind, detail) for time, node, kind, detail in whole]


BEAT_SECONDS = 10.0
"""Between two signs of life, at which a newer attempt is looked for too. A block of steps can be far shorter."""


class Attempt:
    """One start of a task on a run. Only the newest attempt of a run may publish.

    As a context it keeps the task's output in `log` and records in exit.json how it ended. Being superseded or stopped
    is an orderly end; other exceptions go on to the caller.
    """

    def __init__(self, run: RunDir, path: Path) -> None:
        self.run = run
        self.path = path
        self.number = int(path.name)
        self.start_path = path / "start.json"
        self.heartbeat_path = path / "heartbeat.json"
        self.exit_path = path / "exit.json"
        self.log = path / "log"
        self._state: dict[str, Any] = {}
        self._said = float("-inf")

    @classmethod
    def start(cls, run: RunDir, stage: str) -> Attempt:
        """Claim the next attempt number by mkdir, so that two starts never share one."""
        run.attempts.mkdir(exist_ok=True)
        number = max((attempt.number for attempt in run.all_attempts()), default=0)
        while True:
            number += 1
            try:
                (path := run.attempts / f"{number:04d}").mkdir()
                break
            except FileExistsError:
                continue
        attempt = cls(run, path)
        node, gpus = os.environ.get("SLURMD_NODENAME"), os.environ.get("CUDA_VISIBLE_DEVICES")
        started = {"stage": stage, "host": socket.gethostname(), "pid": os.getpid(), "job": job_id()}
        write_record(attempt.start_path, started | {"node": node, "cuda_visible_devices": gpus})
        return attempt

    def __enter__(self) -> Attempt:
        self._output = output_to(self.log)
        self._output.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        outcome = "done" if error is None else _OUTCOMES.get(type(error), "failed")
        if outcome == "failed" and error is not None:
            traceback.print_exception(error)
            # A tf.data iterator that is left for the interpreter's end waits there for its thread, which cannot end.
            traceback.clear_frames(error.__traceback__)
        elif error is not None:
            logging.getLogger(__name__).info("%s", error)
        ended = {"outcome": outcome, "error": None if error is None else str(error)}
        write_record(self.exit_path, ended | resources_used())
        self._output.__exit__(None, None, None)
        return outcome != "failed"

    def require_newest(self) -> None:
        """SupersededError if a newer attempt exists."""
        if self.run.all_attempts()[-1].number != self.number:
            raise SupersededError(f"attempt {self.number} of {self.run.name} was replaced by a newer one and leaves")

    def publish(self, source: Path, target: Path) -> None:
        """Move a finished file or directory from this attempt to where the next stage looks for it."""
        self.require_newest()
        try:
            source.replace(target)
        except OSError:  # only then is more asked of the file system: nearly always the way is free
            target.parent.mkdir(exist_ok=True)
            if target.is_dir():  # left without its marker by an attempt that was killed
                target.rename(self.path / f"replaced-{target.name}")
            source.replace(target)

    def publish_model(self, value: Frozen, target: Path) -> None:
        """Publish a configuration or result as JSON."""
        write_model(self.path / target.name, value)
        self.publish(self.path / target.name, target)

    def publish_text(self, text: str, target: Path) -> None:
        """Publish a text file."""
        write_text(self.path / target.name, text)
        self.publish(self.path / target.name, target)

    @property
    def is_silent(self) -> bool:
        """Whether it has not said for a while, or not at all yet, that it is alive."""
        return time.monotonic() - self._said > BEAT_SECONDS

    def beat(self, **state: Any) -> None:
        """Say that this attempt is alive and how far it is; SupersededError if a newer attempt exists."""
        self.require_newest()
        self._state, self._said = state, time.monotonic()
        write_record(self.heartbeat_path, state | resources_used())

    def still_alive(self) -> None:
        """Say so again, as far as it was, where that was a while ago."""
        if self._state and self.is_silent:
            self.beat(**self._state)


_OUTCOMES: dict[type[BaseException], str] = {SupersededError: "superseded", StoppedError: "stopped"}


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send everything that this process writes, TensorFlow's C++ part included, to the end of a file."""
    package = logging.getLogger("vaehpc")
    with path.open("a", buffering=1) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        package.setLevel(logging.INFO)
        package.addHandler(handler)
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            package.removeHandler(handler)
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


def write_record(path: Path, value: dict[str, Any]) -> None:
    """A small record of an attempt, with the time."""
    write_text(path, json.dumps({"time": time.time(), **value}, indent=2) + "\n")


def resources_used() -> dict[str, float]:
    """Of this process so far: its largest resident set in GiB, and its CPU time in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_memory_gb": used.ru_maxrss / 2**20, "cpu_seconds": used.ru_utime + used.ru_stime}


def job_id() -> str | None:
    """The scheduler's name for this task, if a scheduler started it."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and element:
        return f"{array}_{element}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID")


def tail(path: Path, num_lines: int) -> Sequence[str]:
    """The last lines of a log."""
    if not path.exists():
        return []
    return path.read_text(errors="replace").splitlines()[-num_lines:]
