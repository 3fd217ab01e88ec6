"""Training shards on a node: copied to its own disk and compared with the manifest, once, by the first task there."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vaehpc.command import UserError, gigabytes
from vaehpc.images.tfrecord import REMEDY, check_shard
from vaehpc.machine.variables import SCRATCH
from vaehpc.schema.frozen import Result
from vaehpc.schema.results import Shard
from vaehpc.study.files import DataDir, opened, read_model, write_model, written_aside

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**24
STALE_SECONDS = 60.0
"""A claim that is not renewed for so long is of a task that was killed."""
POLL_SECONDS = 0.5


def staged(data: DataDir, data_sha256: str, shards: Sequence[Shard]) -> Path:
    """The folder to read shards from: one on the node's own disk, or the data's, where there is none with room.

    Args:
        data: where the shards lie for all nodes.
        data_sha256: of the data set; its copy is kept for later tasks, as long as the site keeps the folder.
        shards: what is needed. Each is compared with its SHA-256 while it is copied.
    """
    scratch = next((os.environ[name] for name in SCRATCH if os.environ.get(name)), None)
    if scratch is None:
        return data.path
    folder = Path(scratch) / f"vaehpc-{os.getuid()}-{data_sha256[:16]}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        require_own(folder)
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


def require_own(folder: Path) -> None:
    """PermissionError if anybody else may write into this folder, or it is a link, which anybody else may have made."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that this user alone may write to")


def _copy_once(source: Path, target: Path, sha256: str) -> None:
    """Copy the file, or wait until another task of the node has."""
    claim = target.with_name(f".{target.name}.claim")
    _once(claim, target.exists, lambda: _copy(source, target, sha256, claim))


def _once(claim: Path, is_done: Callable[[], bool], work: Callable[[], None]) -> None:
    """Do the work, or wait until another task has.

    A claim that is not renewed for long is of a task that was killed, by whatever clock.
    """
    seen, since = -1, time.monotonic()
    while not is_done():
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            if (renewed := _renewed(claim)) != seen:
                seen, since = renewed, time.monotonic()
            elif time.monotonic() - since > STALE_SECONDS:
                claim.unlink(missing_ok=True)  # two tasks that do so at once both work, which harms nothing
            time.sleep(POLL_SECONDS)
            continue
        try:
            work()
        finally:
            claim.unlink(missing_ok=True)


def _renewed(claim: Path) -> int:
    """When it was, as the file system has it; 0 if it is gone."""
    try:
        return claim.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _copy(source: Path, target: Path, sha256: str, claim: Path) -> None:
    found = hashlib.sha256()
    with written_aside(target) as aside, opened(source) as original, aside.open("wb") as copy:
        while chunk := original.read(CHUNK_BYTES):
            copy.write(chunk)
            found.update(chunk)
            claim.touch()
        if found.hexdigest() != sha256:
            raise UserError(f"{source} has not the hash of the manifest: it is damaged")


# Shards that are compared with the manifest


class Checked(Result):
    """jobs/checked-NODE.json: the shards that were found whole on a node, and as which files."""

    files: dict[str, tuple[int, int, int, int, int]]
    """Device, inode, size, and times of the last change of content and of file, ns, by path."""


def require_whole(folder: Path, shards: Sequence[Shard], stamp: Path | None) -> None:
    """See that the shards in a folder are what the manifest says: once for each node and study.

    Args:
        folder: where they lie.
        shards: of the manifest.
        stamp: where the study notes what was checked on this node; the first task checks, others wait for it. None:
            every shard is read now.

    Raises:
        UserError: one is missing or damaged; names the record.
    """
    paths = {folder / shard.file: shard.sha256 for shard in shards}
    if stamp is None:
        for path, sha256 in paths.items():
            _compare(path, sha256, lambda: None)
        return
    stamp.parent.mkdir(exist_ok=True)
    claim = stamp.with_name(f".{stamp.name}.claim")

    def is_done() -> bool:
        known = _known(stamp)
        return all(known.get(str(path)) == _file(path) for path in paths)

    def check() -> None:
        known = _known(stamp)
        for path, sha256 in paths.items():
            before = _file(path)
            if known.get(str(path)) != before:
                _compare(path, sha256, claim.touch)
                known[str(path)] = before
        write_model(stamp, Checked(files=known))

    _once(claim, is_done, check)


def _known(stamp: Path) -> dict[str, tuple[int, int, int, int, int]]:
    try:
        return dict(read_model(stamp, Checked).files)
    except UserError:  # none yet; or damaged, and checked anew
        return {}


def _file(path: Path) -> tuple[int, int, int, int, int]:
    """What a file is, without reading it; UserError if it is missing."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {REMEDY}") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _compare(path: Path, sha256: str, still_alive: Callable[[], None]) -> None:
    """UserError if a shard has not this SHA-256; names the record, where one is damaged."""
    found = hashlib.sha256()
    try:
        with opened(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                found.update(chunk)
                still_alive()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {REMEDY}") from None
    if found.hexdigest() != sha256:
        check_shard(path)
        raise UserError(f"{path} is not the file that was prepared: its SHA-256 is not the manifest's. {REMEDY}")
