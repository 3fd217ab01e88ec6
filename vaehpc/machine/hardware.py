"""The processor and the GPUs of this machine, as Linux and nvidia-smi describe them."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vaehpc.machine import variables

CPUINFO = Path("/proc/cpuinfo")
RUNS_ON_GPU = "VAEHPC_RUNS_ON_GPU"
"""Variable of a task's environment: how many share its GPU."""
NVIDIA = Path("/proc/driver/nvidia")
"""What the driver's kernel module says, also where nvidia-smi is not installed."""
SMI_SECONDS = 30.0
"""A GPU that has failed makes nvidia-smi hang."""
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")
"""In CUDA_VISIBLE_DEVICES."""
NEEDED_GPUS = "VAEHPC_GPUS"
"""Environment variable: how many GPUs a training must see; 0: the CPU is meant; not set: it takes what it sees."""
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


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver lists it, or a part of one."""

    number: int
    """Of the whole GPU."""
    name: str
    """'NVIDIA H200'; of a part 'NVIDIA H200 MIG 1g.18gb'."""
    uuid: str
    """'GPU-8932f937-...', 'MIG-...': the same whatever else a process sees, also through NVIDIA's MPS."""


def listed_gpus() -> list[Gpu]:
    """All GPUs of this machine, by nvidia-smi or else by the driver's files; of one that is divided its parts."""
    found: list[Gpu] = []
    whole = None
    for line in _nvidia_smi("-L"):
        if named := re.match(r"GPU (\d+): (.*?) \(UUID: (GPU-[^)]*)\)", line):
            whole = Gpu(int(named[1]), named[2], named[3])
            found.append(whole)
        elif whole and (part := re.match(r"MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]*)\)", line)):
            found = [gpu for gpu in found if gpu != whole]
            found.append(Gpu(whole.number, f"{whole.name} MIG {part[1]}", part[2]))
    return found or _gpus_of_driver()


def _gpus_of_driver() -> list[Gpu]:
    """As the driver's kernel module describes them, in the order of their places on the bus."""
    files = sorted(NVIDIA.glob("gpus/*/information"))
    each = [dict(line.partition(":")[::2] for line in file.read_text().splitlines()) for file in files]
    return [
        Gpu(number, values.get("Model", "GPU").strip(), values.get("GPU UUID", "").strip())
        for number, values in enumerate(each)
    ]


def gpu_variable() -> str:
    """The environment variable that names this process's GPUs: the one that is set, else NVIDIA's."""
    return next((name for name in variables.GPUS if name in os.environ), variables.GPUS[0])


def visible_gpus() -> list[str]:
    """Those that CUDA_VISIBLE_DEVICES, or AMD's variable, names; without it, the UUIDs of those that the driver lists.

    As CUDA does, up to the first that is no name: none of '-1', 'NoDevFiles', 'void', 'none' or '', one of '0,-1,1'.
    """
    visible = os.environ.get(gpu_variable())
    return [gpu.uuid or str(gpu.number) for gpu in listed_gpus()] if visible is None else named_gpus(visible)


def named_gpus(visible: str) -> list[str]:
    """Those that such a CUDA_VISIBLE_DEVICES names."""
    return list(itertools.takewhile(GPU_NAME.fullmatch, (name.strip() for name in visible.split(","))))


def _listed(gpu: str | None) -> Gpu | None:
    """What the driver knows of the GPU that CUDA_VISIBLE_DEVICES would name so; None: of the first one."""
    chosen = gpu or next(iter(visible_gpus()), None)
    if chosen is None:
        return None
    return next((each for each in listed_gpus() if str(each.number) == chosen or each.uuid.startswith(chosen)), None)


def gpu_name(gpu: str | None = None) -> str:
    """Of the GPU that CUDA_VISIBLE_DEVICES would name so, or of the first one; 'GPU' where nobody knows."""
    found = _listed(gpu)
    return "GPU" if found is None else found.name


def gpu_uuid(gpu: str) -> str:
    """Of the GPU that CUDA_VISIBLE_DEVICES would name so; where nobody knows, as it is."""
    found = _listed(gpu)
    return found.uuid if found is not None and found.uuid else gpu


def seen_by_task(gpu: str | None, runs_on_gpu: int = 1) -> dict[str, str]:
    """Environment of a task that is to see, and to use, this GPU alone; '': none; None: what this process sees.

    So many tasks share it.
    """
    own = (
        {}
        if gpu is None
        else {gpu_variable(): gpu, NEEDED_GPUS: "1" if gpu and os.environ.get(NEEDED_GPUS) != "0" else "0"}
    )
    return {**own, RUNS_ON_GPU: str(runs_on_gpu)}


def gpu_driver() -> str | None:
    """Version of the driver of the GPUs that this process sees; None where there is none, or nobody knows."""
    if not visible_gpus():
        return None
    module = NVIDIA / "version"
    of_module = re.findall(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", module.read_text() if module.exists() else "")
    return next(iter([*_queried("driver_version"), *of_module]), None)


def gpu_memory() -> int:
    """Bytes of memory of the first GPU, or part of one, that this process sees; 0 where nobody knows."""
    found = _listed(None)
    if found is None:
        return 0
    if part := re.search(r"MIG .*?(\d+)gb", found.name):
        return int(part[1]) * 10**9
    mebibytes = next(iter(_queried("memory.total", f"--id={found.uuid or found.number}")), "")
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 0


def _queried(field: str, *options: str) -> list[str]:
    return _nvidia_smi(f"--query-gpu={field}", "--format=csv,noheader,nounits", *options)


def _nvidia_smi(*options: str) -> list[str]:
    """The lines it prints; none where it is not installed, fails, or hangs."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        said = subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, check=True, timeout=SMI_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines()]


def has_slurm() -> bool:
    """Whether this machine can submit."""
    return shutil.which("sbatch") is not None
