"""Arrow IPC streams: files that are valid up to their last whole batch of rows, also after a kill.

Each batch has a checksum, because a file that still grows has no hash, and Arrow has none of its own.
"""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import pyarrow as pa

from vaehpc.study.files import opened

logger = logging.getLogger(__name__)


CHECKSUM, IDENTITY = b"crc32", b"identity"
"""In the metadata of a batch, and of a schema: of which run it is. Files of 0.2.0 have neither."""


def write_rows(stream: pa.RecordBatchStreamWriter, rows: pa.Table) -> None:
    """Append rows, a batch for each chunk, with their checksums."""
    for batch in rows.to_batches():
        stream.write_batch(batch, custom_metadata={CHECKSUM: _checksum(batch)})


def _checksum(batch: pa.RecordBatch) -> bytes:
    columns = zlib.crc32(batch.schema.remove_metadata().serialize())
    return b"%08x" % zlib.crc32(batch.serialize(), columns)


def read_stream(path: Path, sha256: str | None = None, identity: str | None = None) -> pa.Table | None:
    """The rows up to the last whole batch; None if there is no such file or not one whole batch in it.

    Args:
        path: of the file.
        sha256: of what was written; None: that is not known. Of a file with another nothing is believed.
        identity: of the run; None: that is not known. Nor is a file of another run believed.
    """
    batches: list[pa.RecordBatch] = []
    try:
        with opened(path, sha256) as file, pa.ipc.open_stream(file) as stream:
            if identity and (stream.schema.metadata or {}).get(IDENTITY, identity.encode()) != identity.encode():
                raise pa.ArrowInvalid("it is of another run, or of other settings")
            while True:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                batch.validate(full=True)
                if metadata and metadata.get(CHECKSUM) not in (None, _checksum(batch)):
                    raise pa.ArrowInvalid("its values are not those that were written")
                batches.append(batch)
    except StopIteration:
        pass
    except FileNotFoundError:
        if sha256 is not None:
            logger.warning("%s is not there any more", path)
    except (OSError, MemoryError, pa.ArrowException) as error:
        logger.warning("%s is cut off or damaged: %s", path, getattr(error, "strerror", None) or error)
    return pa.Table.from_batches(batches) if batches else None
