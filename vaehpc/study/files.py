"""Every file name of a data set, a study and a run, and how they are read and written.

Nothing here locks: a directory is claimed by mkdir and a result appears by rename, which NFS and Lustre keep atomic.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.resources
import io
import math
import os
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic
import pydantic_core

from vaehpc import __version__
from vaehpc.command import DiskFullError, UserError, explained, gigabytes, neutral
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.frozen import STORED, Frozen
from vaehpc.schema.results import (
    BatchRecord,
    EpochRecord,
    LatentStatistics,
    Manifest,
    StudySummary,
    TrainedRecord,
    TriggerRecord,
)
from vaehpc.schema.upgrades import CHECKSUM, SCHEMA, NewerError, lifted, schema_number

Model = TypeVar("Model", bound=Frozen)

LARGEST_RECORD = 2**30
"""Bytes of a file that is read as a whole."""
LARGEST_INTEGER = 2**63 - 1
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Of .npy files, by version."""


# Reading and writing


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; then flush it to disk and rename it, so `path` is never half-written.

    Nobody may write to the file who may not write to its folder.

    Raises:
        UserError: the disk is full or the folder may not be written. Whatever is raised, nothing stays behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if kept := mode & 0o022 and mode & (path.parent.stat().st_mode | ~0o022):
                os.fchmod(file.fileno(), kept)
        aside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as of a read-only file system, which says so of a file that is not there
            aside.unlink()
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


def record_text(value: Frozen, indent: int | None = None) -> str:
    """A record as JSON, with the number of its schema and a checksum of its content first."""
    number = schema_number(type(value))
    content = {SCHEMA: number, **pydantic_core.from_json(value.model_dump_json())}
    first = f'"{SCHEMA}":{number},"{CHECKSUM}":"{_checksum(content)}",'
    if indent is not None:
        first = "".join(f"\n{' ' * indent}{key.replace(':', ': ')}," for key in first.split(",")[:-1])
    return value.model_dump_json(indent=indent).replace("{", f"{{{first}", 1)


def _checksum(content: dict[str, Any]) -> str:
    """Of the values, however they are set out: eight hexadecimal digits."""
    return f"{zlib.crc32(pydantic_core.to_json(content)):08x}"


def parsed_record(text: bytes | str, model: type[Model]) -> Model:
    """A record of this or an older release; keys that nobody knows are kept in a result, and refused in settings.

    Raises:
        NewerError: it is of a later release.
        ValueError: it is no such record, or not as it was written; a pydantic.ValidationError says where.
    """
    value = pydantic_core.from_json(text)
    if not isinstance(value, dict):
        raise ValueError("it is not a table")
    said = value.pop(CHECKSUM, None)  # records of 0.2.0 have none
    if said is not None and said != _checksum(value):
        raise ValueError(
            f"its values are not those that were written (without its line {CHECKSUM} it is read as it is)"
        )
    _require_bounded(value.values())
    return model.model_validate(lifted(model, value), context=STORED)


def _require_bounded(values: Iterable[Any]) -> None:
    """ValueError if an integer is too large for an array."""
    for value in values:
        if isinstance(value, dict | list):
            _require_bounded(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"an integer of {len(str(value))} digits stands in it")


def write_model(path: Path, value: Frozen) -> None:
    """Write a configuration or result as indented JSON."""
    write_text(path, record_text(value, indent=2) + "\n")


