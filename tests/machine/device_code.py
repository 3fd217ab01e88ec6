"""Kinds of GPU that a library has code for, read from its file: it takes neither a GPU nor CUDA's tools."""

import mmap
import struct
from pathlib import Path

CONTAINER = struct.Struct("<IHHQ")
"""Of 'fat' binaries: magic number, version 1, bytes of this header, bytes of the entries behind it."""
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, CONTAINER.size)
ENTRY = struct.Struct("<HHIQ12xI")
"""Kind (1: PTX, 2: machine code), version, bytes of this header and of the code behind it; 75: capability 7.5."""


def device_code(library: Path) -> dict[str, set[int]]:
    """Compute capabilities, 75 for 7.5, for which there is machine code ('sm'), and PTX, which drivers compile."""
    found: dict[str, set[int]] = {"sm": set(), "ptx": set()}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(MAGIC)
        while start >= 0:
            place = start + CONTAINER.size
            end = place + CONTAINER.unpack_from(content, start)[3]
            while place < end:
                kind, _, header, size, capability = ENTRY.unpack_from(content, place)
                found["ptx" if kind == 1 else "sm"].add(capability)
                place += header + size
            start = content.find(MAGIC, end)
    return found


def serves(code: dict[str, set[int]], capability: int) -> bool:
    """Whether a GPU runs it: machine code of its generation, not newer than itself, or PTX that is not newer."""
    generation = capability // 10
    runs = any(sm // 10 == generation and sm <= capability for sm in code["sm"])
    return runs or any(ptx <= capability for ptx in code["ptx"])
