"""What feeds the training step, alone: images per CPU second against ImageDataGenerator over a folder of JPEGs.

Batches are taken inside of a compiled function, as the training takes them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tests.benchmarks.measure import Row, cpu_seconds, median_interval, ratio_row
from tests.benchmarks.net import BATCH, SIZE
from tests.benchmarks.rivals import generated
from vaehpc.images.tfrecord import memory_mapped_images, write_shard
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.training.pipeline import ShardedImages, batches

NUM_IMAGES = 8192
"""Of noise, 226 MB: more than a cache of the processor holds."""
ARTICLES_BATCHES = 2  # in one turn


@tf.function
def take(iterator: Iterator[tf.Tensor], num_batches: tf.Tensor) -> None:
    """Nothing but the batches."""
    for _ in tf.range(num_batches):
        next(iterator)


def feeding_rows(jpegs: Path, scratch: Path, num_pairs: int) -> Iterator[Row]:
    """A set that lies in memory, and the same when it has to come from the disk."""
    article = generated(jpegs)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (NUM_IMAGES, SIZE, SIZE, 3), np.uint8)
    path = scratch / "noise.tfrecord"
    write_shard(path, pixels, np.arange(NUM_IMAGES), np.zeros((NUM_IMAGES, len(ATTRIBUTES)), np.bool_))
    shard = memory_mapped_images(path, NUM_IMAGES, SIZE, len(ATTRIBUTES))
    num_batches = NUM_IMAGES // BATCH - 1
    order = rng.permutation(NUM_IMAGES)

    def articles() -> None:
        for _ in range(ARTICLES_BATCHES):
            next(article)

    def epoch_without_start(before: Callable[[], object]) -> float:
        # Its start, 0.03 s, is the first batch's: an epoch of the article has 1,272 batches.
        iterator = iter(batches(ShardedImages([shard]), order, BATCH))
        next(iterator)
        before()
        return cpu_seconds(lambda: take(iterator, tf.constant(num_batches)))

    for where, before in (("in memory", lambda: None), ("from the disk", lambda: forget(shard, path))):
        epoch_without_start(before)  # the first maps all pages
        pairs = [(cpu_seconds(articles), epoch_without_start(before)) for _ in range(num_pairs)]
        speed = num_batches * BATCH / median_interval([ours for _, ours in pairs])[0]
        yield ratio_row(
            "feeding",
            f"ImageDataGenerator / ours, {NUM_IMAGES:,} images, {where}",
            [(theirs * num_batches / ARTICLES_BATCHES, ours) for theirs, ours in pairs],
            wanted="20 x",
            beside=f"{speed / 1e3:.0f}k images per CPU second",
        )


def forget(shard: npt.NDArray[np.uint8], path: Path) -> None:
    """Take a mapped shard out of memory: out of this process first, else the system keeps it in its cache."""
    mapping = shard.base.base
    assert isinstance(mapping, mmap.mmap)
    mapping.madvise(mmap.MADV_DONTNEED)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
