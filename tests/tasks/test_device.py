"""What a training computes on, with a TensorFlow that sees other GPUs than this machine has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from vaehpc.command import HopelessError, UserError
from vaehpc.machine import served
from vaehpc.schema.config import Precision, TrainConfig
from vaehpc.study.files import StudyDir
from vaehpc.tasks import device
from vaehpc.tasks.device import configure_tensorflow, kept_programs
from vaehpc.tasks.visit import parsed_tensorflow

tf.config.threading.set_intra_op_parallelism_threads(1)  # refused once a test has started TensorFlow
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def own_switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(device.NEEDED_GPUS, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


class FakeGpu:
    """A TensorFlow that sees one GPU of this kind, and what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], driver: str = "560.0") -> None:
        self.visible: list[str] | None = None
        self.name = "NVIDIA A100" if capability == (8, 0) else "NVIDIA T4"

        def set_visible_devices(devices: list[str], kind: str) -> None:
            assert kind == "GPU"
            self.visible = devices

        told: dict[str, Any] = {
            "list_physical_devices": lambda _: ["gpu"],
            "set_visible_devices": set_visible_devices,
            "experimental.set_memory_growth": lambda *_: None,
            "experimental.enable_op_determinism": lambda: None,
            "experimental.get_device_details": lambda _: {"device_name": self.name, "compute_capability": capability},
        }
        for name, value in told.items():
            monkeypatch.setattr(f"tensorflow.config.{name}", value)
        monkeypatch.setattr(device, "gpu_driver", lambda: driver)


@pytest.mark.parametrize("precision", ["float32", "tf32", "mixed_bfloat16", "mixed_float16"])
def test_the_switch_is_as_the_precision_is_called(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (8, 0))
    found = configure_tensorflow(TrainConfig(precision=precision))
    assert (found.name, found.kind, found.driver, found.capability) == ("NVIDIA A100", "gpu", "560.0", "8.0")
    assert found.tensor_float_32 == tf.config.experimental.tensor_float_32_execution_enabled() == (precision == "tf32")


@pytest.mark.parametrize(("precision", "highest"), [("float32", True), ("tf32", False)])
def test_compiled_programs_ask_for_the_highest_precision_where_float32_is_promised(
    precision: Precision, highest: bool
) -> None:
    """XLA computes a product in TF32 unless its program says so; that is read here, on a CPU, too."""
    configure_tensorflow(TrainConfig(precision=precision))

    @tf.function(jit_compile=True)
    def products(images: tf.Tensor, kernel: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        convolved = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tf.reshape(convolved, (len(images), -1)) @ matrix

    arguments = (tf.ones((2, 4, 4, 3)), tf.ones((3, 3, 3, 2)), tf.ones((32, 5)))
    program = products.experimental_get_compiler_ir(*arguments)(stage="hlo")
    lines = [line for line in program.splitlines() if re.search(r" (convolution|dot)\(", line)]
    assert len(lines) == 2
    assert {"operand_precision={highest,highest}" in line for line in lines} == {highest}


def test_a_gpu_that_lacks_what_the_precision_needs_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, (7, 5))
    with pytest.raises(HopelessError, match=r"NVIDIA T4 \(compute capability 7\.5\) has no units for mixed_bfloat16"):
        configure_tensorflow(TrainConfig(precision="mixed_bfloat16"))
    assert configure_tensorflow(TrainConfig(precision="mixed_float16")).capability == "7.5"
    FakeGpu(monkeypatch, (8, 0), driver="470.82.01")
    with pytest.raises(HopelessError, match=r"driver 470\.82\.01 of NVIDIA A100"):
        configure_tensorflow(TrainConfig())


def test_the_cpu_can_be_meant_although_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, (7, 5))
    monkeypatch.setenv(device.NEEDED_GPUS, "0")
    assert configure_tensorflow(TrainConfig()).kind == "cpu"
    assert gpu.visible == []


def test_fewer_gpus_than_were_asked_for_are_an_error_that_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.NEEDED_GPUS, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match=r"^TensorFlow sees 0 of 1 GPUs on .*: tensorflow-cpu is installed") as refused:
        configure_tensorflow(TrainConfig())
    assert not isinstance(refused.value, HopelessError), "another node may be sound"
    assert "launch --device cpu" in str(refused.value)
    said = "W tsl/dso_loader.cc] Could not load dynamic library 'libcudnn.so.9'; dlerror: no such file\n"
    monkeypatch.setattr(device, "tensorflow_report", lambda: parsed_tensorflow("", said, None))
    with_gpus = device.provenance().model_copy(update={"packages": {"tensorflow": "2.21.0"}})
    monkeypatch.setattr(device, "provenance", lambda: with_gpus)
    with pytest.raises(UserError, match=r"libcudnn\.so\.9 cannot be loaded.*containers/locks/train-gpu\.txt"):
        configure_tensorflow(TrainConfig())
    monkeypatch.setattr(served.platform, "machine", lambda: "aarch64")
    with pytest.raises(HopelessError, match=r"^this is an Arm node \(aarch64\)"):
        configure_tensorflow(TrainConfig())


@pytest.mark.parametrize(
    ("study", "before", "after"),
    [
        ("s", "", " --tf_xla_persistent_cache_directory='{jobs}/programs-[0-9a-f]+'"),
        (
            "s",
            "--tf_xla_auto_jit=1",
            "--tf_xla_auto_jit=1 --tf_xla_persistent_cache_directory='{jobs}/programs-[0-9a-f]+'",
        ),
        ("s", "--tf_xla_persistent_cache_directory=own", "--tf_xla_persistent_cache_directory=own"),
        ("o'clock", "", ""),
    ],
)
def test_programs_are_kept_where_tensorflow_is_told(
    study: str, before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", before)
    with kept_programs(StudyDir(tmp_path / study)):
        assert re.fullmatch(after.format(jobs=tmp_path / study / "jobs"), os.environ["TF_XLA_FLAGS"])
    assert os.environ["TF_XLA_FLAGS"] == before


def test_programs_are_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask: TensorFlow runs what lies there."""
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    study, before = StudyDir(tmp_path / "s"), os.umask(0)
    try:
        with kept_programs(study):
            pass
    finally:
        os.umask(before)
    (folder,) = study.jobs.iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (study.jobs, folder)] == ["0o755", "0o700"]
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with kept_programs(study):
        assert os.environ["TF_XLA_FLAGS"] == ""


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    (tmp_path / "jobs").write_text("a file, in which even root makes no folder")
    with kept_programs(StudyDir(tmp_path)):
        assert os.environ["TF_XLA_FLAGS"] == ""


@pytest.mark.parametrize(("message", "is_kept"), [("out of memory", True), ("cannot parse {folder}/a.pb", False)])
def test_only_an_error_that_names_the_folder_removes_it(
    message: str, is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory, one run would take the programs of all others away."""
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    with pytest.raises(tf.errors.ResourceExhaustedError), kept_programs(StudyDir(tmp_path)):  # noqa: PT012
        (folder,) = (tmp_path / "jobs").glob("programs-*")
        raise tf.errors.ResourceExhaustedError(None, None, message.format(folder=folder))
    assert folder.exists() is is_kept
