"""A node that proves itself: processes on its device, and the trainings that the points of `checks.proof` share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from vaehpc.local.starting import fork_server, started
from vaehpc.machine.hardware import NEEDED_GPUS, gpu_uuid, seen_by_task, visible_gpus
from vaehpc.machine.processes import processors
from vaehpc.machine.served import unusable
from vaehpc.schema.config import DataConfig, Precision, RunConfig, StudyConfig, TrainConfig
from vaehpc.schema.results import DeviceKind
from vaehpc.study.attempts import tail
from vaehpc.study.files import DataDir
from vaehpc.study.packages import TRAIN_EXTRAS
from vaehpc.study.presets import PRESETS, PresetName, configured_arms, in_precision, named_arms, preset_plan
from vaehpc.study.sites import built_in_site
from vaehpc.study.study import data_config, planned_study
from vaehpc.tasks.visit import MachineReport, machine_report

Numbers = dict[str, Any]

LIMIT_SECONDS = 300.0
"""A process that takes longer is ended: it hangs."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    preset: PresetName
    """Whose net is trained."""
    image_size: int
    num_drawn: int
    """Built-in faces."""
    num_steps: int
    """Of each training."""
    seconds: float
    """How long steps are timed."""
    side: int
    """Rows of the matrices that are multiplied."""
    num_bytes: int
    """That are read and written."""
    epoch_images: int
    """Of an epoch, of which the end is a share."""


SIZES: Mapping[DeviceKind, Size] = {
    "gpu": Size("article", 96, 1280, 200, 5.0, 8192, 2**30, 170_000),
    "cpu": Size("demo", 48, 80, 20, 0.5, 256, 2**22, 1199),
}


@dataclass(frozen=True)
class Combination:
    """A way to train."""

    precision: Precision
    resident: bool = True
    """Whether the images lie in the device's memory."""
    deterministic: bool = True


COMBINATIONS: Mapping[str, Combination] = {
    "bfloat16 resident": Combination("mixed_bfloat16"),
    "bfloat16 from the host": Combination("mixed_bfloat16", resident=False),
    "bfloat16 without determinism": Combination("mixed_bfloat16", deterministic=False),
    "float32": Combination("float32"),
    "tf32": Combination("tf32"),
}


class FailedError(Exception):
    """A process of the node did not do what it was asked for; says why."""


@dataclass(frozen=True)
class Work:
    """A function of `vaehpc.tasks.proof` for a process of its own, that sees this GPU as one of so many, or none."""

    function: str
    arguments: tuple[object, ...]
    environment: Mapping[str, str]
    waits: bool = False
    """Whether its last argument is the barrier of all that do."""


