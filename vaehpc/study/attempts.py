"""Starts of tasks on a run: signs of life, logs, how they ended, and which of them may publish."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pydantic

from vaehpc.command import DiskFullError, UserError, explained, neutral
from vaehpc.schema.frozen import STORED, Frozen
from vaehpc.schema.results import Made, TrainedRecord
from vaehpc.schema.upgrades import ATTEMPT_SCHEMA, SCHEMA
from vaehpc.study.files import RunDir, entries, read_bytes, read_words, write_model, write_text
from vaehpc.study.provenance import provenance


class SupersededError(Exception):
    """A newer attempt at this run exists: this one may publish nothing and must leave."""


class StoppedError(Exception):
    """The run was asked to stop and left a checkpoint: a later start continues from it."""


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
        try:
            run.attempts.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{run.attempts} cannot be made: {error.strerror}") from error
        number = max((attempt.number for attempt in all_attempts(run)), default=0)
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
        made = {"node": node, "cuda_visible_devices": gpus, "provenance": provenance().model_dump()}
        write_record(attempt.start_path, started | made)
        return attempt

    def __enter__(self) -> Attempt:
        self._output = output_to(self.log)
        self._output.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        outcome = "done" if error is None else _OUTCOMES.get(type(error), "failed")
        try:
            with contextlib.ExitStack() as output:
                output.push(self._output)
                self._say_how_it_ended(outcome, error)
        except OSError as unsaid:
            raise explained(unsaid, self.run.path) from error
        if isinstance(error, OSError) and isinstance(full := explained(error, self.run.path), DiskFullError):
            raise full from error  # whichever library wrote
        return outcome != "failed"

    def _say_how_it_ended(self, outcome: str, error: BaseException | None) -> None:
        if outcome == "failed" and error is not None:
            traceback.print_exception(error)
            # A tf.data iterator that is left for the interpreter's end waits there for its thread, which cannot end.
            if not _frames_are_kept.get():
                traceback.clear_frames(error.__traceback__)
        elif error is not None:
            logging.getLogger(__name__).info("%s", error)
        ended = {"outcome": outcome, "error": None if error is None else neutral(str(error))}
        write_record(self.exit_path, ended | resources_used())

    def require_newest(self) -> None:
        """SupersededError if a newer attempt exists."""
        if all_attempts(self.run)[-1].number != self.number:
            raise SupersededError(f"attempt {self.number} of {self.run.name} was replaced by a newer one and leaves")

    def publish(self, source: Path, target: Path) -> None:
        """Move a finished file or directory from this attempt to where the next stage looks for it."""
        self.require_newest()
        try:
            source.replace(target)
        except OSError:  # only then is more asked of the file system: nearly always the way is free
            try:
                target.parent.mkdir(exist_ok=True)
                if target.is_dir():  # left without its marker by an attempt that was killed
                    target.rename(self.path / f"replaced-{target.name}")
                source.replace(target)
            except OSError as error:
                raise explained(error, target) from error

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


_frames_are_kept = ContextVar("_frames_are_kept", default=False)


@contextlib.contextmanager
def frames_kept() -> Iterator[None]:
    """What a task raises meanwhile keeps the variables of its frames, for a debugger; its catcher clears them."""
    token = _frames_are_kept.set(True)
    try:
        yield
    finally:
        _frames_are_kept.reset(token)


def all_attempts(run: RunDir) -> list[Attempt]:
    """Every start of a task on a run, oldest first."""
    found = [Attempt(run, path) for path in entries(run.attempts) if path.name.isdecimal()]
    return sorted(found, key=lambda attempt: attempt.number)


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
    write_text(path, json.dumps({SCHEMA: ATTEMPT_SCHEMA, "time": time.time(), **value}, indent=2) + "\n")


NUMBERS = (
    SCHEMA,
    "time", "pid", "step", "num_steps", "epoch", "checkpoint_step", "start_step", "steps_per_second",
    "reconstruction_loss", "radius_median", "peak_memory_gb", "cpu_seconds", "part_number", "num_parts",
)  # fmt: skip
"""Keys of an attempt's records that are numbers; `provenance` is a table, `tensor_float_32` a bool, the rest text."""
LARGEST_NUMBER, LARGEST_RADIUS = 1e15, 1e300
MAY_BE_LARGE = frozenset(("reconstruction_loss", "radius_median"))
"""Of a run that diverges."""


def part_of(beat: Mapping[str, Any]) -> str | None:
    """'t-SNE (6 of 6)' of a heartbeat; None where it names no part."""
    if "part" not in beat:
        return None
    return f"{beat['part']} ({beat.get('part_number', 1)} of {beat.get('num_parts', 1)})"


def read_json(path: Path) -> dict[str, Any]:
    """A small record; empty if it is missing or damaged. A value of another kind than its key says is left out."""
    try:
        value = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: of for key, of in value.items() if _is_possible(key, of)} if isinstance(value, dict) else {}


def _is_possible(key: str, value: Any) -> bool:
    if key in NUMBERS:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and 0 <= value < (LARGEST_RADIUS if key in MAY_BE_LARGE else LARGEST_NUMBER)
    return isinstance(value, {"provenance": dict, "tensor_float_32": bool}.get(key, str))


def starts_of(run: RunDir, trained: TrainedRecord | None) -> list[Made]:
    """Trainings that left a checkpoint, the finished one, and the newest statistics, where they said what made them.

    Args:
        run: its directory.
        trained: its marker; None where it has none yet.
    """
    found = [] if trained is None else [made_of(trained)]
    for attempt in reversed(all_attempts(run)):
        start, beat = read_json(attempt.start_path), read_json(attempt.heartbeat_path)
        stage, by = start.get("stage"), start.get("provenance")
        measured = stage == "statistics" and not any(made.stage == stage for made in found)
        if by is not None and (measured or (stage == "train" and "checkpoint_step" in beat)):
            made = {"stage": stage, "provenance": by}
            made |= {key: beat.get(key) for key in ("device", "driver", "tensor_float_32")}
            with contextlib.suppress(pydantic.ValidationError):
                found.append(Made.model_validate(made, context=STORED))
    return found[::-1]


def made_of(trained: TrainedRecord) -> Made:
    """What finished a training."""
    return Made(
        stage="train",
        provenance=trained.provenance,
        device=trained.device,
        driver=trained.driver,
        tensor_float_32=trained.tensor_float_32,
    )


def resources_used() -> dict[str, float]:
    """Of this process so far: its largest resident set in GiB, and its CPU time in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_memory_gb": used.ru_maxrss / 2**20, "cpu_seconds": used.ru_utime + used.ru_stime}


def job_id() -> str | None:
    """The scheduler's name for this task, if a scheduler started it."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and element:
        return f"{array}_{element}"
    return os.environ.get("SLURM_JOB_ID")


LOG_BYTES = 65536
"""Of a log, what is read to show its end."""
LAST_LINES = 12
"""Of a log, what is shown where its task failed."""


OF_LIBRARIES = re.compile(
    r"\d{4}-\d\d-\d\d [\d:]+\.\d+: [IW] |[IW]\d{4} [\d:.]+ +\d+ \S+:\d+\] "
    "|WARNING: All log messages before absl|To enable the following instructions|.*Unable to register cu"
)
"""Beginnings of lines that TensorFlow says of itself, whatever happens; its errors are others."""


def tail(path: Path, num_lines: int) -> Sequence[str]:
    """The last lines of a log, without what TensorFlow says of itself."""
    lines = read_words(path, LOG_BYTES).splitlines()
    return ([line for line in lines if not OF_LIBRARIES.match(line)] or lines)[-num_lines:]
