"""Arrays that need not fit into memory, block by block."""

from __future__ import annotations

from collections.abc import Iterator

ROWS_PER_BLOCK = 8192
"""Images of 256 latent components: 16 MiB in float64."""


def blocks(num_rows: int, rows_per_block: int = ROWS_PER_BLOCK) -> Iterator[slice]:
    """Slices that cover the rows 0 ... num_rows - 1 in order."""
    for start in range(0, num_rows, rows_per_block):
        yield slice(start, min(start + rows_per_block, num_rows))
