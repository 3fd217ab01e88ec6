"""Arrow IPC streams: files that are valid up to their last whole batch of rows, also after a kill."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from vaehpc.study.files import opened

logger = logging.getLogger(__name__)


def read_stream(path: Path, sha256: str | None = None) -> pa.Table | None:
    """The rows up to the last whole batch; None if there is no such file or not one whole batch in it.

    Args:
        path: of the file.
        sha256: of what was written; None: that is not known. Of a file with another nothing is believed.
    """
    batches: list[pa.RecordBatch] = []
    try:
        with opened(path, sha256) as file:
            for batch in pa.ipc.open_stream(file):
                batch.validate(full=True)
                batches.append(batch)
    except FileNotFoundError:
        pass
    except (OSError, MemoryError, pa.ArrowException) as error:
        logger.warning("%s is cut off or damaged: %s", path, getattr(error, "strerror", None) or error)
    return pa.Table.from_batches(batches) if batches else None
