"""What is concluded from a machine's report, above all why TensorFlow has no GPU."""

from typing import Any

import pytest

from vaehpc.checks.machine import (
    capacity_finding,
    data_finding,
    environment_finding,
    local_gpu_finding,
    python_findings,
    tensorflow_findings,
    version_finding,
)
from vaehpc.schema.results import Manifest, Preprocessing, Shard, Split
from vaehpc.schema.site import JobConfig
from vaehpc.study.sites import job_config
from vaehpc.tasks.visit import DataReport, MachineReport, TensorflowReport

GPU_PACKAGES = {"vaehpc": "0.1.0", "submitit": "1.5.4", "tensorflow": "2.21.0"}
CPU_PACKAGES = {"vaehpc": "0.1.0", "submitit": "1.5.4", "tensorflow-cpu": "2.21.0"}


def tensorflow(**changes: Any) -> TensorflowReport:
    report = TensorflowReport(version="2.21.0", gpus=(), missing_libraries=(), driver_error=None, error=None)
    return report.model_copy(update=changes)


def machine(report: TensorflowReport | None = None, **changes: Any) -> MachineReport:
    values: dict[str, Any] = {
        "host": "g1",
        "python": "3.11.2",
        "executable": "/env/bin/python",
        "packages": GPU_PACKAGES,
        "unmet": (),
        "encoding": "UTF-8",
        "environment": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"},
        "processors": 4,
        "memory_bytes": 64 * 10**9,
        "nvidia_smi": ("NVIDIA H100, 550.54, 81559 MiB",),
        "tensorflow": report,
    }
    return MachineReport(**values | changes)


# Python


def test_python_and_its_packages() -> None:
    right = python_findings(machine(), "train-gpu", "on g1")
    assert [finding.ok for finding in right] == [True, True]
    assert right[0].found == "Python 3.11.2, vaehpc 0.1.0: /env/bin/python"
    _, packages = python_findings(machine(unmet=("numpy>=2.1 is not installed",)), "train-gpu", "on g1")
    assert (packages.ok, packages.found) == (False, "numpy>=2.1 is not installed")
    assert packages.remedy == "/env/bin/python -m pip install --require-hashes -r containers/locks/train-gpu.txt"


def test_another_encoding_is_wrong() -> None:
    assert python_findings(machine(encoding="ANSI_X3.4-1968"), "launcher", "here")[-1].ok is False


def test_versions_must_agree_but_for_pythons_last_number() -> None:
    assert version_finding(machine(python="3.11.9"), machine()).ok
    found = version_finding(machine(python="3.12.1", packages=GPU_PACKAGES | {"vaehpc": "0.2.0"}), machine())
    assert (found.ok, found.found) == (False, "vaehpc 0.2.0 here, 0.1.0 there; Python 3.12 here, 3.11 there")


def test_environment_that_a_node_loses_is_named() -> None:
    assert environment_finding(machine(), {"OMP_NUM_THREADS": "1"}, "on g1").ok
    found = environment_finding(machine(), {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "1"}, "on g1")
    assert (found.ok, found.found) == (False, "OMP_NUM_THREADS = 1, MKL_NUM_THREADS = nothing")


# TensorFlow


def test_tensorflow_with_its_gpu() -> None:
    found = tensorflow_findings(machine(tensorflow(gpus=("NVIDIA H100",))), 1, "on g1")
    assert [finding.ok for finding in found] == [True, True]
    assert found[1].found.startswith("NVIDIA H100; CUDA_VISIBLE_DEVICES = 0; nvidia-smi shows NVIDIA H100, 550.54")


def test_a_job_without_gpus_needs_none() -> None:
    assert [finding.ok for finding in tensorflow_findings(machine(tensorflow()), 0, "on c1")] == [True]
    assert tensorflow_findings(machine(), 0, "on c1") == []


def test_tensorflow_that_cannot_be_used_or_cannot_compute() -> None:
    (broken,) = tensorflow_findings(machine(tensorflow(version=None, error="ImportError: x")), 1, "on g1")
    assert (broken.ok, broken.found) == (False, "cannot be used: ImportError: x")
    assert "train-gpu.txt" in broken.remedy
    (wrong,) = tensorflow_findings(machine(tensorflow(error="DNN library initialization failed")), 1, "on g1")
    assert (wrong.ok, wrong.found) == (False, "2.21.0 cannot compute: DNN library initialization failed")


