"""What a job finds on its node: Python, packages, memory, TensorFlow and its GPUs, the shared folder, the data.

Reads request.json, writes result.json last. TensorFlow is asked in a process of its own, whatever that does.
"""

from __future__ import annotations

import json
import locale
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.machine.hardware import gpu_driver, named_gpus, visible_gpus
from vaehpc.machine.processes import available_memory, processors
from vaehpc.machine.served import unserved_machine
from vaehpc.schema.config import ImageRecord
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import Manifest
from vaehpc.study.files import DataDir, read_model, sha256_of_file, write_model, write_text
from vaehpc.study.packages import install_line, installed_versions, requirements, unmet_requirements
from vaehpc.study.provenance import own_image, provenance

IMPORT_SECONDS = 600.0
"""A first import of TensorFlow from a busy shared folder takes minutes."""
SMI_SECONDS = 30.0
POLL_SECONDS = 0.2
LAST_LINES = 2
"""Of what TensorFlow said before it failed, without a traceback's indented lines."""
CONVOLVED_ONES = 2904.0
"""Sum of 8 x 8 x 3 ones convolved with 3 x 3 kernels of ones into 2 channels: (3 x 8 - 2)^2 x 3 x 2."""


class VisitRequest(Frozen):
    """request.json: what a job is to look at."""

    tensorflow: bool
    extras: tuple[str, ...]
    """Of these optional parts of the package, one must be installed."""
    environment: tuple[str, ...]
    """Names of the environment variables that are reported."""
    data: str | None
    """Directory of a data set."""
    answer_seconds: float
    """How long to wait for an answer through the shared folder."""


class TensorflowReport(Frozen):
    """What TensorFlow says of itself."""

    version: str | None
    """None: it could not be imported, or did not survive."""
    built_for: str | None = None
    """'CUDA 12.5.1, cuDNN 9'; None: for processors alone."""
    gpus: tuple[str, ...]
    """Names of the GPUs that it uses."""
    capabilities: tuple[str, ...] = ()
    """Their compute capabilities, '9.0'; '' where it does not say."""
    missing_libraries: tuple[str, ...]
    """That it could not load."""
    driver_error: str | None
    """Why the GPU's driver did not start."""
    error: str | None
    """The end of what it said where it failed."""


class MachineReport(Frozen):
    """The machine and the Python of a process."""

    host: str
    python: str
    executable: str
    packages: dict[str, str]
    unmet: tuple[str, ...]
    """Requirements of this package that are not met, in words."""
    encoding: str
    """Of text files and names of files."""
    environment: dict[str, str]
    processors: int
    memory_bytes: int
    """That may still be used."""
    nvidia_smi: tuple[str, ...] | None
    """'name, driver, memory' of each GPU; None: there is no nvidia-smi."""
    given_gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them, or the driver does."""
    driver: str | None = None
    """Version of their driver; None: not known."""
    unserved: str | None = None
    """Why no GPU of this machine can be used; None: by its processor they can."""
    tensorflow: TensorflowReport | None
    """None: it was not asked."""
    image: ImageRecord | None = None
    """That the process runs in."""


class DataReport(Frozen):
    """A data set as a process reads it."""

    manifest: Manifest | None
    problem: str | None
    """What is wrong with it."""


class VisitReport(Frozen):
    """result.json: what a job found."""

    machine: MachineReport
    answer_seconds: float | None
    """From a file written on the node to the launcher's answer seen there. None: there was none."""
    data: DataReport | None


class VisitDir:
    """The folder through which a visit and its launcher talk."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.request_path = self.path / "request.json"
        self.started = self.path / "started"
        """Written by the job, first of all."""
        self.answer = self.path / "answer"
        """Written by the launcher as soon as it sees `started`."""
        self.result_path = self.path / "result.json"


def run(directory: str) -> None:
    """Look at this machine as request.json in this directory asks, and write result.json.

    Raises:
        UserError: the directory cannot be written, or holds no request.
    """
    visit = VisitDir(Path(directory))
    request = read_model(visit.request_path, VisitRequest)
    written = time.monotonic()
    write_text(visit.started, "started\n")
    answered = _wait_for(visit.answer.exists, request.answer_seconds)
    answer_seconds = time.monotonic() - written if answered else None
    report = VisitReport(
        machine=machine_report(request.extras, request.environment, request.tensorflow),
        answer_seconds=answer_seconds,
        data=None if request.data is None else data_report(Path(request.data)),
    )
    write_model(visit.result_path, report)


def _wait_for(condition: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def machine_report(extras: Iterable[str], environment: Iterable[str], tensorflow: bool) -> MachineReport:
    """This machine and this Python.

    Args:
        extras: one of these optional parts of the package must be installed; none: only what a launcher needs.
        environment: names of variables to report.
        tensorflow: whether to import it, in another process, and let it compute.
    """
    return MachineReport(
        host=host_name(),
        python=platform.python_version(),
        executable=sys.executable,
        packages={"vaehpc": provenance().code_version, **provenance().packages},
        unmet=tuple(unmet_requirements(requirements(), installed_versions(), extras)),
        encoding=locale.getpreferredencoding(False).upper(),
        environment={name: os.environ[name] for name in environment if name in os.environ},
        processors=processors(),
        memory_bytes=available_memory(),
        nvidia_smi=nvidia_smi(),
        given_gpus=tuple(visible_gpus()),
        driver=gpu_driver(),
        unserved=unserved_machine(),
        tensorflow=tensorflow_report() if tensorflow else None,
        image=own_image(),
    )


def host_name() -> str:
    """As Slurm names this node, or as it names itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


# The machine


