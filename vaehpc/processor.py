"""What Linux says of this machine's processor."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of x86, and of ARM."""


def cpu_model() -> str:
    """The processor's name, which bitwise equality depends on."""
    names = _values("model name")
    return names[0] if names else platform.machine()


def computes_bfloat16() -> bool:
    """Whether the processor has units for bfloat16; without, TensorFlow emulates it, ten times slower than float32."""
    flags = [*_values("flags"), *_values("Features")]
    return bool(flags) and not BFLOAT16_FLAGS.isdisjoint(flags[0].split())


def _values(key: str) -> list[str]:
    """Of each core."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key]
