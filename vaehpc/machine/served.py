"""Which GPUs the lock train-gpu serves, in which precision. What it does not serve is refused by name."""

from __future__ import annotations

import platform
import re

OLDEST, NEWEST = (7, 0), (9, 0)
"""Compute capabilities: before 7.0 there are no units for half precision. TensorFlow's wheel has no code for 10.0,
whose drivers refuse what it brings to compile for it (tensorflow issues 99592 and 101746)."""
WITH_BFLOAT16 = (8, 0)
"""And with TF32: the first compute capability that has units for them."""
LEAST_DRIVER = (525, 60, 13)
"""Of CUDA 12."""
LEAST_DRIVER_OF_HOPPER = (555, 42, 2)
"""For 9.0 a thousand of TensorFlow's kernels have only PTX of CUDA 12.5, which older drivers do not compile."""


def unusable(gpu: str, capability: str | None, driver: str | None, precision: str = "float32") -> str | None:
    """Why a training in this precision cannot use a GPU, and the ways out; None: it can, as far as is known.

    Args:
        gpu: its name.
        capability: compute capability, '9.0'; None: not known.
        driver: version of its driver; None: not known.
        precision: of the training.
    """
    found = _numbers(capability)
    named = f"{gpu} (compute capability {capability})"
    if found and not OLDEST <= found <= NEWEST:
        older = "older" if found < OLDEST else "newer"
        return (
            f"{named} is {older} than what the lock train-gpu has code for, {_text(OLDEST)} (V100) to {_text(NEWEST)}"
            " (H100, H200): ask for another kind with gpu_type or constraint in [slurm], or train on processors"
        )
    least = LEAST_DRIVER_OF_HOPPER if found >= NEWEST else LEAST_DRIVER
    if driver is not None and _numbers(driver) < least:
        return (
            f"driver {driver} of {named} is too old for the lock train-gpu, which needs {_text(least)} or newer there:"
            " ask the cluster's staff, or for another kind of GPU with gpu_type or constraint in [slurm]"
        )
    if found and found < WITH_BFLOAT16 and precision in ("mixed_bfloat16", "tf32"):
        others = "mixed_float16 or float32" if precision == "mixed_bfloat16" else "float32"
        return (
            f"{named} has no units for {precision}, which take {_text(WITH_BFLOAT16)} (A100) or newer: launch with"
            f" --train.precision {others} and another --study, or ask for another kind of GPU"
        )
    return None


def unserved_machine() -> str | None:
    """Why this machine cannot train on a GPU with the lock, whatever GPU it has; None: it can."""
    if (machine := platform.machine()) == "x86_64":
        return None
    name = "an Arm node" if machine in ("aarch64", "arm64") else "a node"
    return (
        f"this is {name} ({machine}), for which TensorFlow's wheels have no GPU code: train on GPU nodes with x86_64"
        " processors, or on processors alone (launch --device cpu)"
    )


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version or "")))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(f"{part:02}" if place == 2 else str(part) for place, part in enumerate(version))
