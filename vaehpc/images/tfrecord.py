"""Shards: TFRecord files of tf.train.Example, whose records are all of one length.

Because the length is fixed, image i of a shard lies at a known offset: readers map the file into memory and take any
image in any order without an index. Features: `image` (3 * size**2 uint8), `number` (8 bytes, little-endian; a varint
would change its length), `attributes` (a byte for each, 0 or 1; of most data sets none).

TensorFlow is imported with this module; commands that must start fast import it only where a shard is written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError, silenced
from vaehpc.study.files import written_aside

with silenced():  # it greets whatever TF_CPP_MIN_LOG_LEVEL says
    import tensorflow as tf

# A TFRecord is: length (8 bytes), CRC32C of the length (4), the record, CRC32C of the record (4).
_BYTES_BEFORE_RECORD = 12
_BYTES_AFTER_RECORD = 4

REMEDY = "Restore the file, or delete the data set's folder and prepare it again."
"""What to do about a damaged shard."""

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]


def write_shard(path: Path, images: UInt8, numbers: npt.NDArray[np.integer], attributes: Bool) -> None:
    """Write one shard, which appears at `path` whole or not at all.

    Args:
        path: the TFRecord file.
        images: (num_images, size, size, 3).
        numbers: (num_images,), by which reports name the images.
        attributes: (num_images, num_attributes).

    Raises:
        UserError: the disk is full or the folder may not be written.
    """
    with written_aside(path) as aside, _os_errors(), tf.io.TFRecordWriter(str(aside)) as writer:
        for image, number, of_image in zip(images, numbers, attributes, strict=True):
            writer.write(_serialised(image, int(number), of_image))


def check_shard(path: Path) -> int:
    """Read a shard against its checksums; returns the number of its records.

    A file that ends exactly between two records reads as whole: compare the number with what the manifest says.

    Raises:
        UserError: the shard is missing or empty, or a record is damaged; names the record, counted from 0.
    """
    return sum(len(records) for records in _batches(path))


def memory_mapped_images(path: Path, num_images: int, size: int, num_attributes: int) -> UInt8:
    """The images of a shard as a read-only view (num_images, size, size, 3) of the file; nothing is read yet.

    Pixels are not compared with their checksums here: see `check_shard`.

    Raises:
        UserError: the file is missing, or does not consist of `num_images` records of such images.
    """
    record_bytes, image_offset = _layout(size, num_attributes)
    stride = _BYTES_BEFORE_RECORD + record_bytes + _BYTES_AFTER_RECORD
    found = path.stat().st_size if path.exists() else 0
    if found != num_images * stride:
        raise UserError(
            f"{path} has {found:,} bytes, {num_images:,} images of {size} x {size} take {num_images * stride:,}: it was"
            f" cut off or replaced. {REMEDY}"
        )
    file = np.memmap(path, np.uint8, mode="r")
    lengths = np.ndarray((num_images,), "<u8", file, 0, (stride,))
    if (lengths != record_bytes).any():
        raise UserError(f"{path}, record {np.argmax(lengths != record_bytes)}: its length is damaged. {REMEDY}")
    first_image = _BYTES_BEFORE_RECORD + image_offset
    return np.ndarray((num_images, size, size, 3), np.uint8, file, first_image, (stride, 3 * size, 3, 1))


def _serialised(image: UInt8, number: int, attributes: Bool) -> bytes:
    def feature(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    values = {
        "image": feature(image.tobytes()),
        "number": feature(number.to_bytes(8, "little")),
        "attributes": feature(attributes.astype(np.uint8).tobytes()),
    }
    # Deterministic: otherwise the features may stand in another order in each record, and images at no fixed offset.
    serialised: bytes = tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString(
        deterministic=True
    )
    return serialised


def _batches(path: Path) -> Iterator[tf.Tensor]:
    """The serialised records, 64 at a time: to take them one by one costs four times as much."""
    if not path.exists() or path.stat().st_size == 0:
        raise UserError(f"{path} is missing or empty. {REMEDY}")
    records = tf.data.TFRecordDataset(str(path))
    try:
        yield from records.batch(64)
    except tf.errors.DataLossError as error:
        reason = error.message.split(";")[0]
        raise UserError(f"{path}, record {_num_whole(records)}: damaged or cut off ({reason}). {REMEDY}") from None


def _num_whole(records: tf.data.Dataset) -> int:
    """Records before the first damaged one."""
    num_records = 0
    with contextlib.suppress(tf.errors.DataLossError):
        for _ in records:
            num_records += 1
    return num_records


@functools.cache
def _layout(size: int, num_attributes: int) -> tuple[int, int]:
    """Bytes of a record, and offset of the pixels in it."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    record = _serialised(pixels, 0, np.zeros(num_attributes, np.bool_))
    # The byte before the pixels ends a length and is below 128, so the first match is where they begin.
    return len(record), record.index(pixels.tobytes())


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """TensorFlow's file errors as the OSError that they were: it keeps the text of errno, but not its value."""
    try:
        yield
    except tf.errors.OpError as error:
        for code in errno.errorcode:
            if error.message.endswith(os.strerror(code)):
                raise OSError(code, os.strerror(code)) from error
        raise
