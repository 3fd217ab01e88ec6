"""What a training computes on: the GPU that its job asked for or the CPU that is meant, and programs that XLA keeps."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from vaehpc.command import HopelessError, UserError
from vaehpc.machine.hardware import NEEDED_GPUS, cpu_model, gpu_driver, gpu_name, instruction_sets
from vaehpc.machine.served import unserved_machine, unusable
from vaehpc.schema.config import TrainConfig
from vaehpc.schema.results import DeviceKind
from vaehpc.study.files import StudyDir
from vaehpc.study.provenance import provenance
from vaehpc.tasks.visit import host_name, parsed_tensorflow, tensorflow_report, why_no_gpu
from vaehpc.training.staging import require_own

logger = logging.getLogger(__name__)

XLA_FLAGS, PROGRAMS_FLAG = "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory"


@dataclass(frozen=True)
class Device:
    """What a process trains on."""

    name: str
    kind: DeviceKind
    driver: str | None = None
    capability: str | None = None
    tensor_float_32: bool = False
    """Whether products of float32 are computed in TF32."""


def configure_tensorflow(train: TrainConfig, deterministic: bool = True) -> Device:
    """Thread counts, GPU memory growth, determinism and TF32 of this process; its device.

    On a CPU only one thread repeats to the bit, whatever TensorFlow's determinism switch says.

    Args:
        train: the training's settings.
        deterministic: whether a GPU is to repeat to the bit; not, only to measure what that costs.

    Raises:
        UserError: TensorFlow sees fewer GPUs than the job asked for; another node may be sound.
        HopelessError: a kind of GPU or of node that cannot train so.
    """
    tf.config.experimental.enable_tensor_float_32_execution(train.precision == "tf32")
    needed, gpus = os.environ.get(NEEDED_GPUS), tf.config.list_physical_devices("GPU")
    if needed == "0" and gpus:
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    if len(gpus) < int(needed or 0):
        raise _unseen(len(gpus), int(needed or 0))
    if gpus:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = ".".join(map(str, details.get("compute_capability", ()))) or None
        device = Device(str(details["device_name"]), "gpu", gpu_driver(), capability, train.precision == "tf32")
        if (problem := unusable(device.name, capability, device.driver, train.precision)) is not None:
            raise HopelessError(problem)
        return device
    if tf.config.threading.get_intra_op_parallelism_threads() != train.threads:  # refused once TensorFlow has started
        tf.config.threading.set_intra_op_parallelism_threads(train.threads)
        tf.config.threading.set_inter_op_parallelism_threads(train.threads)
    return Device(cpu_model(), "cpu")


def _unseen(found: int, needed: int) -> UserError:
    """Why TensorFlow sees so few GPUs, what mends it, and what to say where none is meant."""
    problem = unserved_machine() or unusable(gpu_name(), None, gpu_driver())
    if problem is not None:
        return HopelessError(problem)
    packages, visible = provenance().packages, os.environ.get("CUDA_VISIBLE_DEVICES")
    # TensorFlow for processors has nothing to say of GPUs; else it is asked once more, to name what it misses.
    report = tensorflow_report() if "tensorflow" in packages else parsed_tensorflow("", "", None)
    cause, remedy = why_no_gpu(report, packages, sys.executable, visible)
    return UserError(
        f"TensorFlow sees {found} of {needed} GPUs on {host_name()}: {cause}. Mend: {remedy}. If the CPU is meant:"
        ' device = "cpu" in [jobs.train] of the site\'s file, or launch --device cpu. (CUDA_VISIBLE_DEVICES ='
        f" {visible if visible is not None else 'not set'})"
    )


@contextlib.contextmanager
def kept_programs(study: StudyDir) -> Iterator[None]:
    """Let XLA take its programs from a folder of the study, and keep those there that it compiles.

    Each kind of device and version of TensorFlow has its own. TensorFlow reads which it is when it looks for devices.
    Without such a folder, where it cannot be written, each start compiles anew.
    """
    made_for = f"{tf.__version__} {gpu_name()} {cpu_model()} {instruction_sets()}"
    folder = study.jobs / f"programs-{hashlib.sha256(made_for.encode()).hexdigest()[:12]}"
    flags = os.environ.get(XLA_FLAGS, "")
    if (
        PROGRAMS_FLAG not in flags and "'" not in str(folder) and _is_ours(study, folder)
    ):  # TensorFlow cannot read a "'"
        os.environ[XLA_FLAGS] = f"{flags} {PROGRAMS_FLAG}='{folder}'"
    try:
        yield
    except tf.errors.OpError as error:
        # A program is damaged, which TensorFlow says with or without its name: the next start compiles it anew.
        if folder.name in str(error) or isinstance(error, (tf.errors.OutOfRangeError, tf.errors.DataLossError)):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.environ[XLA_FLAGS] = flags


def _is_ours(study: StudyDir, folder: Path) -> bool:
    """Whether this is a folder, made if need be, that only this user can read and write: programs lie there."""
    try:
        study.make_jobs()
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
            folder.chmod(0o700)  # of an earlier release
        require_own(folder)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return False
