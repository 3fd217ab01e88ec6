"""One shard after the other, in worker processes; a finished one is never made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError, WorkerKilledError
from vaehpc.images.photographs import Decoder
from vaehpc.images.places import File
from vaehpc.images.preprocess import preprocess
from vaehpc.images.splits import ShardImages
from vaehpc.images.workers import run_in_workers
from vaehpc.schema.data import Resize
from vaehpc.schema.frozen import Result
from vaehpc.schema.results import Shard
from vaehpc.study.files import read_model, sha256_of_file, write_model


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to make one shard."""

    files: Sequence[File]
    """Of its images."""
    decode: Decoder
    path: Path
    """The shard."""
    record_path: Path
    """The record, written when the shard is in its place."""
    shard: ShardImages
    numbers: npt.NDArray[np.int32]
    attributes: npt.NDArray[np.bool_]
    size: int
    resize: Resize
    crop: int | None


class ShardRecord(Result):
    """.prepare/SHARD.json: a finished shard."""

    shard: Shard
    pixel_counts: tuple[int, ...]
    """How often each of the 256 values occurs in the shard."""


def make_shards(jobs: Sequence[ShardJob], num_workers: int, on_images: Callable[[int, int], None]) -> list[ShardRecord]:
    """Make the shards that are not finished; the records of all, in the order of the jobs.

    Args:
        jobs: one per shard.
        num_workers: processes to work at once.
        on_images: called with the number of finished images, and of all.

    Raises:
        UserError: an image or the disk is at fault; the other workers are ended.
        WorkerKilledError: the system killed a worker; all are ended.
    """
    records = {job.path: record for job in jobs if (record := _finished(job))}
    missing = [job for job in jobs if job.path not in records]
    num_images = sum(job.shard.num_images for job in jobs)

    def count() -> None:
        on_images(sum(record.shard.num_images for record in records.values()), num_images)

    def finish(made: tuple[Path, ShardRecord]) -> None:
        path, records[path] = made
        count()

    count()
    try:
        run_in_workers(_make_shard, missing, num_workers, finish)
    except BrokenProcessPool:
        raise WorkerKilledError(
            f"a worker was killed, often because memory ran out (--workers 1 needs least). {len(records):,} of"
            f" {len(jobs):,} shards are finished; the same command makes the rest."
        ) from None
    return [records[job.path] for job in jobs]


def _finished(job: ShardJob) -> ShardRecord | None:
    """The record of a shard that was made before and is intact."""
    if not (job.record_path.exists() and job.path.exists()):
        return None
    record = read_model(job.record_path, ShardRecord)
    return record if sha256_of_file(job.path) == record.shard.sha256 else None


def _make_shard(job: ShardJob) -> tuple[Path, ShardRecord]:
    images = np.empty((len(job.files), job.size, job.size, 3), np.uint8)
    pixel_counts = np.zeros(256, np.int64)
    for image, file in zip(images, job.files, strict=True):
        try:
            image[:] = preprocess(job.decode(file), job.size, job.resize, job.crop)
        except ValueError as error:
            raise UserError(f"{file}: {error}.") from None
        pixel_counts += np.bincount(image.reshape(-1), minlength=256)
    from vaehpc.images.tfrecord import (
        write_shard,
    )  # TensorFlow takes seconds: here, so that bad images are told at once

    write_shard(job.path, images, job.numbers, job.attributes)
    shard = Shard(
        file=job.path.name,
        split=job.shard.split,
        first_image=job.shard.first_image,
        num_images=job.shard.num_images,
        sha256=sha256_of_file(job.path),
    )
    record = ShardRecord(shard=shard, pixel_counts=tuple(pixel_counts.tolist()))
    write_model(job.record_path, record)
    return job.path, record