@pytest.mark.parametrize(
    ("report", "changes", "found", "remedy"),
    [
        (
            tensorflow(),
            {"packages": CPU_PACKAGES},
            "tensorflow-cpu is installed, which never uses one",
            "train-gpu.txt",
        ),
        (tensorflow(), {"environment": {"CUDA_VISIBLE_DEVICES": ""}}, "CUDA_VISIBLE_DEVICES = ; ", "gpu_request"),
        (tensorflow(), {"environment": {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}}, "was given no GPU", "gpu_request"),
        (tensorflow(missing_libraries=("libcuda.so.1",)), {"nvidia_smi": None}, "libcuda.so.1 is missing", "--nv"),
        (tensorflow(driver_error="CUDA_ERROR_NO_DEVICE"), {}, "CUDA_ERROR_NO_DEVICE", "exclude in [slurm]"),
        (tensorflow(missing_libraries=("libcudnn.so.9",)), {}, "libcudnn.so.9 cannot be loaded", "LD_LIBRARY_PATH"),
        (tensorflow(), {"environment": {}}, "CUDA_VISIBLE_DEVICES is not set", "read what it says"),
    ],
)
def test_why_there_is_no_gpu(report: TensorflowReport, changes: dict[str, Any], found: str, remedy: str) -> None:
    _, gpu = tensorflow_findings(machine(report, **changes), 1, "on g1")
    assert gpu.ok is False
    assert "TensorFlow sees 0 of 1" in gpu.found
    assert found in gpu.found
    assert remedy in gpu.remedy


H100 = {"gpus": ("NVIDIA H100",), "capabilities": ("9.0",)}


def test_gpus_of_this_machine() -> None:
    assert local_gpu_finding(machine(tensorflow(), nvidia_smi=None)).found == "none: runs are trained on processors"
    two = ("NVIDIA H100, 555.42, 81559 MiB",) * 2
    assert local_gpu_finding(machine(tensorflow(gpus=("NVIDIA H100",) * 2), nvidia_smi=two, given_gpus=("0", "1"))).ok
    one_of_two = local_gpu_finding(machine(tensorflow(**H100), nvidia_smi=two, given_gpus=("1",)))
    assert one_of_two.ok, "CUDA_VISIBLE_DEVICES hides the other one"
    assert local_gpu_finding(machine(tensorflow(**H100), nvidia_smi=two, given_gpus=("0", "1"))).ok is False


def test_tensorflows_own_list_comes_first() -> None:
    found = local_gpu_finding(machine(tensorflow(**H100), nvidia_smi=None))
    assert (found.ok, found.found.partition(";")[0]) == (True, "NVIDIA H100")


def test_a_gpu_that_is_given_and_not_seen_is_wrong_without_nvidia_smi_too() -> None:
    report = tensorflow(missing_libraries=("libcuda.so.1",))
    found = local_gpu_finding(machine(report, nvidia_smi=None, given_gpus=("0",)))
    assert found.ok is False
    assert "TensorFlow sees 0 of 1" in found.found
    assert "libcuda.so.1 is missing" in found.found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"driver": "550.54.15"}, "driver 550.54.15 of NVIDIA H100 (compute capability 9.0) is too old"),
        ({"unserved": "this is an Arm node (aarch64), without: train elsewhere"}, "this is an Arm node"),
    ],
)
def test_a_gpu_that_the_lock_does_not_serve_is_wrong(changes: dict[str, Any], found: str) -> None:
    _, gpu = tensorflow_findings(machine(tensorflow(**H100), **changes), 1, "on g1")
    assert gpu.ok is False
    assert found in gpu.found
    assert tensorflow_findings(machine(tensorflow(**H100), driver="555.42.06"), 1, "on g1")[1].ok


# Memory and data


def job(memory_gb: float = 16) -> JobConfig:
    return job_config("train").model_copy(update={"memory_gb": memory_gb})


def test_memory_of_this_machine() -> None:
    assert capacity_finding(machine(), job()).ok
    assert capacity_finding(machine(memory_bytes=10**9), job()).ok is False


def manifest(num_train: int) -> Manifest:
    preprocessing = Preprocessing(
        version=1, size=96, crop=128, resize="area", split="article", num_train=num_train, images_per_shard=10_000
    )
    return Manifest(
        name="CelebA",
        synthetic=False,
        num_images=202_599,
        preprocessing=preprocessing,
        splits={"train": Split(first_image=0, num_images=num_train, entropy_floor=1.0)},
        shards=(Shard(file="train-00000-of-00017.tfrecord", split="train", first_image=0, num_images=9, sha256=""),),
        sidecars={},
        sha256="",
    )


def test_how_the_data_are_fed() -> None:
    report = DataReport(manifest=manifest(170_000), problem=None)
    large, small = (data_finding(report, job(memory_gb), "here") for memory_gb in (16, 8))
    assert large.ok
    assert "170,000 of 202,599 images train, 96 x 96" in large.found
    assert "4.7 GB of pixels stay in the page cache of a training's 16 GB" in large.found
    assert "are read again in each epoch, being more than half of a training's 8 GB" in small.found


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (DataReport(manifest=manifest(9), problem="a.tfrecord is damaged"), "a.tfrecord is damaged"),
        (DataReport(manifest=None, problem="/data holds no data set"), "/data holds no data set"),
        (DataReport(manifest=manifest(1), problem=None), "fewer than 2 training images"),
    ],
)
def test_data_that_cannot_be_trained_on(report: DataReport, found: str) -> None:
    finding = data_finding(report, job(), "here")
    assert (finding.ok, finding.found) == (False, found)
