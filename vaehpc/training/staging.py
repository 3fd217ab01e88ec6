"""Training shards on a node's own disk: copied once by the first task that comes, then shared by all of the node."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.schema.results import Shard
from vaehpc.study.files import DataDir, gigabytes, written_aside

logger = logging.getLogger(__name__)

SCRATCH_VARIABLES = ("VAEHPC_SCRATCH", "SLURM_TMPDIR")
"""Environment variables that may name a folder on the node's own disk; the first that is set counts."""
CHUNK_BYTES = 2**24
STALE_SECONDS = 60.0
"""A claim that was not renewed for so long is of a task that was killed."""
POLL_SECONDS = 0.5


def staged(data: DataDir, data_sha256: str, shards: Sequence[Shard]) -> Path:
    """The folder to read shards from: one on the node's own disk, or the data's, where there is none with room.

    Args:
        data: where the shards lie for all nodes.
        data_sha256: of the data set; its copy is kept for later tasks, as long as the site keeps the folder.
        shards: what is needed. Each is compared with its SHA-256 while it is copied.
    """
    scratch = next((os.environ[name] for name in SCRATCH_VARIABLES if os.environ.get(name)), None)
    if scratch is None:
        return data.path
    folder = Path(scratch) / f"vaehpc-{data_sha256[:16]}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else")
        missing = [data.path / shard.file for shard in shards if not (folder / shard.file).exists()]
        needed, free = sum(path.stat().st_size for path in missing), shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(f"{folder} has {gigabytes(free)} free, they need {gigabytes(needed)}")
        for shard in shards:
            _copy_once(data.path / shard.file, folder / shard.file, shard.sha256)
    except (OSError, UserError) as problem:
        logger.warning("shards are read from %s, not from the node's own disk: %s", data.path, problem)
        return data.path
    return folder


def _copy_once(source: Path, target: Path, sha256: str) -> None:
    """Copy the file, or wait until another task of the node has."""
    claim = target.with_name(f".{target.name}.claim")
    while not target.exists():
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            if _age(claim) > STALE_SECONDS:
                claim.unlink(missing_ok=True)  # two tasks that do so at once both copy, which harms nothing
            else:
                time.sleep(POLL_SECONDS)
            continue
        try:
            _copy(source, target, sha256, claim)
        finally:
            claim.unlink(missing_ok=True)


def _age(claim: Path) -> float:
    """Seconds since it was renewed; 0 if it is gone."""
    try:
        return time.time() - claim.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _copy(source: Path, target: Path, sha256: str, claim: Path) -> None:
    found = hashlib.sha256()
    with written_aside(target) as aside, source.open("rb") as original, aside.open("wb") as copy:
        while chunk := original.read(CHUNK_BYTES):
            copy.write(chunk)
            found.update(chunk)
            claim.touch()
        if found.hexdigest() != sha256:
            raise UserError(f"{source} has not the hash of the manifest: it is damaged")
