"""The processor and the GPUs of this machine, as Linux and nvidia-smi describe them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
RUNS_ON_GPU = "VAEHPC_RUNS_ON_GPU"
"""Variable of a task's environment: how many share its GPU."""
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of x86, and of ARM."""


def cpu_model() -> str:
    """The processor's name, which bitwise equality depends on."""
    names = _values("model name")
    return names[0] if names else platform.machine()


def computes_bfloat16() -> bool:
    """Whether the processor has units for bfloat16; without, TensorFlow emulates it, ten times slower than float32."""
    return not BFLOAT16_FLAGS.isdisjoint(instruction_sets().split())


def instruction_sets() -> str:
    """What the processor can do, as Linux lists it: 'fpu vme ... avx2 ...'. Its model's name may hide the model."""
    return next(iter([*_values("flags"), *_values("Features")]), "")


def _values(key: str) -> list[str]:
    """Of each core."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key]


def visible_gpus() -> list[str]:
    """Those that CUDA_VISIBLE_DEVICES names; without it, the numbers of those that nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    listed = [line for line in _nvidia_smi("-L") if line.startswith("GPU ")]
    return [str(number) for number in range(len(listed))]


def gpu_name(gpu: str | None = None) -> str:
    """Of the GPU that CUDA_VISIBLE_DEVICES would name so, or of the first one; 'GPU' where nobody knows."""
    return next(iter(_asked("name", gpu)), "GPU")


def gpu_driver() -> str | None:
    """Version of the driver of the first GPU that this process sees; None where there is none, or nobody knows."""
    return next(iter(_asked("driver_version", None)), None)


def gpu_memory() -> int:
    """Bytes of memory of the first GPU that this process sees; 0 where there is none."""
    mebibytes = next(iter(_asked("memory.total", None)), "")
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 0


def _asked(field: str, gpu: str | None) -> list[str]:
    chosen = gpu or next(iter(visible_gpus()), None)
    return _nvidia_smi(f"--query-gpu={field}", "--format=csv,noheader,nounits", f"--id={chosen}") if chosen else []


def _nvidia_smi(*options: str) -> list[str]:
    """The lines it prints; none where it is not installed or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    said = subprocess.run(["nvidia-smi", *options], capture_output=True, text=True, check=False)
    return [] if said.returncode else [line.strip() for line in said.stdout.splitlines()]


def has_slurm() -> bool:
    """Whether this machine can submit."""
    return shutil.which("sbatch") is not None
