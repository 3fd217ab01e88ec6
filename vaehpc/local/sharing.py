"""How many runs train at once on one GPU: measured there, once for a study and a kind of GPU."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from vaehpc.command import UserError, silenced
from vaehpc.local.starting import added, fork_server
from vaehpc.machine.hardware import gpu_name, seen_by_task
from vaehpc.machine.variables import MPS_LOGS, MPS_PIPES
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import Sharing, Timing
from vaehpc.study.files import RunDir, StudyDir, read_model, write_model

logger = logging.getLogger(__name__)

GAIN = 1.1
"""Twice as many runs must together train this much faster, or they are not worth their memory."""
SECONDS = 20.0
"""How long each number of runs is trained, after its start."""
MPS = "nvidia-cuda-mps-control"

Together = Callable[[int], Sequence[Timing]]
"""Measures one run so many times at once."""


def runs_at_once(directory: str, most: int, gpu: str | None = None) -> int:
    """How many runs like the one in this directory train fastest together on this GPU, at most `most`.

    Each is a process of its own, whose bits do not depend on its neighbours.

    Args:
        directory: of a run; what was measured is kept in its study, under jobs.
        most: a power of 2 is used to the full.
        gpu: as the environment names it; None: the one that this process sees.
    """
    run = RunDir(Path(directory))
    name, study = gpu_name(gpu), StudyDir(run.path.parent)
    # Where nobody knows which kind it is, each part of a node's GPUs may be another one.
    key = name if name != "GPU" else f"{gpu or name} of {socket.gethostname()}"
    kept = study.jobs / f"sharing-{re.sub(r'[^A-Za-z0-9]+', '-', key)}-{most}.json"
    sharing = _kept(kept)
    if sharing is None:
        config = run.config()
        print(f"measuring how many runs, at most {most}, train fastest together on {name}: a minute or two", flush=True)
        sharing = measured_sharing(name, most, lambda number: timed_together(config, SECONDS, [gpu] * number, study))
        if not sharing.steps_per_second:  # not one run: the training will say why, and another GPU may do
            return sharing.runs_at_once
        write_model(kept, sharing)
        logger.info("%s", sharing.model_dump_json())
    return sharing.runs_at_once


def _kept(path: Path) -> Sharing | None:
    """What was measured before; None if that is not there, or damaged."""
    try:
        return read_model(path, Sharing)
    except UserError:
        return None


def measured_sharing(gpu: str, most: int, together: Together) -> Sharing:
    """Twice as many each time, as long as it pays."""
    rates: dict[int, float] = {}
    number = 1
    while number <= most:
        try:
            rates[number] = sum(1 / found.step_seconds for found in together(number))
        except Exception as error:  # whatever it is, most likely a lack of memory: so many are too many
            logger.warning("%d runs cannot be trained at once on %s: %s", number, gpu, error)
            break
        if rates[number] < GAIN * rates.get(number // 2, 0.0):
            break
        number *= 2
    return Sharing(gpu=gpu, steps_per_second=rates, runs_at_once=max(1, number // 2))


def timed_together(
    run: RunConfig,
    seconds: float,
    gpus: Sequence[str | None],
    study: StudyDir | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Timing]:
    """One run, measured in a process for each of these GPUs, from the moment on at which all of them are ready.

    Args:
        run: what is measured.
        seconds: how long.
        gpus: as CUDA_VISIBLE_DEVICES names them; None leaves the choice to TensorFlow.
        study: keeps the programs that XLA compiles, for these processes and for its trainings.
        environment: of the fork server.

    Raises:
        UserError: the data are damaged.
    """
    context = fork_server()
    ready = context.Barrier(len(gpus))
    # A process each time: TensorFlow chooses its device once, and memory is that of this run alone.
    with (
        added(environment or {}),
        ProcessPoolExecutor(len(gpus), mp_context=context, initializer=_inherit, initargs=(ready,)) as pool,
    ):
        seen = [seen_by_task(gpu, gpus.count(gpu)) for gpu in gpus]
        tasks = [pool.submit(_timed, run, seconds, study, {**os.environ, **of_gpu}) for of_gpu in seen]
        # One that cannot be ready sets the others free, and is what went wrong.
        errors = [error for task in tasks if (error := task.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error
        return [task.result() for task in tasks]


_ready: Barrier | None = None
"""Of the processes that are measured together: only what they are started with may hold it."""


def _inherit(ready: Barrier) -> None:
    global _ready
    _ready = ready


def _timed(run: RunConfig, seconds: float, study: StudyDir | None, environment: Mapping[str, str]) -> Timing:
    os.environ.update(environment)
    # Imported here, in a process of its own: what starts it does without TensorFlow.
    with silenced():
        from vaehpc.tasks.device import kept_programs
        from vaehpc.tasks.timing import timed

        assert _ready is not None
        try:
            with contextlib.nullcontext() if study is None else kept_programs(study):
                return timed(run, seconds, _ready.wait)
        except BaseException:
            _ready.abort()
            raise


@contextlib.contextmanager
def multi_process_service(gpus: Sequence[str]) -> Iterator[None]:
    """NVIDIA's MPS, so that kernels of several processes run side by side; nothing where it is not installed.

    A cluster's own, which CUDA_MPS_PIPE_DIRECTORY names, is left alone.

    Args:
        gpus: by their UUIDs, as the processes name them: MPS numbers those that its daemon sees anew, and a process
            that asks for number 2 of them sees none. Where only numbers are known, there is no service.
    """
    if shutil.which(MPS) is None or MPS_PIPES in os.environ:
        yield
        return
    if any(gpu.isdecimal() for gpu in gpus):
        logger.warning("%s is not started, for the UUIDs of the GPUs are not known: their runs take turns", MPS)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        added = {name: f"{folder}/{name}" for name in (MPS_PIPES, MPS_LOGS)}
        for path in added.values():
            Path(path).mkdir()
        own = os.environ | added | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        if subprocess.run([MPS, "-d"], env=own, check=False).returncode:
            logger.warning("%s did not start: the runs of a GPU take turns", MPS)
            yield
            return
        os.environ.update(added)
        try:
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=False)
            for name in added:
                del os.environ[name]
