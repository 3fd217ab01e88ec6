"""Arrow IPC streams: files that are valid up to their last whole batch of rows, also after a kill."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa


def read_stream(path: Path) -> pa.Table | None:
    """The rows up to the last whole batch; None if there is no such file or not one whole batch in it."""
    batches: list[pa.RecordBatch] = []
    with contextlib.suppress(OSError, pa.ArrowInvalid), path.open("rb") as file:
        for batch in pa.ipc.open_stream(file):
            batches.append(batch)
    return pa.Table.from_batches(batches) if batches else None