def nvidia_smi() -> tuple[str, ...] | None:
    """'NVIDIA H100, 550.54, 81559 MiB' for each GPU that the driver shows; None where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SMI_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(shown.splitlines())


# TensorFlow


def tensorflow_report() -> TensorflowReport:
    """What TensorFlow says in a process of its own: version, GPUs, and why it has none."""
    # Libraries that cannot be loaded are named only at this level of this one file of TensorFlow's.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    command = [sys.executable, "-m", "vaehpc.tasks.visit"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return parsed_tensorflow("", "", f"it did not answer within {IMPORT_SECONDS:g} s")
    failure = None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
        failure = "; ".join(said[-LAST_LINES:]) or f"it ended with {done.returncode}"
    return parsed_tensorflow(done.stdout, done.stderr, failure)


def parsed_tensorflow(stdout: str, stderr: str, failure: str | None) -> TensorflowReport:
    """TensorFlow's report from what its process wrote."""
    answers = [line for line in stdout.splitlines() if line.startswith('{"version"')]
    answer = json.loads(answers[-1]) if answers else {"version": None, "gpus": [], "sum": CONVOLVED_ONES}
    if failure is None and answer["sum"] != CONVOLVED_ONES:
        failure = f"a convolution of ones gave {answer['sum']} and not {CONVOLVED_ONES:g}"
    missing = re.findall(r"Could not load dynamic library '([^']+)'", stderr)
    driver = re.search(r"failed call to cuInit: (.*)", stderr)
    return TensorflowReport(
        version=answer["version"],
        built_for=answer.get("built_for"),
        gpus=tuple(answer["gpus"]),
        capabilities=tuple(answer.get("capabilities", ())),
        missing_libraries=tuple(dict.fromkeys(name for name in missing if "nvinfer" not in name)),  # optional
        driver_error=driver[1] if driver else None,
        error=failure,
    )


def why_no_gpu(
    report: TensorflowReport, packages: Collection[str], executable: str, visible: str | None
) -> tuple[str, str]:
    """Why TensorFlow sees fewer GPUs than a job was given, and what mends it; the surest cause first.

    Args:
        report: what TensorFlow says of itself.
        packages: that are installed.
        executable: the Python that has them.
        visible: CUDA_VISIBLE_DEVICES.
    """
    install = install_line(executable, "train-gpu")
    if "tensorflow" not in packages and "tensorflow-cpu" in packages:
        return "tensorflow-cpu is installed, which never uses one", f"in place of tensorflow-cpu: {install}"
    if visible is not None and not named_gpus(visible):
        return "the job was given no GPU", "look at gpu_request and gpu_type in [slurm]"
    if "libcuda.so.1" in report.missing_libraries:
        remedy = "the node has no NVIDIA driver, or its container was started without it (apptainer --nv)"
        return "libcuda.so.1 is missing", remedy
    if report.driver_error is not None:
        remedy = (
            "the driver does not start there: ask the cluster's staff, and leave the node out with exclude in [slurm]"
        )
        return report.driver_error, remedy
    if report.missing_libraries:
        missing = ", ".join(report.missing_libraries)
        return f"{missing} cannot be loaded", f"{install}; no LD_LIBRARY_PATH may hide what it installs"
    command = "python -c 'import tensorflow as tf; tf.config.list_physical_devices()'"
    return "TensorFlow does not say why", f"run `{command}` there and read what it says"


def compute_with_tensorflow() -> None:
    """Import TensorFlow, compute on its first GPU or the CPU as a training does, and print what it found as JSON.

    That is what XLA compiles for a training step, with ptxas and libdevice on a GPU, and a kernel of each kind that
    stays outside of it.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]

    def step(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            convolved = tf.nn.conv2d(images, kernel, strides=1, padding="SAME")
            loss = tf.reduce_sum(tf.exp(-convolved))
        return tf.reduce_sum(convolved), tape.gradient(loss, kernel)

    with tf.device("/GPU:0" if gpus else "/CPU:0"):
        total, gradient = tf.function(step, jit_compile=True)(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 2)))
        noise = tf.random.stateless_normal((8,), (1, 2)) * tf.cast(tf.range(8, dtype=tf.int64) < 4, tf.float32)
        finite = bool(tf.reduce_all(tf.math.is_finite(noise + tf.reduce_sum(gradient))))
    build = tf.sysconfig.get_build_info()
    cuda = f"CUDA {build['cuda_version']}, cuDNN {build['cudnn_version']}" if "cuda_version" in build else None
    answer = {
        "version": tf.__version__,
        "built_for": cuda,
        "gpus": [str(of.get("device_name", gpu.name)) for gpu, of in zip(gpus, details, strict=True)],
        "capabilities": [".".join(map(str, of.get("compute_capability", ()))) for of in details],
        "sum": float(total) if finite else "NaN",
    }
    print(json.dumps(answer))


# Data


def data_report(path: Path) -> DataReport:
    """Whether a data set is whole, as far as its files' presence and the hash of one shard say."""
    data = DataDir(path)
    manifest = None
    try:
        manifest = data.manifest()
        names = [*manifest.sidecars, *(shard.file for shard in manifest.shards)]
        if missing := [name for name in names if not (data.path / name).exists()]:
            return DataReport(
                manifest=manifest,
                problem=f"{len(missing)} of the {len(names)} files of {data.path} are missing, {missing[0]} first",
            )
        for shard in manifest.shards[:1]:
            if sha256_of_file(data.path / shard.file) != shard.sha256:
                return DataReport(
                    manifest=manifest,
                    problem=f"{data.path / shard.file} is damaged: its SHA-256 is not the manifest's",
                )
    except (UserError, OSError) as error:
        return DataReport(manifest=manifest, problem=str(error))
    return DataReport(manifest=manifest, problem=None)


if __name__ == "__main__":
    compute_with_tensorflow()
