"""Arrays that need not fit into memory, block by block."""

from __future__ import annotations

from collections.abc import Iterator

ROWS_PER_BLOCK = 8192
"""Images of 256 latent components: 16 MiB in float64."""


def blocks(num_rows: int) -> Iterator[slice]:
    """Slices that cover the rows 0 ... num_rows - 1 in order."""
    for start in range(0, num_rows, ROWS_PER_BLOCK):
        yield slice(start, min(start + ROWS_PER_BLOCK, num_rows))