def read_model(path: Path, model: type[Model]) -> Model:
    """Read a configuration or result; UserError if the file is missing or is not such a value."""
    remedy = "It was damaged or edited: restore it, or move its folder away and launch again."
    try:
        return parsed_record(read_bytes(path), model)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {remedy}") from None
    except NewerError as error:
        raise UserError(
            f"{path} was written by a later release of vaehpc than {__version__}: {error}. Read it with that one."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # an upgrade may meet anything
        raise UserError(f"{path} is not a valid {model.__name__}: {_first_error(error)}. {remedy}") from None


def opened(path: Path, sha256: str | None = None) -> io.BufferedReader:
    """Open an ordinary file for reading; nobody waits for a pipe or a device.

    Args:
        path: of the file.
        sha256: of what was written, which is compared; None: that is not known.

    Raises:
        OSError: it is missing, something else than a file, may not be read, or is not what was written.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(mode := os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}", str(path))
    if sha256 is not None:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            file.close()
            raise OSError(errno.EIO, "it is not what was written: its SHA-256 is another", str(path))
        file.seek(0)
    return file


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """All of an ordinary file; raises as `opened`, and where it is far too large."""
    with opened(path, sha256) as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST_RECORD:
            raise OSError(errno.EFBIG, f"it has {gigabytes(size)}", str(path))
        return file.read()


def read_words(path: Path, most: int = LARGEST_RECORD) -> str:
    """The end of a text file, for people and tables: neutral on a terminal; '' where it cannot be read."""
    try:
        with opened(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return neutral(file.read(most).decode(errors="replace").replace("\r\n", "\n"))
    except OSError:
        return ""


def read_array(path: Path, sha256: str | None = None) -> npt.NDArray[Any]:
    """Memory-map a .npy file, of any size.

    Args:
        path: of the file.
        sha256: of what was written; None: that is not known.

    Raises:
        UserError: it is missing, no ordinary file, no whole array, or not what was written.
    """
    try:
        with opened(path, sha256) as file:
            shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
            start, num_bytes = file.tell(), math.prod(shape) * dtype.itemsize
            if dtype.hasobject or min(shape, default=0) < 0 or start + num_bytes != os.fstat(file.fileno()).st_size:
                raise ValueError(f"it is no whole array of {dtype} {shape}")
            if not num_bytes:  # nothing can be mapped
                return np.empty(shape, dtype)
            return np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C")
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _first_error(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    if first["type"] == "extra_forbidden":
        return f"vaehpc {__version__} has no setting {where}"
    return f"{where}: {first['msg']}"


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(folder: Path, start: str = "") -> list[Path]:
    """What lies in a folder under names that begin so, in their order.

    A glob asks the file system once more, and some folders are listed for every one of ten thousand runs.
    """
    return sorted(path for path in folder.iterdir() if path.name.startswith(start))


def entries(folder: Path, start: str = "") -> list[Path]:
    """The same; nothing where that is no folder, or may not be read."""
    try:
        return listed(folder, start)
    except OSError:
        return []


def is_there(path: Path) -> bool:
    """Whether anything has this name, or may have it: who reads a broken link, or in a closed folder, is told why."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint or trigger; None where it is none."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else None


def require_space(directory: Path, num_bytes: int, num_files: int) -> None:
    """DiskFullError if the file system of `directory` (or its nearest parent that exists) lacks `num_bytes`."""
    existing = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise DiskFullError(
            f"{directory} needs {gigabytes(num_bytes)} in {num_files:,} files, {gigabytes(free)} free on {existing}."
            " Free some space or choose another --out; nothing was written."
        )


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
        self.image_names = self.path / "image_names.json"
        """Of photographs that are not CelebA's: their paths, in the order of the numbers' array."""
        self.progress = self.path / ".prepare"
        """Request, settings and records of finished shards, until the manifest is written."""
        self.request_path = self.progress / "request.json"
        self.settings_path = self.progress / "settings.json"
        self.own_folder = self.progress / "own-folder"
        """Where the folder was made for the data set, and may go with it."""

    def make_progress(self) -> None:
        """Make the folder, or in one that is there the place for what is under way."""
        is_new = not self.path.exists()
        self.progress.mkdir(parents=True, exist_ok=True)
        if is_new:
            self.own_folder.touch()

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
        self.stability_path = self.explanation / "stability.json"
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

    def radii(self, sha256: str | None = None) -> npt.NDArray[np.float32] | None:
        """R = ||mu||_2 of every image, (num_images,); None if the file is gone, UserError if it is damaged."""
        path = self.statistics_arrays / "radius_mu.npy"
        return read_array(path, sha256) if is_there(path) else None

    def history(self, sha256: str | None = None) -> list[EpochRecord]:
        """One record per finished epoch; UserError if the file is damaged, or not of this SHA-256, if that is known."""
        try:
            lines = read_bytes(self.history_path, sha256).splitlines()
            return [parsed_record(line, EpochRecord) for line in lines]
        except FileNotFoundError:
            if sha256 is None:
                return []
            raise UserError(f"{self.history_path} does not exist") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else _first_error(error)
            raise UserError(f"{self.history_path} cannot be read: {reason}") from None

    def hashes_of_record(self) -> dict[str, str]:
        """SHA-256 of history, recorder and records of triggers, by their names in this folder."""
        records = (folder / "trigger.json" for folder in self.trigger_dirs())
        files = (path for path in (self.history_path, self.probe, self.steps, *records) if path.exists())
        return {self.name_of(path): sha256_of_file(path) for path in files}

    def name_of(self, path: Path) -> str:
        """A file's name in this folder."""
        return path.relative_to(self.path).as_posix()

    def trigger_records(self) -> list[TriggerRecord]:
        """The flight recorder's triggers in the order of their steps."""
        return [read_model(path / "trigger.json", TriggerRecord) for path in self.trigger_dirs()]

    def trigger_dirs(self) -> list[Path]:
        """Their directories, in the same order; UserError where what should hold them cannot be listed."""
        try:
            return listed(self.triggers, "step-")
        except OSError as error:
            if is_there(self.triggers):
                raise UserError(f"{self.triggers} cannot be read: {error.strerror}") from None
            return []

    def checkpoint_dirs(self) -> list[Path]:
        """Its checkpoints in the order of their steps."""
        return entries(self.checkpoints, "step-")


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
        self.runs_csv = self.path / "runs.csv"
        self.columns_csv = self.path / "columns.csv"
        """What the columns of both mean."""
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"
        self.report_text = self.path / "report.md"
        self.pages = self.path / "pages"
        """One page for each run."""
        self.crate = self.path / "ro-crate-metadata.json"
        self.start = self.path / "start"
        """Of a replay: the state that the forks start from, and the probe of their source run."""
        self.null_start = self.path / "start-null"
        """Of a replay: the state that its null forks start from."""
        self.replay_path = self.path / "replay.json"
        self.replay_page = self.path / "replay.md"
        self.replay_html = self.path / "replay.html"

    def make_jobs(self) -> None:
        """Make the folder of the jobs, which others may read and nobody else may write to, whatever the umask."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        if self.jobs.stat().st_uid == os.getuid():
            self.jobs.chmod(0o755)

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

    def checked(self, node: str) -> Path:
        """Which files of the data set were compared with the manifest on this node."""
        return self.jobs / f"checked-{node}.json"

    def heartbeat(self, stage: str) -> Path:
        """Where a stage that works on the whole study says which part of it is being done."""
        return self.jobs / f"{stage}-heartbeat.json"

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
        job = read_words(self.job_path).partition(";")[0].strip()
        return job if job.isdecimal() else None

    def events(self, number: int) -> list[Event]:
        """What the element's batch script noted, oldest first."""
        lines = read_words(self.path / f"{number}.events").splitlines()
        whole = [parts for line in lines if len(parts := line.split("\t")) == 4]  # a full disk tears the last one
        return [Event(float(time), node, kind, detail) for time, node, kind, detail in whole if time.isdecimal()]
