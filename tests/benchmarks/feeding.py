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

from tests.benchmarks.measure import Row, copy_rate, cpu_seconds, in_turns, median_interval, ratio_row
from tests.benchmarks.net import BATCH, SIZE
from tests.benchmarks.rivals import generated
from vaehpc.images.tfrecord import memory_mapped_images, write_shard
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.training.pipeline import Images, ShardedImages, batches

PART = "feeding"
NUM_STREAMED = 8192
"""Images of noise, 226 MB: more than a cache of the processor holds."""
NUM_EPOCHS = 20
"""Of a small set for each of the article's, which takes so much longer."""
ARTICLES_BATCHES = 2
"""In one turn."""
Pairs = list[tuple[float, float]]


@tf.function
def take(iterator: Iterator[tf.Tensor], num_batches: tf.Tensor) -> None:
    """Nothing but the batches."""
    for _ in tf.range(num_batches):
        next(iterator)


def feeder(images: Images, order: npt.NDArray[np.int64], per_turn: int) -> Callable[[], None]:
    """Takes so many more images. Its start, 0.03 s, is over: an epoch of the article has 1,272 batches."""
    iterator = iter(batches(images, order, BATCH))
    next(iterator)
    return lambda: take(iterator, tf.constant(per_turn // BATCH))


def feeding_rows(jpegs: Path, images: Images, scratch: Path, num_pairs: int) -> Iterator[Row]:
    """A set that the processor's cache holds, one that only memory holds, and one that has to come from the disk."""
    article = generated(jpegs)

    def articles() -> None:
        for _ in range(ARTICLES_BATCHES):
            next(article)

    def from_memory(what: str, known: Images, num_epochs: int) -> Row:
        order = np.tile(np.random.default_rng(0).permutation(len(known)), (num_pairs + 2) * num_epochs)
        ours = feeder(known, order, per_turn := num_epochs * len(known))
        ours()
        return _row(what, in_turns(articles, ours, num_pairs), per_turn, "90 x")

    yield from_memory(f"{len(images)} images, in the cache", images, NUM_EPOCHS)
    path = _written(scratch / "noise.tfrecord")
    shard = memory_mapped_images(path, NUM_STREAMED, SIZE)
    yield from_memory(f"{NUM_STREAMED:,} images, in memory", ShardedImages([shard]), 1)
    order = np.random.default_rng(0).permutation(NUM_STREAMED)
    pairs = []
    for _ in range(num_pairs):
        # Not the first batch, which comes before anybody counts.
        streamed = feeder(ShardedImages([shard]), order, NUM_STREAMED - BATCH)
        forget(shard, path)
        pairs.append((cpu_seconds(articles), cpu_seconds(streamed)))
    yield _row(f"{NUM_STREAMED:,} images, from the disk", pairs, NUM_STREAMED - BATCH, "20 x")


def _row(what: str, pairs: Pairs, num_images: int, wanted: str) -> Row:
    speed = num_images / median_interval([own for _, own in pairs])[0]
    share = speed * SIZE**2 * 3 / copy_rate()
    scale = num_images / (ARTICLES_BATCHES * BATCH)
    return ratio_row(
        PART,
        f"ImageDataGenerator / ours, {what}",
        [(scale * theirs, own) for theirs, own in pairs],
        wanted=wanted,
        beside=f"{speed / 1e3:.0f}k images per CPU second, {share:.0%} of what a copy reads",
    )


def _written(path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_STREAMED, SIZE, SIZE, 3), np.uint8)
    write_shard(path, images, np.arange(NUM_STREAMED), np.zeros((NUM_STREAMED, len(ATTRIBUTES)), np.bool_))
    return path


def forget(shard: npt.NDArray[np.uint8], path: Path) -> None:
    """Take a mapped shard out of memory: out of this process first, else the system keeps it in its cache."""
    mapping = shard.base.base
    assert isinstance(mapping, mmap.mmap)
    mapping.madvise(mmap.MADV_DONTNEED)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
