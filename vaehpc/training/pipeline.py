"""tf.data batches of uint8 images in an order fixed by (shuffle key, epoch), gathered from the shards."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.command import UserError
from vaehpc.images.tfrecord import memory_mapped_images
from vaehpc.schema.config import RunConfig
from vaehpc.study.files import DataDir
from vaehpc.training.staging import require_whole, staged

logger = logging.getLogger(__name__)

UInt8 = npt.NDArray[np.uint8]


ALIGNMENT = 64
"""Bytes: at multiples of this TensorFlow takes an array as it is, elsewhere it copies it."""


RESIDENT_SHARE = 1 / 2
"""Of what a run has of its GPU's memory; the net needs the rest."""
PIECE = 8192
"""Images that go to the GPU at once."""
NUM_CHECKED = 16


class Images(Protocol):
    """Training images by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: npt.NDArray[np.int64] | slice) -> UInt8:
        """Images (n, size, size, 3)."""
        ...


class ShardedImages:
    """Images mapped from their shards: resident in the page cache, once for all processes of a node."""

    def __init__(self, shards: Sequence[UInt8]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, indices: npt.NDArray[np.int64] | slice) -> UInt8:
        wanted = np.arange(len(self))[indices] if isinstance(indices, slice) else indices
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        positions = wanted - self._starts[shard_of]
        images = _aligned((len(wanted), *self._shards[0].shape[1:]))
        # One by one, because an index array per shard would copy every image twice.
        for image, shard, position in zip(images, shard_of.tolist(), positions.tolist(), strict=True):
            image[...] = self._shards[shard][position]
        return images


def _aligned(shape: tuple[int, ...]) -> UInt8:
    num_bytes = math.prod(shape)
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes].reshape(shape)


def load_training_images(run: RunConfig, stamp: Path | None = None) -> Images:
    """The training split of the run's data set, every shard compared with its SHA-256.

    Args:
        run: says which.
        stamp: where it is noted what was compared on this node already; see `require_whole`.

    Raises:
        UserError: the data set is missing, damaged, or not the one the run was planned with.
    """
    data = DataDir(Path(run.data.path))
    manifest = data.manifest()
    if manifest.sha256 != run.data.sha256:
        raise UserError(
            f"{data.path} is not the data set that this run was planned with: its sha256 is {manifest.sha256},"
            f" run.json says {run.data.sha256}. Prepare it again with the same settings, or start a new study."
        )
    shards = [shard for shard in manifest.shards if shard.split == "train"]
    folder = staged(data, manifest.sha256, shards)
    try:
        require_whole(folder, shards, stamp)
    except UserError as damage:
        if folder == data.path:
            raise
        logger.warning("the copy on the node's own disk is removed: %s", damage)
        for shard in shards:
            (folder / shard.file).unlink(missing_ok=True)
        folder = data.path
        require_whole(folder, shards, stamp)
    size, num_attributes = manifest.preprocessing.size, len(manifest.attributes)
    paths = [(folder / shard.file, shard.num_images) for shard in shards]
    return ShardedImages([memory_mapped_images(*path, size, num_attributes) for path in paths])


def epoch_order(run: RunConfig, epoch: int) -> npt.NDArray[np.int64]:
    """Order (num_train,) of the training images in one epoch: a pure function of (shuffle key, epoch).

    A permutation; an image that a fork leaves out is replaced by its neighbour in the batch, so that every other image
    keeps its place and its noise.
    """
    order = np.random.default_rng(run.key("shuffling", epoch)).permutation(run.data.num_train)
    if run.arm.fork is not None and run.arm.fork.left_out is not None:
        place = int(np.flatnonzero(order == run.arm.fork.left_out)[0])
        starts_batch = place % run.arm.train.batch_size == 0 and place + 1 < len(order)
        order[place] = order[place + 1 if starts_batch else place - 1]
    return order


def batch_of_step(run: RunConfig, step: int) -> npt.NDArray[np.int64]:
    """Positions in the training split of the images of one step, counted from 0."""
    epoch, done = divmod(step, run.steps_per_epoch)
    batch_size = run.arm.train.batch_size
    return epoch_order(run, epoch)[done * batch_size : (done + 1) * batch_size]


def resident_images(images: Images, memory: int) -> tf.Variable | None:
    """All images (n, size, size, 3) as uint8 in the memory of the GPU; None where that is too small, or there is none.

    Args:
        images: copied piece by piece.
        memory: bytes of the GPU's memory that are this run's; 0 without one.
    """
    if len(images) * images[:1].nbytes > RESIDENT_SHARE * memory:
        return None
    resident = device_memory(images, len(images))
    for start in range(0, len(images), PIECE):
        put_images(resident, start, images[start : start + PIECE])
    checked = np.linspace(0, len(images) - 1, NUM_CHECKED).astype(np.int64)
    # A kernel that counted elements in 32 bits would gather others beyond 2 GiB.
    if not np.array_equal(_gathered(resident, tf.constant(checked, tf.int32)), images[checked]):
        logger.warning("the GPU gathers wrong images; they are read from the host instead")
        return None
    return resident


def device_memory(images: Images, count: int) -> tf.Variable:
    """Room for so many images (count, size, size, 3) on the device, as one block: pieces joined would take three."""
    return tf.Variable(tf.zeros((count, *images[:1].shape[1:]), tf.uint8), trainable=False)


def put_images(memory: tf.Variable, start: int, images: UInt8 | tf.Tensor) -> None:
    """Write images (n, size, size, 3) into the device's memory, from this place on.

    `memory[start:].assign` reads the variable first, so that the next write copies all of it, and both copies stay.
    """
    end = start + images.shape[0]
    tf.raw_ops.ResourceStridedSliceAssign(ref=memory.handle, begin=[start], end=[end], strides=[1], value=images)


@tf.function(jit_compile=True, autograph=False)
def _gathered(images: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """As the training's program does it."""
    return tf.gather(images.read_value(), rows)


def batches(images: Images, order: npt.NDArray[np.int64], batch_size: int) -> tf.data.Dataset:
    """uint8 batches (batch, size, size, 3) of `images` in this order; the last one may be smaller."""
    starts = tf.data.Dataset.range(0, len(order), batch_size)

    def gather(start: np.int64) -> UInt8:
        return images[order[start : start + batch_size]]

    @tf.autograph.experimental.do_not_convert
    def batch(start: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(gather, [start], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (None, *images[:1].shape[1:]))

    return starts.map(batch).prefetch(2).with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.deterministic = True
    return options