class Node:
    """The node with what was measured on it so far, each only once, and only if a point asks for it."""

    def __init__(self, kind: DeviceKind, folder: Path) -> None:
        self.kind, self.folder, self.size = kind, folder, SIZES[kind]
        self.gpu = "" if kind == "cpu" else gpu_uuid(found[0]) if (found := visible_gpus()) else None
        """As the environment names it; '': none; None: nobody knows, and TensorFlow chooses."""
        self._second: dict[str, Numbers] = {}
        self._num_works = 0

    @cached_property
    def machine(self) -> MachineReport:
        """As TensorFlow and the driver describe it."""
        return machine_report(TRAIN_EXTRAS, ("CUDA_VISIBLE_DEVICES",), tensorflow=True)

    @property
    def num_asked(self) -> int:
        """GPUs that the job asked for, or was given; one at least."""
        return int(os.environ.get(NEEDED_GPUS) or 0) or len(self.machine.given_gpus) or 1

    @property
    def capability(self) -> str | None:
        """Compute capability of the GPU."""
        report = self.machine.tensorflow
        return report.capabilities[0] if report is not None and report.capabilities else None

    def require_device(self) -> None:
        """FailedError without the GPU that is meant."""
        report = self.machine.tensorflow if self.kind == "gpu" else None
        if self.kind == "gpu" and (report is None or not report.gpus):
            raise FailedError("TensorFlow uses no GPU here: see point 1 (--device cpu has a processor do the same)")

    def left_out(self, name: str) -> str | None:
        """Why this kind of GPU cannot train in a combination."""
        if self.kind == "cpu":
            return None
        precision = COMBINATIONS[name].precision
        others = unusable("this GPU", self.capability, None)
        return None if others is not None else unusable("this GPU", self.capability, None, precision)

    @property
    def usual(self) -> str:
        """The combination in which studies are trained on this node."""
        return next((name for name in COMBINATIONS if self.left_out(name) is None), "float32")

    # Processes

    def environment(self, at_once: int = 1) -> dict[str, str]:
        """Of a process that is one of so many on the device."""
        return {**os.environ, **seen_by_task(self.gpu, at_once), NEEDED_GPUS: "0" if self.kind == "cpu" else "1"}

    def work(self, function: str, *arguments: object, at_once: int = 1, waits: bool = False) -> Work:
        """For a process on the device."""
        return Work(function, arguments, self.environment(at_once), waits)

    def alone(self, work: Work) -> Numbers:
        """What it returns; FailedError if it does not."""
        return required(self.together([work]))[0]

    def together(self, works: Sequence[Work]) -> list[Numbers | FailedError]:
        """What each returns, or why it does not, of processes that run side by side."""
        self.require_device()
        ready = fork_server().Barrier(sum(work.waits for work in works) or 1)
        deadline = time.monotonic() + LIMIT_SECONDS
        begun, found = dict[Connection, _Process](), dict[Connection, Numbers | FailedError]()
        try:
            for work in works:
                answers, process = self._begun(work, ready)
                begun[answers] = process
            while waited := [answers for answers in begun if answers not in found]:
                # As they come, so that one that has failed sets the others free.
                arrived = wait(waited, max(0.0, deadline - time.monotonic()))
                for answers in [each for each in waited if each in arrived] or waited:
                    found[answers] = begun[answers].answer(answers)
                    if isinstance(found[answers], FailedError):
                        ready.abort()
        finally:
            for process in begun.values():
                process.process.kill()
                process.process.join()
        return [found[answers] for answers in begun]

    def _begun(self, work: Work, ready: Barrier) -> tuple[Connection, _Process]:
        self._num_works += 1
        log = self.folder / f"{self._num_works}-{work.function}.log"
        here, there = fork_server().Pipe(duplex=False)
        meant = built_in_site("local").environment | {"VAEHPC_PRELOADED": "vaehpc.tasks.proof"}
        process = started(_worked, work, ready, there, log, environment=meant)
        there.close()  # so that the end of the process is the end of what it says
        return here, _Process(process, log)

    # Trainings

    @cached_property
    def data(self) -> DataConfig:
        """Built-in faces."""
        folder = self.folder / "data"
        work = Work("drawn", (str(folder), self.size.num_drawn, self.size.image_size), {**os.environ, NEEDED_GPUS: "0"})
        self.alone(work)
        return data_config(DataDir(folder))

    def study(self, precision: Precision, **train: object) -> StudyConfig:
        """One run of the VAE, with the article's learning rate: at the demo's, losses soon differ by themselves."""
        preset = PRESETS[self.size.preset]
        changes = {"learning_rate": TrainConfig().learning_rate, "epochs": 1, **train}
        settings = in_precision(preset.settings, precision)
        settings = settings.model_copy(update={"train": settings.train.model_copy(update=changes)})
        arms = configured_arms(named_arms(("vae-tiny",)), settings)
        plan = preset_plan(preset, arms)
        return planned_study("proof", self.size.preset, self.data, arms, (0,), plan, precision=precision)

    def run(self, precision: Precision, compiled: bool | None = True) -> RunConfig:
        """The run with as many images as its steps take."""
        (run,) = self.study(precision, jit_compile=compiled).runs()
        num_train = self.size.num_steps * run.arm.train.batch_size
        return run.model_copy(update={"data": run.data.model_copy(update={"num_train": num_train})})

    def training(self, name: str) -> tuple[RunConfig, str, bool]:
        """Run, folder of its programs, residence of its images: of a combination."""
        of = COMBINATIONS[name]
        return self.run(of.precision), str(self.folder / name), of.resident

    @cached_property
    def first(self) -> dict[str, Numbers | FailedError]:
        """Of each combination a training whose programs are compiled, some side by side: that takes processors."""
        names = [name for name in COMBINATIONS if self.left_out(name) is None]
        works = [self.work("first_training", *self.training(name), COMBINATIONS[name].deterministic) for name in names]
        at_once, found = max(1, processors() // 4), list[Numbers | FailedError]()
        for begin in range(0, len(works), at_once):
            found += self.together(works[begin : begin + at_once])
        return dict(zip(names, found, strict=True))

    def second(self, name: str) -> Numbers:
        """Of this combination a training by kept programs, alone on the device."""
        required([self.first[name]])
        if name not in self._second:
            deterministic, seconds = COMBINATIONS[name].deterministic, self.size.seconds
            work = self.work("second_training", *self.training(name), deterministic, seconds)
            self._second[name] = self.alone(work)
        return self._second[name]


def required(found: Sequence[Numbers | FailedError]) -> list[Numbers]:
    """What processes returned; FailedError if one of them did not."""
    if errors := [each for each in found if isinstance(each, FailedError)]:
        raise min(errors, key=lambda error: "BrokenBarrierError" in str(error))  # which another one has caused
    return [each for each in found if not isinstance(each, FailedError)]


@dataclass(frozen=True)
class _Process:
    process: BaseProcess
    log: Path

    def answer(self, answers: Connection) -> Numbers | FailedError:
        """What it has returned by now."""
        name = self.log.stem
        if not answers.poll():
            return FailedError(f"{name} did not end within {LIMIT_SECONDS:g} s")
        try:
            found: Numbers | str = answers.recv()
        except EOFError:
            self.process.join()
            said = " | ".join(tail(self.log, 2)) or "it said nothing"
            return FailedError(f"{name} ended with {self.process.exitcode}: {said}")
        return FailedError(found) if isinstance(found, str) else found


def _worked(work: Work, ready: Barrier, answers: Connection, log: Path) -> None:
    """In the process: call the function, and send what it returns, or in words why it fails."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ.clear()  # which the fork server may have from another time
    os.environ.update(work.environment)
    # Imported here, in a process of its own: what starts it does without TensorFlow.
    from vaehpc.tasks import proof

    try:
        answers.send(getattr(proof, work.function)(*work.arguments, *([ready] if work.waits else [])))
    except BaseException as error:
        ready.abort()
        answers.send(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".removeprefix("UserError: ")
        )
