"""What is read of processor, GPUs and PATH, and what a launch says of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.examples import data_config
from vaehpc import launch
from vaehpc.machine import hardware
from vaehpc.schema.config import StudyConfig
from vaehpc.study.presets import Settings, configured_arms, named_arms
from vaehpc.study.study import planned_study

GENOA = "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu sse2 avx2 avx512_bf16 vaes\n\n"
MILAN = "processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu sse2 avx2 vaes\n\n"
GRACE = "processor\t: 0\nFeatures\t: fp asimd bf16 sve2\nCPU part\t: 0xd4f\n\n"


@pytest.mark.parametrize(("cpuinfo", "computes"), [(GENOA, True), (MILAN, False), (GRACE, True), ("", False)])
def test_bfloat16_units_are_seen_in_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, computes: bool
) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    hardware.CPUINFO.write_text(2 * cpuinfo)
    assert hardware.computes_bfloat16() is computes


def test_the_model_is_named_where_linux_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.cpu_model()  # the architecture
    hardware.CPUINFO.write_text(2 * MILAN)
    assert hardware.cpu_model() == "AMD EPYC 7763"


NVIDIA_SMI = """#!/bin/sh
case "$*" in
  -L)
    echo "GPU 0: NVIDIA H200 (UUID: GPU-1f)"
    echo "GPU 1: NVIDIA A100 (UUID: GPU-2a)"
    echo "GPU 2: NVIDIA A100 (UUID: GPU-3b)"
    echo "  MIG 1g.5gb      Device  0: (UUID: MIG-aa)"
    echo "  MIG 3g.20gb     Device  1: (UUID: MIG-bb)" ;;
  "--query-gpu=memory.total --format=csv,noheader,nounits --id=GPU-1f") echo 143771 ;;
  "--query-gpu=memory.total --format=csv,noheader,nounits --id=GPU-2a") echo '[N/A]' ;;
  "--query-gpu=driver_version --format=csv,noheader,nounits") echo 550.54.15; echo 550.54.15 ;;
  *) echo "wrong: $*"; exit 6 ;;
esac
"""


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as its nvidia-smi describes it."""
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("gpus")
def test_gpus_are_those_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.visible_gpus() == ["GPU-1f", "GPU-2a", "MIG-aa", "MIG-bb"]
    assert (hardware.gpu_name(), hardware.gpu_name("1")) == ("NVIDIA H200", "NVIDIA A100")
    assert [hardware.gpu_uuid(gpu) for gpu in ("1", "GPU-2", "2", "MIG-bb")] == ["GPU-2a", "GPU-2a", "MIG-aa", "MIG-bb"]
    assert hardware.gpu_memory() == 143771 * 2**20
    assert hardware.gpu_driver() == "550.54.15"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware.visible_gpus() == ["1"]
    assert hardware.gpu_name() == "NVIDIA A100"
    assert hardware.gpu_memory() == 0  # not known
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bb")
    assert (hardware.gpu_name(), hardware.gpu_memory()) == ("NVIDIA A100 MIG 3g.20gb", 20 * 10**9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert (hardware.gpu_name(), hardware.gpu_uuid("7"), hardware.gpu_memory()) == ("GPU", "7", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.gpu_driver() is None


INFORMATION = """Model:           {name}
IRQ:             64
GPU UUID:        {uuid}
Bus Location:    0000:07:00.0
Device Minor:    0
"""
MODULE = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.42.06  Release Build  (root@host)
GCC version:  gcc version 12.2.0
"""


def test_without_nvidia_smi_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that has no more of the host than the driver's libraries."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "NVIDIA", tmp_path)
    for place, name, uuid in (("0000:47:00.0", "NVIDIA A100", "GPU-2a"), ("0000:07:00.0", "NVIDIA H200", "GPU-1f")):
        (tmp_path / "gpus" / place).mkdir(parents=True)
        (tmp_path / "gpus" / place / "information").write_text(INFORMATION.format(name=name, uuid=uuid))
    (tmp_path / "version").write_text(MODULE)
    assert hardware.visible_gpus() == ["GPU-1f", "GPU-2a"]
    assert (hardware.gpu_name("1"), hardware.gpu_driver()) == ("NVIDIA A100", "555.42.06")


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("2,0", ["2", "0"]),
        ("0,-1,1", ["0"]),  # CUDA stops at the first that is none
        ("-1", []),
        ("NoDevFiles", []),  # Slurm, where a job has none
        ("void", []),
        ("none", []),
        ("", []),
        (" GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, GPU-8f", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8f"]),
        ("MIG-GPU-8932f937/1/0,MIG-c7384736", ["MIG-GPU-8932f937/1/0", "MIG-c7384736"]),
    ],
)
def test_names_are_read_as_cuda_reads_them(visible: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.visible_gpus() == gpus


def test_no_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "NVIDIA", tmp_path)
    assert (hardware.visible_gpus(), hardware.gpu_name(), hardware.gpu_memory()) == ([], "GPU", 0)


def test_submitting_needs_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not hardware.has_slurm()
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert hardware.has_slurm()


@pytest.mark.parametrize(
    ("units", "precision", "warned"),
    [(False, "mixed_bfloat16", True), (True, "mixed_bfloat16", False), (False, "float32", False)],
)
def test_a_launch_warns_of_emulated_bfloat16(
    monkeypatch: pytest.MonkeyPatch, units: bool, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(launch, "computes_bfloat16", lambda: units)
    console = Console(file=io.StringIO(), width=200)
    launch.say_what_is_emulated(in_precision(precision), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("no units for bfloat16: vae-tiny will train" in said) is warned
    assert bool(said) is warned


def in_precision(precision: str) -> StudyConfig:
    settings = Settings.model_validate({"train": {"precision": precision}})
    return planned_study("one", "demo", data_config(), configured_arms(named_arms(["vae-tiny"]), settings), range(1))
