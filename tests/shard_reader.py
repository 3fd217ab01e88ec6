"""Shards read as anybody would who knows nothing of vaehpc: TFRecords of tf.train.Example, parsed by TensorFlow."""

from pathlib import Path

import numpy as np
import tensorflow as tf


def read_shard(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (num_images, size, size, 3), numbers (num_images,) and attributes (num_images, 40)."""
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "number", "attributes")}
    records = tf.io.parse_example(list(tf.data.TFRecordDataset(str(path))), features)
    images = tf.io.decode_raw(records["image"], tf.uint8).numpy()
    size = round((images.shape[1] / 3) ** 0.5)
    numbers = tf.io.decode_raw(records["number"], tf.int64).numpy()[:, 0]
    attributes = tf.io.decode_raw(records["attributes"], tf.uint8).numpy()
    return images.reshape(-1, size, size, 3), numbers, attributes.astype(np.bool_)
