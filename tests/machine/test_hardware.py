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
  -L) printf 'GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb Device 0\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n' ;;
  "--query-gpu=name --format=csv,noheader,nounits --id=1") echo NVIDIA A100 ;;
  "--query-gpu=name --format=csv,noheader,nounits --id=0") echo NVIDIA H200 ;;
  "--query-gpu=memory.total --format=csv,noheader,nounits --id=0") echo 143771 ;;
  "--query-gpu=memory.total --format=csv,noheader,nounits --id=1") echo '[N/A]' ;;
  "--query-gpu=driver_version --format=csv,noheader,nounits --id=0") echo 550.54.15 ;;
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
    assert hardware.visible_gpus() == ["0", "1"]
    assert (hardware.gpu_name(), hardware.gpu_name("1")) == ("NVIDIA H200", "NVIDIA A100")
    assert hardware.gpu_memory() == 143771 * 2**20
    assert hardware.gpu_driver() == "550.54.15"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware.visible_gpus() == ["1"]
    assert hardware.gpu_name() == "NVIDIA A100"
    assert hardware.gpu_memory() == 0  # not known
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert (hardware.gpu_name(), hardware.gpu_driver()) == ("GPU", None)


def test_no_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (hardware.visible_gpus(), hardware.gpu_name(), hardware.gpu_memory()) == ([], "GPU", 0)


def test_submitting_needs_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not hardware.has_slurm()
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert hardware.has_slurm()


@pytest.mark.parametrize(
    ("units", "gpus", "precision", "warned"),
    [
        (False, 0, "mixed_bfloat16", True),
        (True, 0, "mixed_bfloat16", False),
        (False, 1, "mixed_bfloat16", False),
        (False, 0, "float32", False),
    ],
)
def test_a_launch_warns_of_emulated_bfloat16(
    monkeypatch: pytest.MonkeyPatch, units: bool, gpus: int, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(launch, "computes_bfloat16", lambda: units)
    monkeypatch.setattr(launch, "visible_gpus", lambda: ["0"] * gpus)
    console = Console(file=io.StringIO(), width=200)
    launch.say_what_is_emulated(in_precision(precision), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("no units for bfloat16: vae-tiny will train" in said) is warned
    assert bool(said) is warned


def in_precision(precision: str) -> StudyConfig:
    settings = Settings.model_validate({"train": {"precision": precision}})
    return planned_study("one", "demo", data_config(), configured_arms(named_arms(["vae-tiny"]), settings), range(1))
